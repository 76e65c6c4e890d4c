#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What each mechanism of the MMU brings: a payload with it, and the same payload without it.

usage: mechanisms.py [--build FOLDER] [--times N] [--json] [NAME...]

A row names a payload of this folder, the machine it needs, the mechanism's name in mmu_disable, and the
counter that leaves zero when the mechanism is at work. Times are medians of runs taken in turns, told as the
ratio off / on: above 1 the mechanism gains. Wall is the guest's, cpu the whole process's: the steadier one
where the host has other work.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("UMBRA_BUILD", f"{ROOT}/build/release")


class Row:
    """@counter: of stats.mmu. @also: further counters worth seeing. @always: more switches, on both sides.
    @left: what the counter may be without the mechanism."""

    def __init__(self, name, payload, policy, off, counter, note, also=(), always="", left=0, **machine):
        self.name, self.payload, self.policy, self.off, self.counter = name, payload, policy, off, counter
        self.note, self.also, self.always, self.left, self.machine = note, also, always, left, machine


ROWS = [
    Row("reclaim", "reclaim", "shadow", "reclaim", "mmu_recycled",
        "bounds the tables' memory, at the price of building tables again", ["mmu_table_pages"], mmu_tables="1M"),
    Row("large pages", "large", "tdp", "large", "pages_2m",
        "half the faults, a tenth of the tables; little time, since our TLB holds all small pages",
        ["tlb_misses", "mmu_table_pages"]),
    Row("large pages, shadow", "large", "shadow", "large", "pages_2m", "as under tdp",
        ["tlb_misses", "mmu_table_pages"]),
    Row("split", "large", "tdp", "split", "lpages_split", "the neighbours of a page that is logged stay mapped",
        ["pf_fixed"], always="eager-split"),
    Row("eager split", "large", "tdp", "eager-split", "lpages_eager_split",
        "moves the split from the guest's first write to the start of the log; no time in all", ["lpages_split"]),
    Row("collapse", "large", "tdp", "collapse", "lpages_collapsed", "after a log all is as fast as before",
        ["pf_fast", "tlb_misses"]),
    Row("flood detection", "flood", "shadow", "flood", "mmu_flooded",
        "a page that stopped being a table costs three emulated writes instead of one a word", ["pf_emulate"]),
    Row("unsync", "unsync", "shadow", "unsync", "mmu_unsynced",
        "one fault a table and flush, not one emulated write an entry", ["mmu_synced", "pf_emulate"]),
    Row("prefetch, shadow", "prefetch", "shadow", "prefetch", "pf_prefetched", "up to eight entries a fault",
        ["pf_fixed"]),
    Row("prefetch, tdp", "prefetch", "tdp", "prefetch", "pf_prefetched", "the same, where pages are small",
        ["pf_fixed"], mmu_max_page="4K"),
    Row("root cache", "roots", "shadow", "root-cache", "root_cache_hit",
        "no time here: without it a root is found again by its hash at each CR3 load",
        ["root_built"]),
    Row("MMIO entries, shadow", "mmio", "shadow", "mmio-cache", "pf_mmio_cached",
        "little: the exit stays, a walk of the guest's tables and a look for a slot go", ["pf_mmio_spte_created"]),
    Row("MMIO entries, tdp", "mmio", "tdp", "mmio-cache", "pf_mmio_cached", "the same",
        ["pf_mmio_spte_created"]),
    Row("MMIO generation", "mmio", "tdp", "mmio-cache", "pf_mmio_spte_created",
        "40 slots come and go: old entries are void by their number, none is looked for", ["mmio_generation"]),
    Row("targeted flush", "flush", "shadow", "targeted", "targeted_tlb_flush",
        "vCPUs that never used the table are not interrupted", ["tlb_flush_ipis"], cpus=2),
    Row("parallel faults", "parallel", "tdp", "parallel", "pf_parallel",
        "faults do not wait for one another; no time on two busy cores", ["mmu_lock_contended"], cpus=4,
        mmu_max_page="4K"),
]


class Run:
    """One payload's run: its output, status and counters."""

    def __init__(self, row, off, build=None):
        tests = f"{build or BUILD}/tests/guest"
        words = [w for w in (row.always, row.off if off else "") if w]
        machine = {"kernel": f"{tests}/mmu_{row.payload}.elf", "boot": "multiboot", "engine": "soft",
                   "memory": "96M", "timeout": 300, "mmu": row.policy, **row.machine}
        if words:
            machine["mmu_disable"] = ",".join(words)
        with tempfile.TemporaryDirectory() as folder:
            definition, stats = f"{folder}/machine.json", f"{folder}/stats.json"
            with open(definition, "w", encoding="utf-8") as f:
                json.dump(machine, f)
            with subprocess.Popen([f"{tests}/run_payload", definition, stats], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
                self.text = process.stdout.read()
                _, status, usage = os.wait4(process.pid, 0)
                self.status = process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu = usage.ru_utime + usage.ru_stime
            with open(stats, encoding="utf-8") as f:
                self.stats = json.load(f)

    def counter(self, name):
        if name in self.stats["mmu"]:
            return self.stats["mmu"][name]
        return sum(v[name] for v in self.stats["vcpus"])


def measure(row, times, build):
    runs = {False: [], True: []}
    for _ in range(times):
        for off in (False, True):
            run = Run(row, off, build)
            if run.status != 1:
                raise RuntimeError(f"{row.name}: status {run.status}: {run.text}")
            runs[off].append(run)
    wall = {off: statistics.median(r.stats["wall_ns"] for r in runs[off]) for off in runs}
    cpu = {off: statistics.median(r.cpu for r in runs[off]) for off in runs}
    on, off = runs[False][0], runs[True][0]
    return {
        "mechanism": row.name, "policy": row.policy, "payload": f"mmu_{row.payload}", "counter": row.counter,
        "on": on.counter(row.counter), "off": off.counter(row.counter),
        "also": {name: [on.counter(name), off.counter(name)] for name in row.also},
        "exits_on": on.stats["exits_total"], "exits_off": off.stats["exits_total"],
        "instructions_on": on.stats["instructions"], "instructions_off": off.stats["instructions"],
        "wall_ms_on": wall[False] / 1e6, "wall_ms_off": wall[True] / 1e6, "wall_ratio": wall[True] / wall[False],
        "cpu_ms_on": cpu[False] * 1e3, "cpu_ms_off": cpu[True] * 1e3, "cpu_ratio": cpu[True] / cpu[False],
        "same_output": len({r.text for k in runs for r in runs[k]}) == 1, "note": row.note,
    }


def print_table(results):
    print(f"{'mechanism':22} {'counter':20} {'on':>9} {'off':>9} {'exits on':>9} {'off':>9} {'instructions':>12} "
          f"{'off/on':>6} {'wall':>6} {'cpu':>6}  what it brings")
    for r in results:
        also = "".join(f"; {name} {on} / {off}" for name, (on, off) in r["also"].items())
        print(f"{r['mechanism']:22} {r['counter']:20} {r['on']:9} {r['off']:9} {r['exits_on']:9} {r['exits_off']:9} "
              f"{r['instructions_on']:12} {r['instructions_off'] / r['instructions_on']:6.2f} {r['wall_ratio']:6.2f} "
              f"{r['cpu_ratio']:6.2f}  "
              f"{r['note']}{also}{'' if r['same_output'] else ' [OUTPUT DIFFERS]'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=BUILD)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("name", nargs="*")
    args = parser.parse_args()
    rows = [r for r in ROWS if not args.name or r.name in args.name]
    if not rows:
        parser.error("no such mechanism; there are: " + ", ".join(r.name for r in ROWS))
    results = [measure(row, args.times, args.build) for row in rows]
    if args.json:
        print(json.dumps(results, indent=1))
    else:
        print_table(results)
    return 0 if all(r["same_output"] for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())

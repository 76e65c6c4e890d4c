# SPDX-License-Identifier: LGPL-2.1-or-later
"""What memory virtualization costs: pieces of work inside one guest, under shadow, under tdp, and on QEMU's TCG.

tests/bench/mmu_bench.c asks before each piece; between two pieces the machine's counters are read, so that
exits and instructions are those of the piece alone (and of the guest's timer meanwhile).
"""
import json
import statistics
import subprocess
import time

NAME = "bench-mmu"
# What a unit of each piece is.
UNITS = {
    "sha256": "64 KiB hashed",
    "sieve": "sieve of 4 MB",
    "fork+exit": "process",
    "fork+exec": "process",
    "mmap-touch-unmap": "mapping of 64 pages",
    "context-switch": "byte there and back",
    "random-4k": "1,000 loads",
    "random-2m": "1,000 loads",
    "copy-32M-apart": "4 MiB copied",
    "write": "MiB written",
    "write-logged": "MiB written",
    "write-pml": "MiB written",
}
COMPUTE = ("sha256", "sieve")


class Machine:
    """Ours, by vmctl run with a name; or another's, which has no counters."""

    def __init__(self, command, vmctl=None, name=None, notices=()):
        self.vmctl, self.name = vmctl, name
        self.notices, self.log = notices, None  # ways of noticing writes; the piece that is logged
        self.run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.text = []

    def call(self, *verb):
        """A verb on this machine; its answer."""
        done = subprocess.run([self.vmctl, *verb, "--json", self.name], check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout) if done.stdout else None

    def counters(self):
        return flatten(self.call("stats")) if self.vmctl else {}

    def until(self, word):
        """The words of the next line that begins with it; None at the end."""
        for line in self.run.stdout:
            self.text.append(line)
            words = line.split()
            if words and words[0] == word:
                return words
        return None

    def go(self):
        self.run.stdin.write("\n")
        self.run.stdin.flush()

    def end(self):
        self.run.stdin.close()
        for line in self.run.stdout:
            self.text.append(line)
        if self.run.wait():
            raise SystemExit(f"{self.run.args[0]} ended with status {self.run.returncode}: "
                             f"{''.join(self.text[-5:])}")


def flatten(stats):
    flat = {"instructions": stats["instructions"], "exits": stats["exits_total"]}
    flat |= {f"exit {k}": v for k, v in stats["exits"].items()}
    flat |= {k: v for k, v in stats["mmu"].items()}
    flat |= {k: sum(v[k] for v in stats["vcpus"]) for k in ("tlb_misses", "tlb_flushes", "walks", "emulated")}
    return flat


def add(total, now, before):
    for name, value in now.items():
        total[name] = total.get(name, 0) + value - before.get(name, 0)


# Pieces that are logged from outside the guest, as a migration does, and how writes are noticed.
LOGGED = {"write-logged": "protect", "write-pml": "pml"}
CLIENT = ("--client", "bench")


def clean(machine, name):
    """Begin the piece's log, and before each round all pages are clean."""
    if machine.log != name:
        if machine.log:
            machine.call("dirty", "stop", *CLIENT)
        machine.call("dirty", "start", *CLIENT, "--notice", LOGGED[name])
        machine.log = name
    machine.call("dirty", "clear", *CLIENT)


def one_run(machine):
    """{piece: {units, ns, counters}} of one guest from boot to power-off."""
    result = {}
    while words := machine.until("ready"):
        name, units = words[1], int(words[2])
        piece = result.setdefault(name, {"units": 0, "rounds": 0, "ns": 0, "counters": {}})
        if LOGGED.get(name) in machine.notices:
            clean(machine, name)
        before = machine.counters()
        start = time.monotonic_ns()
        machine.go()
        if not machine.until("done"):
            break
        piece["ns"] += time.monotonic_ns() - start
        piece["units"] += units
        piece["rounds"] += 1
        add(piece["counters"], machine.counters(), before)
    machine.end()
    without_pacing(result)
    return {name: piece for name, piece in result.items()
            if name not in LOGGED or LOGGED[name] in machine.notices}


def without_pacing(result):
    """What going to and fro costs, the piece called nothing, is taken off the others."""
    nothing = result.pop("nothing")
    for piece in result.values():
        share = piece["rounds"] / nothing["rounds"]
        piece["ns"] -= nothing["ns"] * share
        for k, v in nothing["counters"].items():
            if k in piece["counters"]:
                piece["counters"][k] -= v * share


def merge(runs):
    """Medians of the times, the counters of the first run: they differ by a timer's tick."""
    result = {}
    for name, first in runs[0].items():
        times = [r[name]["ns"] / r[name]["units"] for r in runs]
        result[name] = {"ns": statistics.median(times), "runs": times, "unit": UNITS[name],
                        "each": {k: v / first["units"] for k, v in first["counters"].items() if v}}
    return result


def reasons(each):
    """Exits by reason, the most frequent first."""
    found = [(v, k[5:]) for k, v in each.items() if k.startswith("exit ") and v >= 0.005]
    return ", ".join(f"{k} {v:.4g}" for v, k in sorted(found, reverse=True)[:6])


def ratio(a, b):
    return f"{a['ns'] / b['ns']:.2f}" if a and b else "-"


def table(sides):
    qemu, tdp, shadow = sides["qemu tcg"], sides["umbra tdp"], sides["umbra shadow"]
    print(f"\n{'':18}{'a unit is':22}{'tdp us':>11}{'shadow us':>11}{'qemu us':>11}{'shadow/tdp':>11}"
          f"{'tdp/qemu':>10}{'sh/qemu':>9}")
    for name, t in tdp.items():
        s, q = shadow.get(name), qemu.get(name)
        us = "".join(f"{side['ns'] / 1e3:11.1f}" if side else f"{'-':>11}" for side in (t, s, q))
        print(f"{name:18}{t['unit']:22}{us}{ratio(s, t):>11}{ratio(t, q):>10}{ratio(s, q):>9}")
    print(f"\n{'':18}{'policy':8}{'instructions':>14}{'exits':>10}  by reason, a unit")
    for name in tdp:
        for policy, side in (("tdp", tdp), ("shadow", shadow)):
            if name in side:
                each = side[name]["each"]
                print(f"{name:18}{policy:8}{each['instructions']:14,.0f}{each.get('exits', 0):10.2f}  {reasons(each)}")


SEED_COSTS = (
    ("CR3 change traps", ("cr3_load",)),
    ("table modification traps", ("mmu_pte_write", "pf_emulate", "mmu_unsynced", "mmu_flooded")),
    ("a fork makes a new table", ("mmu_cache_miss", "mmu_shadow_zapped", "root_built", "root_cache_hit")),
    ("hidden faults", ("pf_taken", "pf_fixed", "pf_guest", "pf_fast", "pf_prefetched")),
    ("flushes", ("invlpg", "tlb_flush", "mmu_synced")),
)


def seeds_table(shadow):
    """Where shadow paging costs what is said of it, by the counters of each piece."""
    print("\nshadow: what a unit costs, by counter")
    for title, names in SEED_COSTS:
        print(f"  {title}")
        print(f"    {'':18}" + "".join(f"{n:>18}" for n in names))
        for piece, s in shadow.items():
            if any(s["each"].get(n) for n in names):
                print(f"    {piece:18}" + "".join(f"{s['each'].get(n, 0):18.3f}" for n in names))


def bench(start, runs):
    """@start: {side: function that starts a machine}. Every side in turn, @runs times."""
    seen = {side: [] for side in start}
    for _ in range(runs):
        for side, begin in start.items():
            seen[side].append(one_run(begin()))
    sides = {side: merge(all_runs) for side, all_runs in seen.items()}
    table(sides)
    seeds_table(sides["umbra shadow"])
    compute = max(sides["umbra shadow"][n]["ns"] / sides["umbra tdp"][n]["ns"] for n in COMPUTE)
    fork = sides["umbra shadow"]["fork+exec"]["ns"] / sides["umbra tdp"]["fork+exec"]["ns"]
    print(f"\nshadow / tdp: compute at most {compute:.2f} (goal 1.3), fork+exec {fork:.2f} (goal 10)")
    return sides

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The host kernel's shadow MMU beside ours: one guest on both, counters phase by phase.

usage: kernel_mmu.py [--build FOLDER] [--json]

The payload mmu_tables builds and rewrites page tables in ring 0 and uses them in ring 3. What each phase
brought to the kernel's counters (KVM_GET_STATS_FD, engine kvm) stands beside what it brought to ours (engine
soft, mmu shadow); a gauge stands as it is at the phase's end. Why they differ is in engine/kvm/DESIGN.md.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("UMBRA_BUILD", f"{ROOT}/build/release")

PHASES = ["build", "rewrite, INVLPG", "rewrite, CR3", "clear A, D", "switch spaces", "rewrite PD", "reuse table",
          "unmap"]
# Name, and whether it is a gauge.
COUNTERS = [("mmu_pte_write", False), ("mmu_pde_zapped", False), ("mmu_unsync", True), ("mmu_shadow_zapped", False),
            ("mmu_flooded", False), ("mmu_recycled", False), ("mmu_cache_miss", False), ("pages_4k", True),
            ("pages_2m", True), ("tlb_flush", False), ("invlpg", False), ("pf_taken", False), ("pf_fixed", False),
            ("pf_emulate", False)]


class Failed(Exception):
    """A run did not end as it should."""


def run(build, **machine):
    """The payload's output, and its counters at the start and at the end of each phase."""
    tests = f"{build}/tests/guest"
    machine = {"kernel": f"{tests}/mmu_tables.elf", "boot": "multiboot", "memory": "32M", "timeout": 120, **machine}
    with tempfile.TemporaryDirectory() as folder:
        definition, stats = f"{folder}/machine.json", f"{folder}/stats.json"
        with open(definition, "w", encoding="utf-8") as f:
            json.dump(machine, f)
        done = subprocess.run([f"{tests}/run_payload", definition, stats], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 1:
            raise Failed(f"{machine['engine']}: status {done.returncode}: {done.stdout}{done.stderr}")
        with open(stats, encoding="utf-8") as f:
            return done.stdout, [phase["mmu"] for phase in json.load(f)["phases"]]


def deltas(phases):
    """By counter: a list with a number a phase; None where there is no such counter."""
    out = {}
    for name, gauge in COUNTERS:
        if name not in phases[0]:
            out[name] = None
        elif gauge:
            out[name] = [now[name] for now in phases[1:]]
        else:
            out[name] = [now[name] - before[name] for before, now in zip(phases, phases[1:])]
    return out


def compare(build=BUILD):
    text_soft, soft = run(build, engine="soft", mmu="shadow")
    text_kvm, kvm = run(build, engine="kvm")
    if text_soft != text_kvm:
        raise Failed(f"the outputs differ: {text_soft!r}, {text_kvm!r}")
    return {"phases": PHASES, "soft": deltas(soft), "kvm": deltas(kvm)}


def print_table(result):
    print(f"{'':18}" + "".join(f"{name:>17}" for name in result["phases"]))
    print(f"{'counter':18}" + f"{'ours':>9}{'kernel':>8}" * len(result["phases"]))
    for name, gauge in COUNTERS:
        ours, kernel = result["soft"][name], result["kvm"][name]
        cells = ""
        for i in range(len(result["phases"])):
            cells += f"{ours[i] if ours else '-':>9}{kernel[i] if kernel else '-':>8}"
        print(f"{name + (' =' if gauge else ''):18}{cells}")
    print("= a gauge, at the phase's end; the others: what the phase added")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=BUILD)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        result = compare(args.build)
    except Failed as e:
        print(e, file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print_table(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())

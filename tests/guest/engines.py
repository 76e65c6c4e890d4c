#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every payload on the soft engine and on kvm, with the kernel's interrupt controllers and with a split irqchip:
the console's bytes, the way the machine ended and its status must be the same.

usage: engines.py [--build FOLDER] [--long] [NAME...]

Prints a table; what a /dev/kvm cannot run is in it with the words in which its machine ended.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("UMBRA_BUILD", f"{ROOT}/build/release")
ENGINES = {"soft": {"engine": "soft"},
           "kvm": {"engine": "kvm", "irqchip": "kernel"},
           "kvm, split": {"engine": "kvm", "irqchip": "split"}}


class Row:
    """@typed: what the console is given once it has shown @until, which is then the end of what counts. @long: not
    in every run, as guests' kernel code takes its time where kvm has no hardware behind it. @pvm: why kvm_pvm, a
    KVM without hardware, cannot run it."""

    def __init__(self, name, payload=None, typed=b"", until=b"", long=False, pvm=None, **machine):
        self.name, self.payload, self.typed, self.until = name, payload or name, typed, until
        self.long, self.pvm, self.machine = long, pvm, machine


ROWS = [
    Row("modes"),
    Row("paging32", pvm="MOV to CR0 that sets PG without EFER.LME is #GP there"),
    Row("access"),
    Row("debugcon"),
    Row("irqs"),
    Row("irqs, 2 processors", "irqs", cpus=2),
    Row("irqs, 4 processors", "irqs", cpus=4),
    Row("ticker", until=b"0000000a\n00000014\n", typed=b"q"),
    Row("echo", until=b"ready\r\n", typed=b"hello, world\rxq"),
    Row("scribble", until=b"\n", typed=b"0123q"),
    Row("debug exit", "debug_exit"),
    Row("triple fault", "triple_fault"),
    Row("halt"),
    Row("halt, 2 processors", "halt", cpus=2),
    Row("reset", "reset"),
    Row("reset and again", "reset", on_reset="restart"),
    Row("timeout", "spin", timeout=3),
    Row("mmu_flood"),
    Row("mmu_flush", cpus=2),
    Row("mmu_mmio"),
    Row("mmu_prefetch"),
    Row("mmu_unsync"),
    Row("mmu_roots"),
    Row("mmu_parallel", long=True, cpus=4),
    Row("mmu_reclaim", long=True),
    Row("mmu_large", long=True),
    Row("memtest", long=True),
]


def is_pvm():
    return os.path.isdir("/sys/module/kvm_pvm")


class Run:
    """What the console showed, the end in words (its first line), the status."""

    def __init__(self, row, engine, build=None):
        machine = {"kernel": f"{build or BUILD}/tests/guest/{row.payload}.elf", "boot": "multiboot", "memory": "96M",
                   "timeout": 900, **ENGINES[engine], **row.machine}
        with tempfile.TemporaryDirectory(prefix="umbra-engines-") as folder:
            path = f"{folder}/machine.json"
            with open(path, "w", encoding="utf-8") as f:
                json.dump(machine, f)
            with open(f"{folder}/errors", "w+b") as errors, \
                 subprocess.Popen([f"{build or BUILD}/vm/umbra-vm", "--config", path], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, stderr=errors, bufsize=0) as vm:
                self.console = self.converse(vm, row)
                self.status = vm.wait()
                errors.seek(0)
                self.errors = errors.read().decode(errors="replace")
        self.end = self.errors.split("\n", 1)[0]

    @staticmethod
    def converse(vm, row):
        text = b""
        while row.typed:
            byte = vm.stdout.read(1)
            text += byte
            if not byte or row.until in text:
                break
        try:
            vm.stdin.write(row.typed)
        except BrokenPipeError:
            pass  # it ended otherwise, which shows
        rest = b""
        while chunk := vm.stdout.read(65536):
            rest += chunk
        # A payload that counts on until it hears us: what came in between depends on time.
        return text if row.payload == "ticker" else text + rest

    def __eq__(self, other):
        return (self.console, self.end, self.status) == (other.console, other.end, other.status)


def cell(row, run, soft):
    if run == soft:
        return "same"
    if row.pvm and is_pvm():
        return f"{run.end} ({row.pvm})"
    return f"DIFFERS: {run.end}"


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--build", default=BUILD)
    args.add_argument("--long", action="store_true")
    args.add_argument("names", nargs="*")
    args = args.parse_args()
    bad = 0
    print(f"{'payload':<20} {'console':>7}  {'soft':<58} kvm | kvm, split")
    for row in ROWS:
        if args.names and row.payload not in args.names or row.long and not (args.long or args.names):
            continue
        soft = Run(row, "soft", args.build)
        cells = [cell(row, Run(row, e, args.build), soft) for e in list(ENGINES)[1:]]
        bad += any(c.startswith("DIFFERS") for c in cells)
        end = soft.end.removeprefix("umbra-vm: ") or "powered off"
        print(f"{row.name:<20} {len(soft.console):>6}B  {end[:58]:<58} {' | '.join(dict.fromkeys(cells))}", flush=True)
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())

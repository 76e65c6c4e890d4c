# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kvm engine costs beside QEMU's: to the first instruction, an exit, the memory of an idle machine."""
import collections
import contextlib
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import tempfile
import time

import bench_control

STARTS = 30
EXIT_RUNS = 15
EXITS = 100  # of each of kvm_exits.S's rounds
WARM = 20  # before each
ROUNDS = 100
MEASURES = {
    "median": f"the median of {ROUNDS} rounds of {EXITS}",
    "undisturbed": "the round that one in ten undercuts, which others hardly disturb",
}
CPU_FROM_TO = ("scratch-out", "ioapic-read")  # between them nothing is the kernel's alone
MEMORY_RUNS = 5
SETTLED = 1.0  # seconds after its first byte in which an idle machine is through with starting
MEMORY = 64
HELLO = b"\n"  # what kvm_first.S begins with
GUEST_MEMORY = re.compile(r"/memfd:(guest-memory|memory-backend-memfd)")
PIECES = {
    "nothing": "a call and a loop, no exit",
    "scratch-out": "OUT to the 16550's scratch register",
    "scratch-in": "IN from the 16550's scratch register",
    "nobody-out": "OUT to a port that nobody has",
    "nobody-in": "IN from a port that nobody has",
    "memory-read": "load from a physical address that nobody has",
    "memory-write": "store to a physical address that nobody has",
    "ioapic-read": "load from the I/O APIC",
    "ioapic-write": "store to the I/O APIC",
}
IRQCHIPS = {"kernel": "on", "split": "split"}  # as QEMU calls them
LEAN = "rtc=off,pit=off,pic=off,isa-serial=off,x-option-roms=off"


def qemu(machine, *options):
    return [shutil.which("qemu-system-x86_64"), "-accel", "kvm", "-M", f"microvm{machine}", "-m", str(MEMORY),
            "-nodefaults", "-no-user-config", "-display", "none", *options]


class Umbra:
    """umbra-vm by itself, its definitions in a folder of their own."""

    def __init__(self, stack, build):
        self.build = build
        self.folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="umbra-bench-"))

    def payload(self, name):
        return f"{self.build}/tests/bench/{name}"

    def command(self, payload, sandbox="auto", irqchip="kernel"):
        path = f"{self.folder}/{payload}-{irqchip}.json"
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"name": "bench", "kernel": self.payload(payload), "memory": f"{MEMORY}M", "engine": "kvm",
                       "irqchip": irqchip}, f)
        return [f"{self.build}/vm/umbra-vm", "--config", path, "--sandbox", sandbox]


def in_turn(sides, runs, run):
    """{side: samples of run(*sides[side])}; each time in another order, as a side also pays for the one before it."""
    samples, order, dice = {side: [] for side in sides}, list(sides), random.Random(1)
    for _ in range(runs):
        dice.shuffle(order)
        for side in order:
            samples[side].append(run(*sides[side]))
    return samples


def table(title, result, unit, base):
    """@result: {side: samples}; a line each, and its ratio to @base's."""
    print(f"\n{title}\n\n{'':52}{'median':>10}{'least':>10}{'most':>10}{'ratio':>8}")
    medians = {side: statistics.median(samples) for side, samples in result.items()}
    for side, samples in result.items():
        print(f"{side:52}{medians[side]:10.2f}{min(samples):10.2f}{max(samples):10.2f}"
              f"{medians[side] / medians[base]:8.2f}")
    return {side: {f"median_{unit}": medians[side], "ratio": medians[side] / medians[base], "runs": samples}
            for side, samples in result.items()}


def bench_start(build):
    with contextlib.ExitStack() as stack:
        ours, umbrad = Umbra(stack, build), bench_control.Umbrad(stack, build)
        elf, rom = ours.payload("kvm_first.elf"), ours.payload("kvm_first.rom")
        base = "QEMU, no firmware, no device but the console"
        sides = {
            "umbra-vm": (ours.command("kvm_first.elf"),),
            "umbra-vm, no sandbox": (ours.command("kvm_first.elf", sandbox="off"),),
            "vmctl run, umbrad runs": ([f"{build}/cli/vmctl", "run", "--kernel", elf, "--memory", f"{MEMORY}M",
                                        "--engine", "kvm"], umbrad.env),
            base: (qemu(f",{LEAN}", "-bios", rom, "-debugcon", "stdio"),),
            "QEMU, no firmware": (qemu("", "-bios", rom, "-debugcon", "stdio"),),
            "QEMU -kernel, through its firmware": (qemu("", "-kernel", elf, "-debugcon", "stdio"),),
        }
        samples = in_turn(sides, STARTS, lambda command, env=None: bench_control.first_byte(command, env, HELLO))
    return table(f"exec to the byte of the guest's first instruction, {MEMORY} MiB, {STARTS} starts in turn, "
                 "milliseconds", samples, "ms", base)


def cpu_ns(pid):
    """What its threads ran so far, waiting for a processor aside."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
            total += int(f.read().split()[0])
    return total


def exits(command):
    """{measure: {piece: ticks of one}} of a run, and the CPU time of one exit under "cpu"."""
    rounds, done, cpu = collections.defaultdict(list), 0, {}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:
        for line in process.stdout:
            word = line.split()
            if word == ["end"]:
                break
            if len(word) != 2 or word[0] not in PIECES:
                continue
            rounds[word[0]].append(int(word[1], 16) / EXITS)
            if word[0] in CPU_FROM_TO:
                cpu.setdefault(word[0], (cpu_ns(process.pid), done))
            done += WARM + EXITS + len(line)  # each byte is an exit too
        process.kill()
        said = process.stderr.read()
    if sorted(rounds) != sorted(PIECES) or any(len(r) != ROUNDS for r in rounds.values()):
        raise SystemExit(f"{command[0]} did not do all pieces: {said}")
    (before, first), (after, last) = (cpu[piece] for piece in CPU_FROM_TO)
    return {"median": {piece: statistics.median(ticks) for piece, ticks in rounds.items()},
            "undisturbed": {piece: sorted(ticks)[ROUNDS // 10] for piece, ticks in rounds.items()},
            "cpu": (after - before) / (last - first)}


def bench_exits_with(ours, irqchip, tsc_khz):
    """{measure: {piece: {side: ns}}}, and {side: ns} under "cpu"."""
    elf = ours.payload("kvm_exits.elf")
    sides = {
        "QEMU": (qemu(f",kernel-irqchip={IRQCHIPS[irqchip]}", "-kernel", elf, "-serial", "stdio"),),
        "umbra-vm": (ours.command("kvm_exits.elf", irqchip=irqchip),),
        "no sandbox": (ours.command("kvm_exits.elf", "off", irqchip),),
    }
    runs = in_turn(sides, EXIT_RUNS, exits)
    result = {measure: {piece: {side: statistics.median(run[measure][piece] for run in runs[side]) * 1e6 / tsc_khz
                                for side in sides} for piece in PIECES} for measure in MEASURES}
    result["cpu"] = {side: statistics.median(run["cpu"] for run in runs[side]) for side in sides}
    return result


def print_exits(title, rows):
    print(f"\n{title}\n\n{'':48}{'QEMU':>10}{'umbra-vm':>10}{'ratio':>8}{'no sandbox':>12}{'ratio':>8}")
    for name, ns in rows.items():
        print(f"{name:48}{ns['QEMU']:10.0f}{ns['umbra-vm']:10.0f}{ns['umbra-vm'] / ns['QEMU']:8.3f}"
              f"{ns['no sandbox']:12.0f}{ns['no sandbox'] / ns['QEMU']:8.3f}")


def bench_exits(build, tsc_khz):
    with contextlib.ExitStack() as stack:
        ours = Umbra(stack, build)
        result = {irqchip: bench_exits_with(ours, irqchip, tsc_khz) for irqchip in IRQCHIPS}
    for irqchip, found in result.items():
        for measure, text in MEASURES.items():
            print_exits(f"ns from exit to next instruction, irqchip {irqchip}, {EXIT_RUNS} runs in turn, {text}",
                        {PIECES[piece]: ns for piece, ns in found[measure].items()})
    print_exits("CPU time an exit, ns, ports and memory", {f"irqchip {irqchip}": found["cpu"]
                                                          for irqchip, found in result.items()})
    return result


def resident(pid):
    """KiB: resident without the guest's memory, private and written of that, the guest's."""
    sums, guest = collections.Counter(), False
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as f:
        for line in f:
            word = line.split()
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                guest = GUEST_MEMORY.search(line) is not None
            elif word[0] == "Rss:":
                sums["guest" if guest else "rss"] += int(word[1])
            elif word[0] == "Private_Dirty:" and not guest:
                sums["dirty"] += int(word[1])
    return sums


def idle(command):
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          bufsize=0) as process:
        if process.stdout.read(1) != HELLO:
            raise SystemExit(f"{command[0]} did not start")
        time.sleep(SETTLED)
        found = resident(process.pid)
        process.terminate()
    return found


def bench_memory(build):
    backend = ("-object", f"memory-backend-memfd,id=ram,size={MEMORY}M,share=on", "-debugcon", "stdio")
    base = "QEMU, no firmware, no device but the console"
    with contextlib.ExitStack() as stack:
        ours = Umbra(stack, build)
        elf, rom = ours.payload("kvm_first.elf"), ours.payload("kvm_first.rom")
        sides = {
            "umbra-vm": (ours.command("kvm_first.elf"),),
            "umbra-vm, irqchip split": (ours.command("kvm_first.elf", irqchip="split"),),
            base: (qemu(f",memory-backend=ram,{LEAN}", "-bios", rom, *backend),),
            "QEMU -kernel, through its firmware": (qemu(",memory-backend=ram", "-kernel", elf, *backend),),
        }
        runs = in_turn(sides, MEMORY_RUNS, idle)
    result = {side: {what: statistics.median(found[what] for found in all_runs) for what in ("rss", "dirty", "guest")}
              for side, all_runs in runs.items()}
    print(f"\nresident with an idle guest of {MEMORY} MiB, median of {MEMORY_RUNS}, KiB; the guest's memory aside\n\n"
          f"{'':48}{'resident':>10}{'ratio':>8}{'private dirty':>16}{'ratio':>8}{'guest':>8}")
    for side, kib in result.items():
        print(f"{side:48}{kib['rss']:10,}{kib['rss'] / result[base]['rss']:8.2f}{kib['dirty']:16,}"
              f"{kib['dirty'] / result[base]['dirty']:8.2f}{kib['guest']:8,}")
    return result


def bench(build, tsc_khz):
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("\nkvm: skipped, /dev/kvm cannot be opened")
        return None
    result = {"start": bench_start(build), "exits_ns": bench_exits(build, tsc_khz)}
    if os.geteuid():
        print("\nmemory: skipped, only root can look at a process in a sandbox")
    else:
        result["memory_kib"] = bench_memory(build)
    return result

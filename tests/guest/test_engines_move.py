# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine goes from one engine to the other and back, at random instants: its output and its memory are those of a
machine that stayed where it was. Long: a hundred moves a guest. UMBRA_SEED repeats a run."""
import base64
import json
import os
import random
import re
import subprocess
import time

import pytest

from conftest import BUILD, LONG, kvm_missing

MOVES = 100 if LONG else 6
SEED = int(os.environ.get("UMBRA_SEED", "1"))
RAM = "16M"
# Where the payloads and all that they allocate lie.
FIRST, LAST, CHUNK = 0x100000, 0x600000, 0x10000


pytestmark = pytest.mark.skipif(bool(kvm_missing()), reason=kvm_missing() or "")


def seen(differences):
    """Names, but for what time does: a timer's end is a whole count, and it may come before the state is looked at
    again, whereupon the interrupt is in the local APIC or on its way into the processor."""
    went_off = {}
    names = set()
    for d in differences:
        if m := re.fullmatch(r"lapic(\d+)\.expire_ns", d["what"]):
            was, now = int(d["was"], 16), int(d["is"], 16)
            went_off[m[1]] = now == 2**64 - 1
            if went_off[m[1]] or abs(was - now) <= 128:
                continue
        names.add(d["what"])
    for n in (n for n, off in went_off.items() if off):
        names = {w for w in names if not re.match(rf"lapic{n}\.irr|vcpu{n}\.(activity|event)", w)}
    return names


class Machine:
    def __init__(self, vmctl, name, engine, payload, *options):
        self.vmctl, self.name, self.text = vmctl, name, b""
        self.differences, self.cpuid, self.seconds = set(), set(), 0.0
        self.ok("create", "--name", name, "--engine", engine, "--cpu", "common", "--memory", RAM, "--kernel",
                f"{BUILD}/tests/guest/{payload}.elf", *options)
        self.ok("start", name)
        # For input only: what was written before it came is in the log.
        self.console = subprocess.Popen([vmctl.program, "console", name], env=vmctl.env, stdin=subprocess.PIPE,
                                        stdout=subprocess.DEVNULL)

    def ok(self, *args):
        done = self.vmctl.call(*args)
        assert done.returncode == 0, (args, done.stderr.decode(), self.vmctl.call("logs", self.name).stdout[-400:])
        return done.stdout

    def send(self, data):
        self.console.stdin.write(data)
        self.console.stdin.flush()

    def read(self):
        self.text = self.ok("logs", self.name)
        return self.text

    def until(self, word):
        """No bound of time of its own: a guest that has lost something hangs, and the test with it."""
        while word not in self.read():
            assert self.console.poll() is None or word in self.read(), self.text[-500:]
            time.sleep(0.02)

    def move(self, engine):
        r = json.loads(self.ok("engine", "--anyway", "--json", self.name, engine))
        assert r["engine"] == engine
        self.differences |= seen(r["differences"])
        self.cpuid.add(r["cpuid"])
        self.seconds += r["seconds"]

    def moves(self, rng, count, meanwhile=lambda: None):
        """From kvm to soft and back; it ends where it is quick."""
        for n in range(count):
            time.sleep(rng.uniform(0, 0.01 if n % 2 else 0.05))
            meanwhile()
            self.move("kvm" if n % 2 else "soft")
        if count % 2 == 0:
            self.move("soft")

    def memory(self):
        self.ok("pause", self.name)
        out = []
        for at in range(FIRST, LAST, CHUNK):
            r = json.loads(self.ok("call", "machine.read", json.dumps(
                {"name": self.name, "addr": hex(at), "length": CHUNK, "gpa": True})))
            assert r["length"] == CHUNK
            out.append(base64.b64decode(r["data"]))
        self.ok("resume", self.name)
        return b"".join(out)

    def end(self, status):
        self.send(b"q")
        assert self.vmctl.call("wait", self.name).returncode == status
        self.console.wait()
        self.read()

    def close(self):
        """Whatever has become of it."""
        self.vmctl.call("stop", "--force", self.name)
        self.vmctl.call("delete", self.name)
        self.console.kill()
        self.console.wait()
        self.console.stdin.close()

    def said(self):
        print(f"\n{self.name}: {MOVES} moves, {self.seconds / MOVES * 1000:.1f} ms each; CPUID: "
              f"{'; '.join(sorted(self.cpuid - {''})) or 'the same'}; differences: "
              f"{', '.join(sorted(self.differences)) or 'none'}")


@pytest.fixture(name="machine")
def fixture_machine(vmctl):
    made = []

    def make(*args):
        made.append(Machine(vmctl, *args))
        return made[-1]

    yield make
    for m in made:
        m.close()


def same(a, b, name):
    assert len(a) == len(b)
    differs = [FIRST + k for k in range(0, len(a), 8) if a[k:k + 8] != b[k:k + 8]]
    assert not differs, f"{name}: {len(differs)} words of memory differ, from {differs[0]:#x}"


# What the kernel's chips cannot be given: the phase of the PIT, whose line goes with it up to the local APICs; the first
# count of a timer that has run out (it would run again).
CHIPS = re.compile(r"pit0\.counter\.|pic0\.chip\.(lines|output)|ioapic0\.lines|lapic\d+\.(lint|initial_count)")


def only_chips(m):
    left = {d for d in m.differences if not CHIPS.match(d)}
    if os.path.exists("/sys/module/kvm_pvm"):
        left -= {"tsc"}  # it shows the host's, whatever it is told
    assert not left, left


@pytest.mark.parametrize("cpus, irqchip", [(1, "kernel"), (2, "kernel"), (1, "split")])
def test_all_that_a_machine_holds(machine, cpus, irqchip):
    """Registers, MSRs, devices, exceptions, NMIs, timers, IPIs, user mode, memory."""
    rounds = 20000 if LONG else 1000
    options = ["--cpus", cpus, "--cmdline", f"{rounds} {cpus}"]
    still = machine(f"still{cpus}", "soft", "mover", *options)
    moved = machine(f"moved{cpus}-{irqchip}", "kvm", "mover", "--irqchip", irqchip, *options)
    moved.moves(random.Random(SEED + cpus), MOVES)
    for m in still, moved:
        m.until(b"done\r\n" if b"\r\n" in m.read() else b"done\n")
    assert moved.text == still.text
    same(still.memory(), moved.memory(), moved.name)
    moved.said()
    only_chips(moved)
    for m in still, moved:
        m.end(1)


def test_memory(vmctl, machine):
    """Tables that change all the time, for longer than the moves take."""
    longer = ["--cmdline", "l"] if LONG else []
    still, moved = (machine(f"{how}mem", engine, "memtest", *longer) for how, engine in
                    (("still", "soft"), ("moved", "kvm")))
    moved.moves(random.Random(SEED + 10), MOVES)
    for m in still, moved:
        assert vmctl.call("wait", m.name).returncode == 1
        m.console.wait()
    assert moved.read() == still.read() and b"hash" in moved.text
    moved.said()
    only_chips(moved)


def test_ticks(machine):
    """32-bit, the interval timer through the 8259s: it goes on ticking, and no tick comes twice."""
    m = machine("ticks", "kvm", "ticker")
    m.moves(random.Random(SEED + 20), MOVES)
    lines = m.read().split()
    m.until(b"%08x" % (int(lines[-1], 16) + 20 if len(lines) > 1 else 20))
    lines = m.read().replace(b"\r", b"").split(b"\n")
    start = lines.index(b"ticking") if b"ticking" in lines else -1
    counts = [int(x, 16) for x in lines[start + 1:-1] if len(x) == 8]
    assert counts == list(range(counts[0], counts[0] + 10 * len(counts), 10)), counts
    m.said()
    only_chips(m)
    m.end(0)


def test_echo(machine):
    """32-bit, the UART: what goes in comes out, also amid a move."""
    rng = random.Random(SEED + 30)
    m = machine("echo", "kvm", "echo")
    sent = bytearray()

    def talk():
        data = bytes(rng.choice(b"abcdefghijklmnop") for _ in range(rng.randint(1, 200)))
        sent.extend(data)
        m.send(data)

    m.moves(rng, MOVES, talk)
    m.until(bytes(sent))
    m.said()
    only_chips(m)
    m.end(0)

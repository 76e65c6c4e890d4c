# SPDX-License-Identifier: LGPL-2.1-or-later
"""`vmctl mmu walk` on a process's string in a Debian guest, under both policies, and what else inspection tells
of a kernel that runs."""
import base64
import gzip
import json
import re
import subprocess
import time

import pytest

from conftest import ROOT

POLICIES = ["tdp", "shadow"]
PATIENCE = 300


@pytest.fixture(scope="module")
def hello_initrd(tmp_path_factory, cloud):
    """The guests' initrd with tests/guest/hello.c behind it: the kernel unpacks one archive after the other."""
    folder = tmp_path_factory.mktemp("hello")
    subprocess.run(["gcc", "-O2", "-static", "-o", folder / "hello", f"{ROOT}/tests/guest/hello.c"], check=True)
    extra = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], input=b"hello\n", cwd=folder, check=True,
                           stdout=subprocess.PIPE).stdout
    with open(cloud[1], "rb") as f:
        (folder / "initrd").write_bytes(f.read() + gzip.compress(extra))
    return folder / "initrd"


class Machine:
    """A guest that runs hello, on one vCPU, so that this is the process that a walk meets."""

    def __init__(self, vmctl, name, kernel, initrd, *options):
        self.vmctl, self.name = vmctl, name
        self.ok("create", "--name", name, "--kernel", kernel, "--initrd", initrd, "--memory", "256M", "--engine",
                "soft", "--cmdline", "console=ttyS0 panic=-1 umbra.run=/hello", *options)
        self.ok("start", name)
        self.said = self.wait_for(r"Hello, world: text (\w+) heap (\w+) untouched (\w+) pid (\d+)")

    def ok(self, *args):
        done = self.vmctl.call(*args)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def json(self, *args):
        return json.loads(self.ok(*args, "--json"))

    def refused(self, *args):
        done = self.vmctl.call(*args)
        assert done.returncode not in (0, 127), done.stdout.decode()
        return done.stderr.decode()

    def wait_for(self, pattern):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            text = self.ok("logs", self.name)
            found = re.search(pattern, text)
            if found or "umbra: run status" in text:
                break
            time.sleep(0.1)
        assert found, text[-2000:]
        return found

    def walk(self, addr, *more):
        return self.json("mmu", "walk", self.name, addr, *more)

    def user_walk(self, addr):
        """The process's CR3 is the vCPU's but when the kernel switches for a moment."""
        for _ in range(100):
            w = self.walk(addr)
            if "gpa" in w:
                return w
        return w

    def host_bytes(self, hva, length):
        pid = self.json("show", self.name)["pid"]
        with open(f"/proc/{pid}/mem", "rb") as f:
            f.seek(int(hva, 16))
            return f.read(length)


@pytest.fixture(scope="module", params=POLICIES)
def guest(request, vmctl, cloud, hello_initrd):
    m = Machine(vmctl, f"inspect-{request.param}", cloud[0], hello_initrd, "--mmu", request.param)
    m.policy = request.param
    yield m
    m.ok("delete", "-f", m.name)


def check_way(m, addr, w, text):
    """Every step of a walk follows from the one before; both ways end at the bytes that the guest sees."""
    assert (w["policy"], w["kind"], w["vcpu"]) == (m.policy, "gva", 0)
    steps = w["guest"]["steps"]
    assert [s["name"] for s in steps] == ["PML4E", "PDPTE", "PDE", "PTE"][:len(steps)]
    table = int(w["guest"]["cr3"], 16) & ~0xfff
    for s in steps:
        index = addr >> (12 + 9 * (s["level"] - 1)) & 511
        assert int(s["gpa"], 16) == table + 8 * index
        raw = int(s["raw"], 16)
        assert raw & 1 and raw & 4, "a user's page"
        table = raw & 0xf_ffff_ffff_f000
    assert int(w["gpa"], 16) == table | addr & 0xfff
    slot = w["slot"]
    assert int(w["hva"], 16) == int(w["gpa"], 16) - int(slot["gpa"], 16) + int(slot["hva"], 16)
    assert base64.b64decode(w["bytes"]).startswith(text)
    assert m.host_bytes(w["hva"], len(text)) == text
    tables = w["tables"]
    assert tables["format"] == ("ept" if m.policy == "tdp" else "x86")
    key = int(w["gpa"], 16) if m.policy == "tdp" else addr
    at = int(tables["root"], 16)
    for s in tables["steps"]:
        assert int(s["at"], 16) == at + 8 * (key >> (12 + 9 * (s["level"] - 1)) & 511)
        at = int(s["raw"], 16) & 0xffff_ffff_f000
    if "hpa" in w:
        assert int(w["hpa"], 16) & 0xfff == addr & 0xfff
    else:
        assert w["hpa_unknown"]


def test_hello_world(guest):
    text = int(guest.said[1], 16)
    w = guest.user_walk(hex(text))
    check_way(guest, text, w, b"Hello, world\0")
    assert w["guest"]["access"][1] == "-" and w["guest"]["user_may"].startswith("r-")
    # The guest has just read the string, so our tables map it.
    assert w["tables"]["state"] == "present" and w["tables"]["hva"] == w["hva"] and w["tables"]["agrees"]
    assert w["verdict"] == "both ways end at the same byte"
    heap = int(guest.said[2], 16)
    w = guest.user_walk(hex(heap))
    check_way(guest, heap, w, b"Hello, heap of " + guest.said[4].encode() + b"\0")
    assert w["guest"]["user_may"].startswith("rw")


def test_told_as_text(guest):
    text = guest.ok("mmu", "walk", guest.name, guest.said[1])
    assert "Hello, world" in text and "guest's tables, 4-level" in text and "PML4E" in text and " => " in text


def test_where_and_why_it_faults(guest):
    for _ in range(100):
        w = guest.walk(guest.said[3])
        if w["guest"]["fault"]["level"] == 1:
            break
    fault = w["guest"]["fault"]
    assert fault["raises"] == "#PF" and fault["why"] == "the PTE is not present" and fault["error_code"] == "0x0"
    assert "gpa" not in w
    w = guest.walk("0x800000000000")
    assert w["guest"]["fault"]["raises"] == "#GP(0)" and "canonical" in w["verdict"]
    assert "MMIO" in guest.walk("0xfee00000", "--gpa")["verdict"]
    assert guest.walk("0xffffffffffffffff", "--gpa")["tables"]["state"] != "present"


def test_gpa_and_rmap(guest):
    w = guest.user_walk(guest.said[1])
    by_gpa = guest.walk(w["gpa"], "--gpa")
    assert by_gpa["hva"] == w["hva"] and by_gpa["bytes"] == w["bytes"]
    rmap = guest.json("mmu", "rmap", guest.name, hex(int(w["gpa"], 16) >> 12))
    assert rmap["hva"] == hex(int(w["hva"], 16) & ~0xfff)
    last = w["tables"]["steps"][-1]
    assert last["at"] in [s["at"] for s in rmap["sptes"]]


def test_map_has_the_process(guest):
    text = int(guest.said[1], 16)
    for _ in range(100):
        ranges = guest.json("mmu", "map", guest.name)["ranges"]
        mine = [r for r in ranges if int(r["start"], 16) <= text <= int(r["end"], 16)]
        if mine:
            break
    assert mine[0]["access"][1] == "-" and mine[0]["access"][3] == "u" and mine[0]["memory"]
    ends = [int(r["end"], 16) for r in ranges]
    assert ends == sorted(ends) and any(int(r["start"], 16) >> 63 for r in ranges), "the kernel's half as well"


def test_paused_tells_the_same(guest):
    guest.ok("pause", guest.name)
    try:
        first = guest.walk(guest.said[1])
        assert first == guest.walk(guest.said[1])
        assert guest.json("mmu", "audit", guest.name)["violations"] == 0
        pages = guest.json("mmu", "pages", guest.name)
        assert len(pages["pages"]) == pages["total"]
        assert guest.json("mmu", "context", guest.name)["root_hpa"] in [p["hpa"] for p in pages["pages"]]
        for level in range(1, 6):
            some = guest.json("mmu", "pages", guest.name, "--level", level)["pages"]
            assert some == [p for p in pages["pages"] if p["role"]["level"] == level]
    finally:
        guest.ok("resume", guest.name)


def test_trace_sees_the_guest(guest):
    lines = guest.ok("mmu", "trace", guest.name, "--count", 20, "--json").splitlines()
    events = [json.loads(line) for line in lines]
    seqs = [e["seq"] for e in events]
    assert len(events) == 20 and seqs == sorted(set(seqs))
    assert {e["kind"] for e in events} <= {"fault", "exit"} and any(e["kind"] == "exit" for e in events)


def test_policy_and_back(guest):
    """The process stays where it is; what it reads stays what it was."""
    other = "shadow" if guest.policy == "tdp" else "tdp"
    before = guest.user_walk(guest.said[1])
    done = guest.json("mmu", "policy", guest.name, other)
    assert (done["policy"], done["was"]) == (other, guest.policy)
    assert guest.json("mmu", "policy", guest.name)["policy"] == other
    after = guest.user_walk(guest.said[1])
    assert (after["gpa"], after["hva"], after["bytes"]) == (before["gpa"], before["hva"], before["bytes"])
    guest.ok("mmu", "policy", guest.name, guest.policy)
    assert guest.json("mmu", "audit", guest.name)["violations"] == 0

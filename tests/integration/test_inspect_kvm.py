# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine on KVM looked at from outside: what is ours to see is shown, what only the kernel knows is said to be so."""
import base64
import json
import os
import struct

import pytest

from conftest import kvm_missing, payload, wait_until


pytestmark = pytest.mark.skipif(kvm_missing() != "", reason=kvm_missing())
CODE = 0x100000  # where the payloads are linked to


def start(host, name, **more):
    host.define("a", path=payload(name), engine="kvm", memory="64M", timeout=100, **more)
    assert host.vmctl("start", "a").returncode == 0
    return host


def ask(host, *args):
    done = host.vmctl(*args, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal(host, *args):
    done = host.vmctl(*args, "--json")
    error = json.loads(done.stderr)["error"]
    return error["data"]["kind"], error["message"]


@pytest.fixture(name="paged")
def fixture_paged(real_kvm):
    """Long mode, with page tables of its own, and at work for longer than the test."""
    start(real_kvm, "memtest")
    wait_until(lambda: ask(real_kvm, "regs", "a")["vcpus"][0]["paging"] == "4-level")
    return real_kvm


def loaded(name, at, size):
    """What the payload, a 64-bit ELF, brings to that address."""
    with open(payload(name), "rb") as f:
        elf = f.read()
    (start,), (each, count) = struct.unpack_from("<Q", elf, 32), struct.unpack_from("<HH", elf, 54)
    for n in range(count):
        kind, _, offset, _, paddr, length = struct.unpack_from("<IIQQQQ", elf, start + n * each)
        if kind == 1 and paddr <= at < paddr + length:
            return elf[offset + at - paddr:offset + at - paddr + size]
    raise ValueError(f"{name} has nothing at {at:#x}")


def test_walk(paged):
    walk = ask(paged, "mmu", "walk", "a", hex(CODE + 0x10))
    assert walk["guest"]["paging"] == "4-level" and walk["gpa"] == hex(CODE + 0x10)
    assert [step["name"] for step in walk["guest"]["steps"]][:2] == ["PML4E", "PDPTE"]
    assert walk["tables"]["state"] == "unknown" and "the kernel's" in walk["tables"]["unknown"]
    assert "root" not in walk["tables"] and "unknown" in walk["verdict"]
    assert base64.b64decode(walk["bytes"])[:16] == loaded("memtest", CODE + 0x10, 16)
    fault = ask(paged, "mmu", "walk", "a", "0xdeadbeef000")["guest"]["fault"]
    assert (fault["raises"], fault["why"]) == ("#PF", "the PML4E is not present")
    text = paged.vmctl("mmu", "walk", "a", hex(CODE)).stdout.decode()
    assert "guest's tables, 4-level" in text and "our tables" not in text and "| unknown" in text


def test_lists(paged):
    ranges = ask(paged, "mmu", "map", "a")["ranges"]
    assert ranges[0]["start"] == "0x0" and ranges[0]["memory"] and ranges[0]["page"] == "2M"
    slots = ask(paged, "mmu", "slots", "a")
    assert [s["size"] for s in slots["slots"]] == ["0x4000000"]
    assert "mapped" not in slots["slots"][0] and slots["unknown"]
    for verb, more, members in (("roots", [], "roots"), ("rmap", ["0x100"], "sptes")):
        told = ask(paged, "mmu", verb, "a", *more)
        assert told[members] == [] and told["unknown"]
    context = ask(paged, "mmu", "context", "a")
    assert (context["paging"], context["root_level"]) == ("4-level", 4) and context["unknown"]
    assert "root_role" not in context and "shadow_root_level" not in context
    assert context["cr3"] == ask(paged, "mmu", "map", "a")["cr3"]
    for verb, more in (("roots", []), ("pages", []), ("rmap", ["0x100"]), ("audit", [])):
        done = paged.vmctl("mmu", verb, "a", *more)
        assert done.returncode == 0 and b"unknown: the tables that map it are the kernel's" in done.stdout, verb


def test_policy(paged):
    """It is the kernel's: told in the words of our own, changed by nobody."""
    told = ask(paged, "mmu", "policy", "a")
    assert told["policy"] in ("shadow", "tdp", "unknown")
    other = "shadow" if told["policy"] == "tdp" else "tdp"
    kind, message = refusal(paged, "mmu", "policy", "a", other)
    assert kind == "not-supported" and "the kernel's" in message
    stat = ask(paged, "mmu", "stat", "a")
    assert stat["policy"] == told["policy"] and stat["vcpus"]
    assert refusal(paged, "mmu", "trace", "a", "--what", "faults", "--count", "1")[0] == "not-supported"


def test_memory_and_registers(paged):
    text = paged.vmctl("x", "a", hex(CODE)).stdout.decode().split()
    assert bytes.fromhex("".join(text[1:17])) == loaded("memtest", CODE, 16)
    regs = ask(paged, "regs", "a")["vcpus"][0]
    assert regs["mode"] == "64-bit mode" and regs["cpl"] == 0
    for way in ("pause", "resume"):
        assert paged.vmctl(way, "a").returncode == 0
    assert paged.vmctl("stop", "-f", "a").returncode == 0


def test_paused_stands_still(paged):
    assert paged.vmctl("pause", "a").returncode == 0
    first = ask(paged, "regs", "a")
    ask(paged, "mmu", "walk", "a", hex(CODE))
    assert ask(paged, "regs", "a") == first
    assert paged.vmctl("resume", "a").returncode == 0
    wait_until(lambda: ask(paged, "regs", "a") != first)


def test_trace(real_kvm):
    """Exits to umbra-vm, as the soft engine's are told: a guest that polls its serial port."""
    start(real_kvm, "echo")
    wait_until(lambda: real_kvm.vmctl("logs", "a").stdout)
    done = real_kvm.vmctl("mmu", "trace", "a", "--what", "exits", "--count", "3")
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0 and len(lines) >= 3 and any("io" in line for line in lines), done

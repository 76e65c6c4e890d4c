# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bad input to the real umbra-vm: one clear sentence and the documented status each, and nothing is left over."""
import json
import os
import re
import struct

import pytest
from conftest import UMBRA_VM, Client, payload

NOT_A_KERNEL = 'not a kernel: neither bzImage ("HdrS" at offset 0x202) nor ELF nor multiboot'


def run(real, *args, status):
    """vmctl run, and what it said. No machine may be left."""
    r = real.vmctl("run", *args)
    assert r.returncode == status, r.stderr.decode()
    assert json.loads(real.vmctl("list", "--json").stdout) == []
    assert os.listdir(os.path.join(real.runtime, "vm")) == []
    return r.stderr.decode()


def write(real, name, data):
    path = os.path.join(real.folder, name)
    with open(path, "wb") as f:
        f.write(data)
    return path


def bzimage(prot_len, there):
    """A bzImage whose header announces prot_len bytes, and which has only some of them."""
    head = bytearray(1024)
    struct.pack_into("<BHIHHH", head, 0x1f1, 1, 0, prot_len // 16, 0, 0, 0)
    struct.pack_into("<HH4sH", head, 0x1fe, 0xaa55, 0x66eb, b"HdrS", 0x20f)
    head[0x211] = 1  # LOADED_HIGH
    struct.pack_into("<I", head, 0x22c, 0x7fffffff)
    struct.pack_into("<IB", head, 0x230, 0x200000, 1)
    struct.pack_into("<HI", head, 0x236, 1, 2047)
    struct.pack_into("<Q", head, 0x258, 0x1000000)
    struct.pack_into("<I", head, 0x260, 0x100000)
    return bytes(head) + bytes(there)


def elf(paddr, memsz):
    """A 64-bit ELF with one segment."""
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, paddr, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 7, 120, paddr, paddr, 8, memsz, 4096) + b"\x90" * 8


def test_not_a_kernel(real):
    path = write(real, "k", b"#!/bin/sh\necho this is no kernel\n" * 100)
    assert run(real, "--kernel", path, status=65) == f"vmctl: {path}: {NOT_A_KERNEL}\n"


def test_empty_kernel(real):
    path = write(real, "k", b"")
    assert run(real, "--kernel", path, status=65) == f"vmctl: {path}: not a kernel: the file is empty\n"


def test_truncated_bzimage(real):
    path = write(real, "k", bzimage(1 << 20, 5000))
    assert run(real, "--kernel", path, status=65) == \
        f"vmctl: {path}: truncated bzImage: its header announces 1049600 bytes, the file has 6024\n"


def test_bzimage_that_ends_in_its_header(real):
    path = write(real, "k", bzimage(1 << 20, 0)[:0x210])
    assert run(real, "--kernel", path, status=65) == \
        f"vmctl: {path}: truncated bzImage: the file's 528 bytes end in the setup header\n"


@pytest.mark.parametrize("paddr, memsz", [(0x20000000, 8), (0xffffc000, 4096), (0x100000, 1 << 31)])
def test_elf_outside_memory(real, paddr, memsz):
    path = write(real, "k", elf(paddr, memsz))
    assert run(real, "--kernel", path, "--memory", "256M", status=65) == \
        (f"vmctl: {path}: segment 0 at physical {paddr:#x}, {memsz:#x} bytes, lies outside the machine's memory "
         "(256 MiB)\n")


def test_elf_whose_end_wraps_around(real):
    path = write(real, "k", elf(0xfffffffffffff000, 0x2000))
    assert "sizes that make no sense" in run(real, "--kernel", path, status=65)


def test_initrd_larger_than_memory(real):
    path = write(real, "i", b"")
    os.truncate(path, 100 << 20)
    assert run(real, "--kernel", payload("echo"), "--initrd", path, "--memory", "64M", status=65) == \
        f"vmctl: {path}: {100 << 20} bytes do not fit beside the kernel into memory below 64 MiB\n"


def test_one_mib_of_memory(real):
    assert run(real, "--kernel", payload("echo"), "--memory", "1M", status=64) == \
        ('vmctl: field "memory" must be a size from 2M to 1024G in whole pages of 4K (a number means MiB), not "1M"\n'
         'Try "vmctl help run".\n')


def test_the_least_memory_is_enough_for_a_payload(real):
    assert run(real, "--kernel", payload("debug_exit"), "--memory", "2M", status=7) == \
        'vmctl: "vm-1" ended: debug-exit with status 7\n'


@pytest.mark.parametrize("definition, told", [
    ({"memroy": 5}, 'unknown field "memroy" in the machine definition; did you mean "memory"?'),
    ({"cpus": "2"}, 'field "cpus" must be an integer from 1 to 64, not "2"'),
    ({"cpus": 2.5}, 'field "cpus" must be an integer from 1 to 64, not 2.5'),
    ({"cpus": 65}, 'field "cpus" must be an integer from 1 to 64, not 65'),
    ({"cpus": 0}, 'field "cpus" must be an integer from 1 to 64, not 0'),
    ({"cpus": -1}, 'field "cpus" must be an integer from 1 to 64, not -1'),
])
@pytest.mark.parametrize("alone", [False, True])
def test_bad_definition(real, definition, told, alone):
    path = write(real, "m.json", json.dumps({"kernel": payload("echo"), **definition}).encode())
    if alone:
        r = real.spawn_vm("--config", path)
        assert (r.returncode, r.stderr.decode()) == (64, f"umbra-vm: {told}\n")
    else:
        assert run(real, "--config", path, status=64) == f"vmctl: {told}\n"


@pytest.mark.parametrize("count", ["65", "0", "-1", "many"])
def test_bad_cpu_count(real, count):
    number = count if count != "many" else '"many"'
    assert run(real, "--kernel", payload("echo"), "--cpus", count, status=64) == \
        f'vmctl: field "cpus" must be an integer from 1 to 64, not {number}\nTry "vmctl help run".\n'


def test_triple_fault(real):
    err = run(real, "--kernel", payload("triple_fault"), status=125)
    assert err.startswith('vmctl: "vm-1" ended: crash: triple fault on vCPU 0\n')
    assert re.search(r"rip 0x0000000000100[0-9a-f]{3} .*rbx 0x0000000012345678", err, re.S)
    shown = [line.split(None, 1)[1] for line in err.split("the last instructions:\n")[1].splitlines()]
    assert shown[0].startswith("mov esp") and shown[-3].startswith("mov ebx, 0x12345678"), shown
    assert shown[-2].startswith("lidt") and shown[-1] == "ud2", shown


def test_triple_fault_alone(real):
    path = write(real, "m.json", json.dumps({"kernel": payload("triple_fault")}).encode())
    r = real.spawn_vm("--config", path)
    err = r.stderr.decode()
    assert r.returncode == 125 and err.startswith("umbra-vm: crash: triple fault on vCPU 0\n")
    assert "rbx      0x0000000012345678" in err and err.endswith("ud2\n")


@pytest.mark.parametrize("clock", ["host", "instructions"])
@pytest.mark.parametrize("cpus", ["1", "2"])
def test_halt_with_interrupts_off(real, clock, cpus):
    r = real.vmctl("run", "--kernel", payload("halt"), "--clock", clock, "--cpus", cpus, "--timeout", "20")
    assert r.returncode == 123 and r.stdout == b"halting\r\n"
    assert r.stderr.startswith(b'vmctl: "vm-1" ended: halted: every vCPU has halted with interrupts off\n')


@pytest.mark.parametrize("name, status, told", [
    ("bad", 65, f": {NOT_A_KERNEL}\n"),
    ("missing", 65, "No such file or directory"),
    ("debug_exit", 7, "debug-exit"),
    ("reset", 126, "reset: the guest asked for a reset"),
    ("halt", 123, "halted: every vCPU has halted with interrupts off"),
])
def test_alone(real, name, status, told):
    if name == "bad":
        write(real, "bad", b"bad")
    kernel = payload(name) if os.path.exists(payload(name)) else os.path.join(real.folder, name)
    path = write(real, "m.json", json.dumps({"kernel": kernel}).encode())
    r = real.spawn_vm("--config", path)
    assert r.returncode == status and told in r.stderr.decode(), r.stderr.decode()
    assert b"[warn]" not in r.stderr


def test_alone_without_a_config(real):
    for args in ((), ("--config",), ("--config", "/nonexistent"), ("--control", "99"), ("--surplus",)):
        assert real.spawn_vm(*args).returncode == 64


def machine_socket(real):
    """A running machine's own socket: what umbrad speaks to."""
    real.define("a", path=payload("echo"))
    assert real.vmctl("start", "a").returncode == 0
    return os.path.join(real.runtime, "vm", "a.sock")


def test_half_a_message_and_silence(real):
    path = machine_socket(real)
    silent, half, honest = Client(path), Client(path), Client(path)
    half.send(b'{"jsonrpc": "2.0", "id": 1, "method": "vm.qu')
    assert honest.ok("vm.query")["state"] == "running"
    half.send(b'ery"}')
    assert half.answer(1)["result"]["state"] == "running"
    half.send(b'{"jsonrpc"')
    for client in (silent, half):
        client.close()
    assert honest.ok("vm.query")["state"] == "running"
    honest.close()


def test_ten_mib_of_a_message(real):
    path = machine_socket(real)
    flood, honest = Client(path), Client(path)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        flood.send(b'{"jsonrpc": "2.0", "id": 1, "method": "' + b"a" * (10 << 20))
    error = flood.receive()["error"]
    assert (error["code"], error["message"]) == (-32600, "a message may have at most 4194304 bytes")
    assert honest.ok("vm.query")["state"] == "running"
    flood.close()
    honest.close()


@pytest.mark.parametrize("text", [b"nonsense", b"{]", b"\0\0", b"[" * 1000])
def test_no_json(real, text):
    client = Client(machine_socket(real))
    client.send(text)
    assert client.receive()["error"]["code"] == -32700
    assert client.receive() is None
    client.close()


def test_umbra_vm_is_the_real_one():
    assert os.path.basename(UMBRA_VM) == "umbra-vm" and os.access(UMBRA_VM, os.X_OK)

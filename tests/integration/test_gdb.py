# SPDX-License-Identifier: LGPL-2.1-or-later
"""GDB's remote protocol as umbra-vm serves it, and vmctl x, regs and gdb, on small payloads."""
import base64
import json
import os
import re
import signal
import socket
import subprocess

import pytest
from conftest import payload, wait_until

POLICIES = ["tdp", "shadow", "kvm"]
CLOCKS = ["host", "instructions"]


def symbol(what, name):
    for line in subprocess.run(["nm", payload(what)], capture_output=True, text=True, check=True).stdout.splitlines():
        if line.endswith(f" {name}"):
            return int(line.split()[0], 16)
    raise KeyError(name)


# spin.S: at main two instructions of five bytes; then "inc %eax; jmp" to it, one and two bytes.
LOOP = symbol("spin", "main") + 10


class Rsp:
    """A debugger's end of the protocol, without acks."""

    def __init__(self, sock, timeout):
        self.sock = sock
        self.sock.settimeout(timeout)
        self.data = b""
        assert self.ask("QStartNoAckMode") == "OK"
        self.sock.sendall(b"+")

    @staticmethod
    def packet(body):
        return b"$" + body + b"#%02x" % (sum(body) & 255)

    def send(self, body):
        self.sock.sendall(self.packet(body if isinstance(body, bytes) else body.encode()))

    def read(self):
        """The next packet's body; None at the end."""
        while not (found := re.search(rb"\$([^#]*)#..", self.data, re.S)):
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.data += data
        self.data = self.data[found.end():]
        return found.group(1).decode("latin-1")

    def ask(self, body):
        self.send(body)
        return self.read()

    def interrupt(self):
        self.sock.sendall(b"\x03")
        return self.read()

    def register(self, n):
        return int.from_bytes(bytes.fromhex(self.ask(f"p{n:x}")), "little")

    def eip(self):
        return self.register(8)

    def eax(self):
        return self.register(0)

    def close(self):
        self.sock.close()


def where(real, policy, clock="host"):
    """What runs the machine, and by which clock; before its umbrad is there."""
    if policy != "kvm":
        return {"engine": "soft", "mmu": policy, "clock": clock}
    if clock != "host":
        pytest.skip("KVM cannot count instructions")
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as e:
        pytest.skip(f"/dev/kvm: {e.strerror}")
    del real.env["UMBRA_KVM_DEVICE"]
    return {"engine": "kvm"}


def has_watchpoints(policy):
    """A KVM without hardware behind it emulates the guest's kernel, and sees only what has changed."""
    return policy != "kvm" or any(os.path.exists(f"/sys/module/{m}") for m in ("kvm_intel", "kvm_amd"))


def attach(real, name="a", **params):
    """One that was there before may not have been missed yet."""
    client = real.client()
    wait_until(lambda: "attached already" not in str(client.call("machine.gdb", name=name, **params)))
    return Rsp(socket.socket(fileno=client.fds.pop()), client.sock.gettimeout())


def machine(real, what="spin", **more):
    real.define("a", path=payload(what), **more)
    assert real.vmctl("start", "a").returncode == 0
    wait_until(lambda: real.vmctl("logs", "a").stdout)


def state(real):
    return real.client().ok("machine.show", name="a")["state"]


def eax(real):
    return int(real.client().ok("machine.registers", name="a")["vcpus"][0]["general"]["rax"], 16)


def goes_on(real):
    before = eax(real)
    wait_until(lambda: eax(real) != before)


def stands_still(real):
    return eax(real) == eax(real)


# ---- breakpoints, steps, watchpoints ----


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("clock", CLOCKS)
def test_stop_step_and_go(real, policy, clock):
    machine(real, **where(real, policy, clock))
    gdb = attach(real)
    assert gdb.ask("?").startswith("T05thread:1;")
    assert "i386<" in gdb.ask("qXfer:features:read:target.xml:0,fff")
    assert stands_still(real)
    # Three steps are one round and an instruction, wherever it begins.
    for _ in range(3):
        eip, eax_ = gdb.eip(), gdb.eax()
        assert gdb.ask("s").startswith("T05")
        assert (gdb.eip(), gdb.eax()) == ((LOOP + 1, eax_ + 1) if eip == LOOP else (LOOP, eax_))
    # A breakpoint is met once a round, and is passed when it is where the vCPU stands.
    assert gdb.ask(f"Z0,{LOOP:x},1") == "OK"
    assert gdb.ask("vCont;c").startswith("T05")
    first = gdb.eax()
    for k in range(1, 4):
        assert gdb.ask("vCont;c").startswith("T05")
        assert (gdb.eip(), gdb.eax()) == (LOOP, first + k)
    assert gdb.ask(f"z0,{LOOP:x},1") == "OK"
    gdb.send("vCont;c")
    goes_on(real)
    assert gdb.interrupt().startswith("T02")
    assert stands_still(real)
    assert gdb.ask("D") == "OK"
    assert gdb.read() is None
    goes_on(real)


@pytest.mark.parametrize("policy", POLICIES)
def test_more_breakpoints_than_registers(real, policy):
    """The processor has four; those that are met are met all the same, each once a round."""
    machine(real, **where(real, policy))
    gdb = attach(real)
    for k in range(6):
        assert gdb.ask(f"Z0,{LOOP + 0x1000 + k:x},1") == "OK"
    for at in (LOOP, LOOP + 1):
        assert gdb.ask(f"Z0,{at:x},1") == "OK"
    assert gdb.ask("vCont;c").startswith("T05")
    for _ in range(4):
        eip, eax_ = gdb.eip(), gdb.eax()
        assert eip in (LOOP, LOOP + 1)
        assert gdb.ask("vCont;c").startswith("T05")
        assert (gdb.eip(), gdb.eax()) == ((LOOP + 1, eax_ + 1) if eip == LOOP else (LOOP, eax_))
    # Without them it goes on at full speed.
    for k in range(6):
        assert gdb.ask(f"z0,{LOOP + 0x1000 + k:x},1") == "OK"
    for at in (LOOP, LOOP + 1):
        assert gdb.ask(f"z0,{at:x},1") == "OK"
    gdb.send("vCont;c")
    goes_on(real)
    assert gdb.interrupt().startswith("T02")
    gdb.close()


@pytest.mark.parametrize("policy", POLICIES)
def test_written_code_is_executed(real, policy):
    """The loop's "inc %eax" becomes "dec %eax" under a processor that has decoded it."""
    machine(real, **where(real, policy))
    gdb = attach(real)
    assert gdb.ask(f"m{LOOP:x},3") == "40ebfd"
    assert gdb.ask(f"M{LOOP:x},1:48") == "OK"
    assert gdb.ask("P0=78563412") == "OK"
    assert gdb.ask(f"Z0,{LOOP:x},1") == "OK"
    assert gdb.ask("c").startswith("T05")
    before = gdb.eax()
    assert gdb.ask("c").startswith("T05")
    assert gdb.eax() == before - 1 and before in (0x12345678, 0x12345677)
    assert gdb.ask(b"X%x,1:\x40" % LOOP) == "OK"
    gdb.ask("c")
    assert gdb.eax() == before


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("clock", CLOCKS)
def test_watchpoints(real, policy, clock):
    """scribble.S increments the first word of pages from 16 MiB on, as long as it is not asked to stop."""
    machine(real, "scribble", **where(real, policy, clock))
    console = real.spawn("console", "a")
    console.stdin.write(b"l")
    console.stdin.flush()
    wait_until(lambda: real.vmctl("logs", "a").stdout.endswith(b"l"))
    gdb = attach(real)
    word = 0x1005000
    before = int.from_bytes(bytes.fromhex(gdb.ask(f"m{word:x},4")), "little")
    for kind, name in ((2, "watch"), (3, "rwatch"), (4, "awatch")):
        if kind > 2 and not has_watchpoints(policy):
            assert gdb.ask(f"Z{kind},{word:x},4").startswith("E")
            continue
        assert gdb.ask(f"Z{kind},{word:x},4") == "OK"
        assert f"{name}:{word:x};" in gdb.ask("c")
        now = int.from_bytes(bytes.fromhex(gdb.ask(f"m{word:x},4")), "little")
        assert now == before + 1
        before = now
        assert gdb.ask(f"z{kind},{word:x},4") == "OK"
    gdb.close()
    console.stdin.close()
    console.kill()
    console.wait()


# ---- the machine's states ----


def test_pause_and_resume_meet_the_debugger(real):
    """The operator's hold and the debugger's are two: the guest runs when neither has it."""
    machine(real)
    client = real.client()
    gdb = attach(real)
    gdb.send("vCont;c")
    goes_on(real)
    client.ok("machine.pause", name="a")
    assert state(real) == "paused" and stands_still(real)
    assert gdb.interrupt().startswith("T02")
    client.ok("machine.resume", name="a")
    assert state(real) == "running" and stands_still(real)
    client.ok("machine.pause", name="a")
    # It says why nothing happens.
    told = gdb.ask("vCont;c")
    assert told[0] == "O" and b"paused" in bytes.fromhex(told[1:])
    assert stands_still(real)
    client.ok("machine.resume", name="a")
    goes_on(real)
    gdb.close()
    goes_on(real)


def test_one_debugger_at_a_time(real):
    machine(real)
    gdb = attach(real)
    err = real.client().error("machine.gdb", name="a")
    assert err["data"]["kind"] == "invalid-state" and "debugger" in err["message"]
    gdb.close()
    goes_on(real)
    attach(real).close()


def test_debugger_that_vanishes_mid_packet(real):
    machine(real)
    gdb = attach(real)
    gdb.ask(f"Z0,{LOOP:x},1")
    gdb.sock.sendall(b"$m1000,")
    gdb.close()
    goes_on(real)


def test_reset_while_attached(real):
    machine(real)
    client = real.client()
    gdb = attach(real)
    start = symbol("spin", "_start")
    assert gdb.ask(f"Z1,{start:x},1") == "OK"
    client.ok("machine.reset", name="a")
    assert gdb.eip() == start and gdb.ask("c").startswith("T05")
    gdb.ask("c") if gdb.eip() != start else None
    gdb.send("c")
    client.ok("machine.reset", name="a")
    assert gdb.read().startswith("T05") and gdb.eip() == start
    told = gdb.ask("qRcmd," + b"reset".hex())
    assert b"reset" in bytes.fromhex(told[1:])
    assert gdb.read() == "OK"
    gdb.close()


@pytest.mark.parametrize("running", [True, False])
def test_stop_by_force(real, running):
    machine(real)
    gdb = attach(real)
    if running:
        gdb.send("c")
    real.client().ok("machine.stop", name="a", force=True)
    if running:
        assert gdb.read() == "W7a"  # 122: vmctl's status for a machine that was stopped
    assert gdb.read() is None
    wait_until(lambda: state(real) == "stopped")


def test_kill_ends_the_machine(real):
    machine(real)
    gdb = attach(real)
    gdb.send("k")
    assert gdb.read() is None
    wait_until(lambda: state(real) == "stopped")


def test_power_off_and_crash_are_told(real):
    machine(real, "scribble")
    gdb = attach(real)
    gdb.send("c")
    console = real.spawn("console", "a")
    console.communicate(b"q")
    assert gdb.read() == "W00"
    wait_until(lambda: state(real) == "stopped")
    real.client().ok("machine.delete", name="a")
    # A triple fault: an IDT that holds nothing, and an instruction that is none.
    machine(real)
    gdb = attach(real)
    assert gdb.ask(f"M{LOOP:x},2:0f0b") == "OK"
    gdb.send("c")
    assert gdb.read() == "X0b"


# ---- hostile ----


def test_hostile_bytes(real):
    machine(real)
    gdb = attach(real)
    gdb.sock.sendall(b"$" + b"m" * 20000)
    assert gdb.read() is None
    for junk in (b"\x00\xff$$$#", b"$#00" * 500, b"%Stop:#00", b"-" * 3000, b"$vCont;s:99#00$G" + b"f" * 16000 + b"#00",
                 b"$m0,ffffffffffffffff#00$mffffffffffffffff,10#00$Z2,0,1000#00$X0,0:#00"):
        gdb = attach(real)
        gdb.sock.sendall(junk)
        gdb.close()
    goes_on(real)


# ---- vmctl ----


def test_vmctl_gdb_stdio(real):
    machine(real)
    p = real.spawn("gdb", "--stdio", "a")
    p.stdin.write(Rsp.packet(b"?"))
    p.stdin.flush()
    assert p.stdout.read(5) == b"+$T05"
    assert stands_still(real)
    p.stdin.close()
    p.wait()
    goes_on(real)
    assert real.vmctl("gdb", "--stdio", "b").returncode == 1


@pytest.mark.parametrize("kind", ["port", "path"])
def test_vmctl_gdb_listen(real, kind):
    machine(real)
    path = os.path.join(real.folder, "gdb.sock")
    p = real.spawn("gdb", "--listen", "0" if kind == "port" else path, "a")
    said = p.stderr.readline().decode().split()[-1]
    goes_on(real)  # nobody has come yet
    if kind == "port":
        host, port = said.split(":")
        sock = socket.create_connection((host, int(port)))
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(said)
    gdb = Rsp(sock, 60)
    assert gdb.ask("?").startswith("T05") and stands_still(real)
    assert gdb.ask("D") == "OK"
    assert p.wait() == 0
    goes_on(real)
    assert not os.path.exists(path)


def test_vmctl_gdb_refusals(real):
    file = os.path.join(real.folder, "precious")
    with open(file, "w", encoding="utf-8") as f:
        f.write("x")
    assert real.vmctl("gdb", "--listen", file, "a").returncode == 1
    assert os.path.exists(file)
    assert real.vmctl("gdb", "--listen", "70000", "a").returncode == 64
    assert real.vmctl("gdb").returncode == 64
    assert real.vmctl("gdb", "--arch", "mips", "a").returncode == 64


def x(real, *args):
    return real.vmctl("x", "a", *args)


@pytest.mark.parametrize("policy", POLICIES)
def test_vmctl_x(real, policy):
    machine(real, **where(real, policy))
    text = symbol("spin", "text")
    out = x(real, f"{text:#x}/10").stdout.decode()
    assert out == f"{text:016x}  73 70 69 6e 6e 69 6e 67  0d 0a                    |spinning..|\n"
    assert x(real, f"{text:#x}/10", "--raw", "--gpa").stdout == b"spinning\r\n"
    assert f'"spinning\\x0d\\n"\n' in x(real, f"{text:#x}", "--format", "string").stdout.decode()
    assert x(real, f"{text:#x}/1", "--format", "words").stdout.decode().split() == [f"{text:016x}", "0x676e696e6e697073"]
    lines = x(real, f"{LOOP:#x}/2", "--format", "instructions").stdout.decode().splitlines()
    assert lines[0].split() == [f"{LOOP:016x}", "40", "inc", "eax"] and " ebfd " in lines[1]
    told = json.loads(x(real, f"{text:#x}/10", "--json").stdout)
    assert base64.b64decode(told["data"]) == b"spinning\r\n" and told["length"] == 10
    # More than one call's worth, in order.
    big = x(real, "0x100000/200000", "--raw").stdout
    assert len(big) == 200000 and big[LOOP - 0x100000:][:3] == b"\x40\xeb\xfd"
    told = json.loads(x(real, "0x100000/200000", "--json").stdout)
    assert base64.b64decode(told["data"]) == big


def test_vmctl_x_where_nothing_is(real):
    machine(real, memory="16M")
    r = x(real, "0xfffff8/16", "--gpa")
    assert r.returncode == 1 and r.stdout.count(b"\n") == 1 and b"0x1000000 is no memory" in r.stderr
    r = x(real, "0xffffffffffffff00/512", "--json")
    assert r.returncode == 1 and "why" in json.loads(r.stdout)["fault"]
    for bad in ("zz", "0x10/0", "0x10/x", "0x10/-1", "0x10/99999999999", "0x1ffffffffffffffff", ""):
        assert x(real, bad).returncode == 64, bad
    assert x(real, "0x100000", "--vcpu", "9").returncode == 64
    assert x(real, "0x100000", "--raw", "--format", "words").returncode == 64
    err = real.client().error("machine.read", name="a", addr="0x0", length=65537)
    assert err["data"]["kind"] == "invalid-params"
    real.vmctl("stop", "--force", "a")
    wait_until(lambda: state(real) == "stopped")
    assert x(real, "0x100000").returncode == 1


def test_vmctl_regs(real):
    machine(real, cpus=2)
    r = real.vmctl("regs", "a").stdout.decode()
    assert "vCPU 0: 32-bit protected mode, CPL 0, paging none, running" in r
    assert re.search(r"cr0 +0*[0-9a-f]+  PE", r)
    assert "ymm0" not in r and "xmm0" not in r
    all_ = json.loads(real.vmctl("regs", "a", "--all", "--fpu", "--json").stdout)["vcpus"]
    assert [v["vcpu"] for v in all_] == [0, 1] and all_[1]["activity"] == "waits for SIPI"
    assert all_[0]["general"]["rip"] in (f"{LOOP:#x}", f"{LOOP + 1:#x}") and "st0" in all_[0]["fpu"]
    assert "vCPU 1: real mode" in real.vmctl("regs", "a", "--vcpu", "1").stdout.decode()
    assert real.vmctl("regs", "a", "--vcpu", "2").returncode == 64


def test_two_vcpus_as_threads(real):
    """The second waits for its start-up IPI; a step of it alone lets nobody run, until Ctrl-C."""
    machine(real, cpus=2)
    gdb = attach(real)
    assert gdb.ask("qfThreadInfo") == "m1,2"
    assert "waits for SIPI" in bytes.fromhex(gdb.ask("qThreadExtraInfo,2")).decode()
    before = gdb.eax()
    gdb.send("vCont;s:2")
    assert gdb.interrupt().startswith("T02")
    assert gdb.ask("Hg1") == "OK" and gdb.eax() == before
    assert gdb.ask("vCont;s:1;c").startswith("T05thread:1;")
    gdb.close()


def test_interrupted_start_of_gdb(real):
    """A debugger that is killed lets the machine go."""
    machine(real)
    p = real.spawn("gdb", "--stdio", "a")
    p.stdin.write(Rsp.packet(b"?"))
    p.stdin.flush()
    assert p.stdout.read(5) == b"+$T05"
    p.send_signal(signal.SIGKILL)
    p.wait()
    goes_on(real)

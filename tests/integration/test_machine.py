# SPDX-License-Identifier: LGPL-2.1-or-later
"""The whole line with the real umbra-vm and small payloads: vmctl, umbrad, umbra-vm, console."""
import json
import os
import signal
import subprocess

import pytest
from conftest import HANG, UMBRA_VM, alive, payload, wait_until


def state(real, name="a"):
    return json.loads(real.vmctl("show", name, "--json").stdout)["state"]


def start(real, name="a", what="echo", **more):
    real.define(name, path=payload(what), **more)
    assert real.vmctl("start", name).returncode == 0
    wait_until(lambda: real.vmctl("logs", name).stdout)


def end(real, name="a"):
    return json.loads(real.vmctl("show", name, "--json").stdout)["exit"]


@pytest.mark.parametrize("policy", ["tdp", "shadow"])
@pytest.mark.parametrize("clock", ["host", "instructions"])
def test_run_forwards_stdin(real, policy, clock):
    p = real.spawn("run", "--kernel", payload("echo"), "--mmu", policy, "--clock", clock, "--timeout", "60")
    assert p.stdout.readline() == b"ready\r\n"
    out, err = p.communicate(b"some words\nq", timeout=HANG)
    assert (p.returncode, out, err) == (0, b"some words\n", b"")


def test_run_output_is_whole(real):
    p = real.spawn("run", "--kernel", payload("echo"), "--timeout", "60")
    out, _ = p.communicate(b"xxq", timeout=HANG)
    assert p.returncode == 0
    assert out == b"ready\r\n" + (b"0123456789abcdef" * 3 + b"0123456789abcd" + b"\r\n") * 2 * 4096


def test_run_json_and_stats(real):
    path = os.path.join(real.folder, "stats.json")
    r = real.vmctl("run", "--kernel", payload("debug_exit"), "--json", "--stats", path)
    told = json.loads(r.stderr)
    assert (r.returncode, told["reason"], told["code"], told["status"]) == (7, "debug-exit", 7, 7)
    with open(path) as f:
        stats = json.load(f)
    assert stats["engine"] == "soft" and stats["boot"] == "multiboot" and 0 < stats["instructions"] < 100


@pytest.mark.parametrize("clock", ["host", "instructions"])
def test_on_reset(real, clock):
    args = ["--kernel", payload("reset"), "--clock", clock, "--timeout", "30"]
    r = real.vmctl("run", *args)
    assert (r.returncode, r.stdout) == (126, b"first\r\n")
    r = real.vmctl("run", *args, "--on-reset", "restart")
    assert (r.returncode, r.stdout, r.stderr) == (0, b"first\r\nsecond\r\n", b"")


def test_run_timeout_shows_where(real):
    r = real.vmctl("run", "--kernel", payload("spin"), "--timeout", "0.5")
    assert r.returncode == 124 and r.stdout == b"spinning\r\n"
    assert b"ended: timeout: still running after 0.5 s\n" in r.stderr and b"inc eax" in r.stderr


def test_life_of_a_machine(real):
    start(real)
    assert state(real) == "running" and b"running" in real.vmctl("list").stdout
    assert real.vmctl("start", "a").returncode == 1
    assert real.vmctl("pause", "a").returncode == 0 and state(real) == "paused"
    stats = json.loads(real.vmctl("stats", "a", "--json").stdout)
    assert real.vmctl("pause", "a").returncode == 1
    assert json.loads(real.vmctl("stats", "a", "--json").stdout)["instructions"] == stats["instructions"]
    assert real.vmctl("resume", "a").returncode == 0 and state(real) == "running"
    wait_until(lambda: json.loads(real.vmctl("stats", "a", "--json").stdout)["instructions"] >
               stats["instructions"])
    assert real.vmctl("reset", "a").returncode == 0
    wait_until(lambda: real.vmctl("logs", "a").stdout == b"ready\r\nready\r\n")
    assert real.vmctl("delete", "a").returncode == 1
    assert real.vmctl("wait", "a", "--timeout", "0.2").returncode == 124
    assert real.vmctl("stop", "-f", "a").returncode == 0
    assert real.vmctl("wait", "a").returncode == 122
    assert end(real)["reason"] == "stopped"
    assert real.vmctl("start", "a").returncode == 0
    assert real.vmctl("stop", "a", "--timeout", "0.3").returncode == 0  # nobody there looks at the button
    assert real.vmctl("wait", "a").returncode == 122
    assert real.vmctl("delete", "a").returncode == 0
    assert real.vmctl("show", "a").returncode == 1
    assert os.listdir(os.path.join(real.runtime, "vm")) == []


def test_paused_machine_is_reset_and_ended(real):
    start(real, what="spin")
    real.vmctl("pause", "a")
    assert real.vmctl("reset", "a").returncode == 0 and state(real) == "paused"
    assert real.vmctl("resume", "a").returncode == 0
    wait_until(lambda: real.vmctl("logs", "a").stdout == b"spinning\r\nspinning\r\n")
    real.vmctl("pause", "a")
    assert real.vmctl("stop", "-f", "a").returncode == 0
    assert real.vmctl("wait", "a").returncode == 122


def test_console_of_two(real):
    start(real)
    first, second = real.spawn("console", "a"), real.spawn("console", "a")
    # What is echoed to a console shows that it is attached, and has its signals in hand.
    for p in (first, second):
        p.stdin.write(b"hello\n")
        p.stdin.flush()
        assert any(line.endswith(b"hello\n") for line in p.stdout)
    first.send_signal(signal.SIGTERM)
    assert first.wait(HANG) == 128 + 15
    second.stdin.write(b"q")
    second.stdin.flush()
    assert second.wait(HANG) == 0
    assert real.vmctl("wait", "a").returncode == 0
    assert end(real)["reason"] == "poweroff"


def test_pause_while_nobody_reads(real):
    """A console that is attached and never read must not hold up the machine's end."""
    start(real)
    p = real.spawn("console", "a")
    p.stdin.write(b"x" * 40)
    p.stdin.flush()
    assert real.vmctl("stop", "-f", "a").returncode == 0
    assert real.vmctl("wait", "a").returncode == 122
    p.kill()
    p.communicate()


def test_umbrad_is_replaced(real):
    start(real)
    pid = json.loads(real.vmctl("show", "a", "--json").stdout)["pid"]
    real.kill_umbrad()
    assert alive(pid)
    assert json.loads(real.vmctl("show", "a", "--json").stdout)["pid"] == pid
    p = real.spawn("console", "a")
    p.communicate(b"q", timeout=HANG)
    assert p.returncode == 0 and real.vmctl("wait", "a").returncode == 0


def test_umbra_vm_dies(real):
    start(real)
    os.kill(json.loads(real.vmctl("show", "a", "--json").stdout)["pid"], signal.SIGKILL)
    assert real.vmctl("wait", "a").returncode == 127
    assert "killed by signal 9" in end(real)["message"]


@pytest.mark.parametrize("stdin", ["file", "null", "pipe"])
def test_alone_with_a_console(real, stdin):
    """Files and /dev/null cannot be polled: no complaint, no hang, and the output is whole."""
    path = os.path.join(real.folder, "m.json")
    out = os.path.join(real.folder, "out")
    with open(path, "w") as f:
        json.dump({"kernel": payload("echo" if stdin == "pipe" else "halt"), "timeout": 60}, f)
    with open(out, "wb") as to, open(path if stdin == "file" else os.devnull) as source:
        pipe = subprocess.PIPE if stdin == "pipe" else source
        p = subprocess.Popen([UMBRA_VM, "--config", path], env=real.env, stdin=pipe, stdout=to, stderr=subprocess.PIPE)
        _, err = p.communicate(b"abq" if stdin == "pipe" else None, timeout=HANG)
    with open(out, "rb") as f:
        text = f.read()
    assert b"[warn]" not in err
    if stdin == "pipe":
        assert (p.returncode, text, err) == (0, b"ready\r\nab", b"")
    else:
        assert (p.returncode, text) == (123, b"halting\r\n")

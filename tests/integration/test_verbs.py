# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmctl's verbs, end to end with a machine's process that only plays one."""
import json
import os
import pty
import signal
import subprocess
import time

import pytest
from conftest import HANG, VMCTL, alive, wait_until


@pytest.mark.parametrize("cmdline, status, told", [
    ("fake=poweroff", 0, ""),
    ("fake=reset", 126, "reset"),
    ("fake=crash", 125, "triple fault"),
    ("fake=halted", 123, "halted"),
    ("fake=debug-exit code=3", 3, "debug-exit with status 3"),
    ("fake=debug-exit code=1", 1, "debug-exit with status 1"),
    ("fake=engine-error", 127, "engine-error"),
    ("fake=die", 127, "killed by signal 6"),
    ("fake=refuse", 65, "is not a kernel"),
])
def test_run_status(host, cmdline, status, told):
    r = host.run(cmdline)
    assert r.returncode == status
    assert told in r.stderr.decode()
    if not told:
        assert r.stderr == b""
    if status != 65 and "die" not in cmdline:
        assert r.stdout == b"fake: hello\r\n"
    assert json.loads(host.vmctl("list", "--json").stdout) == []


def test_run_crash_shows_registers(host):
    text = host.run("fake=crash").stderr.decode()
    assert "rip 0x0000000000100000" in text and "0x100000: ud2" in text


def test_run_json_tells_reason_on_stderr(host):
    r = host.run("fake=debug-exit code=3", "--json")
    end = json.loads(r.stderr)
    assert (end["reason"], end["code"], end["status"]) == ("debug-exit", 3, 3)
    assert r.stdout == b"fake: hello\r\n"


def test_run_is_byte_exact(host):
    r = host.run("fake=poweroff flood=20480000")
    assert r.returncode == 0
    assert r.stdout == bytes(range(256)) * 80000 + b"fake: hello\r\n"


def test_run_stats(host):
    path = os.path.join(host.folder, "stats.json")
    host.run("fake=poweroff", "--stats", path)
    with open(path) as f:
        assert json.load(f) == {"console_in": 0}
    assert host.run("fake=poweroff", "--stats", "-").stdout.endswith(b'{\n  "console_in":0\n}\n')


def test_run_forwards_stdin(host):
    r = host.run("", input=b"some words\nquit\n", stdin=None)
    assert r.returncode == 0
    assert b"some words\nquit\n" in r.stdout


def test_run_stdin_from_a_file_and_closed(host):
    with open(host.kernel, "rb") as f:
        r = host.run("fake=poweroff", stdin=f)
    assert r.returncode == 0
    p = subprocess.run(["sh", "-c", f"{VMCTL} run --kernel {host.kernel} --cmdline fake=poweroff <&-"],
                       env=host.env, capture_output=True, timeout=HANG)
    assert (p.returncode, p.stdout) == (0, b"fake: hello\r\n")


def test_run_timeout(host):
    start = time.monotonic()
    r = host.run("fake=echo", "--timeout", "0.5")
    assert r.returncode == 124 and b"timeout" in r.stderr
    assert time.monotonic() - start > 0.4


def test_run_timeout_of_a_spinning_process(host):
    r = host.run("fake=spin", "--timeout", "1")
    assert r.returncode == 124 and b"was killed" in r.stderr


def test_run_on_a_terminal(host):
    leader, follower = pty.openpty()
    p = subprocess.Popen([VMCTL, "run", "--kernel", host.kernel], env=host.env, stdin=follower,
                         stdout=follower, stderr=subprocess.PIPE, start_new_session=True,
                         preexec_fn=lambda: __import__("fcntl").ioctl(0, 0x540E, 0))
    text = b""
    while b"hello" not in text:
        text += os.read(leader, 4096)
    os.write(leader, b"\x03typed")
    while b"\x03typed" not in text:
        text += os.read(leader, 4096)
    os.write(leader, b"\x1d")
    assert p.wait(HANG) == 122
    assert b"stopped" in p.stderr.read()


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_run_interrupted_ends_the_machine(host, sig):
    p = host.spawn("run", "--kernel", host.kernel, "--name", "tied")
    assert p.stdout.readline() == b"fake: hello\r\n"
    pid = json.loads(host.vmctl("show", "tied", "--json").stdout)["pid"]
    p.send_signal(sig)
    assert p.wait(HANG) == (-9 if sig == signal.SIGKILL else 128 + sig)
    wait_until(lambda: not alive(pid))
    wait_until(lambda: json.loads(host.vmctl("list", "--json").stdout) == [])
    p.stdin.close()


@pytest.mark.parametrize("args, word", [
    (["--memroy", "5"], "--memory"),
    (["--cpus", "0"], "1 to 64"),
    (["--cpus", "many"], "cpus"),
    (["--memory", "1000000T"], "memory"),
    (["--engine", "sofft"], '"soft"'),
    (["--mmu", "none"], "auto, shadow, tdp"),
    (["--timeout", "-1"], "timeout"),
    (["--timeout", "nan"], "timeout"),
    (["--name", "../x"], "name"),
    (["--kernel"], "wants a value"),
    (["surplus"], "surplus"),
    (["--config", "/nonexistent"], "/nonexistent"),
])
def test_bad_usage(host, args, word):
    r = host.vmctl("run", "--kernel", host.kernel, *args)
    assert r.returncode in (64, 1) and word in r.stderr.decode()


def test_bad_verbs_and_files(host):
    r = host.vmctl("strat", "x")
    assert r.returncode == 64 and b'"start"' in r.stderr
    assert host.vmctl().returncode == 64
    assert host.vmctl("run").returncode == 64
    r = host.vmctl("run", "--kernel", "/nonexistent")
    assert r.returncode == 65 and b"/nonexistent" in r.stderr
    assert host.vmctl("run", "--kernel", "/tmp").returncode == 65
    assert host.vmctl("run", "--kernel", host.kernel, "--initrd", "/dev/zero").returncode == 65
    assert json.loads(host.vmctl("list", "--json").stdout) == []


@pytest.mark.parametrize("text, word", [
    ('{"kernel": "k", "memroy": 5}', "memory"),
    ('{"kernel": 5}', "kernel"),
    ('{"kernel": "k", "cpus": "2"}', "cpus"),
    ('{"kernel": "k", "cpus": 2.5}', "cpus"),
    ('{"kernel": "k", "cpus": null}', "cpus"),
    ('{"kernel": "k", "module": ["a", 5]}', "module"),
    ('[]', "object"),
    ('{"kernel": ', "ends too early"),
    ('{"kernel": "k"} x', "not JSON"),
    ('', "not JSON"),
])
def test_bad_config(host, text, word):
    path = os.path.join(host.folder, "machine.json")
    with open(path, "w") as f:
        f.write(text)
    r = host.vmctl("run", "--config", path)
    assert r.returncode == 64 and word in r.stderr.decode()


def test_config_file_and_options(host):
    path = os.path.join(host.folder, "machine.json")
    with open(path, "w") as f:
        json.dump({"kernel": "kernel", "memory": "64M", "cpus": 2, "module": ["kernel"]}, f)
    r = host.vmctl("create", "--config", path, "--cpus", "3", "--name", "a", cwd=host.folder)
    assert (r.returncode, r.stdout) == (0, b"a\n")
    d = json.loads(host.vmctl("show", "a", "--json").stdout)["definition"]
    assert d["kernel"] == host.kernel and d["module"] == [host.kernel]
    assert d["memory"] == "64M" and d["cpus"] == 3


def test_life_of_a_machine(host):
    assert host.vmctl("create", "--kernel", host.kernel, "--name", "a").returncode == 0
    assert host.vmctl("create", "--kernel", host.kernel, "--name", "a").returncode == 1
    assert b"stopped" in host.vmctl("list").stdout
    assert host.vmctl("pause", "a").returncode == 1
    assert host.vmctl("start", "a").returncode == 0
    assert b"already" in host.vmctl("start", "a").stderr or host.vmctl("start", "a").returncode == 1
    for verb, state in (("pause", "paused"), ("resume", "running")):
        assert host.vmctl(verb, "a").returncode == 0
        wait_until(lambda: json.loads(host.vmctl("show", "a", "--json").stdout)["state"] == state)
    assert host.vmctl("reset", "a").returncode == 0
    wait_until(lambda: b"fake: reset" in host.vmctl("logs", "a").stdout)
    assert b"console_in: 0" in host.vmctl("stats", "a").stdout
    assert host.vmctl("delete", "a").returncode == 1
    assert host.vmctl("stop", "a").returncode == 0
    r = host.vmctl("wait", "a", "--json")
    assert r.returncode == 0 and json.loads(r.stdout)["reason"] == "poweroff"
    assert b"poweroff" in host.vmctl("list").stdout
    assert b"fake-vm: a" in host.vmctl("logs", "a", "--log", "vm").stdout
    assert host.vmctl("delete", "a").returncode == 0
    r = host.vmctl("show", "a")
    assert r.returncode == 1 and b"no machine" in r.stderr
    assert os.listdir(os.path.join(host.state, "machines")) == []
    assert os.listdir(os.path.join(host.state, "logs")) == []
    assert os.listdir(os.path.join(host.runtime, "vm")) == []


def test_stop_by_force(host):
    host.define("a", "deaf")
    host.vmctl("start", "a")
    host.vmctl("stop", "a")
    assert json.loads(host.vmctl("show", "a", "--json").stdout)["state"] == "running"
    assert host.vmctl("wait", "a", "--timeout", "0.2").returncode == 124
    assert host.vmctl("stop", "-f", "a").returncode == 0
    assert host.vmctl("wait", "a").returncode == 122
    host.vmctl("start", "a")
    assert host.vmctl("stop", "a", "--timeout", "0.3").returncode == 0
    assert host.vmctl("wait", "a", "--timeout", str(HANG)).returncode == 122


def test_stop_of_a_spinning_process(host):
    host.define("a", "fake=spin")
    host.vmctl("start", "a")
    time.sleep(0.2)
    assert host.vmctl("stop", "-f", "a").returncode == 0
    assert host.vmctl("wait", "a").returncode == 122


def test_console_detaches_and_attaches(host):
    host.define("a")
    host.vmctl("start", "a")
    wait_until(lambda: b"hello" in host.vmctl("logs", "a").stdout)
    first, second = host.spawn("console", "a"), host.spawn("console", "a")
    for console, line in ((first, b"one\n"), (second, b"two\n")):
        console.stdin.write(line)
        console.stdin.flush()
        seen = console.stdout.readline()
        # The second may have been there for the first one's line.
        assert seen == line or (console, seen, console.stdout.readline()) == (second, b"one\n", line)
    assert first.stdout.readline() == b"two\n"
    first.send_signal(signal.SIGTERM)
    assert first.wait(HANG) == 128 + 15
    second.stdin.write(b"quit\n")
    second.stdin.flush()
    assert second.wait(HANG) == 0
    assert host.vmctl("wait", "a").returncode == 0


def test_logs_are_bounded(host):
    host.define("a", "fake=poweroff flood=3000000")
    host.vmctl("start", "a")
    host.vmctl("wait", "a")
    log = host.vmctl("logs", "a").stdout
    assert 500_000 < len(log) <= 1 << 20 and log.endswith(b"fake: hello\r\n")


def test_help_of_every_verb(host):
    for verb in host.vmctl("__complete").stdout.decode().split():
        for form in (["help", verb], [verb, "--help"]):
            r = host.vmctl(*form)
            assert r.returncode == 0 and r.stdout.startswith(f"Usage: vmctl {verb} ".encode())
    assert not os.path.exists(host.runtime), "help needs no umbrad"

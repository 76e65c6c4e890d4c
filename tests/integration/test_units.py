# SPDX-License-Identifier: LGPL-2.1-or-later
"""Machines as services of a real systemd: a user manager in a mount namespace of its own, whose bus umbrad takes
for the system's. (Booted containers are in tests/system.)"""
import contextlib
import glob
import json
import os
import shutil
import signal
import subprocess

import pytest
from conftest import HANG, FAKE_VM, UMBRA_VM, UMBRAD, alive, group_tag, payload, serve, wait_until

SYSTEMD = "/lib/systemd/systemd"
# In control groups of its own, for it takes what is in its own for its children, and ends them: another manager's too.
# In the namespace: /run is empty but for what says that systemd runs.
MANAGER = """
while IFS=: read -r _ kind path; do
	case $kind in
	name=systemd) top=/sys/fs/cgroup/systemd ;;
	"") top=/sys/fs/cgroup/unified; [ -d $top ] || top=/sys/fs/cgroup ;;
	*) continue ;;
	esac
	mkdir "$top$path/umbra-test-$$" && echo $$ > "$top$path/umbra-test-$$/cgroup.procs"
done < /proc/self/cgroup
mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -p -m 700 /run/systemd/system /run/user/0 || exit 1
cd / && exec env -i PATH="$PATH" XDG_RUNTIME_DIR=/run/user/0 HOME="$HOME" """ + SYSTEMD + " --user"
MANAGER_NAME = "org.freedesktop.systemd1"
BUS = "unix:path=/run/user/0/bus"


def inside(manager, *args, **kw):
    return subprocess.run(["nsenter", "-t", str(manager.pid), "-m", "env", "XDG_RUNTIME_DIR=/run/user/0",
                           f"DBUS_SESSION_BUS_ADDRESS={BUS}", *args], capture_output=True, text=True, check=False, **kw)


@pytest.fixture(scope="module")
def manager():
    for program in ("unshare", "nsenter", "dbus-daemon", "systemctl", "busctl"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    if os.getuid() or not os.access(SYSTEMD, os.X_OK):
        pytest.skip("no systemd that could be started here")
    p = subprocess.Popen(["unshare", "-m", "sh", "-c", MANAGER], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                         stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_until(lambda: p.poll() is not None or
                   inside(p, "systemctl", "--user", "is-active", "dbus.socket").returncode == 0, 60)
    except AssertionError:
        pass
    # On the bus it comes when somebody asks for it.
    if p.poll() is not None or inside(p, "busctl", "--user", "call", MANAGER_NAME, "/org/freedesktop/systemd1",
                                        "org.freedesktop.DBus.Peer", "Ping").returncode:
        p.kill()
        p.wait()
        pytest.skip("a user manager cannot be started here")
    yield p
    p.terminate()
    p.wait(HANG)
    for group in glob.glob(f"/sys/fs/cgroup/**/umbra-test-{p.pid}", recursive=True):
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def with_units(folder, vm, manager):
    script = os.path.join(folder, "umbrad")
    with open(script, "w") as f:
        f.write(f'#!/bin/sh\nexec nsenter -t {manager.pid} -m env DBUS_SYSTEM_BUS_ADDRESS={BUS} {UMBRAD} "$@"\n')
    os.chmod(script, 0o755)
    conf = os.path.join(folder, "umbrad.conf")
    with open(conf, "w") as f:
        f.write("[machines]\nunits = always\nrestart_delay = 0.1\nrestart_delay_max = 0.2\n")
    for h in serve(folder, vm):
        h.env["UMBRAD"] = script
        h.env["UMBRA_CONFIG"] = conf
        yield h


@pytest.fixture
def real_units(tmp_path, manager):
    yield from with_units(str(tmp_path), UMBRA_VM, manager)


@pytest.fixture
def units(tmp_path, manager):
    yield from with_units(str(tmp_path), FAKE_VM, manager)


def show(c, name="a"):
    return c.ok("machine.show", name=name)


def loaded(manager, host):
    """Services of this umbrad's machines that systemd knows, dead ones too."""
    out = inside(manager, "systemctl", "--user", "list-units", "--all", "--plain", "--no-legend",
                 f"{group_tag(host)}*.service")
    return [line.split()[0] for line in out.stdout.splitlines()]


def properties(manager, unit, *names):
    out = inside(manager, "systemctl", "--user", "show", unit, "-p", ",".join(names)).stdout
    return dict(line.split("=", 1) for line in out.splitlines())


def test_life(real_units, manager):
    c = real_units.client()
    real_units.define("a", path=payload("ticker"), memory="2M", limit_memory="300M", limit_pids=99)
    m = c.ok("machine.start", name="a")
    unit = m["host"]["unit"]
    assert loaded(manager, real_units) == [unit]
    p = properties(manager, unit, "MainPID", "Slice", "Type", "MemoryMax", "TasksMax", "ActiveState")
    assert p == {"MainPID": str(m["pid"]), "Slice": "umbra.slice", "Type": "exec", "MemoryMax": str(300 << 20),
                 "TasksMax": "99", "ActiveState": "active"}
    # Its descriptors are those that it is to have, and no more than as a child.
    assert sorted(os.listdir(f"/proc/{m['pid']}/fd"), key=int)[:8] == [str(i) for i in range(8)]
    wait_until(lambda: real_units.vmctl("logs", "a").stdout.count(b"\n") > 2)
    c.ok("machine.stop", name="a", force=True)
    wait_until(lambda: show(c)["state"] == "stopped" and not loaded(manager, real_units))
    assert show(c)["exit"]["reason"] == "stopped"


def test_outlives_umbrad(real_units, manager):
    c = real_units.client()
    real_units.define("a", path=payload("ticker"), memory="2M")
    pid = c.ok("machine.start", name="a")["pid"]
    real_units.kill_umbrad()
    assert alive(pid)
    real_units.vmctl("list")
    c = real_units.client()
    wait_until(lambda: show(c)["state"] == "running")
    assert show(c)["pid"] == pid and show(c)["host"]["unit"] == loaded(manager, real_units)[0]


@pytest.mark.parametrize("away", [False, True])
def test_killed(real_units, manager, away):
    """systemd keeps the reason, also for a umbrad that was away."""
    c = real_units.client()
    real_units.define("a", path=payload("ticker"), memory="2M")
    pid = c.ok("machine.start", name="a")["pid"]
    if away:
        real_units.kill_umbrad()
    os.kill(pid, signal.SIGILL)
    wait_until(lambda: not alive(pid))
    if away:
        real_units.vmctl("list")
        c = real_units.client()
    wait_until(lambda: show(c)["state"] == "stopped")
    assert "killed by signal 4" in show(c)["exit"]["message"]
    wait_until(lambda: not loaded(manager, real_units))


def test_restarts(units, manager):
    """The same service, again and again: a dead one is not in the way."""
    c = units.client()
    units.define("a", "fake=die", restart="on-failure")
    c.call("machine.start", name="a")
    wait_until(lambda: show(c).get("restarts", 0) >= 3)
    c.ok("machine.delete", name="a", force=True)
    wait_until(lambda: not loaded(manager, units))


def test_refused(units, manager):
    c = units.client()
    units.define("a", "fake=refuse")
    assert c.error("machine.start", name="a")["data"]["kind"] == "bad-image"
    wait_until(lambda: show(c)["state"] == "stopped" and not loaded(manager, units))


def test_no_program(units, manager):
    units.env["UMBRA_VM"] = "/nonexistent"
    c = units.client()
    units.define("a")
    e = c.error("machine.start", name="a")
    assert e["data"]["kind"] == "vm-failed", e
    assert show(c)["state"] == "stopped"
    wait_until(lambda: not loaded(manager, units))


@pytest.mark.parametrize("point", ["run-done:1", "spawn:1", "reply:1", "run:2", "run-done:2", "tell:1", "tell-done:1"])
def test_umbrad_killed_in_start(units, manager, point):
    units.define("a")
    units.kill_umbrad()
    units.env["UMBRA_FAULT"] = point
    pid = units.pid()
    c = units.client()
    with pytest.raises((AssertionError, OSError)):
        c.ok("machine.start", name="a")
    wait_until(lambda: not alive(pid))
    del units.env["UMBRA_FAULT"]
    units.vmctl("list")
    c = units.client()
    wait_until(lambda: show(c)["state"] in ("stopped", "running"))
    m = show(c)
    wait_until(lambda: len(loaded(manager, units)) == (show(c)["state"] == "running"))
    if m["state"] == "stopped":
        assert show(c)["state"] == "stopped" and "result" in c.call("machine.start", name="a")
    with open(os.path.join(units.runtime, "vm", "a.json")) as f:
        assert json.load(f)["unit"] == loaded(manager, units)[0]


def test_failed_services_are_swept(units, manager):
    """What a umbrad that was killed left: systemd forgets it when the next one comes."""
    units.define("a")
    c = units.client()
    pid = c.ok("machine.start", name="a")["pid"]
    unit = loaded(manager, units)[0]
    units.kill_umbrad()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: properties(manager, unit, "ActiveState")["ActiveState"] == "failed")
    for name in ("a.json", "a.sock", "a.report"):
        os.unlink(os.path.join(units.runtime, "vm", name))
    units.vmctl("list")
    wait_until(lambda: not loaded(manager, units))


def test_host_shuts_down(units, manager):
    """logind tells of it and waits until all machines have stopped, the last started first."""
    script = os.path.join(os.path.dirname(__file__), "fake_logind.py")
    logind = subprocess.Popen(["nsenter", "-t", str(manager.pid), "-m", "/usr/bin/python3", script, BUS],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        shut_down(units, logind)
    finally:
        logind.kill()
        logind.wait()


def shut_down(units, logind):
    if logind.stdout.readline() != "here\n":
        pytest.skip("python3-dbus or python3-gi is not installed")
    c = units.client()
    assert logind.stdout.readline() == "held\n"
    c.ok("events.subscribe", types="state")
    for i in range(3):
        units.define(f"m{i}", start_order=i)
        c.ok("machine.start", name=f"m{i}")
    logind.stdin.write("now\n")
    logind.stdin.flush()
    assert logind.stdout.readline() == "free\n"
    assert logind.wait(HANG) == 0
    assert [m["state"] for m in c.ok("machine.list")["machines"]] == ["stopped"] * 3
    ended = [e["machine"] for e in c.events if e.get("state") == "stopped"]
    assert ended == ["m2", "m1", "m0"]

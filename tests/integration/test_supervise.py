# SPDX-License-Identifier: LGPL-2.1-or-later
"""Machines that die, hang, are started again, start and stop in order, and leave nothing behind."""
import glob
import json
import os
import signal
import subprocess
import time

import pytest
from conftest import HANG, UMBRAD, alive, group_tag, payload, wait_until

LIVES = 500 if os.environ.get("UMBRA_TEST_LONG") == "1" else 20
CONFIG = """[machines]
restart_delay = 0.1
restart_delay_max = 0.4
"""


@pytest.fixture
def quick(host):
    """The fake umbra-vm; restarts come soon."""
    with open(os.path.join(host.folder, "umbrad.conf"), "w") as f:
        f.write(CONFIG)
    host.env["UMBRA_CONFIG"] = f.name
    return host


def show(c, name="a"):
    return c.ok("machine.show", name=name)


def until(c, kind, **members):
    """Read events up to the one of that kind."""
    while True:
        e = c.event()
        if e["type"] == kind and all(e.get(k) == v for k, v in members.items()):
            return e


def follow(host):
    c = host.client()
    c.ok("events.subscribe")
    return c


# Not SIGSEGV: a sanitizer's build catches that.
@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGABRT, signal.SIGILL])
def test_killed(real, sig, capsys):
    """Its death is noticed at once, told with its reason, and no policy means no restart."""
    c = follow(real)
    real.define("a", path=payload("ticker"), memory="2M")
    c.ok("machine.start", name="a")
    pid = show(c)["pid"]
    begin = time.monotonic()
    os.kill(pid, sig)
    e = until(c, "state", state="stopped")
    took = time.monotonic() - begin
    assert e["reason"] == "engine-error"
    assert f"killed by signal {int(sig)}" in show(c)["exit"]["message"]
    assert "restart_at" not in show(c) and show(c)["state"] == "stopped"
    with capsys.disabled():
        print(f"\numbra-vm ended by {sig.name}: noticed after {took * 1000:.1f} ms")


@pytest.mark.parametrize("policy, play, again", [
    ("never", "crash", False), ("on-failure", "crash", True), ("on-failure", "die", True),
    ("on-failure", "halted", True), ("on-failure", "poweroff", False), ("on-failure", "debug-exit code=3", False),
    ("always", "poweroff", True), ("always", "debug-exit code=3", True), ("always", "refuse", False)])
def test_restart_policy(quick, policy, play, again):
    c = follow(quick)
    quick.define("a", f"fake={play}", restart=policy)
    c.call("machine.start", name="a")
    until(c, "state", state="stopped")
    if again:
        assert until(c, "restart")["restarts"] == 1
        until(c, "state", state="starting")
        assert until(c, "restart")["restarts"] == 2
        c.ok("machine.stop", name="a")  # the restart that is due does not come
    m = show(c)
    assert m["state"] == "stopped" and "restart_at" not in m and "restarts" not in m
    assert os.listdir(os.path.join(quick.runtime, "vm")) == []


def test_back_off(quick):
    c = follow(quick)
    quick.define("a", "fake=crash", restart="always")
    c.ok("machine.start", name="a")
    waits = [until(c, "restart")["delay"] for _ in range(5)]
    assert waits == [0.1, 0.2, 0.4, 0.4, 0.4]


def test_back_off_is_forgotten(quick):
    with open(quick.env["UMBRA_CONFIG"], "a") as f:
        f.write("restart_reset = 0\n")
    c = follow(quick)
    quick.define("a", "fake=crash", restart="always")
    c.ok("machine.start", name="a")
    assert [until(c, "restart")["delay"] for _ in range(3)] == [0.1] * 3


@pytest.mark.parametrize("how", [{"force": True}, {}, {"timeout": 0.1}])
def test_asked_end_is_no_reason(quick, how):
    quick.define("a", "deaf" if "timeout" in how else "", restart="always")
    c = follow(quick)
    c.ok("machine.start", name="a")
    c.ok("machine.stop", name="a", **how)
    until(c, "state", state="stopped")
    m = show(c)
    assert "restart_at" not in m and m["exit"]["reason"] in ("stopped", "poweroff")


def test_restart_outlives_umbrad(quick):
    with open(quick.env["UMBRA_CONFIG"], "w") as f:
        f.write("[machines]\nrestart_delay = 3\n")
    c = follow(quick)
    quick.define("a", "fake=crash", restart="on-failure")
    c.ok("machine.start", name="a")
    until(c, "restart")
    due = show(c)["restart_at"]
    quick.kill_umbrad()
    quick.vmctl("list")
    c = follow(quick)
    assert show(c)["restart_at"] == due
    until(c, "state", state="starting")
    assert until(c, "restart")["restarts"] == 2


def test_deleted_before_its_restart(quick):
    c = follow(quick)
    quick.define("a", "fake=crash", restart="always")
    c.ok("machine.start", name="a")
    until(c, "restart")
    c.ok("machine.delete", name="a")
    assert os.listdir(os.path.join(quick.runtime, "vm")) == []


@pytest.mark.parametrize("on_hang", ["report", "kill"])
def test_hang(real, on_hang, capsys):
    """A umbra-vm that stands still is told; killed and started again where that is wanted."""
    c = follow(real)
    real.define("a", path=payload("ticker"), memory="2M", on_hang=on_hang, restart="on-failure")
    c.ok("machine.start", name="a")
    pid = show(c)["pid"]
    until(c, "state", state="running")
    begin = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    assert until(c, "hung")["hung"] is True
    took = time.monotonic() - begin
    if on_hang == "report":
        assert show(c)["hung"] is True and show(c)["state"] == "running"
        os.kill(pid, signal.SIGCONT)
        assert until(c, "hung")["hung"] is False
        assert "hung" not in show(c) and show(c)["pid"] == pid
    else:
        until(c, "restart")
        assert "did not answer in time" in show(c)["exit"]["message"] and not alive(pid)
        until(c, "state", state="running")
        assert show(c)["pid"] != pid
    with capsys.disabled():
        print(f"\na standing umbra-vm ({on_hang}): noticed after {took * 1000:.0f} ms")


def test_spinning_loop(quick):
    """The loop alone: the process looks busy and well."""
    c = follow(quick)
    quick.define("a", "fake=spin", on_hang="kill")
    c.ok("machine.start", name="a")
    until(c, "hung", hung=True)
    assert until(c, "state", state="stopped")["reason"] == "engine-error"


def started(c, n):
    return [until(c, "state", state="starting")["machine"] for _ in range(n)]


def begin_umbrad(host):
    r, w = os.pipe()
    p = subprocess.Popen([UMBRAD, "--ready-fd", str(w)], env=host.env, pass_fds=[w], stdin=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    os.close(w)
    assert os.read(r, 1) == b"1"
    os.close(r)
    return p


def test_autostart_and_shutdown(quick):
    c = quick.client()
    last = c.ok("events.subscribe")["last"]
    for name, order in (("late", 9), ("b", 1), ("a", 1), ("early", 0)):
        quick.define(name, autostart=True, start_order=order)
    quick.define("bad", path="/nonexistent", autostart=True, start_order=2)
    quick.define("not")
    quick.kill_umbrad(signal.SIGTERM)
    os.unlink(os.path.join(quick.runtime, "autostarted"))  # as after the host's start
    p = begin_umbrad(quick)
    c = quick.client()
    c.ok("events.subscribe", since=last)
    assert started(c, 4) == ["early", "a", "b", "late"]
    wait_until(lambda: os.path.exists(os.path.join(quick.runtime, "autostarted")))
    until(c, "state", state="running", machine="late")
    assert show(c, "not")["state"] == show(c, "bad")["state"] == "stopped"
    # A second umbrad starts nothing that somebody has stopped since.
    c.ok("machine.stop", name="early", force=True)
    p.terminate()
    p.wait()
    p = begin_umbrad(quick)
    c = follow(quick)
    wait_until(lambda: show(c, "late")["state"] == "running")
    assert show(c, "early")["state"] == "stopped"
    # And the reverse, with somebody who starts one meanwhile.
    r = subprocess.run([UMBRAD, "--shutdown-machines"], env=quick.env, capture_output=True, timeout=HANG)
    assert r.returncode == 0, r.stderr
    ended = [until(c, "state", state="stopped")["machine"] for _ in range(3)]
    assert ended[0] == "late" and set(ended[1:]) == {"a", "b"}
    assert all(m["state"] == "stopped" for m in c.ok("machine.list")["machines"])
    c.ok("machine.start", name="not")
    p.terminate()
    p.wait()


def test_shutdown_of_deaf_machines(quick):
    """The power button first, then force; nothing is started in between."""
    c = follow(quick)
    quick.define("a", "deaf", restart="always")
    quick.define("b")
    c.ok("machine.start", name="a")
    d = quick.client()
    call = d.request("system.stop_machines", timeout=0.5)
    assert d.error("machine.start", name="b")["data"]["kind"] == "unavailable"
    assert d.answer(call)["result"]["stopped"] == 1
    assert show(c)["state"] == "stopped" and "restart_at" not in show(c)
    assert subprocess.run([UMBRAD, "--shutdown-machines"], env=quick.env, timeout=HANG, check=False).returncode == 0


def test_owner_is_kept(host):
    host.define("a")
    owner = show(host.client())["owner"]
    assert owner == f"unix:{os.getuid()}"
    with open(os.path.join(host.state, "machines", "a.json")) as f:
        assert json.load(f)["owner"] == owner
    host.kill_umbrad()
    host.vmctl("list")
    assert show(host.client())["owner"] == owner


def test_limits(host):
    if os.getuid() or not os.access("/sys/fs/cgroup/pids", os.W_OK):
        pytest.skip("control groups of version 1 cannot be made here")
    c = host.client()
    host.define("a", limit_memory="512M", limit_pids=100, limit_cpus=1.5)
    c.ok("machine.start", name="a")
    m = show(c)
    by = {g.split("/")[4]: g for g in m["host"]["cgroups"]}
    read = {}
    for where, file in (("memory", "memory.limit_in_bytes"), ("pids", "pids.max"), ("cpu", "cpu.cfs_quota_us")):
        with open(os.path.join(by[where], file)) as f:
            read[where] = int(f.read())
        with open(os.path.join(by[where], "cgroup.procs")) as f:
            assert m["pid"] in map(int, f.read().split())
    assert read == {"memory": 512 << 20, "pids": 100, "cpu": 150000}
    assert "missing" not in m["host"]
    c.ok("machine.stop", name="a", force=True)
    assert not [g for g in by.values() if os.path.exists(g)]


def count(host, umbrad):
    """What a life could leave behind."""
    return {
        "descriptors": len(os.listdir(f"/proc/{umbrad}/fd")),
        "processes": len([p for p in filter(str.isdigit, os.listdir("/proc")) if is_ours(p, host)]),
        "groups": len(glob.glob(f"/sys/fs/cgroup/**/{group_tag(host)}*", recursive=True)),
        "sockets": len(glob.glob(os.path.join(host.runtime, "**", "*.sock"), recursive=True)),
        "files": sorted(os.listdir(os.path.join(host.runtime, "vm"))),
        "children": children(umbrad),
    }


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return len(f.read().split())


def is_ours(pid, host):
    try:
        with open(f"/proc/{pid}/cmdline") as c, open(f"/proc/{pid}/environ") as e:
            return c.read().startswith("umbra-vm") and host.runtime in e.read()
    except OSError:
        return False


def rss(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1])


def test_nothing_leaks(real, capsys):
    """Descriptors, processes, groups, sockets and files before and after many lives; each ends in another way."""
    c = real.client()
    umbrad = c.ok("system.version")["pid"]
    ways = [("debug_exit", None), ("triple_fault", None), ("ticker", "stop"), ("ticker", "kill"), ("ticker", "abort")]

    def life(i):
        what, end = ways[i % len(ways)]
        c.ok("machine.create", definition={"name": f"m{i}", "kernel": payload(what), "memory": "2M"})
        c.ok("machine.start", name=f"m{i}")
        if end == "stop":
            c.ok("machine.stop", name=f"m{i}", force=True)
        elif end:
            os.kill(show(c, f"m{i}")["pid"], signal.SIGKILL if end == "kill" else signal.SIGABRT)
        c.ok("machine.wait", name=f"m{i}")
        c.ok("machine.delete", name=f"m{i}")

    for i in range(2 * len(ways)):
        life(i)
    before, size = count(real, umbrad), rss(umbrad)
    for i in range(LIVES):
        life(i)
    wait_until(lambda: count(real, umbrad) == before)
    assert before["processes"] == before["children"] == 0 and before["files"] == []
    with capsys.disabled():
        print(f"\n{LIVES} machine lives, before and after: {before}; umbrad's RSS {size} -> {rss(umbrad)} KiB")

# SPDX-License-Identifier: LGPL-2.1-or-later
"""machine.set_engine where it cannot be: told, and the machine goes on where it was; a failure at every step of it."""
import os

import pytest

from conftest import UMBRA_VM, payload, serve, wait_until
from test_engine_choice import HARDWARE, LONG, needs_kvm


def begin(host, what="ticker", **more):
    host.define("a", path=payload(what), memory="16M", **more)
    assert host.vmctl("start", "a").returncode == 0
    wait_until(lambda: host.vmctl("logs", "a").stdout)


def goes_on(host, engine):
    """It ticks, and on that engine."""
    assert host.client().ok("machine.set_engine", name="a")["engine"] == engine
    said = len(host.vmctl("logs", "a").stdout)
    wait_until(lambda: len(host.vmctl("logs", "a").stdout) > said)


def move(host, engine, **more):
    return host.client().call("machine.set_engine", name="a", engine=engine, **more)


def refused(host, engine, kind, word, **more):
    answer = move(host, engine, **more)
    assert answer["error"]["data"]["kind"] == kind and word in answer["error"]["message"], answer


def test_soft_stays(real):
    """The definition does not allow the other; nor is the same engine a move."""
    begin(real, engine="soft")
    refused(real, "kvm", "denied", "\"soft\"", anyway=True)
    r = move(real, "soft")["result"]
    assert (r["engine"], r["was"], r["differences"], r["cpuid"]) == ("soft", "soft", [], "")
    goes_on(real, "soft")


def test_no_machine(real):
    assert move(real, "soft")["error"]["data"]["kind"] == "not-found"
    begin(real, engine="soft")
    assert real.vmctl("stop", "--force", "a").returncode == 0
    assert move(real, "soft")["error"]["data"]["kind"] == "invalid-state"
    assert real.client().call("machine.set_engine", name="a", engine="qemu")["error"]["data"]["kind"] == "invalid-params"


@needs_kvm
def test_both_ways_and_paused(real_kvm):
    begin(real_kvm, engine="kvm", cpu="common")
    for engine in ("soft", "kvm") * 2:
        assert move(real_kvm, engine, anyway=True)["result"]["engine"] == engine
        goes_on(real_kvm, engine)
    assert real_kvm.vmctl("pause", "a").returncode == 0
    for engine in ("soft", "kvm", "soft"):
        assert move(real_kvm, engine, anyway=True)["result"]["engine"] == engine
    assert real_kvm.client().ok("machine.show", name="a")["state"] == "paused"
    assert real_kvm.vmctl("resume", "a").returncode == 0
    goes_on(real_kvm, "soft")
    shown = real_kvm.client().ok("machine.show", name="a")
    assert shown["engine"] == "soft" and "set_engine" in shown["engine_why"]


@needs_kvm
def test_another_processor_is_refused(real_kvm):
    """A machine that shows all that ours can is not to wake up on less."""
    begin(real_kvm, engine="kvm" if HARDWARE else "auto", cpu=None if HARDWARE else "-sse3")
    if HARDWARE:
        pytest.skip("what KVM shows here, our processor can show too")
    refused(real_kvm, "kvm", "not-supported", "CPUID shows other bits")
    goes_on(real_kvm, "soft")
    r = move(real_kvm, "kvm", anyway=True)["result"]
    assert "CPUID shows other bits" in r["cpuid"]
    goes_on(real_kvm, "kvm")


@needs_kvm
def test_a_debugger_holds_it(real_kvm):
    begin(real_kvm, engine="kvm", cpu="common")
    client = real_kvm.client()
    client.ok("machine.gdb", name="a")
    refused(real_kvm, "soft", "invalid-state", "debugger", anyway=True)
    for fd in client.fds:
        os.close(fd)
    wait_until(lambda: "result" in move(real_kvm, "soft", anyway=True))
    goes_on(real_kvm, "soft")


def with_env(folder, **env):
    """A host whose machines have this in their environment."""
    os.mkdir(folder)
    hosts = serve(folder, UMBRA_VM, kvm=True)
    host = next(hosts)
    host.env.update(env)
    return host, hosts


def end(hosts):
    for _ in hosts:
        pass


@needs_kvm
def test_each_request_fails(tmp_path):
    """From soft to kvm and back, with one call to the kernel after the other refused."""
    if HARDWARE:
        pytest.skip("engine auto is kvm at once here, and its calls are not to be counted")
    log = str(tmp_path / "calls")
    host, hosts = with_env(str(tmp_path / "count"), UMBRA_KVM_LOG=log)
    begin(host, engine="auto", sandbox="off")
    count = []
    for step in (None, "kvm"):
        if step:
            assert "result" in move(host, step, anyway=True)
        with open(log, encoding="utf-8") as f:
            count.append(len(f.read().split()))
    end(hosts)
    # What runs by itself afterwards counts too: the last are not of the change.
    calls = range(count[0] + 1, count[1] + 1, 1 if LONG else max(1, (count[1] - count[0]) // 12))
    failures = 0
    for n in calls:
        host, hosts = with_env(str(tmp_path / str(n)), UMBRA_KVM_FAIL=f"{n}:EBUSY")
        begin(host, engine="auto")
        answer = move(host, "kvm", anyway=True)
        if "error" in answer:
            failures += 1
            assert "busy" in answer["error"]["message"], answer
            goes_on(host, "soft")
        end(hosts)
    assert failures >= len(calls) // 2

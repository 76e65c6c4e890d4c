# SPDX-License-Identifier: LGPL-2.1-or-later
"""Events and jobs over JSON-RPC: what is told to whom, long calls, cancelling, a new umbrad."""
import json
import os
import signal

import pytest

from conftest import alive, wait_until


def of_type(client, *types):
    return [e for e in client.events if e["type"] in types]


def test_long_calls_are_jobs(host):
    c = host.client()
    host.define("a", "fake=echo")
    c.ok("events.subscribe", types="job")
    started = c.ok("machine.start", name="a", wait=False)
    assert started["method"] == "machine.start" and started["state"] == "running"
    assert started["machine"] == "a" and started["owner"].startswith("unix:")
    done = c.ok("job.wait", id=started["id"])
    assert done["state"] == "done" and done["result"]["state"] == "running"
    assert done["progress"] == 1 and done["ended"] >= done["started"]
    assert [(e["job"], e["state"]) for e in of_type(c, "job")] == [
        (started["id"], "running"), (started["id"], "done")]
    assert c.ok("job.show", id=started["id"]) == done
    # Who waits gets the answer itself, and it is a job all the same.
    c.ok("machine.stop", name="a", force=True)
    jobs = c.ok("job.list")["jobs"]
    assert [j["method"] for j in jobs] == ["machine.start", "machine.stop"]


def test_what_fails_at_once_is_no_job(host):
    c = host.client()
    for wait in (False, True):
        assert c.error("machine.start", name="none", wait=wait)["data"]["kind"] == "not-found"
    host.define("a", "fake=echo")
    assert c.error("machine.start", name="a", wait="no")["data"]["kind"] == "invalid-params"
    assert c.error("machine.stop", name="a", wait=False)["data"]["kind"] == "invalid-state"
    assert c.ok("job.list")["jobs"] == []
    # What takes no time and is not waited for is a job that is done.
    job = c.ok("machine.delete", name="a", wait=False)
    assert job["state"] == "done" and c.ok("job.show", id=job["id"])["state"] == "done"


def test_a_job_that_fails(host):
    c = host.client()
    host.define("a", "fake=refuse")
    job = c.ok("machine.start", name="a", wait=False)
    done = c.ok("job.wait", id=job["id"])
    assert done["state"] == "failed" and done["error"]["data"]["kind"] == "bad-image"
    assert "result" not in done


def test_cancel_goes_ahead_of_what_waits(host):
    """job.cancel is served though the connection has all the calls in flight that it may have."""
    c = host.client()
    host.define("a", "fake=echo deaf")
    c.ok("machine.start", name="a")
    job = c.ok("machine.wait", name="a", wait=False)
    waiting = 0
    while True:
        c.request("machine.wait", name="a")
        probe = c.request("system.version")
        answer = c.answer(probe)
        if "error" in answer:
            assert answer["error"]["data"]["kind"] == "limit"
            break
        waiting += 1
        assert waiting < 10000
    c.ok("job.cancel", id=job["id"])
    assert c.ok("job.show", id=job["id"])["state"] == "cancelled"
    assert c.error("job.cancel", id=job["id"])["data"]["kind"] == "invalid-state"


def test_waiting_caller_is_told_of_the_cancel(host):
    c, d = host.client(), host.client()
    host.define("a", "fake=echo")
    c.ok("machine.start", name="a")
    number = c.request("machine.wait", name="a")
    wait_until(lambda: any(j["method"] == "machine.wait" for j in d.ok("job.list")["jobs"]))
    job = [j for j in d.ok("job.list")["jobs"] if j["method"] == "machine.wait"][0]
    d.ok("job.cancel", id=job["id"])
    assert c.answer(number)["error"]["data"]["kind"] == "cancelled"


def test_a_client_that_leaves(host):
    """What changes a machine goes on without it, what only looks does not."""
    c, d = host.client(), host.client()
    host.define("a", "fake=echo")
    d.ok("machine.start", name="a")
    d.request("machine.wait", name="a")
    wait_until(lambda: any(j["method"] == "machine.wait" for j in c.ok("job.list")["jobs"]))
    d.close()
    host.clients.remove(d)
    wait_until(lambda: [j["state"] for j in c.ok("job.list")["jobs"]
                        if j["method"] == "machine.wait"] == ["cancelled"])
    e = host.client()
    e.request("machine.stop", name="a", force=True)
    e.close()
    host.clients.remove(e)
    wait_until(lambda: c.ok("machine.show", name="a")["state"] == "stopped")


@pytest.mark.parametrize("method, params, kind", [
    ("job.show", {"id": 1}, "not-found"),
    ("job.wait", {"id": 1}, "not-found"),
    ("job.cancel", {"id": 1}, "not-found"),
    ("job.show", {}, "invalid-params"),
    ("job.show", {"id": 0}, "invalid-params"),
    ("job.show", {"id": "1"}, "invalid-params"),
    ("job.cancel", {"id": 1, "all": True}, "invalid-params"),
    ("events.subscribe", {"types": "state,jobs"}, "invalid-params"),
    ("events.subscribe", {"types": 5}, "invalid-params"),
    ("events.subscribe", {"since": -1}, "invalid-params"),
])
def test_bad_parameters(host, method, params, kind):
    assert host.client().error(method, **params)["data"]["kind"] == kind


def test_job_wait_times_out(host):
    c = host.client()
    host.define("a", "fake=echo")
    c.ok("machine.start", name="a")
    job = c.ok("machine.wait", name="a", wait=False)
    assert c.error("job.wait", id=job["id"], timeout=0.05)["data"]["kind"] == "timeout"
    c.ok("machine.stop", name="a", force=True)
    assert c.ok("job.wait", id=job["id"])["state"] == "done"


def test_events_by_kind(host):
    c = host.client()
    c.ok("events.subscribe", types="created,deleted")
    host.define("a", "fake=poweroff")
    c.ok("machine.start", name="a")
    c.ok("machine.wait", name="a")
    c.ok("machine.delete", name="a")
    c.ok("system.version")
    assert [(e["type"], e["machine"]) for e in c.events] == [("created", "a"), ("deleted", "a")]
    error = c.error("events.subscribe", types="creatd")
    assert error["data"]["details"]["field"] == "types" and '"created"' in error["message"]


def told(client, **params):
    """What is replayed."""
    answer = client.ok("events.subscribe", **params)
    client.ok("system.version")
    events, client.events = client.events, []
    return answer, events


def test_replay_over_umbrads(host):
    """Events outlive the umbrad that told them, and what happened while there was none is told."""
    c = host.client()
    host.define("a", "fake=echo")
    host.define("b", "fake=echo")
    first = c.ok("events.subscribe")["last"]
    job = c.ok("machine.start", name="a", wait=False)["id"]
    c.ok("job.wait", id=job)
    pid = c.ok("machine.start", name="b")["pid"]
    c.ok("machine.wait", name="b", wait=False)
    c.ok("system.version")
    heard, last = c.events, c.events[-1]["seq"]
    host.kill_umbrad(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid))
    host.vmctl("list")
    d = host.client()
    wait_until(lambda: {d.ok("machine.show", name=n)["state"] for n in "ab"} == {"running", "stopped"})
    again, events = told(d, since=first)
    assert again["lost"] is False
    assert [e for e in events if e["seq"] <= last] == heard
    missed = [e for e in events if e["seq"] > last]
    assert [e["seq"] for e in events] == list(range(first + 1, first + 1 + len(events))), "without a gap"
    assert [(e["state"], e["reason"]) for e in missed if e["type"] == "state" and e["machine"] == "b"] == [
        ("stopped", "engine-error")]
    assert [e["state"] for e in missed if e["type"] == "state" and e["machine"] == "a"] == ["running"]
    assert [(e["method"], e["state"]) for e in missed if e["type"] == "job"] == [("machine.wait", "lost")]
    d.ok("machine.stop", name="a", force=True)
    jobs = d.ok("job.list")["jobs"]
    assert jobs and all(j["id"] > job for j in jobs)
    # And over an umbrad that ended in peace.
    host.kill_umbrad(signal.SIGTERM)
    host.vmctl("list")
    assert told(host.client(), since=first)[1][: len(events)] == events


def test_what_was_done_and_not_told(host):
    """umbrad dies between doing and telling."""
    host.define("a")
    host.define("b")
    for point, call, expected in (
            ("definition-done:1", ("machine.create", {"definition": {"name": "c", "kernel": host.kernel}}),
             ("created", "c")),
            ("forget-done:1", ("machine.delete", {"name": "a"}), ("deleted", "a")),
            ("forget-done:1", ("machine.delete", {"name": "b"}), ("deleted", "b")),
            ("definition-done:1", ("machine.create", {"definition": {"name": "a", "kernel": host.kernel}}),
             ("created", "a"))):
        host.kill_umbrad()
        host.env["UMBRA_FAULT"] = point
        pid = host.pid()
        c = host.client()
        last = c.ok("events.subscribe")["last"]
        with pytest.raises((AssertionError, OSError)):
            c.ok(call[0], **call[1])
        wait_until(lambda p=pid: not alive(p))
        del host.env["UMBRA_FAULT"]
        host.vmctl("list")
        answer, events = told(host.client(), since=last, types="created,deleted")
        assert answer["lost"] is False
        assert [(e["type"], e["machine"]) for e in events] == [expected]


def test_file_of_events(host):
    """It is bounded; what is no line of ours ends the replay there, and nothing else."""
    path = os.path.join(host.runtime, "events")
    c = host.client()
    host.define("a")
    first = c.ok("events.subscribe")["last"]
    with open(path, "rb") as f:
        good = f.read()
    assert good.count(b"\n") == 1
    for bad in (b'{"owner": "", "event": {"seq": 5', b"\0" * 5000, b"nonsense\n" * 10, b'{"owner": 5, "event": {}}\n',
                b'{"owner": "", "event": {"seq": -1, "type": "state"}}\n[' + b"[" * 100000,
                b'{"owner": "", "event": {"seq": 7, "type": "unheard-of"}}\n'):
        host.kill_umbrad()
        with open(path, "wb") as f:
            f.write(good + bad)
        host.vmctl("list")
        d = host.client()
        answer, events = told(d, since=first - 1)
        assert [(e["type"], e["seq"]) for e in events] == [("created", first)]
        assert answer["lost"] is False
        with open(path, "rb") as f:
            assert f.read() == good
    # Numbers that went back, or left some out: what was before is not told as if it were all.
    host.kill_umbrad()
    with open(path, "ab") as f:
        f.write(good.replace(str(first).encode(), str(first + 5).encode()))
    host.vmctl("list")
    answer, events = told(host.client(), since=first - 1)
    assert answer["lost"] is True and [e["seq"] for e in events] == [first + 5]


def test_vmctl_events(host):
    host.client()
    host.define("a", "fake=poweroff")
    host.define("b", "fake=poweroff")
    host.vmctl("start", "a")
    host.vmctl("wait", "a")
    out = host.vmctl("events", "--json", "--type", "created,state", "--machine", "a")
    assert out.returncode == 0 and out.stderr == b""
    events = [json.loads(line) for line in out.stdout.splitlines()]
    assert [e.get("state", e["type"]) for e in events][:2] == ["created", "starting"]
    assert events[-1]["state"] == "stopped" and {e["machine"] for e in events} == {"a"}
    since = events[-2]["seq"]
    out = host.vmctl("events", "--since", str(since), "--type", "state", "--machine", "a")
    assert out.stdout.count(b"\n") == 1 and b"state=stopped" in out.stdout


def test_vmctl_follows_over_umbrads(host):
    host.client()
    host.define("a", "fake=echo")
    p = host.spawn("events", "--follow", "--json", "--type", "created,state")
    host.vmctl("start", "a")
    # It may have subscribed only after that: go on until it has seen one.
    seen, names = [], iter(range(1000))

    def hears():
        host.define(f"x{next(names)}")
        line = p.stdout.readline()
        seen.append(json.loads(line))
        return True
    try:
        assert hears()
        host.kill_umbrad(signal.SIGKILL)
        host.clients[0].close()
        del host.clients[:]
        host.vmctl("create", "--name", "later", "--kernel", host.kernel)
        while seen[-1]["machine"] != "later" or seen[-1]["type"] != "created":
            seen.append(json.loads(p.stdout.readline()))
        numbers = [e["seq"] for e in seen]
        assert numbers == sorted(set(numbers))
    finally:
        p.kill()
        p.communicate()

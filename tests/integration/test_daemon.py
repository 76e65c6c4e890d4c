# SPDX-License-Identifier: LGPL-2.1-or-later
"""umbrad: auto-start, events, re-adoption, and clients that mean no good."""
import json
import os
import signal
import socket
import subprocess
import threading
import time

import pytest
from conftest import HANG, UMBRAD, Client, alive, machine_processes, wait_until


def open_fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_two_vmctl_start_one_umbrad(host):
    several = [host.spawn("list") for _ in range(6)]
    assert [p.wait(HANG) for p in several] == [0] * 6
    with open(os.path.join(host.state, "umbrad.log")) as f:
        assert f.read().count("serves") == 1


def test_second_umbrad_gives_up(host):
    host.vmctl("list")
    r = subprocess.run([UMBRAD], env=host.env, capture_output=True, timeout=HANG)
    assert r.returncode == 1 and b"another umbrad" in r.stderr
    assert host.vmctl("list").returncode == 0


def test_no_umbrad_to_be_found(host):
    host.env["UMBRAD"] = "/nonexistent/umbrad"
    assert host.run().returncode == 69


def test_idle_exit(host):
    p = subprocess.Popen([UMBRAD, "--idle-exit", "1"], env=host.env, stderr=subprocess.PIPE)
    assert p.wait(15) == 0
    p.stderr.close()


def test_other_peoples_folder_is_refused(host):
    os.makedirs(host.runtime, mode=0o777)
    os.chmod(host.runtime, 0o777)
    r = subprocess.run([UMBRAD], env=host.env, capture_output=True, timeout=HANG)
    assert r.returncode == 1 and b"not a folder of ours alone" in r.stderr


def test_long_runtime_path(host):
    host.env["UMBRA_RUNTIME_DIR"] = host.runtime = os.path.join(host.folder, "x" * 150, "run")
    assert host.run().returncode == 0
    pid = json.loads(host.vmctl("version", "--json").stdout)["umbrad"]["pid"]
    os.kill(pid, signal.SIGTERM)


def test_definitions_survive(host):
    host.define("a", memory="64M", cpus=4, timeout=2.5)
    host.define("b.json")
    host.kill_umbrad()
    with open(os.path.join(host.state, "machines", "broken.json"), "w") as f:
        f.write('{"definition": {"kernel": 5}}')
    host.socket_gone = True
    machines = json.loads(host.vmctl("list", "--json").stdout)
    assert sorted(m["name"] for m in machines) == ["a", "b.json"]
    a = next(m for m in machines if m["name"] == "a")["definition"]
    assert (a["memory"], a["cpus"], a["timeout"]) == ("64M", 4, 2.5)
    assert os.path.exists(os.path.join(host.state, "machines", "broken.json"))


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM])
def test_machines_outlive_umbrad(host, sig):
    host.define("a")
    host.vmctl("start", "a")
    before = json.loads(host.vmctl("show", "a", "--json").stdout)
    first = host.kill_umbrad(sig)
    assert alive(before["pid"])
    after = json.loads(host.vmctl("show", "a", "--json").stdout)
    assert host.pid() != first
    assert after["pid"] == before["pid"] and abs(after["started"] - before["started"]) < 0.01
    wait_until(lambda: json.loads(host.vmctl("show", "a", "--json").stdout)["state"] == "running")
    console = host.spawn("console", "a")
    time.sleep(0.3)
    console.stdin.write(b"quit\n")
    console.stdin.flush()
    assert console.wait(HANG) == 0
    assert host.vmctl("wait", "a").returncode == 0


def test_umbrad_killed_again_and_again(host):
    """Whatever it was doing: no process without a machine, no machine lost, nothing half-written."""
    host.define("keep")
    host.vmctl("start", "keep")
    keep = json.loads(host.vmctl("show", "keep", "--json").stdout)["pid"]
    for i in range(12):
        host.vmctl("create", "--kernel", host.kernel, "--name", f"m{i}")
        several = [host.spawn("start", f"m{i}"), host.spawn("delete", "-f", f"m{i - 1}"),
                   host.spawn("run", "--kernel", host.kernel, "--cmdline", "fake=poweroff")]
        pid = host.pid()
        time.sleep(0.002 * i)
        os.kill(pid, signal.SIGKILL)
        for p in several:
            p.communicate(timeout=HANG)
        wait_until(lambda: not alive(pid))
    host.kill_umbrad()
    machines = json.loads(host.vmctl("list", "--json").stdout)
    known = {m["pid"] for m in machines if "pid" in m}
    assert keep in known
    assert machine_processes(host) == known
    for folder in (os.path.join(host.runtime, "vm"), os.path.join(host.state, "machines")):
        assert not [f for f in os.listdir(folder) if f.endswith(".tmp")]


def test_end_while_umbrad_was_away(host):
    host.define("a")
    host.vmctl("start", "a")
    console = host.spawn("console", "a")
    time.sleep(0.3)
    host.kill_umbrad()
    console.stdin.write(b"quit\n")
    console.stdin.flush()
    assert console.wait(HANG) == 0
    r = host.vmctl("wait", "a", "--json")
    assert r.returncode == 0 and json.loads(r.stdout)["reason"] == "poweroff"


def test_vm_killed_while_umbrad_was_away(host):
    host.define("a")
    host.vmctl("start", "a")
    pid = json.loads(host.vmctl("show", "a", "--json").stdout)["pid"]
    host.kill_umbrad()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid))
    r = host.vmctl("wait", "a")
    assert r.returncode == 127 and b"without a report" in r.stderr


def test_run_outlives_umbrad(host):
    p = host.spawn("run", "--kernel", host.kernel, "--name", "a")
    assert p.stdout.readline() == b"fake: hello\r\n"
    host.kill_umbrad()
    p.stdin.write(b"still here\n")
    p.stdin.flush()
    assert p.stdout.readline() == b"still here\n"
    time.sleep(0.5)
    p.stdin.write(b"quit\n")
    p.stdin.flush()
    assert p.wait(HANG) == 0


def test_vm_killed_is_noticed_at_once(host):
    host.define("a")
    host.vmctl("start", "a")
    pid = json.loads(host.vmctl("show", "a", "--json").stdout)["pid"]
    waiter = host.spawn("wait", "a")
    wait_until(lambda: any(j["method"] == "machine.wait" for j in host.client().ok("job.list")["jobs"]))
    os.kill(pid, signal.SIGKILL)
    assert waiter.wait(HANG) == 127
    assert b"killed by signal 9" in waiter.stderr.read()


def test_events_and_replay(host):
    c = host.client()
    first = c.ok("events.subscribe", types="created,deleted,state")
    c.ok("machine.create", definition={"name": "a", "kernel": host.kernel})
    c.ok("machine.create", definition={"name": "b", "kernel": host.kernel})
    c.ok("machine.start", name="a")
    c.ok("machine.stop", name="a", force=True)
    c.ok("system.version")
    seen = [c.event() for _ in range(len(c.events))]
    assert [(e["type"], e["machine"], e.get("state")) for e in seen] == [
        ("created", "a", None), ("created", "b", None), ("state", "a", "starting"),
        ("state", "a", "running"), ("state", "a", "stopping"), ("state", "a", "stopped")]
    numbers = [e["seq"] for e in seen]
    assert numbers == sorted(set(numbers)) and numbers[0] == first["last"] + 1
    assert seen[-1]["reason"] == "stopped"
    d = host.client()
    assert d.ok("events.subscribe", since=seen[1]["seq"], machine="a", types="state")["lost"] is False
    d.ok("system.version")
    assert d.events == [e for e in seen[2:] if e["machine"] == "a"]
    assert host.client().ok("events.subscribe", since=5)["lost"] is True
    d.ok("events.unsubscribe")
    c.ok("machine.delete", name="b")
    assert d.ok("system.version") and len(d.events) == 4


@pytest.mark.parametrize("method, params, field", [
    ("machine.create", {}, "definition"),
    ("machine.create", {"definition": 5}, "definition"),
    ("machine.create", {"definition": {"name": "a"}}, "definition.kernel"),
    ("machine.create", {"definition": {"kernel": "k", "cpu": 1}}, "definition.cpu"),
    ("machine.create", {"definition": {"kernel": "k", "cpus": 65}}, "definition.cpus"),
    ("machine.create", {"definition": {"kernel": "k", "name": "a/b"}}, "definition.name"),
    ("machine.create", {"definition": {"kernel": "k\0k"}}, "definition.kernel"),
    ("machine.start", {}, "name"),
    ("machine.start", {"name": 5}, "name"),
    ("machine.start", {"name": "a", "nmae": 1}, "nmae"),
    ("machine.stop", {"name": "a", "force": "yes"}, "force"),
    ("system.version", {"x": 1}, "x"),
])
def test_parameters_are_checked(host, method, params, field):
    e = host.client().error(method, **params)
    assert e["code"] == -32602 and e["data"]["kind"] == "invalid-params"
    assert e["data"]["details"]["field"] == field


def test_errors_have_kinds(host):
    c = host.client()
    c.ok("machine.create", definition={"name": "alpha", "kernel": host.kernel})
    e = c.error("machine.create", definition={"name": "alpha", "kernel": host.kernel})
    assert e["data"]["kind"] == "exists" and e["data"]["machine"] == "alpha"
    e = c.error("machine.show", name="alpah")
    assert e["data"]["kind"] == "not-found" and '"alpha"' in e["message"]
    assert c.error("machine.stop", name="alpha")["data"]["kind"] == "invalid-state"
    e = c.error("machine.strat", name="alpha")
    assert e["code"] == -32601 and '"machine.start"' in e["message"]


def test_json_rpc_to_the_letter(host):
    c = host.client()
    for text, code in (('{"jsonrpc": "2.0", "id": {}, "method": "x"}', -32600), ("{}", -32600),
                       ("[]", -32600), ('{"jsonrpc": "2.0", "id": 1, "method": 5}', -32600),
                       ('{"jsonrpc": "1.0", "id": 1, "method": "system.version"}', -32600),
                       ('{"jsonrpc":"2.0","id":1,"method":"system.version","params":[]}', -32602)):
        c.send(text.encode())
        assert c.receive()["error"]["code"] == code, text
    c.send(b'{"jsonrpc": "2.0", "method": "machine.list"}')
    c.send(b'{"jsonrpc": "2.0", "id": "w", "method": "system.version"}')
    assert c.receive()["id"] == "w"
    c.send(b'[{"jsonrpc":"2.0","id":1,"method":"machine.list"}, 5,'
           b'{"jsonrpc":"2.0","method":"machine.list"},'
           b'{"jsonrpc":"2.0","id":2,"method":"nothing"}]')
    batch = c.receive()
    assert len(batch) == 3
    assert {m["id"]: ("result" in m) for m in batch} == {1: True, None: False, 2: False}
    doc = c.ok("rpc.discover")
    names = [m["name"] for m in doc["methods"]]
    assert doc["openrpc"] and len(set(names)) == len(names)
    # Those of umbrad itself, and those that it passes on to umbra-vm.
    assert {"machine.create", "machine.pause", "mmu.walk", "dirty.get"} <= set(names)


def test_console_descriptor(host):
    c = host.client()
    c.ok("machine.create", definition={"name": "a", "kernel": host.kernel})
    assert c.ok("machine.start", name="a", console=True)["fds"] == 1
    with socket.socket(fileno=c.fds.pop()) as console:
        console.settimeout(HANG)
        assert console.recv(100) == b"fake: hello\r\n"
        console.send(b"abc")
        assert console.recv(100) == b"abc"
    assert c.ok("machine.console", name="a")["fds"] == 1
    os.close(c.fds.pop())


def served(host):
    """An honest client is. (How quickly, test_access measures.)"""
    c = Client(host.socket)
    c.ok("system.version")
    c.close()
    return True


@pytest.mark.parametrize("text", [b"nonsense", b"{]", b"\0\0\0", b'{"a": tru}', b'"text"', b"5",
                                  b"[" * 1000, b'{"jsonrpc": "\xff\xfe"}'])
def test_bad_json(host, text):
    c = host.client()
    c.send(text)
    assert c.receive()["error"]["code"] == -32700
    assert c.receive() is None
    assert served(host)


def test_half_a_message_and_silence(host):
    half, silent = host.client(), host.client()
    half.send(b'{"jsonrpc": "2.0", "id": 1, "method": "system.ver')
    time.sleep(0.2)
    assert served(host)
    half.send(b'sion"}')
    assert half.receive()["result"]["api"] == 1
    silent.close()
    assert served(host)


def test_flood(host):
    c = host.client()
    text = b'{"jsonrpc": "2.0", "id": 1, "method": "' + b"a" * (10 << 20)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        c.send(text)
    e = c.receive()["error"]
    assert e["data"]["kind"] == "invalid-request" and "4194304" in e["message"]
    assert served(host)


def test_large_but_allowed(host):
    c = host.client()
    e = c.call("machine.create", definition={"kernel": "k", "cmdline": "a" * ((4 << 20) - 1000)})
    assert e["error"]["data"]["kind"] == "invalid-params"


def test_client_that_never_reads(host):
    c = host.client()
    c.sock.setblocking(False)
    request = b'{"jsonrpc": "2.0", "id": 1, "method": "rpc.discover"}' * 100
    end = time.monotonic() + 20
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while time.monotonic() < end:
            try:
                c.sock.send(request)
            except BlockingIOError:
                time.sleep(0.005)
    assert served(host)


def test_too_many_calls(host):
    host.define("a")
    host.vmctl("start", "a")
    c = host.client()
    for _ in range(64):
        c.request("machine.wait", name="a")
    assert c.error("system.version")["data"]["kind"] == "limit"
    c.close()
    assert served(host)


def test_descriptors_that_nobody_wants(host):
    c = host.client()
    pid = c.ok("system.version")["pid"]
    before = open_fds(pid)
    r, w = os.pipe()
    for _ in range(3):
        d = host.client()
        for _ in range(6):
            try:
                socket.send_fds(d.sock, [b" "], [r, w])
            except OSError:
                break
        d.close()
    assert served(host)
    wait_until(lambda: open_fds(pid) <= before)
    os.close(r)
    os.close(w)
    assert served(host)


def test_nothing_leaks(host):
    host.define("a", "fake=poweroff")
    host.run()
    c = host.client()
    pid = c.ok("system.version")["pid"]
    before = open_fds(pid)
    for _ in range(30):
        assert c.ok("machine.start", name="a")
        c.ok("machine.wait", name="a")
    for _ in range(5):
        host.run("fake=die")
        host.run("fake=refuse")
    wait_until(lambda: open_fds(pid) == before)
    assert os.listdir(os.path.join(host.runtime, "vm")) == []


def test_many_clients(host):
    host.vmctl("list")
    clients = [Client(host.socket) for _ in range(300)]
    threads = [threading.Thread(target=c.ok, args=("machine.list",)) for c in clients]
    for t in threads:
        t.start()
    for t in threads:
        t.join(20)
        assert not t.is_alive()
    for c in clients:
        c.close()

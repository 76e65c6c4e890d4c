# SPDX-License-Identifier: LGPL-2.1-or-later
"""JSON-RPC 2.0 to the letter, and with a client that nobody here wrote."""
import json
import os
import subprocess

import npm
import pytest
from access import Authority, Guarded
from conftest import HANG, wait_until

PARSE, INVALID, NO_METHOD, BAD_PARAMS = -32700, -32600, -32601, -32602


def ask(client, text):
    client.send(text.encode())
    return client.receive()


def code(msg):
    assert msg["jsonrpc"] == "2.0" and set(msg) == {"jsonrpc", "id", "error"}
    assert isinstance(msg["error"]["message"], str) and isinstance(msg["error"]["code"], int)
    return msg["error"]["code"], msg["id"]


@pytest.mark.parametrize("id_", ['"a"', "1", "-7", "1.5", "null", '""', "9007199254740993"])
def test_ids_come_back_as_they_were(host, id_):
    msg = ask(host.client(), '{"jsonrpc": "2.0", "method": "machine.list", "id": %s}' % id_)
    assert msg == {"jsonrpc": "2.0", "id": json.loads(id_), "result": {"machines": []}}


@pytest.mark.parametrize("id_", ["NaN", "-Infinity", "1e999"])
def test_ids_that_are_no_numbers(host, id_):
    msg = ask(host.client(), '{"jsonrpc": "2.0", "method": "machine.list", "id": %s}' % id_)
    assert code(msg) == (INVALID, None)


@pytest.mark.parametrize("text, expected", [
    # The examples of the specification, section 7, with methods of ours.
    ('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', (NO_METHOD, "1")),
    ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', (INVALID, None)),
    ("{}", (INVALID, None)),
    ("[]", (INVALID, None)),
    # Version, id and parameters.
    ('{"method": "machine.list", "id": 1}', (INVALID, 1)),
    ('{"jsonrpc": "1.0", "method": "machine.list", "id": 1}', (INVALID, 1)),
    ('{"jsonrpc": 2.0, "method": "machine.list", "id": 1}', (INVALID, 1)),
    ('{"jsonrpc": "2.0", "method": "machine.list", "id": {}}', (INVALID, None)),
    ('{"jsonrpc": "2.0", "method": "machine.list", "id": true}', (INVALID, None)),
    ('{"jsonrpc": "2.0", "id": 1}', (INVALID, 1)),
    ('{"jsonrpc": "2.0", "method": "machine.show", "params": ["a"], "id": 1}', (BAD_PARAMS, 1)),
    ('{"jsonrpc": "2.0", "method": "machine.show", "params": {"nmae": "a"}, "id": 1}', (BAD_PARAMS, 1)),
    ('{"jsonrpc": "2.0", "method": "machine.show", "params": {"name": 1}, "id": 1}', (BAD_PARAMS, 1)),
    ('{"jsonrpc": "2.0", "method": "machine.show", "id": 1}', (BAD_PARAMS, 1)),
])
def test_errors_have_the_specifications_codes(host, text, expected):
    client = host.client()
    assert code(ask(client, text)) == expected
    client.ok("machine.list")  # it goes on


@pytest.mark.parametrize("text", [
    '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', "[1,", "nonsense", "\x00",
    '{"jsonrpc": "2.0", "method": "machine.list", "id": 1,}',
])
def test_what_is_no_json_ends_the_connection(host, text):
    client = host.client()
    client.send(text.encode() + b"}")
    assert code(client.receive()) == (PARSE, None)
    assert client.receive() is None


def test_too_large(host):
    client = host.client()
    try:
        client.send(b'{"jsonrpc": "2.0", "method": "machine.list", "id": 1, "params": {"x": "' + b"x" * (5 << 20))
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert code(client.receive()) == (INVALID, None)
    try:
        assert client.receive() is None
    except ConnectionResetError:
        pass  # what it had still to read is lost, and the kernel says so
    # Almost as large is no matter.
    client = host.client()
    text = '{"jsonrpc": "2.0", "method": "machine.list", "id": 1, "params": {"x": "%s"}}' % ("x" * (4 << 20) )
    client.send(text[:100].encode() + text[300:].encode())
    assert code(client.receive()) == (BAD_PARAMS, 1)


def test_batches(host):
    client = host.client()
    msg = ask(client, "[1, 2]")
    assert [code(m) for m in msg] == [(INVALID, None)] * 2
    # Mixed, with notifications, which nothing answers.
    msg = ask(client, json.dumps([
        {"jsonrpc": "2.0", "method": "system.version", "id": "1"},
        {"jsonrpc": "2.0", "method": "machine.list"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "machine.show", "params": {"name": "x"}, "id": "9"}]))
    assert sorted((str(m["id"]), m.get("error", {}).get("code")) for m in msg) == [
        ("1", None), ("5", NO_METHOD), ("9", 1006), ("None", INVALID)]
    client.send([{"jsonrpc": "2.0", "method": "machine.list"}, {"jsonrpc": "2.0", "method": "nothing"}])
    client.send({"jsonrpc": "2.0", "method": "machine.show", "params": {"name": "x"}})
    assert client.ok("machine.list") == {"machines": []}  # and this was the next answer


def test_refused_before_any_effect(host):
    client = host.client()
    for bad in ({"definition": {"name": "a", "kernel": host.kernel}, "transint": True},
                {"definition": {"name": "a", "kernel": host.kernel, "memroy": "1G"}},
                {"definition": {"name": "a", "kernel": host.kernel, "memory": "1X"}},
                {"definition": {"name": "a", "kernel": host.kernel}, "transient": 1},
                {"definition": {"name": "a", "kernel": host.kernel}, "transient": None}):
        error = client.error("machine.create", **bad)
        assert error["code"] == BAD_PARAMS and error["data"]["details"]["field"]
    assert client.ok("machine.list") == {"machines": []}


def test_errors_tell_the_machine(host):
    client = host.client()
    host.define("a")
    error = client.error("machine.pause", name="a")
    assert error["code"] == 1008
    assert error["data"] == {"kind": "invalid-state", "retryable": False, "machine": "a"}
    assert client.error("machine.show", name="nobody")["data"]["machine"] == "nobody"


def test_out_of_band(host):
    """However many calls are in flight on a connection, jobs are listed and cancelled on it."""
    client = host.client()
    host.define("a", "fake=echo")
    client.ok("machine.start", name="a")
    waits = [client.request("machine.wait", name="a") for _ in range(64)]
    assert client.error("system.version")["data"] == {"kind": "limit", "retryable": True}
    jobs = [j for j in client.ok("job.list")["jobs"] if j["state"] == "running"]
    assert len(jobs) == 64
    for job in jobs:
        client.ok("job.cancel", id=job["id"])
    # Their answers came before those of the cancelling calls, or with them: nothing is in flight.
    client.ok("system.version")
    assert len(waits) == 64
    client.ok("machine.stop", name="a", force=True)


def test_gone_clients_leave_nothing(host):
    watcher = host.client()
    host.define("a", "fake=echo")
    watcher.ok("machine.start", name="a")
    client = host.client()
    for _ in range(20):
        client.request("machine.wait", name="a")
    client.ok("system.hello")
    client.close()
    wait_until(lambda: not [j for j in watcher.ok("job.list")["jobs"]
                            if j["state"] == "running" and j["method"] == "machine.wait"])
    watcher.ok("machine.stop", name="a", force=True)


def test_greeting(host):
    client = host.client()
    hello = client.ok("system.hello")
    assert hello["api"] == 1 and hello["level"] == "admin" and hello["name"] == f"unix:{os.geteuid()}"
    assert "jobs" in hello["capabilities"]
    # It is asked for: a stock client must not find a message that it did not ask for.
    assert client.text == b""


@pytest.fixture(scope="module")
def jayson():
    return npm.install("jsonrpc")


def life(jayson, settings, kernel):
    done = subprocess.run(["node", "life.js", json.dumps(settings), kernel], cwd=jayson, capture_output=True,
                          timeout=HANG, check=False)
    assert done.returncode == 0, done.stderr.decode()
    said = json.loads(done.stdout)
    told = said["told"]
    kinds = [t["error"]["data"]["kind"] if t.get("error") else None for t in told]
    assert kinds == [None, None, "exists", None, None, None, None, "not-found", "invalid-params", "method-not-found",
                     None, None]
    assert told[4]["result"]["state"] == "running" and told[6]["result"]["state"] == "stopped"
    assert told[11]["result"] == {"machines": []}
    assert len(said["batch"]) == 2 and said["batch"][1]["error"]["data"]["kind"] == "not-found"
    return told[0]["result"]["name"]


def test_a_stock_client_on_the_unix_socket(host, jayson):
    host.client()
    assert life(jayson, {"path": host.socket}, host.kernel) == f"unix:{os.geteuid()}"


def test_a_stock_client_over_tls(host, jayson, tmp_path):
    authority = Authority(str(tmp_path / "ca"))
    authority.sign("localhost", san="DNS:localhost,IP:127.0.0.1")
    cert, key = authority.sign("alice")
    g = Guarded(host, authority)
    g.write()
    g.start()
    assert life(jayson, {"port": g.port, "ca": authority.path("ca.pem"), "cert": cert, "key": key},
                host.kernel) == "tls:alice"

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may do what: every identity, every method of the table, every owner, over every transport."""
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse

import pytest
from access import Authority, Guarded, OtherUsersClient, TlsClient
from conftest import HANG, Client, wait_until

LEVELS = ["none", "read", "operate", "admin"]
OTHER = 4242  # a user who has nothing to do with us
GROUP = 4243
STRANGER = "unix:9999"
LONG = os.environ.get("UMBRA_TEST_LONG") == "1"
# Who is tried over REST too when time is short: one of each kind.
SHORT = ("own user", "certificate of bob", "token, read", "token and certificate")


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    a = Authority(str(tmp_path_factory.mktemp("tls") / "ca"))
    a.sign("localhost", san="DNS:localhost,IP:127.0.0.1")
    for cn in ("alice", "bob", "carol", "dave"):
        a.sign(cn)
    a.sign("alice", "-startdate", "20200101000000Z", "-enddate", "20200102000000Z", name="expired")
    a.sign("alice", name="revoked")
    return a


@pytest.fixture
def guarded(host, authority):
    g = Guarded(host, authority)
    g.secrets = {}
    for level in LEVELS[1:]:
        g.secrets[level] = g.token(f"robot-{level}", level)
    g.write()
    g.start()
    g.admin = host.client()
    g.host.clients.append(g.admin)
    return g


class Rest:
    """Calls methods of the table by the addresses that the OpenAPI document gives them."""

    def __init__(self, g, who=None, secret=None, path=None):
        self.g, self.path, self.secret = g, path, secret
        self.context = self.connection = None
        if not path:
            self.context = ssl.create_default_context(cafile=g.authority.path("ca.pem"))
            if who:
                self.context.load_cert_chain(g.authority.path(who + ".pem"), g.authority.path(who + ".key"))
        self.routes = {}
        for address, verbs in json.loads(self.get("/api/v1/openapi.json")[1])["paths"].items():
            for verb, operation in verbs.items():
                if isinstance(operation, dict) and "operationId" in operation:
                    self.routes[operation["operationId"]] = (verb.upper(), address)

    def send(self, verb, address, body=None):
        headers = {"Authorization": "Bearer " + self.secret} if self.secret else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if not self.connection or not self.connection.sock:
            self.connect()
        self.connection.request(verb, address, None if body is None else json.dumps(body), headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def connect(self):
        if not self.path:
            self.connection = http.client.HTTPSConnection("localhost", self.g.https, context=self.context)
            return
        self.connection = http.client.HTTPConnection("localhost")
        self.connection.sock = socket.socket(socket.AF_UNIX)
        self.connection.sock.connect(self.path)

    def get(self, address):
        return self.send("GET", address)

    def kind(self, method, params):
        """The error's kind, or None."""
        verb, address = self.routes[method]
        params = dict(params)
        prefix = "" if address.startswith("/api/v1") else "/api/v1"
        for key in list(params):
            if "{" + key + "}" in address:
                address = address.replace("{" + key + "}", urllib.parse.quote(str(params.pop(key))))
        if verb in ("GET", "DELETE"):
            query = urllib.parse.urlencode({k: json.dumps(v) if not isinstance(v, str) else v
                                            for k, v in params.items()})
            status, text = self.send(verb, prefix + address + ("?" + query if query else ""))
        else:
            status, text = self.send(verb, prefix + address, params)
        return json.loads(text)["kind"] if status >= 400 else None


class Rpc:
    def __init__(self, client):
        self.client = client

    def kind(self, method, params):
        msg = self.client.call(method, **params)
        return msg["error"]["data"]["kind"] if "error" in msg else None


class Who:
    def __init__(self, label, level, name, rpc=None, rest=None, all_=None):
        self.label, self.level, self.name = label, LEVELS.index(level), name
        self.sees_all = level == "admin" if all_ is None else all_
        self.rpc, self.rest = rpc, rest


def value_of(schema, name):
    """Something that a parameter takes."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0]
    return {"boolean": False, "integer": max(1, schema.get("minimum", 1)), "number": schema.get("minimum", 0),
            "array": [], "object": {}, "string": "0x0" if "pattern" in schema else "x"}.get(kind, "x")


def params_of(method, machine, host):
    p = {}
    for param in method["params"]:
        if not param.get("required"):
            continue
        name = param["name"]
        if name == "name":
            p[name] = machine
        elif name == "definition":
            p[name] = {"name": "made", "kernel": host.kernel}
        else:
            p[name] = value_of(param["schema"], name)
    return p


def about_a_machine(method):
    return any(p["name"] == "name" and p.get("required") for p in method["params"])


def everybody(g):
    """Every identity there is, with how to connect as it by each transport that it can use."""
    h, uid = g.host, os.geteuid()
    ro = os.path.join(h.runtime, "umbrad-ro.sock")
    web = os.path.join(h.runtime, "umbrad-http.sock")
    own = f"unix:{uid}"
    yield Who("own user", "admin", own, lambda: g.admin, lambda: Rest(g, path=web))
    yield Who("own user, read-only socket", "read", own, lambda: h_client(h, ro), all_=True)
    for cn, level in (("alice", "admin"), ("bob", "operate"), ("carol", "read"), ("dave", "none")):
        rest = (lambda who: lambda: Rest(g, who=who))(cn) if level != "none" else None
        yield Who(f"certificate of {cn}", level, f"tls:{cn}", (lambda who: lambda: g.tls(who))(cn), rest)
    for level, secret in g.secrets.items():
        yield Who(f"token, {level}", level, f"token:robot-{level}",
                  (lambda secret: lambda: g.token_client(secret))(secret),
                  (lambda secret: lambda: Rest(g, secret=secret))(secret))
    # The token counts, not the certificate beside it.
    secret = g.secrets["read"]
    yield Who("token and certificate", "read", "token:robot-read", lambda: g.token_client(secret, "alice"),
              lambda: Rest(g, who="alice", secret=secret))
    yield Who("no certificate, no token", "none", "tls", g.tls)


def h_client(host, path):
    client = Client(path)
    host.clients.append(client)
    return client


def try_everything(g, who, transport, methods, machines):
    """All of the table by one identity over one transport; how many calls."""
    n = 0
    for method in methods:
        need = LEVELS.index(method["x-access"])
        targets = {None: None}
        if about_a_machine(method):
            targets = {owner: machines[owner] for owner in (who.name, STRANGER, "tls:alice") if owner in machines}
        for owner, machine in targets.items():
            params = params_of(method, machine, g.host)
            if need > who.level:
                expected = "denied"
            elif machine and not who.sees_all and owner != who.name:
                expected = "not-found"
            else:
                # It may: shown by an error that comes after access, so that nothing happens.
                params["no-such-field"] = "1"
                expected = "invalid-params"
            kind = transport.kind(method["name"], params)
            assert kind == expected, f"{who.label}: {method['name']} of {owner}: {kind}, not {expected}"
            n += 1
    return n


def test_matrix(guarded):
    g = guarded
    methods = g.admin.ok("rpc.discover")["methods"]
    people = list(everybody(g))
    machines = {}
    for i, owner in enumerate(sorted({who.name for who in people} | {STRANGER})):
        machines[owner] = f"m{i}"
        g.admin.ok("machine.create", owner=owner, definition={"name": f"m{i}", "kernel": g.host.kernel})
    before = g.admin.ok("machine.list")
    calls = {"rpc": 0, "rest": 0}
    for who in people:
        calls["rpc"] += try_everything(g, who, Rpc(who.rpc()), methods, machines)
        if who.rest and (LONG or who.label in SHORT):
            calls["rest"] += try_everything(g, who, who.rest(), methods, machines)
        assert g.admin.ok("machine.list") == before, who.label
    print(f"{len(people)} identities, {len(methods)} methods, {len(machines)} owners: {calls}")


def test_what_is_listed(guarded):
    g = guarded
    g.admin.ok("machine.create", owner="tls:bob", definition={"name": "bobs", "kernel": g.host.kernel})
    g.admin.ok("machine.create", owner="tls:carol", definition={"name": "carols", "kernel": g.host.kernel})
    g.admin.ok("machine.start", name="carols")
    bob, carol = g.tls("bob"), g.tls("carol")
    for client, name in ((bob, "bobs"), (carol, "carols")):
        assert [m["name"] for m in client.ok("machine.list")["machines"]] == [name]
        # Nothing is disclosed by the nearest name either.
        assert "did you mean" not in client.error("machine.show", name="carolz" if name == "bobs" else "bobz")["message"]
        client.ok("events.subscribe", since=0)
        client.ok("system.hello")
        assert {e["machine"] for e in client.events} == {name}
    bob.ok("machine.start", name="bobs")
    jobs = bob.ok("job.list")["jobs"]
    assert [j["machine"] for j in jobs] == ["bobs"] and jobs[0]["owner"] == "tls:bob"
    assert carol.ok("job.list")["jobs"] == []
    for method in ("job.show", "job.wait"):
        assert carol.error(method, id=jobs[0]["id"])["data"]["kind"] == "not-found"
    assert {m["name"] for m in g.admin.ok("machine.list")["machines"]} == {"bobs", "carols"}
    # An operator does what it likes with its own.
    bob.ok("machine.stop", name="bobs", force=True)
    assert bob.ok("machine.show", name="bobs")["state"] == "stopped"
    g.admin.ok("machine.delete", name="carols", force=True)


def test_read_only_socket_refuses_every_change(guarded):
    g = guarded
    client = h_client(g.host, os.path.join(g.host.runtime, "umbrad-ro.sock"))
    assert client.ok("system.hello")["level"] == "read"
    g.host.define("a")
    refused = 0
    for method in client.ok("rpc.discover")["methods"]:
        if LEVELS.index(method["x-access"]) > LEVELS.index("read"):
            error = client.error(method["name"], **params_of(method, "a", g.host))
            assert error["data"]["kind"] == "denied", method["name"]
            refused += 1
    assert refused > 10
    # A better token does not open it either.
    assert client.ok("system.authenticate", token=g.secrets["admin"])["level"] == "read"
    assert client.error("machine.delete", name="a")["data"]["kind"] == "denied"


def refused(make):
    """Whether the connection is refused: amid the handshake, or (TLS 1.3) right behind it."""
    try:
        client = make()
        return client.call("system.hello") is None
    except (OSError, AssertionError):
        return True


def test_certificates(guarded, tmp_path):
    g = guarded
    a = g.authority
    g.write(tokens=False)
    g.host.kill_umbrad(signal.SIGTERM)
    g.start()
    assert g.tls("alice").ok("system.hello") == g.tls("alice").ok("system.hello")
    assert g.tls("alice").ok("system.hello")["name"] == "tls:alice"
    assert refused(g.tls), "a connection without a certificate"
    assert refused(lambda: g.tls("expired"))
    stranger = Authority(str(tmp_path / "other"))
    cert, key = stranger.sign("alice")
    assert refused(lambda: TlsClient(g.port, a.path("ca.pem"), cert, key))
    # One for servers is none for clients? It has no such restriction here; its name counts.
    assert g.tls("dave").error("machine.list")["data"]["kind"] == "denied"
    # Valid until the list of revoked ones is read again.
    assert g.tls("revoked").ok("machine.list") == {"machines": []}
    a.revoke("revoked")
    g.copy_crl()
    os.kill(g.host.pid(), signal.SIGHUP)
    wait_until(lambda: refused(lambda: g.tls("revoked")))
    assert g.tls("alice").ok("machine.list") == {"machines": []}
    # The other way round: a client does not talk to who has no certificate of its authority.
    with pytest.raises(ssl.SSLError):
        TlsClient(g.port, stranger.path("ca.pem"), a.path("alice.pem"), a.path("alice.key"))


def test_bad_reload_changes_nothing(guarded):
    g = guarded
    with open(g.crl, "w") as f:
        f.write("no list\n")
    pid = g.host.pid()
    os.kill(pid, signal.SIGHUP)
    log = os.path.join(g.host.state, "umbrad.log")
    wait_until(lambda: "all stays as it was" in open(log).read())
    assert g.tls("alice").ok("system.hello")["level"] == "admin"
    assert g.host.pid() == pid


def test_tokens(guarded):
    g = guarded
    client = g.tls()
    assert client.ok("system.hello")["level"] == "none"
    assert client.error("machine.list")["data"]["kind"] == "denied"
    assert client.error("system.authenticate", token="umbra_" + 64 * "0")["data"]["kind"] == "denied"
    assert client.ok("system.authenticate", token=g.secrets["operate"]) == {"level": "operate",
                                                                           "name": "token:robot-operate"}
    assert client.ok("machine.list") == {"machines": []}
    # A revoked one is none at once, without a reload.
    assert g.host.vmctl("token", "revoke", "robot-operate", "--file", g.tokens).returncode == 0
    assert g.tls().error("system.authenticate", token=g.secrets["operate"])["data"]["kind"] == "denied"
    assert g.token("late", "read")
    # Guessing ends the connection.
    client = g.tls()
    for _ in range(3):
        client.call("system.authenticate", token="umbra_" + 64 * "f")
    assert client.receive() is None
    # A file that is broken lets nobody in.
    with open(g.tokens, "a") as f:
        f.write("nonsense\n")
    assert g.tls().error("system.authenticate", token=g.secrets["admin"])["data"]["kind"] == "denied"


def closed(client):
    """Whether nothing comes any more but the end."""
    try:
        while (msg := client.receive()) is not None:
            assert msg.get("method") == "event", msg
    except ConnectionResetError:
        pass
    return True


def stream(g, who=None, secret=None):
    """Events over REST: the answer, of which the beginning has come."""
    rest = Rest(g, who=who, secret=secret)
    rest.connect()
    rest.connection.request("GET", "/api/v1/events", headers={"Authorization": "Bearer " + secret} if secret else {})
    answer = rest.connection.getresponse()
    assert answer.status == 200 and answer.readline() == b"retry: 1000\n"
    return answer


def cut_off(events):
    """Whether a stream ends amid nothing, as one does that nobody closes."""
    with pytest.raises(http.client.IncompleteRead) as e:
        events.read()
    return b"data:" not in e.value.partial


def test_token_taken_back(guarded):
    """Who is connected by it is cut off: at its next call, or when it does nothing but listen."""
    g = guarded
    secret = g.secrets["operate"]
    caller, listener, other = g.token_client(secret), g.token_client(secret), g.token_client(g.secrets["read"])
    listener.ok("events.subscribe")
    events, others = stream(g, secret=secret), stream(g, secret=g.secrets["read"])
    rest = Rest(g, secret=secret)
    assert rest.get("/api/v1/machines")[0] == 200
    assert g.host.vmctl("token", "revoke", "robot-operate", "--file", g.tokens).returncode == 0
    caller.send({"jsonrpc": "2.0", "id": 7, "method": "machine.list"})
    assert caller.receive()["error"]["data"]["kind"] == "denied"
    assert caller.receive() is None
    assert rest.get("/api/v1/machines")[0] == 401
    assert closed(listener)
    assert cut_off(events)
    # Another of the same name is another one; and who has nothing to do with it is not disturbed.
    g.token("robot-operate", "operate")
    assert g.tls().error("system.authenticate", token=secret)["data"]["kind"] == "denied"
    assert other.ok("machine.list") == {"machines": []}
    g.admin.ok("machine.create", owner="token:robot-read", definition={"name": "a", "kernel": g.host.kernel})
    while (line := others.readline()) != b"event: created\n":
        assert line


def reloaded(g):
    log = os.path.join(g.host.state, "umbrad.log")
    with open(log) as f:
        before = f.read().count("has been read again")
    os.kill(g.host.pid(), signal.SIGHUP)

    def again():
        with open(log) as f:
            return f.read().count("has been read again") > before

    wait_until(again)


def test_certificate_taken_back(guarded):
    g = guarded
    g.authority.sign("bob", name="lost")
    lost, bob = g.tls("lost"), g.tls("bob")
    for client in lost, bob:
        client.ok("events.subscribe")
    events = stream(g, who="lost")
    rest, bobs = Rest(g, who="lost"), Rest(g, who="bob")
    sockets = [r.connection.sock for r in (rest, bobs)]
    reloaded(g)  # with the list as it was, nothing happens
    assert lost.ok("machine.list") == bob.ok("machine.list") == {"machines": []}
    assert rest.get("/api/v1/machines")[0] == 200
    g.authority.revoke("lost")
    g.copy_crl()
    reloaded(g)
    assert closed(lost)
    assert cut_off(events)
    assert [r.connection.sock for r in (rest, bobs)] == sockets, "the same connections"
    assert rest.get("/api/v1/machines")[0] == 401
    assert bobs.get("/api/v1/machines")[0] == 200
    assert bob.ok("machine.list") == {"machines": []}


def test_level_changed(guarded):
    """Less: the connection ends. More: it has that at once."""
    g = guarded
    clients = {cn: g.tls(cn) for cn in ("alice", "bob", "carol", "dave")}
    robot = g.token_client(g.secrets["read"])
    with open(g.config) as f:
        text = f.read()
    text = text.replace("admin_certs = alice", "admin_certs = dave").replace("operate_certs = bob", "operate_certs = carol")
    with open(g.config, "w") as f:
        f.write(text)
    reloaded(g)
    assert closed(clients["alice"]) and closed(clients["bob"])
    assert clients["carol"].ok("system.hello")["level"] == "operate"
    assert clients["dave"].ok("system.hello")["level"] == "admin"
    assert clients["dave"].ok("machine.list") == {"machines": []}
    assert robot.ok("system.hello")["level"] == "read"
    assert g.tls("bob").ok("system.hello")["level"] == "none"
    assert g.admin.ok("system.hello")["level"] == "admin"


def test_rest_without_a_name(guarded):
    g = guarded
    bare = ssl.create_default_context(cafile=g.authority.path("ca.pem"))
    for headers, status in (({}, 401), ({"Authorization": "Bearer umbra_" + 64 * "0"}, 401),
                            ({"Authorization": "Basic YTpi"}, 401),
                            ({"Authorization": "Bearer " + g.secrets["read"]}, 200)):
        connection = http.client.HTTPSConnection("localhost", g.https, context=bare)
        connection.request("GET", "/api/v1/machines", headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status, headers
        connection.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_other_users(guarded):
    """Users and groups of this host, as the kernel names them."""
    g = guarded
    with open("/etc/group") as f:
        groups = {line.split(":")[0]: int(line.split(":")[2]) for line in f if line.count(":") >= 3}
    some = [name for name in ("games", "news", "proxy") if name in groups]
    if len(some) < 3:
        pytest.skip("the host lacks the groups that this test borrows")
    g.write(f"read_groups = {some[0]}", f"operate_groups = {some[1]}", f"admin_groups = {some[2]} no-such-group")
    g.host.kill_umbrad(signal.SIGTERM)
    g.start()
    os.chmod(g.host.runtime, 0o755)
    os.chmod(g.host.socket, 0o666)
    admin = g.host.client()
    admin.ok("machine.create", owner=f"unix:{OTHER}", definition={"name": "his", "kernel": g.host.kernel})
    admin.ok("machine.create", definition={"name": "ours", "kernel": g.host.kernel})
    methods = admin.ok("rpc.discover")["methods"]
    machines = {f"unix:{OTHER}": "his", f"unix:{os.geteuid()}": "ours"}
    n = 0
    for level, gids in (("none", [GROUP]), ("read", [GROUP, groups[some[0]]]), ("operate", [groups[some[1]]]),
                        ("admin", [GROUP, groups[some[0]], groups[some[2]]])):
        client = OtherUsersClient(g.host.socket, OTHER, gids)
        hello = client.ok("system.hello")
        assert (hello["level"], hello["name"]) == (level, f"unix:{OTHER}")
        n += try_everything(g, Who(f"user {OTHER}", level, f"unix:{OTHER}"), Rpc(client), methods, machines)
        client.close()
    print(f"{n} calls")
    # A group loses its level while members are connected.
    client = OtherUsersClient(g.host.socket, OTHER, [groups[some[1]]])
    reader = OtherUsersClient(g.host.socket, OTHER, [groups[some[0]]])
    g.write(f"read_groups = {some[0]} {some[1]}")
    reloaded(g)
    assert closed(client)
    assert reader.ok("system.hello")["level"] == "read"
    reader.close()


def test_every_change_is_logged(guarded):
    g = guarded
    bob = g.tls("bob")
    g.admin.ok("machine.create", owner="tls:bob", definition={"name": "b", "kernel": g.host.kernel})
    bob.ok("machine.start", name="b")
    bob.error("machine.delete", name="b")
    bob.ok("machine.show", name="b")
    bob.ok("machine.stop", name="b", force=True)
    with open(os.path.join(g.host.state, "umbrad.log")) as f:
        log = f.read()
    own = f"unix:{os.geteuid()}"
    for line in (f'machine.create by {own} over rpc for "b": ok', 'machine.start by tls:bob over rpc for "b": ok',
                 'machine.delete by tls:bob over rpc', 'machine.stop by tls:bob over rpc for "b": ok'):
        assert line in log, line
    assert "denied: machine.delete needs" in log
    assert "machine.show" not in log


FLOOD = """
import select, socket, sys
request = b'{"jsonrpc": "2.0", "id": 1, "method": "machine.list"}' * 64
socks = []
for i in range(8):
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    s.setblocking(False)
    socks.append(s)
print("floods", flush=True)
while True:
    r, w, _ = select.select(socks, socks, [])
    for s in w:
        try:
            s.send(request)
        except BlockingIOError:
            pass
    for s in r:
        s.recv(1 << 20)
"""


class Delays:
    """What others cost an honest client: measured and printed, for no test may be about a host's speed."""

    def __init__(self, *clients):
        self.clients, self.lines = clients, []

    def measure(self, what):
        took = []
        for _ in range(300):
            for client in self.clients:
                begin = time.perf_counter()
                client.ok("system.version")
                took.append((time.perf_counter() - begin) * 1e6)
        took.sort()
        self.lines.append(f"{what:52}{took[len(took) // 2]:10.0f}{took[len(took) * 99 // 100]:10.0f}{took[-1]:10.0f}")

    def show(self, capsys):
        with capsys.disabled():
            print(f"\n\n{'a call, microseconds, while there are':52}{'median':>10}{'p99':>10}{'most':>10}")
            print("\n".join(self.lines))


def test_half_open_and_idle_clients_do_not_matter(guarded, capsys):
    """All of them are dropped or bounded, while others are served."""
    g = guarded
    g.write("[limits]", "handshake_timeout = 1", "connections = 1500")
    reloaded(g)
    alice = g.tls("alice")
    delays = Delays(alice, g.admin)
    delays.measure("no others")
    half = [socket.create_connection(("127.0.0.1", g.port)) for _ in range(100)]
    for s in half[::2]:
        s.sendall(b"\x16\x03\x01\x02\x00\x01")  # a hello that never ends
    strangers = [g.tls() for _ in range(3)]
    delays.measure("100 amid a TLS handshake, 3 without a name")
    for s in half + [c.sock for c in strangers]:
        s.settimeout(HANG)
        try:
            assert s.recv(1) == b""
        except ConnectionResetError:
            pass
        s.close()
    # A thousand that begin a message and say no more, on the Unix socket.
    idle = []
    for _ in range(1000):
        s = socket.socket(socket.AF_UNIX)
        s.connect(g.host.socket)
        s.sendall(b'{"jsonrpc":')
        idle.append(s)
    delays.measure("1,000 that never end their first message")
    for s in idle:
        s.close()
    # Requests over HTTP of which a byte comes at each look.
    slow = []
    for _ in range(200):
        s = socket.socket(socket.AF_UNIX)
        s.connect(os.path.join(g.host.runtime, "umbrad-http.sock"))
        s.sendall(b"GET /api/v1/machines HTTP/1.1\r\nX-Slow: ")
        slow.append(s)
    for s in slow:
        s.send(b"a")
    delays.measure("200 HTTP requests that come byte by byte")
    for s in slow:
        s.close()
    flood = subprocess.Popen([sys.executable, "-c", FLOOD, g.host.socket], stdout=subprocess.PIPE)
    assert flood.stdout.readline() == b"floods\n"
    delays.measure("8 that send calls as fast as they can")
    flood.kill()
    flood.wait()
    flood.stdout.close()
    g.admin.ok("system.version")
    delays.show(capsys)

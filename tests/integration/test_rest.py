# SPDX-License-Identifier: LGPL-2.1-or-later
"""REST as its users see it: with curl as the client, and the documents under public validators."""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest

import npm
from conftest import HANG, wait_until

BASE = "http://localhost/api/v1"
JSON = "Content-Type: application/json"

pytestmark = pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")


class Answer:
    def __init__(self, head, body):
        lines = head.decode().strip().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
        self.body = body
        self.type = self.headers.get("content-type", "").split(";")[0]

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def kind(self):
        assert self.type == "application/problem+json", (self.status, self.body)
        assert self.json["status"] == self.status
        return self.json["kind"]


class Quick(http.client.HTTPConnection):
    """Many requests on one connection, where a curl each would take long."""

    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(HANG)
        self.sock.connect(self.path)

    def __call__(self, method, path, body=None):
        headers = {} if body is None else {"Content-Type": "application/json"}
        self.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self.getresponse()
        head = f"HTTP/1.1 {answer.status} x\r\n" + "\r\n".join(f"{k}: {v}" for k, v in answer.getheaders())
        return Answer(head.encode(), answer.read())


class Rest:
    """curl on umbrad-http.sock."""

    def __init__(self, host):
        self.host = host
        host.client()  # umbrad runs from here on
        self.socket = os.path.join(host.runtime, "umbrad-http.sock")

    def args(self, method, path, body=None, headers=()):
        url = path if path.startswith("http") else BASE + path
        args = ["curl", "-sS", "-i", "--globoff", "--path-as-is", "--unix-socket", self.socket,
                "-X", method, url]
        if method == "HEAD":
            args.append("-I")
        for header in headers:
            args += ["-H", header]
        if body is not None:
            text = body if isinstance(body, (bytes, str)) else json.dumps(body)
            args += ["--data-binary", "@-", *([] if headers else ["-H", JSON])]
            return args, text.encode() if isinstance(text, str) else text
        return args, None

    def __call__(self, method, path, body=None, headers=()):
        args, text = self.args(method, path, body, headers)
        done = subprocess.run(args, input=text, capture_output=True, timeout=HANG, check=False)
        assert done.returncode == 0, done.stderr
        head, rest = done.stdout.split(b"\r\n\r\n", 1)
        while head.startswith(b"HTTP/1.1 100"):
            head, rest = rest.split(b"\r\n\r\n", 1)
        return Answer(head, rest)

    def ok(self, method, path, status=200, **kw):
        answer = self(method, path, **kw)
        assert answer.status == status, (answer.status, answer.body)
        return answer

    def raw(self, data):
        """What comes for bytes that no client would send, to the end of the connection."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(HANG)
            s.connect(self.socket)
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            out = b""
            while True:
                piece = s.recv(65536)
                if not piece:
                    return out
                out += piece


@pytest.fixture
def rest(host):
    return Rest(host)


def definition(host, name, cmdline="", **more):
    return {"definition": dict(name=name, kernel=host.kernel, cmdline=cmdline, **more)}


def create(rest, name, cmdline="", **more):
    return rest.ok("POST", "/machines", 201, body=definition(rest.host, name, cmdline, **more))


# ---- a machine's life ----

def test_life(rest):
    made = create(rest, "m")
    assert made.headers["location"] == "/api/v1/machines/m"
    assert made.json["state"] == "stopped"
    assert rest.ok("GET", "/machines/m").json == made.json
    assert rest.ok("GET", "/machines").json["machines"] == [made.json]

    begun = rest.ok("PUT", "/machines/m/start", 202)
    assert begun.headers["location"] == f"/api/v1/jobs/{begun.json['id']}"
    assert begun.json["method"] == "machine.start"
    job = rest.ok("GET", f"/jobs/{begun.json['id']}/wait").json
    assert (job["state"], job["machine"]) == ("done", "m")
    assert rest.ok("GET", f"/jobs/{begun.json['id']}").json["result"]["state"] == "running"
    assert begun.json["id"] in [j["id"] for j in rest.ok("GET", "/jobs").json["jobs"]]

    assert rest.ok("GET", "/machines/m").json["state"] == "running"
    assert rest.ok("GET", "/machines/m/stats").json == {"console_in": 0}
    wait_until(lambda: rest.ok("GET", "/machines/m/logs?log=console&offset=0").json["size"] > 0)
    rest.ok("PUT", "/machines/m/stop?wait=true", 204, body={"force": True})
    assert rest.ok("GET", "/machines/m").json["state"] == "stopped"
    rest.ok("DELETE", "/machines/m?wait=true", 204)
    assert rest("GET", "/machines/m").kind == "not-found"


def test_wait_stands_in_the_address_or_the_body(rest):
    create(rest, "m")
    assert rest.ok("PUT", "/machines/m/start", body={"wait": True}).json["state"] == "running"
    rest.ok("PUT", "/machines/m/stop?force=true&wait=true", 204)
    assert rest.ok("PUT", "/machines/m/start", 202, body={"wait": False}).json["id"]


def jobs_of(rest, method, state="running"):
    return [j for j in rest.ok("GET", "/jobs").json["jobs"] if (j["method"], j["state"]) == (method, state)]


def leave(rest, verb, path, method):
    """A client that goes away while it waits for the end of a job."""
    args, _ = rest.args(verb, path)
    with subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as curl:
        wait_until(lambda: jobs_of(rest, method))
        curl.kill()


def test_client_that_leaves_does_not_end_what_it_began(rest):
    create(rest, "m", "fake=never")
    leave(rest, "PUT", "/machines/m/start?wait=true", "machine.start")
    # One that only waits goes with its client.
    leave(rest, "GET", "/machines/m/wait?wait=true", "machine.wait")
    wait_until(lambda: not jobs_of(rest, "machine.wait"))
    (job,) = jobs_of(rest, "machine.start")
    rest.ok("PUT", f"/jobs/{job['id']}/cancel", 204)
    wait_until(lambda: not jobs_of(rest, "machine.start"))
    assert rest.ok("GET", f"/jobs/{job['id']}").json["state"] == "cancelled"


def test_machine_list_of_definition_with_everything(rest):
    body = definition(rest.host, "m", memory="64M", cpus=2)
    body["transient"] = True
    assert rest.ok("POST", "/machines", 201, body=body).json["transient"] is True


# ---- errors ----

def rpc_error(client, method, params):
    return client.error(method, **params)["data"]["kind"]


def test_same_kinds_as_json_rpc(rest):
    client = rest.host.client()
    create(rest, "m")
    create(rest, "bad", "fake=refuse")
    create(rest, "bad2", "fake=refuse")
    start_bad = ("machine.start", {"name": "bad2", "wait": True}, "PUT", "/machines/bad/start?wait=true", None)
    cases = [
        ("not-found", 404, "machine.show", {"name": "x"}, "GET", "/machines/x", None),
        ("not-found", 404, "machine.start", {"name": "x"}, "PUT", "/machines/x/start", None),
        ("not-found", 404, "job.show", {"id": 1}, "GET", "/jobs/1", None),
        ("exists", 409, "machine.create", definition(rest.host, "m"), "POST", "/machines",
         definition(rest.host, "m")),
        ("invalid-state", 409, "machine.stop", {"name": "m"}, "PUT", "/machines/m/stop", None),
        ("invalid-state", 409, "mmu.stat", {"name": "m"}, "GET", "/machines/m/mmu/stat", None),
        ("bad-image", 409, *start_bad),
        ("invalid-params", 400, "machine.create", {}, "POST", "/machines", {}),
        ("invalid-params", 400, "machine.create", {"definition": {"name": "q", "kernel": "k", "x": 1}},
         "POST", "/machines", {"definition": {"name": "q", "kernel": "k", "x": 1}}),
        ("invalid-params", 400, "machine.show", {"name": "-"}, "GET", "/machines/-", None),
        ("method-not-found", 404, "machine.fly", {"name": "m"}, "PUT", "/machines/m/fly", None),
    ]
    for kind, status, method, params, verb, path, body in cases:
        answer = rest(verb, path, body=body)
        assert (answer.kind, answer.status) == (kind, status), (method, answer.body)
        assert rpc_error(client, method, params) == kind, method
    # Each detail that JSON-RPC gives is there.
    error = client.error("machine.start", name="m", bound=7)
    problem = rest("PUT", "/machines/m/start", body={"bound": 7}).json
    assert problem["detail"] == error["message"]
    assert {k: problem[k] for k in error["data"]} == error["data"]
    assert problem["type"] == "urn:umbra:error:invalid-params"
    assert problem["title"] == "Invalid params"


def test_not_supported_without_descriptors(rest):
    create(rest, "m")
    rest.ok("PUT", "/machines/m/start?wait=true")
    answer = rest("PUT", "/machines/m/console")
    assert (answer.status, answer.kind) == (501, "not-supported")


def test_parameters(rest):
    create(rest, "m")
    bad = [
        ("GET", "/machines/m/logs?offset=x", None, "offset"),
        ("GET", "/machines/m/logs?offset=-1", None, "offset"),
        ("GET", "/machines/m/logs?offset=1&offset=2", None, "offset"),
        ("GET", "/machines/m/logs?log=consol", None, "log"),
        ("GET", "/machines/m/logs?log=console%00", None, "log"),
        ("GET", "/machines/m?name=m", None, "name"),
        ("GET", "/machines/m?x=1", None, "x"),
        ("PUT", "/machines/m/stop?force=1", None, "force"),
        ("PUT", "/machines/m/stop?force=true", {"force": True}, "force"),
        ("PUT", "/machines/m/stop", {"name": "m"}, "name"),
        ("PUT", "/machines/m/stop", {"timeout": "1"}, "timeout"),
        ("PUT", "/machines/m/stop", {"force": None}, "force"),
        ("GET", "/machines/m%2Fx", None, "name"),
        ("GET", "/machines/m%00", None, "name"),
        ("GET", "/machines/" + 64 * "m", None, "name"),
    ]
    for verb, path, body, field in bad:
        answer = rest(verb, path, body=body)
        assert (answer.status, answer.kind) == (400, "invalid-params"), (path, answer.body)
        assert answer.json["details"]["field"] == field, (path, answer.body)
    near = rest("GET", "/machines/m/logs?log=consol").json["detail"]
    assert "did you mean \"console\"?" in near
    # A name may be written in any way that means the same.
    assert rest.ok("GET", "/machines/%6d").json["name"] == "m"
    assert rest.ok("GET", "/machines/m/logs?offset=%30&log=con%73ole").json["next"] == 0
    assert rest.ok("PUT", "/machines/m/start?wait", 200).json["state"] == "running"


def test_what_is_not_the_api(rest):
    create(rest, "m")
    for path in ("", "/", "/machine", "/machines/", "/machines/m/", "/machines//start", "/machines/m/start/x",
                 "/machines/m/mmu", "/machines/m/mmu/walk/x", "/../machines", "/a/b/c/d/e/f/g/h"):
        answer = rest("GET", path)
        assert (answer.status, answer.kind) == (404, "method-not-found"), path
    assert rest("GET", "http://localhost/").status == 404
    assert rest("GET", "http://localhost/api/v2/machines").status == 404
    for verb, path, allow in (("PUT", "/machines", "GET, HEAD, POST, OPTIONS"),
                              ("PATCH", "/machines/m", "GET, HEAD, DELETE, OPTIONS"),
                              ("BREW", "/machines/m", "GET, HEAD, DELETE, OPTIONS"),
                              ("GET", "/machines/m/start", "PUT, OPTIONS"),
                              ("POST", "http://localhost/metrics", "GET, HEAD, OPTIONS"),
                              ("DELETE", "http://localhost/healthz", "GET, HEAD, OPTIONS")):
        answer = rest(verb, path)
        assert (answer.status, answer.kind) == (405, "method-not-found"), (verb, path)
        assert answer.headers["allow"] == allow
    options = rest.ok("OPTIONS", "/machines/m/start", 204)
    assert options.headers["allow"] == "PUT, OPTIONS"
    assert not [h for h in options.headers if h.startswith("access-control")]
    head = rest.ok("HEAD", "/machines/m")
    assert head.body == b""
    assert int(head.headers["content-length"]) == len(rest.ok("GET", "/machines/m").body)
    assert rest.ok("GET", "http://localhost/healthz").body == b"ok\n"


def test_bodies(rest):
    create(rest, "m")
    put = lambda text, *headers: rest("PUT", "/machines/m/stop", body=text, headers=headers or [JSON])
    for text in ("{", "{}x", "[1", "nul", "{\"a\": 1,}", 40 * "[" + 40 * "]", b"{\"force\": \"\xff\"}"):
        answer = put(text)
        assert (answer.status, answer.kind) == (400, "parse"), text
    for text in ("[]", "1", "\"x\"", "null"):
        answer = put(text)
        assert (answer.status, answer.kind) == (400, "invalid-params"), text
    # What a form can send, a form on any page can send.
    for header in ("Content-Type: text/plain", "Content-Type: application/x-www-form-urlencoded",
                   "Content-Type: application/jsonx", "Content-Type:"):
        answer = put("{\"force\": true}", header)
        assert (answer.status, answer.kind) == (415, "invalid-request"), header
    assert put("{}", JSON, "Content-Encoding: gzip").status == 415
    assert put(" {}\n", "content-type: Application/JSON; charset=utf-8").kind == "invalid-state"
    assert rest("GET", "/machines/m", body={}).status == 400
    large = rest("PUT", "/machines/m/stop", body="{\"force\": \"" + (4 << 20) * "x" + "\"}")
    assert (large.status, large.kind) == (413, "invalid-request")
    fits = rest("PUT", "/machines/m/stop", body="{\"force\": \"" + ((4 << 20) - 20) * "x" + "\"}")
    assert (fits.status, fits.kind) == (400, "invalid-params")
    assert rest("PUT", "/machines/m/stop", body=(9 << 20) * "x").status == 413
    assert rest("PUT", "/machines/m/stop", body="{}", headers=[JSON, "Transfer-Encoding: chunked"]).status == 409


def test_pages_of_other_sites(rest):
    create(rest, "m")
    for headers in (["Origin: http://evil.example"], ["Origin: null"], ["Origin: localhost"],
                    ["Sec-Fetch-Site: cross-site"], ["Sec-Fetch-Site: same-site"],
                    ["Host: localhost", "Origin: http://localhost:81"]):
        answer = rest("GET", "/machines", headers=headers)
        assert (answer.status, answer.kind) == (403, "denied"), headers
    for headers in (["Origin: http://localhost"], ["Sec-Fetch-Site: none"],
                    ["Host: a:81", "Origin: https://a:81", "Sec-Fetch-Site: same-origin"]):
        rest.ok("GET", "/machines", headers=headers)


def test_raw(rest):
    """What is no HTTP, or is HTTP that two readers could read differently, does nothing."""
    create(rest, "m")
    get = b"GET /api/v1/machines HTTP/1.1\r\n"
    cases = [
        (b"x\r\n\r\n", b"400"),
        (b"GET\r\n\r\n", b"400"),
        (get + b"no colon\r\n\r\n", b"400"),
        (get + b"Host: a\r\nHost: b\r\n\r\n", b"400"),
        (get + b"Host: a b\r\n\r\n", b"400"),
        (b"POST /api/v1/machines HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 40\r\n\r\n{}", b"400"),
        (b"POST /api/v1/machines HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
         b"0\r\n\r\n", b"400"),
        (b"POST /api/v1/machines HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", b"400"),
        (b"POST /api/v1/machines HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"HEAD /api/v1/machines HTTP/1.1\r\nHost: a\r\nContent-Length: 44\r\n\r\nDELETE /api/v1/machines/m "
         b"HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (get + b"X: " + 40000 * b"x" + b"\r\n\r\n", b"400"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
    ]
    for data, status in cases:
        answer = rest.raw(data)
        assert not answer or answer.split(b" ")[1] == status, (data[:60], answer[:200])
        assert answer.count(b"HTTP/1.1 ") <= 1, data[:60]
    assert rest.raw(get + b"Host: a\r\n").startswith((b"", b"HTTP/1.1 400"))
    # Two at once are answered one after the other.
    assert rest.raw(2 * (get + b"Host: a\r\n\r\n")).count(b"HTTP/1.1 200") >= 1
    rest.ok("GET", "/machines/m")


# ---- every method ----

def operations(rest):
    paths = rest.ok("GET", "/openapi.json").json["paths"]
    return {op["operationId"]: (verb.upper(), path, op) for path, item in paths.items()
            for verb, op in item.items()}


WRONG = {"boolean": 7, "integer": "x", "number": "x", "string": 7, "array": 7, "object": 7}


def wrong_value(schema):
    kind = schema.get("type")
    return True if isinstance(kind, list) else WRONG.get(kind, 7)


def test_every_method_is_reachable_and_checks_its_parameters(rest):
    client = rest.host.client()
    discovered = client.ok("rpc.discover")["methods"]
    ops = operations(rest)
    quick = Quick(rest.socket)
    assert {m["name"] for m in discovered} <= set(ops)
    asked = {"missing": 0, "extra": 0, "mistyped": 0}
    for method in discovered:
        verb, path, op = ops[method["name"]]
        by_name = {p["name"]: p for p in method["params"]}
        keys = re.findall(r"\{(\w+)\}", path)
        url = path
        for key in keys:
            assert by_name[key]["required"]
            url = url.replace("{" + key + "}", "1")
        query = verb in ("GET", "DELETE")

        def ask(name, value, url=url, verb=verb, query=query):
            if query:
                text = value if isinstance(value, str) else json.dumps(value)
                return quick(verb, f"{url}?{name}={text}")
            return quick(verb, url, body={name: value})

        answer = ask("nonsense", 1)
        assert (answer.status, answer.kind) == (400, "invalid-params"), (method["name"], answer.body)
        assert answer.json["details"]["field"] == "nonsense", method["name"]
        asked["extra"] += 1
        needed = [p for p in method["params"] if p["required"] and p["name"] not in keys]
        if needed:
            answer = quick(verb, url, body=None if query else {})
            assert (answer.status, answer.kind) == (400, "invalid-params"), method["name"]
            assert answer.json["details"]["field"] == needed[0]["name"]
            asked["missing"] += 1
        for name, param in by_name.items():
            kind = param["schema"].get("type")
            if name in keys:
                answer = quick(verb, path.replace("{" + name + "}", "-"))
            elif query and kind == "string" and "enum" not in param["schema"]:
                if "pattern" not in param["schema"]:
                    continue  # in an address, all is text
                answer = ask(name, "-")
            elif query and kind == "boolean":
                answer = ask(name, "7")
            else:
                answer = ask(name, "-" if query else wrong_value(param["schema"]))
            assert (answer.status, answer.kind) == (400, "invalid-params"), (method["name"], name, answer.body)
            assert answer.json["details"]["field"].split(".")[0] == name, (method["name"], answer.body)
            asked["mistyped"] += 1
    assert asked["extra"] == len(discovered)
    print(asked)


def test_documents_tell_the_same_parameters(rest):
    """OpenAPI and OpenRPC come from one table: no parameter is in only one of them."""
    ops = operations(rest)
    for method in rest.ok("GET", "/rpc/discover").json["methods"]:
        _, _, op = ops[method["name"]]
        body = op.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        names = [p["name"] for p in op["parameters"]] + list(body.get("properties", {}))
        assert sorted(names) == sorted(p["name"] for p in method["params"]), method["name"]


# ---- events ----

class Stream:
    """curl -N on the events."""

    def __init__(self, rest, path="/events", headers=()):
        args, _ = rest.args("GET", path, headers=headers)
        self.curl = subprocess.Popen(args + ["-N"], stdout=subprocess.PIPE)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.curl.stdout.readline()
        self.answer = Answer(head, b"")
        assert self.answer.type == "text/event-stream"

    def next(self):
        """{id, event, data} of the next event."""
        fields = {}
        while True:
            line = self.curl.stdout.readline()
            assert line, "the stream has ended"
            line = line.decode().rstrip("\n")
            if line and not line.startswith(":"):
                key, value = line.split(": ", 1)
                fields[key] = value
            elif "event" in fields:
                fields["data"] = json.loads(fields["data"])
                return fields
            elif not line:
                fields = {}

    def close(self):
        self.curl.kill()
        self.curl.wait()


def test_events(rest):
    stream = Stream(rest)
    create(rest, "m")
    first = stream.next()
    assert (first["event"], first["data"]["machine"]) == ("created", "m")
    assert int(first["id"]) == first["data"]["seq"]
    rest.ok("PUT", "/machines/m/start?wait=true")
    seen = [first]
    while seen[-1]["data"].get("state") != "running" or seen[-1]["event"] != "state":
        seen.append(stream.next())
    stream.close()
    numbers = [int(e["id"]) for e in seen]
    assert numbers == sorted(set(numbers))
    # Who comes back gets what it has missed, once, in the same order.
    again = Stream(rest, headers=[f"Last-Event-ID: {first['id']}"])
    assert [again.next() for _ in seen[1:]] == seen[1:]
    again.close()
    by_query = Stream(rest, f"/events?since={first['id']}&types=state&machine=m")
    states = [e for e in seen if e["event"] == "state"]
    assert [by_query.next() for _ in states] == states
    by_query.close()
    # JSON-RPC tells the same events with the same numbers.
    client = rest.host.client()
    client.ok("events.subscribe", since=int(first["id"]) - 1)
    assert [client.event() for _ in seen] == [e["data"] for e in seen]
    lost = Stream(rest, "/events?since=1")
    assert lost.next()["event"] == "lost"
    lost.close()
    for path in ("/events?types=nonsense", "/events?since=x", "/events?nonsense=1"):
        assert rest("GET", path).kind == "invalid-params", path
    assert rest("GET", "/events", headers=["Last-Event-ID: x"]).kind == "invalid-params"


def test_reader_that_does_not_read_is_let_go(rest):
    """Its queue is bounded, and others are told their events."""
    host = rest.host
    stuck = socket.socket(socket.AF_UNIX)
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.connect(rest.socket)
    stuck.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: a\r\n\r\n")
    stuck.settimeout(HANG)
    assert stuck.recv(16).startswith(b"HTTP/1.1 200")
    good = Stream(rest)
    client = host.client()
    for n in range(50):
        client.ok("machine.create", definition=dict(name="m", kernel=host.kernel))
        assert good.next()["event"] == "created"
        client.ok("machine.delete", name="m")
        while good.next()["event"] != "deleted":
            pass
    good.close()
    stuck.close()


# ---- metrics ----

def metrics(rest):
    sys.path.insert(0, "/usr/lib/python3/dist-packages")
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    answer = rest.ok("GET", "http://localhost/metrics")
    assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    text = answer.body.decode()
    assert text.endswith("\n# EOF\n") and text.count("# EOF\n") == 1
    return {f.name: f for f in parser.text_string_to_metric_families(text)}


def values(family, **labels):
    return [s.value for s in family.samples if labels.items() <= s.labels.items()]


def test_metrics(rest):
    create(rest, "a")
    create(rest, "b")
    rest.ok("PUT", "/machines/a/start?wait=true")
    assert rest("GET", "/machines/x").status == 404
    m = metrics(rest)
    assert values(m["umbra_machines"], state="running") == [1]
    assert values(m["umbra_machines"], state="stopped") == [1]
    assert values(m["umbra_machine_state"], machine="b", umbra_machine_state="stopped") == [1]
    # The machine's own words, made harmless.
    assert (m["umbra_pf_taken"].type, values(m["umbra_pf_taken"], machine="a", vcpu="0")) == ("counter", [5])
    assert (m["umbra_mmu_pages"].type, values(m["umbra_mmu_pages"])) == ("gauge", [7])
    assert values(m["umbra_vcpu_exits"], machine="a", reason="ept \"violation\"\\\n") == [3]
    assert values(m["umbra_machine"], machine="a", policy="tdp") == [1]
    assert not [s for f in m.values() for s in f.samples if s.labels.get("machine") == "b"
                and f.name != "umbra_machine_state"]
    latency = m["umbra_api_request_duration_seconds"]
    assert latency.type == "histogram" and latency.unit == "seconds"
    count = [s.value for s in latency.samples if s.name.endswith("_count")
             and s.labels == {"method": "machine.create", "transport": "rest"}]
    assert count == [2]
    assert values(m["umbra_api_errors"], kind="not-found", transport="rest") == [1]
    assert sum(values(m["umbra_jobs"])) >= 1
    assert values(m["umbra_connections"], transport="rest") == [1]


# ---- documents ----

@pytest.fixture(scope="session")
def validator():
    """Those of others, pinned in validate/package.json."""
    folder = npm.install("validate")

    def validate(kind, document):
        path = os.path.join(folder, kind + ".json")
        with open(path, "w") as f:
            json.dump(document, f)
        return subprocess.run(["node", "validate.js", kind, path], cwd=folder, capture_output=True,
                              text=True, timeout=120, check=False)
    return validate


def test_documents_are_valid(rest, validator):
    openapi = rest.ok("GET", "/openapi.json").json
    done = validator("openapi", openapi)
    assert (done.returncode, done.stdout.strip()) == (0, "valid 3.1"), done.stdout + done.stderr
    openrpc = rest.ok("GET", "/rpc/discover").json
    done = validator("openrpc", openrpc)
    assert done.returncode == 0, done.stdout + done.stderr
    # The validators can say no.
    openapi["paths"]["/healthz"]["get"]["responses"]["200"] = {}
    assert validator("openapi", openapi).returncode == 1
    openrpc["methods"][0]["params"] = 7
    assert validator("openrpc", openrpc).returncode == 1


# ---- those who mean no good ----

@pytest.fixture
def small(host):
    """At most 32 connections, and nobody is hurried: what makes room is not time."""
    path = os.path.join(host.folder, "umbrad.conf")
    with open(path, "w") as f:
        f.write("[limits]\nconnections = 32\nhandshake_timeout = 600\nidle_timeout = 600\n")
    host.env["UMBRA_CONFIG"] = path
    return Rest(host)


def connect(rest, data=b""):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(HANG)
    s.connect(rest.socket)
    s.sendall(data)
    return s


def ended(s):
    s.setblocking(False)
    try:
        return not s.recv(65536)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_others_do_not_delay(small):
    """Silent, slow, half-open and flooding clients: far more than there may be connections. Each
    request of somebody else is answered all the same."""
    rest = small
    create(rest, "m")
    head = b"GET /api/v1/machines HTTP/1.1\r\nHost: a\r\n"
    bad = []
    for n in range(50):
        bad.append(connect(rest))  # says nothing
        bad.append(connect(rest, head + b"X-Slow: "))  # says it slowly
        bad.append(connect(rest, b"POST /api/v1/machines HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{"))
        half = connect(rest, head)
        half.shutdown(socket.SHUT_WR)  # will never say the rest
        bad.append(half)
        flood = connect(rest)
        flood.setblocking(False)
        try:
            flood.send(200 * (head + b"\r\n"))  # never reads an answer
        except OSError:
            pass
        bad.append(flood)
        for s in bad[1::5]:
            try:
                s.send(b"x")
            except OSError:
                pass
        assert rest.ok("GET", "/machines/m").json["name"] == "m"
    # The room was made by letting them go.
    wait_until(lambda: sum(ended(s) for s in bad) >= len(bad) - 2 * 32)
    for s in bad:
        s.close()
    rest.ok("GET", "/machines/m")


def test_connections_that_are_served_are_not_ended(small):
    """With all places taken by those who wait for an answer, one more is told so and why."""
    rest = small
    create(rest, "m", "deaf")
    rest.ok("PUT", "/machines/m/start?wait=true")
    busy = [connect(rest, b"GET /api/v1/events HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(31)]
    for s in busy:
        assert s.recv(16).startswith(b"HTTP/1.1 200")
    more = [rest("GET", "/machines/m") for _ in range(3)]
    assert {a.status for a in more} <= {200, 429}
    full = connect(rest, b"GET /api/v1/events HTTP/1.1\r\nHost: a\r\n\r\n")
    full.recv(16)
    answer = rest("GET", "/machines/m")
    assert (answer.status, answer.kind) == (429, "limit")
    assert answer.headers["retry-after"] == "1" and answer.json["retryable"]
    assert not any(ended_at(s) for s in busy)
    for s in busy[:8]:
        s.close()
    wait_until(lambda: rest("GET", "/machines/m").status == 200)
    for s in busy + [full]:
        s.close()


def ended_at(s):
    """Whether a stream has come to its end, reading what it has."""
    s.setblocking(False)
    try:
        while s.recv(65536):
            pass
        return True
    except BlockingIOError:
        return False


def test_slow_request_is_ended(host):
    path = os.path.join(host.folder, "umbrad.conf")
    with open(path, "w") as f:
        f.write("[limits]\nhandshake_timeout = 1\nidle_timeout = 1\n")
    host.env["UMBRA_CONFIG"] = path
    rest = Rest(host)
    with connect(rest, b"GET /api/v1/machines HTTP/1.1\r\n") as slow, connect(rest) as silent, \
            connect(rest, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n") as idle:
        assert slow.recv(1) == b""
        assert silent.recv(1) == b""
        assert idle.recv(65536).startswith(b"HTTP/1.1 200")
        assert idle.recv(65536) == b""


def test_umbrad_ends_with_clients_waiting(rest):
    create(rest, "m")
    rest.ok("PUT", "/machines/m/start?wait=true")
    stream = Stream(rest)
    args, _ = rest.args("GET", "/machines/m/wait?wait=true")
    with subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as waiter:
        wait_until(lambda: jobs_of(rest, "machine.wait"))
        rest.host.kill_umbrad(signal.SIGTERM)
        assert waiter.wait(HANG) != 0
    assert stream.curl.wait(HANG) in (0, 18)
    # The next umbrad has the machine.
    rest.host.vmctl("list")
    Rest(rest.host).ok("PUT", "/machines/m/stop?wait=true&force=true", 204)

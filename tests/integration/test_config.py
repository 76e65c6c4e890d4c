# SPDX-License-Identifier: LGPL-2.1-or-later
"""umbrad.conf: checked, read at the start, read again on SIGHUP; what is refused leaves all as it was."""
import json
import os
import signal
import socket
import subprocess

import pytest

from conftest import HANG, UMBRAD, wait_until


@pytest.fixture(name="conf")
def fixture_conf(host):
    """Writes the configuration of the test's umbrad."""
    path = os.path.join(host.folder, "umbrad.conf")
    host.env["UMBRA_CONFIG"] = path

    def write(text):
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path
    return write


def umbrad(host, *args):
    return subprocess.run([UMBRAD, *args], env=host.env, capture_output=True, text=True, timeout=HANG, check=False)


def log(host):
    with open(os.path.join(host.state, "umbrad.log"), encoding="utf-8") as f:
        return f.read()


def reload(host, told):
    os.kill(host.pid(), signal.SIGHUP)
    wait_until(lambda: told in log(host))


def test_check(host, conf):
    path = conf("[limits]\ncalls = 5\n")
    assert umbrad(host, "--check").returncode == 0
    assert umbrad(host, "--check", path).returncode == 0
    conf("[limits]\ncals = 5\n")
    done = umbrad(host, "--check", path)
    assert done.returncode == 1
    assert f'{path}:2: unknown field "cals" in [limits]; did you mean "calls"?' in done.stderr
    conf("[tls]\ncert = /nonexistent/cert\nkey = /nonexistent/key\nca = /nonexistent/ca\n")
    done = umbrad(host, "--check", path)
    assert done.returncode == 1 and "/nonexistent/" in done.stderr


def test_print(host, conf):
    done = umbrad(host, "--print-config")
    assert done.returncode == 0
    assert umbrad(host, "--check", conf(done.stdout)).returncode == 0


def test_no_start_with_an_error(host, conf):
    conf("[machines]\nmax = none\n")
    done = umbrad(host)
    assert done.returncode == 1 and ":2: [machines] field \"max\"" in done.stderr
    assert not os.path.exists(host.socket)


def test_reload(host, conf):
    conf("[machines]\nmax = 1\n")
    host.define("a")
    assert host.client().error("machine.create", definition={"name": "b", "kernel": host.kernel})["data"]["kind"] == "limit"
    conf("[machines]\nmax = 2\n")
    reload(host, "has been read again")
    host.define("b")
    conf("[machines]\nmax = 3\n[machine]\n")
    reload(host, "all stays as it was")
    assert ":3: unknown field \"machine\"" in log(host)
    assert host.client().error("machine.create", definition={"name": "c", "kernel": host.kernel})["data"]["kind"] == "limit"
    conf("[machines]\nmax = 2\n[listen]\nhttp = no\n")
    reload(host, "takes effect when umbrad is restarted")
    assert os.path.exists(os.path.join(host.runtime, "umbrad-http.sock"))


def test_sockets(host, conf):
    """Each socket is there or not as the configuration says, with its mode."""
    conf("[listen]\nread_only = no\nhttp = no\n")
    host.pid()
    assert [n for n in os.listdir(host.runtime) if n.startswith("umbrad") and n.endswith(".sock")] == ["umbrad.sock"]


def test_passed_sockets(host, conf):
    """As systemd passes them, by name; what has an unknown name is closed."""
    conf("")
    os.makedirs(host.runtime, mode=0o700)
    socks = []
    for name in ("main", "ro", "other"):
        s = socket.socket(socket.AF_UNIX)
        s.bind(os.path.join(host.folder, name))
        s.listen(8)
        socks.append(s)
    # The numbers are 3 and up in umbrad, which is also the process that LISTEN_PID names.
    script = ("import os,sys\nfds=[int(a) for a in sys.argv[2:]]\nhigh=[os.dup2(fd, 100+i) for i,fd in enumerate(fds)]\n"
              "[os.dup2(fd, 3+i) for i,fd in enumerate(high)]\n[os.close(fd) for fd in high]\n"
              "os.environ.update(LISTEN_PID=str(os.getpid()),LISTEN_FDS=str(len(fds)),"
              "LISTEN_FDNAMES='rpc:rpc-read:mail')\nos.execv(sys.argv[1],[sys.argv[1],'-v'])\n")
    with open(os.path.join(host.folder, "log"), "wb") as out:
        daemon = subprocess.Popen(["/usr/bin/python3", "-c", script, UMBRAD, *[str(s.fileno()) for s in socks]],
                                  env=host.env, stderr=out, pass_fds=[s.fileno() for s in socks])
    try:
        kinds = []
        for name in ("main", "ro"):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(120)
            s.connect(os.path.join(host.folder, name))
            s.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "machine.create",
                                  "params": {"definition": {"name": "a", "kernel": host.kernel}}}).encode())
            answer = json.loads(s.makefile().readline())
            kinds.append(answer.get("error", {}).get("data", {}).get("kind", "ok"))
            s.close()
        assert kinds == ["ok", "denied"]
        assert not os.path.exists(host.socket)
        assert os.path.exists(os.path.join(host.runtime, "umbrad-http.sock"))
        with open(os.path.join(host.folder, "log"), encoding="utf-8") as f:
            assert 'a passed socket is of no use: "mail"' in f.read()
    finally:
        daemon.terminate()
        daemon.wait(HANG)

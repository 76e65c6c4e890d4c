# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmctl: tables, names by their beginning, remote connections, completion, top, logs, help."""
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess

import pytest

from access import Authority, Guarded
from conftest import HANG, VMCTL, alive, payload, wait_until

SSH = """#!/bin/sh
echo "$*" >>"$SSH_LOG"
while [ "$1" != -- ]; do shift; done
shift 2
[ "$1" = vmctl ] || exit 99
shift
exec "$REAL_VMCTL" "$@"
"""


class Terminal:
    """vmctl on a terminal of its own."""

    def __init__(self, host, *args, columns=80, **env):
        pid, self.fd = pty.fork()
        if pid == 0:
            subprocess.run(["stty", "cols", str(columns), "rows", "24"], check=False)
            os.execve(VMCTL, [VMCTL, *args], {**host.env, "TERM": "xterm", **env})
        self.pid = pid
        self.text = b""

    def read(self):
        """More of the output; False at its end."""
        ready, _, _ = select.select([self.fd], [], [], HANG)
        assert ready, self.text
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            data = b""
        self.text += data
        return bool(data)

    def until(self, what):
        while what not in self.text:
            assert self.read(), self.text
        return self.text

    def send(self, data):
        os.write(self.fd, data)

    def end(self):
        while self.read():
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def lines(out):
    return out.stdout.decode().splitlines()


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_tables_fit_the_terminal(host, columns):
    host.define("a-machine-with-a-name-of-some-length-that-is-long-enough-63")
    host.define("b")
    t = Terminal(host, "list", columns=columns, NO_COLOR="1")
    assert t.end() == 0
    text = t.text.decode().replace("\r", "").splitlines()
    assert len(text) == 3 and text[0].split()[:2] == ["NAME", "STATE"]
    width = max(len(line) for line in text)
    # Columns do not shrink below what they need: 40 is too few for all of them.
    assert width <= max(columns, 60)
    cut = "that-is-long-enough-63" not in t.text.decode()
    assert cut == (columns < 120)


def test_nothing_is_cut_in_a_pipe(host):
    name = "a" * 63
    host.define(name)
    out = host.vmctl("list")
    assert lines(out)[1].startswith(name) and b"\033" not in out.stdout
    assert all(line == line.rstrip() for line in lines(out))


def test_colour_only_on_a_terminal(host):
    host.define("a", "fake=echo")
    host.vmctl("start", "a")
    t = Terminal(host, "list")
    t.end()
    assert b"\033[32mrunning" in t.text
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        t = Terminal(host, "list", **env)
        t.end()
        assert b"running" in t.text and b"\033" not in t.text


def test_names_by_their_beginning(host):
    for name in ("web-1", "web-10", "database"):
        host.define(name, "fake=echo")
    assert host.vmctl("start", "data").returncode == 0
    assert host.vmctl("show", "d", "--json").returncode == 0
    # The whole name comes first, also when another begins with it.
    assert json.loads(host.vmctl("show", "web-1", "--json").stdout)["name"] == "web-1"
    out = host.vmctl("start", "we")
    assert out.returncode == 1 and b"web-1, web-10" in out.stderr
    error = json.loads(host.vmctl("start", "we", "--json").stderr)["error"]
    assert error["data"]["kind"] == "not-found" and error["data"]["machine"] == "we"
    assert host.vmctl("stop", "-f", "data").returncode == 0
    # A delete that is said twice does not take the next one.
    out = host.vmctl("delete", "data")
    assert out.returncode == 1 and b'"database"' in out.stderr
    assert host.vmctl("delete", "database").returncode == 0
    assert host.vmctl("show", "database").returncode == 1


@pytest.mark.parametrize("args, nearest", [
    (["lsit"], b'"list"'), (["job", "cancl", "1"], b'"job cancel"'),
    (["list", "--jsno"], b'"--json"'), (["run", "--kernl", "x"], b'"--kernel"'),
    (["list", "--conect", "x"], b'"--connect"'), (["tokn", "list"], b'"token"'),
    (["events", "--type", "stat"], b'"state"'), (["top", "--sort", "cup"], b"cpu"),
])
def test_the_nearest_is_named(host, args, nearest):
    out = host.vmctl(*args)
    assert out.returncode == 64 and nearest in out.stderr, out.stderr


def test_every_verb_has_help_and_manual():
    with open(os.path.join(os.path.dirname(__file__), "../../cli/man/vmctl.1"),
              encoding="utf-8") as f:
        man = re.sub(r"\\f[BIR]", "", f.read().replace("\\-", "-"))
    verbs = subprocess.run([VMCTL, "__complete"], capture_output=True, text=True,
                           check=True).stdout.split()
    assert {"top", "events", "jobs", "job", "token", "relay", "sandbox"} <= set(verbs)
    for verb in set(verbs) - {"help"}:
        second = subprocess.run([VMCTL, "__complete", "--", verb], capture_output=True, text=True, check=True,
                                env=dict(os.environ, UMBRA_RUNTIME_DIR="/nonexistent")).stdout.split()
        for words in [[verb]] if "--help" in second else [[verb, w] for w in second]:
            text = subprocess.run([VMCTL, "help", *words], capture_output=True, text=True, check=True)
            assert text.stdout.startswith("Usage: vmctl " + " ".join(words)), words
            assert re.search(r"(?m)(^|[ \".])" + " ".join(words) + r"\b", man), words


def test_completion(host):
    host.define("web")
    host.client().ok("machine.delete", name="web", wait=False)
    host.define("db", "fake=echo")
    job = json.loads(host.vmctl("start", "db", "--wait=false", "--json").stdout)["id"]

    def complete(*words):
        return lines(host.vmctl("__complete", "--", *words))
    assert "top" in complete() and "events" in complete("--json")
    assert "db" in complete("show") and "--json" in complete("show")
    assert "cancel" in complete("job") and str(job) in complete("job", "show")
    assert complete("run", "--kernel") == ["@files"]
    assert complete("top", "--sort") == ["name", "cpu", "mips", "exits", "faults", "dirty", "rss"]
    assert complete("events", "--machine") == ["db"]
    assert complete("--connect") == []
    assert "db" in complete("--connect", "unix:" + host.socket, "show")


def test_bash_completion(host):
    host.define("db")
    script = os.path.join(os.path.dirname(__file__), "../../cli/completions/vmctl.bash")
    folder = os.path.dirname(VMCTL)

    def complete(*words):
        text = (f'. "{script}"; COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; '
                '_vmctl; printf "%s\\n" "${COMPREPLY[@]}"')
        return subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True,
                              env=dict(host.env, PATH=folder + ":" + os.environ["PATH"]),
                              cwd=host.folder).stdout.split()
    assert complete("vmctl", "eve") == ["events"]
    assert complete("vmctl", "show", "d") == ["db"]
    assert complete("vmctl", "run", "--kernel", "kern") == ["kernel"]


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh_completion(host):
    """A real zsh at a terminal: what Tab makes of what is typed."""
    host.define("db")
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../cli/completions")
    # Nothing of the host's: only its own functions and ours.
    start = (f"PS1='> '; PATH={os.path.dirname(VMCTL)}:$PATH; fpath=({folder} $fpath); unsetopt beep; "
             "autoload -U compinit && compinit -u -D && print rea''dy\n")
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(host.folder)
        os.execvpe("zsh", ["zsh", "-f", "-i"], dict(host.env, TERM="dumb", ZDOTDIR=host.folder, HOME=host.folder))
    seen = b""

    def until(text):
        nonlocal seen
        while text not in seen:
            assert select.select([fd], [], [], HANG)[0], seen
            seen += os.read(fd, 65536)
        seen = seen.split(text, 1)[1]

    until(b"%" if os.geteuid() else b"#")
    os.write(fd, start.encode())
    until(b"ready")
    for typed, completed in ((b"vmctl eve\t", b"vmctl events "), (b"vmctl show d\t", b"vmctl show db "),
                             (b"vmctl run --kernel ker\t", b"vmctl run --kernel kernel "),
                             (b"vmctl events --machine \t", b"vmctl events --machine db ")):
        until(b"> ")
        os.write(fd, typed)
        until(completed)
        os.write(fd, b"\x15\n")  # not carried out: the line is cleared
    os.write(fd, b"exit\n")
    os.waitpid(pid, 0)
    os.close(fd)


def remote(host, **more):
    """An environment in which ssh leads back here."""
    ssh = os.path.join(host.folder, "ssh")
    with open(ssh, "w", encoding="utf-8") as f:
        f.write(SSH)
    os.chmod(ssh, 0o755)
    log = os.path.join(host.folder, "ssh.log")
    return dict(host.env, UMBRA_SSH=ssh, SSH_LOG=log, REAL_VMCTL=VMCTL, **more), log


def test_ssh(host):
    env, log = remote(host)
    host.define("a", "fake=echo")

    def vmctl(*args, **kw):
        return subprocess.run([VMCTL, *args], env=env, capture_output=True, check=False,
                              timeout=HANG, **kw)
    assert vmctl("--connect", "ssh://me@far:2222", "start", "a").returncode == 0
    assert b"running" in vmctl("list", "--connect=ssh://far").stdout
    with open(log, encoding="utf-8") as f:
        assert f.read().splitlines() == ["-T -p 2222 -l me -- far vmctl relay",
                                         "-T -- far vmctl relay"]
    out = vmctl("--connect", "ssh://far", "console", "a", input=b"hi\nquit\n")
    assert b"hi" in out.stdout
    out = vmctl("--connect", "ssh://far", "run", "--kernel", host.kernel)
    assert out.returncode == 1 and b"on this host" in out.stderr


@pytest.mark.parametrize("url", ["far", "ssh://", "ssh://-oProxyCommand=x", "ssh://a@-b", "tls://",
                                 "tls://h:port", "tls://::1", "unix:", "http://x", "ssh://h/x",
                                 "tls://[::1", "tls://h:"])
def test_addresses_that_are_none(host, url):
    out = host.vmctl("--connect", url, "list")
    assert out.returncode == 64 and b"no address" in out.stderr


def test_other_addresses(host):
    host.define("a")
    for url in ("unix:" + host.socket, "unix://" + host.socket):
        assert lines(host.vmctl("list", "--connect", url))[1].startswith("a ")
    out = host.vmctl("list", "--connect", "unix:/nonexistent/sock")
    assert out.returncode == 69
    out = host.vmctl("list", "--connect", "tls://127.0.0.1:1")
    assert out.returncode == 69, out.stderr
    out = host.vmctl("list", "--connect", "tls://h", "--tls-cert", "x")
    assert out.returncode == 64 and b"go together" in out.stderr


def test_logs_follow(host):
    host.define("a", "fake=echo")
    host.vmctl("start", "a")
    p = host.spawn("logs", "--follow", "a")
    text = p.stdout.readline()
    assert text == b"fake: hello\r\n"
    host.vmctl("console", "a", input=b"one\nquit\n", stdin=None)
    rest, _ = p.communicate(timeout=HANG)
    assert p.returncode == 0 and b"one" in rest
    # One that has ended is not waited for.
    assert host.vmctl("logs", "--follow", "a").stdout.startswith(b"fake: hello\r\n")


def test_jobs(host):
    host.define("a", "fake=echo")
    out = host.vmctl("start", "a", "--wait=false")
    number = out.stdout.split()[1].decode()
    assert out.stdout == f"job {number}\n".encode()
    assert host.vmctl("job", "wait", number).returncode == 0
    table = lines(host.vmctl("jobs"))
    assert table[0].split()[:4] == ["ID", "METHOD", "MACHINE", "STATE"]
    assert table[1].split()[:5] == [number, "machine.start", "a", "done", "100%"]
    wait = host.client().ok("machine.wait", name="a", wait=False)["id"]
    assert host.vmctl("job", "cancel", str(wait)).returncode == 0
    assert "state: cancelled" in lines(host.vmctl("job", "show", str(wait)))
    assert host.vmctl("job", "wait", str(wait)).returncode == 1
    assert host.vmctl("job", "show", "5").returncode == 1
    host.define("b", "fake=refuse")
    out = host.vmctl("start", "b", "--wait=false")
    assert host.vmctl("job", "wait", out.stdout.split()[1].decode()).returncode == 65


def test_progress_bar(host):
    """Only on a terminal: there the bar is drawn, and wiped at the end."""
    for i in range(4):
        host.define(f"m{i}", "fake=echo", start_order=i)
        host.vmctl("start", f"m{i}")
    t = Terminal(host, "stop-all", "--timeout", "60")
    assert t.end() == 0
    assert b"[####" in t.text and b" m3" in t.text and b"25%" in t.text
    assert t.text.replace(b"\r\n", b"\n").endswith(b"\r\033[K4 stopped\n")
    out = host.vmctl("stop-all")
    assert out.stdout == b"0 stopped\n" and out.stderr == b""


def test_call(host):
    host.define("a")
    assert json.loads(host.vmctl("call", "machine.show", '{"name": "a"}').stdout)["name"] == "a"
    assert json.loads(host.vmctl("call", "system.hello").stdout)["level"] == "admin"
    for words, text in ((("machine.sho",), b'"machine.show"'), (("machine.show", "[1]"), b"no JSON object"),
                        (("machine.show", "{"), b"no JSON object"), (("machine.show",), b'"name"')):
        out = host.vmctl("call", *words)
        assert out.returncode == 64 and text in out.stderr, out.stderr


def test_tls(host, tmp_path):
    authority = Authority(str(tmp_path / "ca"))
    authority.sign("localhost", san="DNS:localhost,IP:127.0.0.1")
    authority.sign("alice")
    g = Guarded(host, authority)
    secret = g.token("robot", "operate")
    g.write()
    g.start()
    host.define("a", "fake=echo")
    url, ca = f"tls://localhost:{g.port}", ("--tls-ca", authority.path("ca.pem"))
    alice = ("--tls-cert", authority.path("alice.pem"), "--tls-key", authority.path("alice.key"))
    out = host.vmctl("--connect", url, *ca, *alice, "start", "a")
    assert out.returncode == 0, out.stderr
    assert b"running" in host.vmctl("list", "--connect", url, *ca, *alice).stdout
    out = host.vmctl("--connect", url, *ca, *alice, "console", "a")
    assert out.returncode == 1
    # The token's machines are none.
    file = os.path.join(host.folder, "secret")
    with open(file, "w", encoding="utf-8") as f:
        f.write(secret + "\n")
    out = host.vmctl("--connect", url, *ca, "--token-file", file, "list", "--json")
    assert out.returncode == 0 and json.loads(out.stdout) == [], out.stderr
    with open(file, "w", encoding="utf-8") as f:
        f.write(secret + "x\n")
    assert host.vmctl("--connect", url, *ca, "--token-file", file, "list").returncode == 1
    # Whom we do not trust, and who is not whom we asked for.
    assert host.vmctl("--connect", url, *alice, "list").returncode == 69
    assert host.vmctl("--connect", url, "--tls-ca", "/nonexistent", "list").returncode != 0


def test_top_once(host):
    host.define("a", "fake=echo")
    host.define("b")
    host.vmctl("start", "a")
    out = host.vmctl("top", "--once", "--json", "--interval", "0.05")
    rows = {m["name"]: m for m in json.loads(out.stdout)}
    assert rows["a"]["state"] == "running" and rows["a"]["cpu_percent"] >= 0
    assert rows["a"]["rss"] > 0 and "pid" in rows["a"]
    assert rows["b"]["cpu_percent"] is None and rows["b"]["rss"] is None
    table = lines(host.vmctl("top", "--once", "--interval", "0.05"))
    assert table[0].split() == ["NAME", "STATE", "%CPU", "MIPS", "EXITS/s", "POLICY", "FAULTS/s",
                                "DIRTY/s", "RSS", "PID"]
    assert len(table) == 3


def test_top_keys(host):
    host.define("a", "fake=echo")
    host.vmctl("start", "a")
    t = Terminal(host, "top", "--interval", "0.1", columns=100)
    t.until(b"by cpu")
    t.send(b"s")
    t.until(b"by mips")
    t.send(b"p")
    t.until(b"paused")
    t.send(b"q")
    assert t.end() == 0


def test_top_of_a_guest(real):
    """The numbers of a machine that computes."""
    real.define("spin", path=payload("spin"), memory="16M")
    real.vmctl("start", "spin")
    row = json.loads(real.vmctl("top", "--once", "--json", "--interval", "0.3").stdout)[0]
    assert row["mips"] > 0 and row["policy"] in ("shadow", "tdp") and row["exits_per_second"] >= 0
    shown = json.loads(real.vmctl("show", "spin", "--json").stdout)
    assert shown["debugger"] is False and shown["owner"].startswith("unix:")
    assert shown["definition"]["restart"] == "never"


def test_token(host):
    file = os.path.join(host.folder, "tokens")
    out = host.vmctl("token", "new", "ci", "--level", "operate", "--file", file)
    secret = out.stdout.strip()
    assert out.returncode == 0 and len(secret) > 20
    with open(file, "rb") as f:
        assert secret not in f.read()
    assert os.stat(file).st_mode & 0o777 == 0o600
    assert host.vmctl("token", "new", "ci", "--file", file).returncode == 1
    assert lines(host.vmctl("token", "list", "--file", file))[1].split() == ["ci", "operate"]
    assert host.vmctl("token", "revoke", "ci", "--file", file).returncode == 0
    assert host.vmctl("token", "revoke", "ci", "--file", file).returncode == 1
    assert json.loads(host.vmctl("token", "list", "--json", "--file", file).stdout) == []


def test_interrupted_top_restores_the_terminal(host):
    host.vmctl("list")
    t = Terminal(host, "top", "--interval", "0.1")
    t.until(b"by cpu")
    os.kill(t.pid, signal.SIGINT)
    assert t.end() == 0


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("what", ["lives", "ends", "forgotten"])
def test_run_outlives_umbrad(host, sig, what):
    """Whatever becomes of umbrad and the machine meanwhile, run ends as the machine did, or says that it is gone."""
    p = host.spawn("run", "--name", "a", "--kernel", host.kernel, "--cmdline", "fake=echo")
    assert p.stdout.readline() == b"fake: hello\r\n"
    vm = json.loads(host.vmctl("show", "a", "--json").stdout)["pid"]
    # Nobody starts another umbrad before it is all done.
    lock = os.open(os.path.join(host.runtime, "start.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    pid = json.loads(host.vmctl("version", "--json").stdout)["umbrad"]["pid"]
    os.kill(pid, sig)
    wait_until(lambda: not alive(pid))
    if what != "lives":
        os.kill(vm, signal.SIGKILL)
        wait_until(lambda: not alive(vm))
    if what == "forgotten":
        for where, _, files in os.walk(host.folder):
            for name in files:
                if name.startswith("a."):
                    os.unlink(os.path.join(where, name))
    os.close(lock)
    if what == "lives":
        p.stdin.write(b"quit\n")
        p.stdin.flush()
    _, err = p.communicate(timeout=HANG)
    assert p.returncode == {"lives": 0, "ends": 127, "forgotten": 1}[what], err
    if what == "forgotten":
        assert b"no machine" in err

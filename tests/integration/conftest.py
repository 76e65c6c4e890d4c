# SPDX-License-Identifier: LGPL-2.1-or-later
"""A umbrad of its own for every test, and a plain JSON-RPC client."""
import array
import json
import os
import signal
import socket
import subprocess
import time

import pytest

BUILD = os.environ.get("UMBRA_TEST_BUILD", "")
VMCTL = os.environ.get("UMBRA_TEST_VMCTL", os.path.join(BUILD, "cli/vmctl"))
UMBRAD = os.environ.get("UMBRA_TEST_UMBRAD", os.path.join(BUILD, "daemon/umbrad"))
FAKE_VM = os.environ.get("UMBRA_TEST_VM", os.path.join(BUILD, "tests/integration/fake_vm"))
UMBRA_VM = os.environ.get("UMBRA_TEST_REAL_VM", os.path.join(BUILD, "vm/umbra-vm"))
PAYLOADS = os.environ.get("UMBRA_TEST_PAYLOADS", os.path.join(BUILD, "tests/guest"))
# Seconds after which something hangs: how long it takes is no matter of these tests, on whatever host.
HANG = 240


class Client:
    """JSON-RPC over a Unix socket, with the standard library only."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(HANG)
        self.sock.connect(path)
        self.text = b""
        self.fds = []
        self.events = []
        self.last_id = 0

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else json.dumps(data).encode())

    def receive(self):
        """The next message; None at the end."""
        while b"\n" not in self.text:
            data, control, _, _ = self.sock.recvmsg(65536, socket.CMSG_SPACE(16))
            for level, kind, value in control:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds = array.array("i")
                    fds.frombytes(value[: len(value) // 4 * 4])
                    self.fds += fds
            if not data:
                return None
            self.text += data
        line, self.text = self.text.split(b"\n", 1)
        return json.loads(line)

    def request(self, method, **params):
        self.last_id += 1
        self.send({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params})
        return self.last_id

    def answer(self, number):
        while True:
            msg = self.receive()
            assert msg is not None, "the connection was closed"
            if msg.get("method") == "event":
                self.events.append(msg["params"])
            elif isinstance(msg, dict) and msg.get("id") == number:
                return msg

    def call(self, method, **params):
        return self.answer(self.request(method, **params))

    def ok(self, method, **params):
        msg = self.call(method, **params)
        assert "result" in msg, msg
        return msg["result"]

    def error(self, method, **params):
        msg = self.call(method, **params)
        assert "error" in msg, msg
        return msg["error"]

    def event(self):
        if self.events:
            return self.events.pop(0)
        msg = self.receive()
        assert msg["method"] == "event"
        return msg["params"]

    def close(self):
        self.sock.close()


class Host:
    """Folders, programs and an environment of a test's own."""

    def __init__(self, folder, vm=FAKE_VM):
        self.folder = folder
        self.runtime = os.path.join(folder, "run")
        self.state = os.path.join(folder, "state")
        self.socket = os.path.join(self.runtime, "umbrad.sock")
        self.kernel = os.path.join(folder, "kernel")
        with open(self.kernel, "wb") as f:
            f.write(b"no kernel, but a file")
        # Most tests mean the soft engine, also where "auto" would be KVM: there is none for their machines.
        self.env = dict(os.environ, UMBRA_RUNTIME_DIR=self.runtime, UMBRA_STATE_DIR=self.state,
                        UMBRA_VM=vm, UMBRAD=UMBRAD, UMBRA_KVM_DEVICE="/nonexistent")
        self.clients = []

    def vmctl(self, *args, **kw):
        kw.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run([VMCTL, *args], env=self.env, capture_output=True, timeout=HANG, **kw)

    def spawn(self, *args, **kw):
        kw.setdefault("stdin", subprocess.PIPE)
        return subprocess.Popen([VMCTL, *args], env=self.env, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, **kw)

    def run(self, cmdline="fake=poweroff", *more, **kw):
        return self.vmctl("run", "--kernel", self.kernel, "--cmdline", cmdline, *more, **kw)

    def client(self):
        if not os.path.exists(self.socket):
            self.vmctl("list")
        client = Client(self.socket)
        self.clients.append(client)
        return client

    def pid(self):
        self.vmctl("list")
        return json.loads(self.vmctl("version", "--json").stdout)["umbrad"]["pid"]

    def kill_umbrad(self, sig=signal.SIGKILL):
        pid = self.pid()
        os.kill(pid, sig)
        wait_until(lambda: not alive(pid))
        return pid

    def spawn_vm(self, *args):
        """umbra-vm alone, to its end."""
        return subprocess.run([self.env["UMBRA_VM"], *args], env=self.env, stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=HANG, check=False)

    def define(self, name, cmdline="", path=None, **more):
        client = self.client()
        return client.ok("machine.create", definition=dict(name=name, kernel=path or self.kernel,
                                                           cmdline=cmdline, **more))

    def finish(self):
        for client in self.clients:
            client.close()
        if not os.path.exists(self.socket):
            return
        self.vmctl("list")  # where a test has killed umbrad, another finds its machines
        try:
            client = Client(self.socket)
        except OSError:
            return
        for machine in client.ok("machine.list")["machines"]:
            client.call("machine.delete", name=machine["name"], force=True)
        pid = client.ok("system.version")["pid"]
        client.close()
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not alive(pid))


def alive(pid):
    """A zombie whose parent has not looked yet is not alive."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def kvm_missing():
    """Why no machine can run on KVM here; "": it can."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
        return ""
    except OSError as e:
        return f"/dev/kvm: {e.strerror}"


def machine_processes(host):
    """The umbra-vm processes that were started from this test's folder."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline") as c, open(f"/proc/{pid}/environ") as e:
                ours = c.read().startswith("umbra-vm") and host.runtime in e.read()
        except OSError:
            continue
        if ours and alive(int(pid)):
            found.add(int(pid))
    return found


def wait_until(condition, seconds=HANG):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def group_tag(host):
    """What the names of this umbrad's control groups and services begin with: FNV-1a of its runtime folder."""
    h = 2166136261
    for byte in host.runtime.encode():
        h = (h ^ byte) * 16777619 & 0xffffffff
    return f"umbra-{h:08x}-"


def complaints(folder):
    """What sanitizers and the sandbox wrote into the logs of umbrad and of machines."""
    for where, _, files in os.walk(folder):
        for name in files:
            if name.endswith(".log"):
                with open(os.path.join(where, name), errors="replace") as f:
                    text = f.read()
                if any(word in text for word in ("Sanitizer", "runtime error", "sandbox refused")):
                    yield text


def serve(folder, vm, kvm=False):
    h = Host(folder, vm)
    if kvm:
        del h.env["UMBRA_KVM_DEVICE"]
    yield h
    logs = list(complaints(h.state))
    h.finish()
    logs += complaints(h.state)
    assert not logs, logs[0]


@pytest.fixture
def host(tmp_path):
    """With a umbra-vm that only plays one."""
    yield from serve(str(tmp_path), FAKE_VM)


@pytest.fixture
def real(tmp_path):
    """With the real umbra-vm, on the soft engine."""
    yield from serve(str(tmp_path), UMBRA_VM)


@pytest.fixture
def real_kvm(tmp_path):
    """With the real umbra-vm, and this host's /dev/kvm."""
    yield from serve(str(tmp_path), UMBRA_VM, kvm=True)


def payload(name):
    return os.path.join(PAYLOADS, name + ".elf")

# SPDX-License-Identifier: LGPL-2.1-or-later
"""org.umbra.Vmm1 on a real dbus-daemon of the test's own, with clients that others wrote."""
import grp
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

import pytest

from conftest import FAKE_VM, HANG, UMBRAD, serve, wait_until

dbus = pytest.importorskip("dbus")
pytest.importorskip("gi")
import dbus.mainloop.glib  # noqa: E402
from gi.repository import GLib  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
NAME = "org.umbra.Vmm1"
ROOT = "/org/umbra/Vmm1"
MANAGER = NAME + ".Manager"
MACHINE = NAME + ".Machine"
JOB = NAME + ".Job"
SERVICES = os.path.join(HERE, "dbus_services.py")
DTD = "/usr/share/xml/dbus-1/introspect.dtd"
ROOTS_OWN = os.geteuid() == 0  # then umbrad is the system's, and asks polkit

# Everybody may own and send everything, as only the test's own processes know the socket.
CONFIG = """<busconfig><type>system</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/>
<allow receive_sender="*"/></policy></busconfig>"""


class Bus:
    """A dbus-daemon."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "bus")
        self.address = "unix:path=" + self.path
        self.config = os.path.join(folder, "bus.conf")
        with open(self.config, "w") as f:
            f.write(CONFIG.format(path=self.path))
        self.processes = []
        self.daemon = None
        self.begin()

    def begin(self):
        self.daemon = subprocess.Popen(
            ["dbus-daemon", "--nofork", "--print-address", "--config-file", self.config],
            stdout=subprocess.PIPE)
        assert self.daemon.stdout.readline()

    def connect(self):
        return dbus.bus.BusConnection(self.address)

    def play(self, *args):
        """Another service on this bus, until the end."""
        p = subprocess.Popen([sys.executable, SERVICES, self.address, *args],
                             stdout=subprocess.PIPE)
        self.processes.append(p)
        assert p.stdout.readline() == b"ready\n"

    def end(self):
        for p in [*self.processes, self.daemon]:
            p.kill()
            p.wait()
            p.stdout.close()


@pytest.fixture
def bus():
    """Not in pytest's folders: each run of pytest makes those root's alone again, and others are to come here."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        b = Bus(folder)
        yield b
        b.end()


def on_bus(tmp_path, bus, vm=FAKE_VM):
    for h in serve(str(tmp_path), vm):
        # Root's umbrad is on the system's bus, another user's on its own.
        h.env.update(DBUS_SYSTEM_BUS_ADDRESS=bus.address, DBUS_SESSION_BUS_ADDRESS=bus.address)
        h.env["UMBRA_CONFIG"] = os.path.join(h.folder, "umbrad.conf")
        with open(h.env["UMBRA_CONFIG"], "w"):
            pass
        h.bus = bus
        h.rpc = h.client()
        listener = bus.connect()
        wait_until(lambda: listener.name_has_owner(NAME))
        listener.close()
        yield h


@pytest.fixture
def vmm(tmp_path, bus):
    yield from on_bus(tmp_path, bus)


# ---- the clients ----

class Failure(Exception):
    def __init__(self, name, text):
        super().__init__(f"{name}: {text}")
        self.kind = kind_of(name)


def kind_of(name):
    """"org.umbra.Vmm1.Error.InvalidParams" to "invalid-params"."""
    prefix = NAME + ".Error."
    assert name.startswith(prefix), name
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name[len(prefix):]).lower()


class Python:
    """python3-dbus: types come from the introspection."""

    def __init__(self, host):
        self.bus = host.bus.connect()

    def interface(self, path, iface):
        return dbus.Interface(self.bus.get_object(NAME, path, introspect=True), iface)

    def call(self, path, iface, member, *args, **kw):
        try:
            return self.interface(path, iface).get_dbus_method(member)(*args, **kw)
        except dbus.exceptions.DBusException as e:
            raise Failure(e.get_dbus_name(), e.get_dbus_message()) from None

    def raw(self, path, iface, member, signature, *args):
        """Without looking at the introspection."""
        try:
            return self.bus.call_blocking(NAME, path, iface, member, signature, args,
                                          timeout=HANG)
        except dbus.exceptions.DBusException as e:
            raise Failure(e.get_dbus_name(), e.get_dbus_message()) from None

    def get(self, path, iface, name):
        return self.call(path, "org.freedesktop.DBus.Properties", "Get", iface, name)


def busctl(host, *args):
    return subprocess.run(["busctl", "--address=" + host.bus.address, *args], capture_output=True,
                          text=True, timeout=HANG, check=False)


def gdbus(host, path, method, *args):
    return subprocess.run(["gdbus", "call", "--address", host.bus.address, "--dest", NAME,
                           "--object-path", path, "--method", method, *args],
                          capture_output=True, text=True, timeout=HANG, check=False)


def machine(name):
    """As sd-bus escapes what a path cannot hold."""
    return ROOT + "/machine/" + "".join(
        c if c.isascii() and c.isalnum() and not (i == 0 and c.isdigit()) else f"_{ord(c):02x}"
        for i, c in enumerate(name))


class Signals:
    """What a connection hears, while a GLib loop runs."""

    def __init__(self, host):
        self.bus = dbus.bus.BusConnection(host.bus.address,
                                          mainloop=dbus.mainloop.glib.DBusGMainLoop())
        self.heard = []
        self.bus.add_signal_receiver(self.hear, sender_keyword="sender", path_keyword="path",
                                     interface_keyword="iface", member_keyword="member")
        # Only who has called is told.
        self.bus.call_blocking(NAME, ROOT, MANAGER, "SystemVersion", "", ())

    def hear(self, *args, sender, path, iface, member):
        if sender == self.bus.get_name_owner(NAME):
            self.heard.append((path, iface.rsplit(".", 1)[1], member, args))

    def until(self, wanted):
        """The first signal that @wanted likes."""
        context = GLib.MainContext.default()
        late = GLib.timeout_add_seconds(HANG, lambda: self.heard.append(None))
        seen = 0
        while True:
            for s in self.heard[seen:]:
                assert s, f"not heard; only {self.heard[:-1]}"
                if wanted(*s):
                    GLib.source_remove(late)
                    return s
            seen = len(self.heard)
            context.iteration(True)


# ---- a machine's life ----

def test_life_by_busctl(vmm):
    def run(*args):
        p = busctl(vmm, "--json=short", *args)
        assert not p.returncode, p.stderr
        return json.loads(p.stdout or "null")

    path = machine("m-1")
    got = run("call", NAME, ROOT, MANAGER, "MachineCreate", "a{sv}a{sv}", "3", "name", "s", "m-1",
              "kernel", "s", vmm.kernel, "memory", "t", str(64 << 20), "0")
    assert got["data"][:3] == ["m-1", "stopped", False]
    assert run("get-property", NAME, path, MACHINE, "Memory") == {"type": "t", "data": 64 << 20}
    got = run("call", NAME, path, MACHINE, "Start", "a{sv}", "1", "wait", "b", "true")
    assert got["data"][0] == "/" and got["data"][1]["state"]["data"] == "running"
    assert run("get-property", NAME, path, MACHINE, "State")["data"] == "running"
    run("call", NAME, path, MACHINE, "Pause")
    assert run("get-property", NAME, path, MACHINE, "State")["data"] == "paused"
    run("call", NAME, path, MACHINE, "Resume")
    run("call", NAME, path, MACHINE, "Stop", "a{sv}", "2", "force", "b", "true", "wait", "b", "true")
    assert run("get-property", NAME, path, MACHINE, "State")["data"] == "stopped"
    assert "m_2d1" in busctl(vmm, "tree", NAME).stdout
    run("call", NAME, path, MACHINE, "Delete", "a{sv}", "1", "wait", "b", "true")
    assert "m_2d1" not in busctl(vmm, "tree", NAME).stdout
    assert "UnknownObject" in busctl(vmm, "get-property", NAME, path, MACHINE, "State").stderr or \
        "no machine" in busctl(vmm, "get-property", NAME, path, MACHINE, "State").stderr


def test_life_by_gdbus(vmm):
    def ok(path, method, *args):
        p = gdbus(vmm, path, NAME + method, *args)
        assert not p.returncode, p.stderr
        return p.stdout

    wait = "{'wait': <true>}"
    path = machine("g")
    ok(ROOT, ".Manager.MachineCreate", f"{{'name': <'g'>, 'kernel': <'{vmm.kernel}'>}}", "{}")
    assert "'running'" in ok(path, ".Machine.Start", wait)
    assert "console_in" in ok(path, ".Machine.Stats")
    ok(path, ".Machine.Stop", "{'force': <true>, 'wait': <true>}")
    assert "'stopped'" in ok(path, ".Machine.Show")
    ok(path, ".Machine.Delete", wait)
    p = gdbus(vmm, path, NAME + ".Machine.Show")
    assert p.returncode and "org.umbra.Vmm1.Error.NotFound" in p.stderr


def test_life_by_python(vmm):
    py = Python(vmm)
    path = machine("p")
    name, state, transient, rest = py.call(ROOT, MANAGER, "MachineCreate", dict(
        name="p", kernel=vmm.kernel, memory=dbus.UInt64(64 << 20), cpus=2,
        module=[vmm.kernel, vmm.kernel]), {})
    assert (name, state, transient) == ("p", "stopped", False)
    assert rest["definition"]["memory"] == 64 << 20 and rest["definition"]["cpus"] == 2
    assert list(py.get(path, MACHINE, "Module")) == [vmm.kernel] * 2
    job, _ = py.call(path, MACHINE, "Start", {})
    assert job.startswith(ROOT + "/job/")
    number, *_ = py.call(job, JOB, "Wait", {})
    assert py.get(job, JOB, "State") == "done" and py.get(job, JOB, "Id") == number
    assert py.get(path, MACHINE, "State") == "running"

    # The console, as a descriptor.
    fd = py.call(path, MACHINE, "Console").take()
    with socket.socket(fileno=fd) as console:
        console.settimeout(HANG)
        console.sendall(b"over the bus")
        text = b""
        while b"over the bus" not in text:
            text += console.recv(4096)

    py.call(path, MACHINE, "Stop", dict(force=True, wait=True))
    assert py.get(path, MACHINE, "State") == "stopped"
    assert py.get(path, MACHINE, "Exit")["reason"] == "stopped"
    assert py.call(path, MACHINE, "Delete", dict(wait=True))[0] == "/"
    assert not vmm.rpc.ok("machine.list")["machines"]


def test_signals(vmm):
    s = Signals(vmm)
    py = Python(vmm)
    path = machine("s")
    py.call(ROOT, MANAGER, "MachineCreate", dict(name="s", kernel=vmm.kernel), {})
    _, _, _, (added, interfaces) = s.until(lambda p, i, m, a: m == "InterfacesAdded")
    assert added == path and set(interfaces) == {NAME + ".Machine", NAME + ".Mmu", NAME + ".Dirty"}
    assert interfaces[MACHINE]["State"] == "stopped" and interfaces[MACHINE]["Cpus"] == 1

    job, _ = py.call(path, MACHINE, "Start", {})
    s.until(lambda p, i, m, a: m == "JobNew" and a[:2] == (job, "machine.start"))
    _, iface, _, (of, changed, _) = s.until(
        lambda p, i, m, a: p == path and m == "PropertiesChanged" and a[1]["State"] == "running")
    assert (iface, of) == ("Properties", MACHINE) and changed["Pid"] > 1 and "Cpus" not in changed
    s.until(lambda p, i, m, a: m == "JobRemoved" and a[0] == job and a[3] == "done")
    s.until(lambda p, i, m, a: m == "Event" and a[2:4] == ("state", "s") and
            a[4]["state"] == "running")
    py.call(path, MACHINE, "Stop", dict(force=True))
    s.until(lambda p, i, m, a: p == path and m == "PropertiesChanged" and a[1]["State"] == "stopped"
            and a[1]["Pid"] == 0)
    py.call(path, MACHINE, "Delete", dict(wait=True))
    s.until(lambda p, i, m, a: m == "InterfacesRemoved" and a[0] == path)

    # What D-Bus tells is what JSON-RPC tells.
    events = [a for _, _, m, a in s.heard if m == "Event"]
    numbers = [int(e[0]) for e in events]
    assert numbers == sorted(set(numbers))
    vmm.rpc.ok("events.subscribe", since=numbers[0] - 1)
    for e in events:
        other = vmm.rpc.event()
        assert (other["seq"], other["type"], other.get("machine", "")) == (e[0], e[2], e[3])


def test_managed_objects(vmm):
    py = Python(vmm)
    for name in ("a", "b.c"):
        vmm.define(name)
    vmm.rpc.ok("machine.start", name="a")
    objects = py.call(ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
    assert set(objects) == {machine("a"), machine("b.c")}
    for path, interfaces in objects.items():
        every = py.call(path, "org.freedesktop.DBus.Properties", "GetAll", MACHINE)
        assert interfaces[MACHINE] == every
        for name, value in every.items():
            assert py.get(path, MACHINE, name) == value
        # The long way to a single one, without an interface, gives the same.
        for name, value in every.items():
            assert py.get(path, "", name) == value
    shown = vmm.rpc.ok("machine.show", name="b.c")
    assert every["State"] == shown["state"] and every["Kernel"] == shown["definition"]["kernel"]
    assert py.get(ROOT, MANAGER, "Version") == vmm.rpc.ok("system.version")["version"]


# ---- the whole table ----

def interfaces_of(py, path):
    text = py.call(path, "org.freedesktop.DBus.Introspectable", "Introspect")
    return {i.get("name"): i for i in ElementTree.fromstring(text).iter("interface")}


def camel(words):
    return "".join(w[:1].upper() + w[1:] for w in re.split(r"[._-]", words))


class Row:
    """A method of the table, and where it is on the bus by the rule."""

    def __init__(self, row, py, job):
        self.name = row["name"]
        required = [p["name"] for p in row["params"] if p["required"]]
        optional = [p["name"] for p in row["params"] if not p["required"]]
        first, second = self.name.split(".", 1)
        if "name" in required and self.name != "machine.create":
            self.path, self.iface, self.member = machine("m"), f"{NAME}.{camel(first)}", camel(second)
            self.key = {"name": "m"}
        elif first == "job" and "id" in required:
            self.path, self.iface, self.member = job, JOB, camel(second)
            self.key = {"id": dbus.Int64(py.get(job, JOB, "Id"))}
        else:
            self.path, self.iface, self.member, self.key = ROOT, MANAGER, camel(self.name), {}
        self.required = [n for n in required if n not in self.key]
        self.optional = optional
        method = [m for m in interfaces_of(py, self.path)[self.iface].iter("method")
                  if m.get("name") == self.member]
        assert len(method) == 1, self.name
        self.types = [a.get("type") for a in method[0].iter("arg") if a.get("direction") == "in"]
        assert [a.get("name") for a in method[0].iter("arg") if a.get("direction") == "in"] == \
            self.required + (["options"] if optional else []), self.name


EXAMPLES = {"s": "x", "x": 7, "t": 4096, "b": False, "d": 0.5, "as": dbus.Array([], "s"),
            "a{sv}": dbus.Dictionary({}, "sv")}
WRONG = {"s": "x", "x": "s", "t": "s", "b": "s", "d": "s", "as": "s", "a{sv}": "s"}


def test_every_method(vmm):
    """Each is there; and refuses a missing, an extra and a mistyped parameter with the kind that
    JSON-RPC has for it."""
    py = Python(vmm)
    vmm.define("m")
    job, _ = py.call(machine("m"), MACHINE, "Start", {})
    rows = vmm.rpc.ok("rpc.discover")["methods"]
    assert len(rows) > 40
    refused = {"missing": 0, "extra": 0, "mistyped": 0}
    wrong = vmm.rpc.error("machine.show", nonsense=1)["data"]["kind"]
    assert wrong == "invalid-params"

    def refuse(row, why, signature, *args):
        with pytest.raises(Failure) as e:
            py.raw(row.path, row.iface, row.member, signature, *args)
        assert e.value.kind == wrong, (row.name, why, str(e.value))
        refused[why] += 1

    for row in (Row(r, py, job) for r in rows):
        signature = "".join(row.types)
        args = [EXAMPLES[t] for t in row.types]
        refuse(row, "extra", signature + "s", *args, "one more")
        if row.required:
            fewer = "".join(row.types[1:])
            refuse(row, "missing", fewer, *args[1:])
            other = WRONG[row.types[0]] if row.types[0] != "s" else "x"
            refuse(row, "mistyped", other + fewer, EXAMPLES[other], *args[1:])
        if row.optional:
            options = dbus.Dictionary({"nonsense": 1}, "sv")
            refuse(row, "extra", signature, *args[:-1], options)
            options = dbus.Dictionary({row.optional[0]: dbus.Struct((1, 2))}, "sv")
            refuse(row, "mistyped", signature, *args[:-1], options)
        if row.key:
            options = dbus.Dictionary(row.key, "sv")
            refuse(row, "extra", "a{sv}" if not row.types else signature, *args[:-1], options)
        assert vmm.rpc.error(row.name, nonsense=1)["data"]["kind"] == wrong
    print(len(rows), refused)
    assert refused["extra"] >= len(rows) and refused["missing"] > 5 and refused["mistyped"] > 20


def test_kinds_are_the_same(vmm):
    """The same mistake has the same kind on both sides."""
    py = Python(vmm)
    vmm.define("here")
    missing = dict(name="e", kernel="/nonexistent")
    cases = [
        ("machine.show", dict(name="nobody"), machine("nobody"), MACHINE, "Show", "", ()),
        ("machine.show", dict(name="-"), machine("-"), MACHINE, "Show", "", ()),
        ("machine.create", dict(definition=dict(name="here", kernel=vmm.kernel)),
         ROOT, MANAGER, "MachineCreate", "a{sv}a{sv}", (dict(name="here", kernel=vmm.kernel), {})),
        ("machine.create", dict(definition=dict(missing, memory="1K")),
         ROOT, MANAGER, "MachineCreate", "a{sv}a{sv}", (dict(missing, memory=dbus.UInt64(1024)), {})),
        ("machine.create", dict(definition=dict(name="e")),
         ROOT, MANAGER, "MachineCreate", "a{sv}a{sv}", (dict(name="e"), {})),
        ("machine.pause", dict(name="here"), machine("here"), MACHINE, "Pause", "", ()),
        ("machine.stop", dict(name="here"), machine("here"), MACHINE, "Stop", "a{sv}", ({},)),
        ("machine.nothing", {}, machine("here"), MACHINE, "Nothing", "", ()),
        ("job.show", dict(id=1), ROOT + "/job/_31", JOB, "Show", "", ()),
        ("mmu.walk", dict(name="here", addr="0x1000"), machine("here"), NAME + ".Mmu", "Walk",
         "ta{sv}", (4096, {})),
    ]
    kinds = set()
    for method, params, *call in cases:
        want = vmm.rpc.error(method, **params)
        with pytest.raises(Failure) as e:
            py.raw(*call[:4], *[dbus.Dictionary(a, "sv") if a == {} else a for a in call[4]])
        assert e.value.kind == want["data"]["kind"], (method, params)
        kinds.add(e.value.kind)
    assert kinds >= {"not-found", "exists", "invalid-params", "invalid-state", "method-not-found"}
    # A start that fails is told by the job.
    for name in ("bad", "worse"):
        vmm.define(name, "fake=refuse")
    want = vmm.rpc.error("machine.start", name="worse")["data"]["kind"]
    with pytest.raises(Failure) as e:
        py.call(machine("bad"), MACHINE, "Start", dict(wait=True))
    assert e.value.kind == want == "bad-image"


def test_strange_messages(vmm):
    """Refused, and umbrad goes on."""
    py = Python(vmm)
    vmm.define("m")
    vmm.define("7 up".replace(" ", "_"))
    assert py.get(machine("7_up"), MACHINE, "Name") == "7_up"
    manager = (ROOT, MANAGER, "MachineCreate", "a{sv}a{sv}")
    none = dbus.Dictionary({}, "sv")

    deep = dbus.Int32(1)
    for _ in range(20):
        deep = dbus.Array([deep], "v", variant_level=1)
    definition = dict(name="d", kernel=vmm.kernel)
    for more in (deep, dbus.Dictionary({1: 2}, "uu"), dbus.UInt64(2 ** 64 - 1), dbus.Byte(0),
                 float("nan"), dbus.types.UnixFd(0), dbus.Signature(""), -1):
        with pytest.raises(Failure) as e:
            py.raw(*manager, dict(definition, cpus=more), none)
        assert e.value.kind == "invalid-params", more
    for path in (ROOT + "/machine", ROOT + "/job", ROOT + "/job/x", ROOT + "/nothing",
                 ROOT + "/machine/_zz", ROOT + "/machine/a/b"):
        with pytest.raises((Failure, AssertionError)):
            py.raw(path, MACHINE, "Show", "")
    for iface, name in ((MACHINE, "Nothing"), ("a.b", "State")):
        with pytest.raises(dbus.exceptions.DBusException):
            py.bus.call_blocking(NAME, machine("m"), "org.freedesktop.DBus.Properties", "Get", "ss",
                                 (iface, name))
    with pytest.raises(dbus.exceptions.DBusException) as e:
        py.bus.call_blocking(NAME, machine("m"), "org.freedesktop.DBus.Properties", "Set", "ssv",
                             (MACHINE, "State", "running"))
    assert e.value.get_dbus_name() == "org.freedesktop.DBus.Error.PropertyReadOnly"
    assert py.raw(machine("m"), None, "Show", "")[0] == "m"  # the interface may be left out
    assert py.raw(machine("m"), MACHINE, "Logs", "") == py.raw(machine("m"), MACHINE, "Logs",
                                                               "a{sv}", none)
    assert [m["name"] for m in vmm.rpc.ok("machine.list")["machines"]] == ["m", "7_up"]


def test_introspection(vmm, tmp_path):
    """The specification's DTD and GLib's generator accept it."""
    py = Python(vmm)
    vmm.define("m")
    vmm.define("j")
    job, _ = py.call(machine("j"), MACHINE, "Start", {})
    texts = [subprocess.run([UMBRAD, "--introspect"], capture_output=True, text=True,
                            check=True).stdout]
    for path in (ROOT, machine("m"), job, ROOT + "/machine"):
        texts.append(py.call(path, "org.freedesktop.DBus.Introspectable", "Introspect"))
    for i, text in enumerate(texts):
        xml = tmp_path / f"{i}.xml"
        xml.write_text(text)
        subprocess.run(["xmllint", "--nonet", "--noout", "--dtdvalid", DTD, str(xml)], check=True)
    subprocess.run(["gdbus-codegen", "--generate-c-code", "vmm", "--c-namespace", "Umbra",
                    "--output-directory", str(tmp_path), str(tmp_path / "0.xml")], check=True)
    assert "umbra_org_umbra_vmm1_machine_call_start" in (tmp_path / "vmm.h").read_text()
    # What is installed is what objects say.
    installed = {i.get("name"): ElementTree.tostring(i).strip() for i in
                 ElementTree.fromstring(texts[0]).iter("interface")}
    for text in texts[1:4]:
        for i in ElementTree.fromstring(text).iter("interface"):
            if i.get("name").startswith(NAME):
                assert installed.pop(i.get("name")) == ElementTree.tostring(i).strip()
    assert not installed


# ---- jobs, peers, the bus ----

def test_job_cancelled(vmm):
    py = Python(vmm)
    vmm.define("deaf", "deaf")
    py.call(machine("deaf"), MACHINE, "Start", dict(wait=True))
    job, _ = py.call(machine("deaf"), MACHINE, "Wait", {})
    assert py.get(job, JOB, "State") == "running" and py.get(job, JOB, "Method") == "machine.wait"
    objects = py.call(ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
    assert job in objects and objects[job][JOB]["Machine"] == "deaf"
    py.call(job, JOB, "Cancel")
    assert py.get(job, JOB, "State") == "cancelled"
    assert job not in py.call(ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
    assert py.get(machine("deaf"), MACHINE, "State") == "running"


def test_caller_goes(vmm):
    """A call in flight whose caller dies is let go; others are served."""
    py = Python(vmm)
    vmm.define("m")
    py.call(machine("m"), MACHINE, "Start", dict(wait=True))
    waiting = subprocess.Popen(["busctl", "--address=" + vmm.bus.address, "call", NAME, machine("m"),
                                MACHINE, "Wait", "a{sv}", "1", "wait", "b", "true"],
                               stdout=subprocess.DEVNULL)
    running = lambda: [j for j in vmm.rpc.ok("job.list")["jobs"]  # noqa: E731
                       if j["state"] == "running"]
    wait_until(running)
    waiting.kill()
    waiting.wait()
    wait_until(lambda: not running())
    assert py.get(machine("m"), MACHINE, "State") == "running"


def test_many_at_once(vmm):
    """One connection has 64 calls in flight at most; the others' are served."""
    py = Python(vmm)
    vmm.define("m")
    py.call(machine("m"), MACHINE, "Start", dict(wait=True))
    other = dbus.bus.BusConnection(vmm.bus.address, mainloop=dbus.mainloop.glib.DBusGMainLoop())
    errors = []
    for _ in range(70):
        other.call_async(NAME, machine("m"), MACHINE, "Wait", "a{sv}",
                         (dbus.Dictionary({"wait": True}, "sv"),), lambda *a: None,
                         lambda e: errors.append(kind_of(e.get_dbus_name())))
    context = GLib.MainContext.default()
    while len(errors) < 6:
        context.iteration(True)
    assert errors == ["limit"] * 6
    assert py.get(machine("m"), MACHINE, "State") == "running"
    other.close()


def test_without_bus(vmm):
    """umbrad outlives the bus, and machines do not notice."""
    vmm.define("m")
    vmm.rpc.ok("machine.start", name="m")
    vmm.bus.daemon.send_signal(signal.SIGKILL)
    vmm.bus.daemon.wait()
    assert vmm.rpc.ok("machine.show", name="m")["state"] == "running"
    vmm.rpc.ok("machine.stop", name="m", force=True)
    os.unlink(vmm.bus.path)
    vmm.bus.begin()
    # It comes back by itself.
    py = vmm.bus.connect()
    wait_until(lambda: py.name_has_owner(NAME))
    assert Python(vmm).get(machine("m"), MACHINE, "State") == "stopped"


def test_no_bus_at_all(tmp_path):
    for h in serve(str(tmp_path), FAKE_VM):
        nowhere = "unix:path=" + str(tmp_path / "nowhere")
        h.env.update(DBUS_SYSTEM_BUS_ADDRESS=nowhere, DBUS_SESSION_BUS_ADDRESS=nowhere)
        assert h.run().returncode == 0


# ---- who may do what: only the system's umbrad asks ----

@pytest.mark.skipif(not ROOTS_OWN, reason="a user's own bus has one user")
class TestOthers:
    NOBODY = 65534

    def busctl(self, vmm, *args):
        return subprocess.run(["setpriv", "--reuid", str(self.NOBODY), "--regid", str(self.NOBODY),
                               "--clear-groups", "busctl", "--address=" + vmm.bus.address,
                               "--json=short", *args],
                              capture_output=True, text=True, timeout=HANG, check=False)

    def call(self, vmm, path, iface, member, *args):
        return self.busctl(vmm, "call", NAME, path, iface, member, *args)

    def create(self, vmm, name):
        return self.call(vmm, ROOT, MANAGER, "MachineCreate", "a{sv}a{sv}", "2", "name", "s", name,
                         "kernel", "s", vmm.kernel, "0")

    def test_without_polkit(self, vmm):
        vmm.define("roots")
        p = self.create(vmm, "mine")
        assert p.returncode and "access level" in p.stderr
        assert [m["name"] for m in vmm.rpc.ok("machine.list")["machines"]] == ["roots"]

    def test_polkit(self, vmm):
        vmm.bus.play("polkit", "org.umbra.vmm.read", "org.umbra.vmm.operate")
        vmm.define("roots")
        # Others' machines do not exist for it, on any path to them.
        for args in (("Show",), ("Start", "a{sv}", "0"), ("Stop", "a{sv}", "0"), ("Pause",)):
            p = self.call(vmm, machine("roots"), MACHINE, *args)
            assert p.returncode and "there is no machine" in p.stderr, args
        p = self.busctl(vmm, "get-property", NAME, machine("roots"), MACHINE, "State")
        assert p.returncode and "running" not in p.stdout
        p = self.call(vmm, ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
        assert not p.returncode and "roots" not in p.stdout
        assert "roots" not in self.busctl(vmm, "tree", NAME).stdout
        # What it may not, polkit says.
        p = self.create(vmm, "mine")
        assert p.returncode and "mine" not in str(vmm.rpc.ok("machine.list"))

    def test_polkit_admin(self, vmm):
        vmm.bus.play("polkit", "org.umbra.vmm.read", "org.umbra.vmm.operate", "org.umbra.vmm.admin")
        p = self.create(vmm, "mine")
        assert not p.returncode, p.stderr
        shown = vmm.rpc.ok("machine.show", name="mine")
        assert shown["owner"] == f"unix:{self.NOBODY}"
        # Its own: without being an admin.
        assert not self.call(vmm, machine("mine"), MACHINE, "Show").returncode
        assert not self.call(vmm, machine("mine"), MACHINE, "Start", "a{sv}", "1", "wait", "b",
                             "true").returncode

    def caller(self, vmm, gid):
        """A connection of somebody else's that stays."""
        return subprocess.Popen([sys.executable, SERVICES, vmm.bus.address, "caller", str(self.NOBODY), str(gid)],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, caller, *call):
        caller.stdin.write(json.dumps(call) + "\n")
        caller.stdin.flush()
        return caller.stdout.readline().strip()

    def end(self, caller):
        caller.stdin.close()
        caller.wait()
        caller.stdout.close()

    def test_level_changed(self, vmm):
        """The second property that a connection reads is answered by the short way; a reload is obeyed there too."""
        group = [g for g in grp.getgrall() if g.gr_gid not in (0, self.NOBODY)][0]
        pid = vmm.rpc.ok("system.version")["pid"]
        log = os.path.join(vmm.state, "umbrad.log")
        vmm.define("roots")
        vmm.rpc.ok("machine.create", owner=f"unix:{self.NOBODY}", definition={"name": "his", "kernel": vmm.kernel})
        caller = self.caller(vmm, group.gr_gid)

        def reads(name):
            return self.ask(caller, machine(name), "org.freedesktop.DBus.Properties", "Get", ["s", "s"],
                            [MACHINE, "State"])

        def level(level):
            with open(log) as f:
                before = f.read().count("has been read again")
            with open(vmm.env["UMBRA_CONFIG"], "w") as f:
                f.write(f"[access]\nother_users = none\n{level}_groups = {group.gr_name}\n")
            os.kill(pid, signal.SIGHUP)
            wait_until(lambda: open(log).read().count("has been read again") > before)

        nothing = "org.freedesktop.DBus.Error.UnknownObject"
        denied = NAME + ".Error.Denied"
        for now, his, roots in (("read", "ok", nothing), ("admin", "ok", "ok"), ("operate", "ok", nothing)):
            level(now)
            assert [reads("his"), reads("roots")] * 2 == [his, roots] * 2
        level("read")
        with open(vmm.env["UMBRA_CONFIG"], "w") as f:
            f.write("[access]\nother_users = none\nread_groups =\n")
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: reads("his") == denied)
        assert reads("roots") == denied
        self.end(caller)

    def test_matrix(self, vmm):
        """(who × method × whose machine): refused for want of a level, or as if there were none."""
        groups = [g for g in grp.getgrall() if g.gr_gid not in (0, self.NOBODY)][:3]
        with open(vmm.env["UMBRA_CONFIG"], "w") as f:
            f.write("[access]\nother_users = none\n")
            for level, group in zip(("read", "operate", "admin"), groups):
                f.write(f"{level}_groups = {group.gr_name}\n")
        os.kill(vmm.rpc.ok("system.version")["pid"], signal.SIGHUP)
        py = Python(vmm)
        vmm.define("m")
        vmm.define("run")
        job, _ = py.call(machine("run"), MACHINE, "Start", dict(wait=False))
        rows = [(r["x-access"], Row(r, py, job)) for r in vmm.rpc.ok("rpc.discover")["methods"]]
        levels = ["none", "read", "operate", "admin"]
        calls = seen = 0
        for who, gid in zip(levels, (self.NOBODY, *(g.gr_gid for g in groups))):
            caller = self.caller(vmm, gid)

            def kind(row, options):
                name = self.ask(caller, row.path, row.iface, row.member, row.types, options)
                return name if name == "ok" else kind_of(name)

            for access, row in rows:
                may = levels.index(who) >= levels.index(access)
                # An unknown option: nothing happens, whoever asks.
                got = kind(row, {"nonsense": 1}) if "a{sv}" in row.types else None
                calls += 1
                if got and row.member != "MachineCreate":
                    assert got == ("invalid-params" if may else "denied"), (who, row.name)
                # Root's machine and job are not there for others, whatever they may do.
                if row.key and who != "admin":
                    calls += 1
                    assert kind(row, {}) == ("not-found" if may else "denied"), (who, row.name)
                elif row.key and not row.types:
                    calls += 1
                    got = kind(row, {})
                    assert got not in ("denied", "not-found"), (who, row.name, got)
                    seen += 1
            self.end(caller)
        print(calls, "calls", seen, "seen by an admin")
        assert calls > 4 * len(rows) and seen > 3

    def test_machined(self, vmm):
        log = os.path.join(vmm.folder, "machined")
        vmm.bus.play("machined", log)
        lines = lambda: open(log).read().split("\n")[:-1]  # noqa: E731
        vmm.define("m")
        vmm.rpc.ok("machine.start", name="m")
        pid = vmm.rpc.ok("machine.show", name="m")["pid"]
        wait_until(lambda: lines() == [f"register m umbra vm {pid}"])
        vmm.rpc.ok("machine.stop", name="m", force=True)
        wait_until(lambda: lines()[1:] == ["unregister m"])

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the control plane costs: calls beside our peers', connections, umbrad's memory, vmctl run's start."""
import contextlib
import gc
import os
import resource
import statistics
import subprocess
import tempfile
import time

import control_wire as wire

NAME = "test"  # as libvirt's test driver calls its domain
WARM = 300
CALLS = 5000
CONNECTIONS = 1000
DEFINED = (0, 100, 1000)
RUNNING = 50
STARTS = 20
HELLO = b"ticking"  # what ticker.elf begins with
BUS_CONFIG = """<busconfig><type>system</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/>
<allow receive_sender="*"/></policy></busconfig>"""
LIBVIRTD_CONFIG = 'auth_unix_ro = "none"\nauth_unix_rw = "none"\nlog_outputs = "4:stderr"\n'
HOSTNAMED = "/lib/systemd/systemd-hostnamed"
NOBODY = 65534


def appears(what):
    """Until it is there: a socket that accepts, a name on a bus."""
    end = time.monotonic() + 30
    while True:
        try:
            return what()
        except (OSError, wire.WireError):
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def ended(process):
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def play(stack, command, **kw):
    """A program until the end of @stack."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, **kw)
    stack.callback(ended, process)
    return process


class Umbrad:
    """One with folders of its own; at the end its machines and it are gone."""

    def __init__(self, stack, build, bus="/nowhere"):
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="umbra-bench-"))
        self.ticker = f"{build}/tests/guest/ticker.elf"
        self.sock = f"{folder}/run/umbrad.sock"
        self.http = f"{folder}/run/umbrad-http.sock"
        config = f"{folder}/umbrad.conf"
        with open(config, "w", encoding="utf-8"):
            pass
        self.env = dict(os.environ, UMBRA_RUNTIME_DIR=f"{folder}/run", UMBRA_STATE_DIR=f"{folder}/state",
                        UMBRA_CONFIG=config, UMBRA_VM=f"{build}/vm/umbra-vm", UMBRAD=f"{build}/daemon/umbrad",
                        DBUS_SYSTEM_BUS_ADDRESS=f"unix:path={bus}", DBUS_SESSION_BUS_ADDRESS=f"unix:path={bus}")
        self.process = play(stack, [self.env["UMBRAD"]], env=self.env)
        appears(lambda: wire.connect(self.sock).close())
        stack.callback(self.clear)

    def call(self, method, **params):
        return wire.call(self.sock, method, **params)

    def define(self, name):
        self.call("machine.create", definition={"name": name, "kernel": self.ticker, "memory": "2M", "engine": "soft"})

    def run(self, name):
        self.define(name)
        self.call("machine.start", name=name)

    def clear(self):
        for machine in self.call("machine.list")["machines"]:
            self.call("machine.delete", name=machine["name"], force=True)

    def rss(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
            return next(int(text.split()[1]) for text in f if text.startswith("VmRSS:"))


# ---- the peers ----

def start_bus(stack, folder):
    path = f"{folder}/bus"
    with open(f"{folder}/bus.conf", "w", encoding="utf-8") as f:
        f.write(BUS_CONFIG.format(path=path))
    play(stack, ["dbus-daemon", "--nofork", "--config-file", f"{folder}/bus.conf"])
    appears(lambda: wire.connect(path).close())
    return path


def qemu_query(stack, folder):
    path = f"{folder}/qmp"
    play(stack, ["qemu-system-x86_64", "-S", "-M", "none", "-nodefaults", "-display", "none",
                 "-qmp", f"unix:{path},server=on,wait=off"])
    return appears(lambda: wire.qmp(path, "query-status"))


def libvirt_query(stack, folder):
    """A user's libvirtd, as root's would look after all of the host."""
    own = f"{folder}/libvirt"
    os.mkdir(own)
    with open(f"{own}/libvirtd.conf", "w", encoding="utf-8") as f:
        f.write(LIBVIRTD_CONFIG)
    who = {}
    if os.geteuid() == 0:
        os.chmod(folder, 0o711)
        os.chown(own, NOBODY, NOBODY)
        who = dict(user=NOBODY, group=NOBODY, extra_groups=[])
    folders = dict.fromkeys(("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"), own)
    play(stack, ["/usr/sbin/libvirtd", "-f", f"{own}/libvirtd.conf"], env=dict(os.environ, **folders), **who)
    return appears(lambda: wire.libvirt_state(f"{own}/libvirt/libvirt-sock", "test:///default", NAME))


def hostnamed_query(stack, bus):
    play(stack, [HOSTNAMED], env=dict(os.environ, DBUS_SYSTEM_BUS_ADDRESS=f"unix:path={bus}"))
    return property_of(bus, "org.freedesktop.hostname1", "/org/freedesktop/hostname1", "Hostname")


def property_of(bus, name, path, prop, kind=""):
    """A reader of it, as soon as its service is on the bus."""
    def ready():
        reader = wire.dbus_property(bus, name, path, name + kind, prop)
        reader.once()
        return reader

    return appears(ready)


# ---- the measurements ----

def figures(samples):
    samples = sorted(samples)
    return {"median_us": statistics.median(samples) / 1e3, "p99_us": samples[len(samples) * 99 // 100] / 1e3}


def in_turn(callers):
    """A call of each, again and again: what disturbs one disturbs the others."""
    samples = [[] for _ in callers]
    gc.disable()
    for i in range(WARM + CALLS):
        for caller, own in zip(callers, samples):
            took = caller.timed()
            if i >= WARM:
                own.append(took)
    gc.enable()
    return [figures(own) for own in samples]


def pairs(stack, build):
    """{transport: ((title, our caller), (title, the peer's))}"""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="umbra-bench-"))
    bus = start_bus(stack, folder)
    umbrad = Umbrad(stack, build, bus)
    umbrad.run(NAME)
    rpc = wire.rpc(umbrad.sock, "machine.show", name=NAME, brief=True)
    rest = wire.rest(umbrad.http, f"/api/v1/machines/{NAME}?brief=true")
    state = property_of(bus, "org.umbra.Vmm1", f"/org/umbra/Vmm1/machine/{NAME}", "State", ".Machine")
    return {
        "Unix socket": (("umbrad, machine.show", rpc), ("QEMU, QMP query-status", qemu_query(stack, folder))),
        "REST": (("umbrad, GET machines/test", rest), ("libvirtd, virDomainGetState", libvirt_query(stack, folder))),
        "D-Bus": (("umbrad, State", state), ("systemd-hostnamed, Hostname", hostnamed_query(stack, bus))),
    }


@contextlib.contextmanager
def one_processor():
    """For this process and all that it starts. Else a pair compares where the scheduler has put each service: beside
    its caller, or on an idle processor that an interrupt has to wake at each call, and it stays there for the run."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def bench_latency(build):
    result = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(one_processor())
        for transport, sides in pairs(stack, build).items():
            found = in_turn([caller for _, caller in sides])
            result[transport] = {title: f for (title, _), f in zip(sides, found)}
    print(f"\na state query, {CALLS:,} calls on one connection, the two sides of a pair in turn, "
          "all on one processor, microseconds\n")
    print(f"{'':44}{'median':>10}{'p99':>10}{'ratio':>10}{'of p99':>10}")
    for transport, sides in result.items():
        ours, peers = sides.values()
        for title, f in sides.items():
            ratios = [ours[key] / peers[key] for key in ("median_us", "p99_us")] if f is ours else []
            print(f"{transport:14}{title:30}{f['median_us']:10.1f}{f['p99_us']:10.1f}"
                  + "".join(f"{r:10.2f}" for r in ratios))
    return result


def bench_connections(build):
    with contextlib.ExitStack() as stack:
        umbrad = Umbrad(stack, build)
        umbrad.run(NAME)
        show = dict(name=NAME, brief=True)
        one = wire.rpc(umbrad.sock, "machine.show", **show)
        result = {"1 open": in_turn([one])[0]}
        begin = time.monotonic()
        callers = [wire.rpc(umbrad.sock, "machine.show", **show) for _ in range(CONNECTIONS - 1)] + [one]
        for caller in callers:
            stack.callback(caller.close)
        for caller in callers:
            caller.send()
        for caller in callers:
            caller.check(caller.receive())
        took = time.monotonic() - begin
        result[f"{CONNECTIONS:,} open"] = in_turn([one])[0]
        result[f"{CONNECTIONS:,} open, each in turn"] = figures(
            [caller.timed() for _ in range(max(CALLS // CONNECTIONS, 1)) for caller in callers])
        result["answered"], result["seconds"] = len(callers), took
    print(f"\nconnections to umbrad.sock: {len(callers):,} opened, a call sent on each, {result['answered']:,} answers "
          f"in {took * 1e3:.0f} ms\n\n{'a call, microseconds':44}{'median':>10}{'p99':>10}")
    for name, f in result.items():
        if isinstance(f, dict):
            print(f"{name:44}{f['median_us']:10.1f}{f['p99_us']:10.1f}")
    return result


def bench_memory(build):
    result = {}
    with contextlib.ExitStack() as stack:
        umbrad, defined = Umbrad(stack, build), 0
        for goal in DEFINED:
            while defined < goal:
                umbrad.define(f"m{defined}")
                defined += 1
            result[f"{goal:,} defined"] = umbrad.rss()
    with contextlib.ExitStack() as stack:
        umbrad = Umbrad(stack, build)
        for i in range(RUNNING):
            umbrad.run(f"m{i}")
        running = [m for m in umbrad.call("machine.list")["machines"] if m["state"] == "running"]
        if len(running) != RUNNING:
            raise SystemExit(f"only {len(running)} of {RUNNING} machines run")
        result[f"{RUNNING} running"] = umbrad.rss()
    print(f"\n{'umbrad, resident':44}{'KiB':>10}")
    for name, kib in result.items():
        print(f"{name:44}{kib:10,}")
    return result


def first_byte(command, env=None, hello=HELLO):
    """Milliseconds until it writes the payload's first byte to stdout, with which @hello begins."""
    begin = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env,
                          bufsize=0) as process:
        first = process.stdout.read(1)
        took = time.monotonic() - begin
        text, more = b"", first
        while more:
            text += more
            more = process.stdout.read(len(hello) - len(text))
        process.terminate()
    if text != hello:
        raise SystemExit(f"{command[0]} wrote {text!r} first")
    return took * 1e3


def bench_start(build):
    with contextlib.ExitStack() as stack:
        umbrad = Umbrad(stack, build)
        ours = [f"{build}/cli/vmctl", "run", "--kernel", umbrad.ticker, "--memory", "2M", "--engine", "soft"]
        qemu = ["qemu-system-x86_64", "-accel", "tcg", "-M", "microvm", "-m", "2", "-kernel", umbrad.ticker,
                "-nodefaults", "-display", "none", "-serial", "stdio"]
        sides = {"vmctl run": (ours, umbrad.env), "qemu-system-x86_64 -accel tcg -M microvm": (qemu, None)}
        runs = {name: [] for name in sides}
        for _ in range(STARTS):
            for name, (command, env) in sides.items():
                runs[name].append(first_byte(command, env))
    base = statistics.median(runs["vmctl run"])
    print(f"\nstart to the guest's first serial byte, ticker.elf, 2 MiB, umbrad runs, {STARTS} starts, milliseconds\n")
    print(f"{'':44}{'median':>10}{'least':>10}{'most':>10}{'ours/its':>10}")
    for name, ms in runs.items():
        m = statistics.median(ms)
        print(f"{name:44}{m:10.1f}{min(ms):10.1f}{max(ms):10.1f}{base / m:10.2f}")
    return {name: {"median_ms": statistics.median(ms), "runs": ms} for name, ms in runs.items()}


def bench(build):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return {"latency": bench_latency(build), "connections": bench_connections(build),
            "memory_kib": bench_memory(build), "first_byte": bench_start(build)}

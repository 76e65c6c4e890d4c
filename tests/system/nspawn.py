#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The packages in a booted Debian: install, activation, machines, restart, upgrade, purge.

usage: tests/system/nspawn.py [--packages FOLDER] [--keep]

A minimal bookworm (debootstrap, cached in build/nspawn) boots with systemd-nspawn -b in a copy of its own; the
packages of script/package (made when FOLDER, build/package, has none) are installed there. Root is needed, and the
network only to make the cache. nspawn gives the container the layout of control groups that the host has, which is
right for a systemd 252: on a host with the old layout nothing has to be said, and SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
in the environment shows the new one there. With the old one all controllers are read-only in a container, so that
machines' limits have no effect. Each check prints a line; the exit status is 1 when one failed.
"""
import argparse
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CACHE = os.path.join(ROOT, "build/nspawn")
MIRROR = "http://deb.debian.org/debian"
WITH = ("systemd,systemd-sysv,dbus,polkitd,systemd-container,libpam-systemd,curl,procps,"
        "passwd,login,util-linux")
NAME = f"umbra-test-{os.getpid()}"
POLICIES = ("tdp", "shadow")
WAIT = 150  # seconds for anything at all: a bound against hanging, no limit that a slow machine meets


class Failed(Exception):
    pass


def sh(*command, **options):
    return subprocess.run(command, check=True, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, **options).stdout


def wait_for(what, condition):
    """Poll @condition until it returns something true, and return that."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.1)
    raise Failed(f"this never came: {what}")


def base_system(package):
    """The cached root with the package's dependencies installed, made when it is not there."""
    depends = sh("dpkg-deb", "-f", package, "Depends")
    names = sorted({re.split(r"[ (|]", d.strip())[0] for d in depends.split(",")})
    key = hashlib.sha256(" ".join([WITH, *names]).encode()).hexdigest()[:16]
    base = os.path.join(CACHE, f"base-{key}")
    if os.path.exists(base):
        return base
    print(f"making {base} with {', '.join(names)}", flush=True)
    os.makedirs(CACHE, exist_ok=True)
    for old in glob.glob(os.path.join(CACHE, "base*")):
        shutil.rmtree(old)
    with open(os.path.join(CACHE, "log"), "w", encoding="utf-8") as log:
        subprocess.run(["debootstrap", "--variant=minbase", f"--include={WITH}", "bookworm", base + ".new", MIRROR],
                       check=True, stdout=log, stderr=log)
        subprocess.run(["systemd-nspawn", "--quiet", "--pipe", "--register=no", "--keep-unit", "-D", base + ".new",
                        "--setenv=DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y",
                        "--no-install-recommends", *names], check=True, stdin=subprocess.DEVNULL, stdout=log,
                       stderr=log)
    os.rename(base + ".new", base)
    return base


class Container:
    """A booted copy of the base system."""

    def __init__(self, base):
        self.root = tempfile.mkdtemp(prefix="umbra-nspawn-", dir=CACHE)
        sh("cp", "-a", base + "/.", self.root)
        self.console = open(self.root + ".console", "wb")
        self.nspawn = subprocess.Popen(
            ["systemd-nspawn", "-b", "-D", self.root, "-M", NAME, "--register=no", "--keep-unit",
             # nspawn's own filter lacks these, which the sandbox of a machine is made of.
             "--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self",
             "--console=pipe"], stdin=subprocess.DEVNULL, stdout=self.console, stderr=self.console,
            start_new_session=True)
        self.init = wait_for("the container's first process", self.first_process)
        wait_for("the container's boot", lambda: self.run(
            "systemctl is-system-running", check=False).strip() in ("running", "degraded"))

    def first_process(self):
        if self.nspawn.poll() is not None:
            raise Failed("systemd-nspawn ended")
        with open(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children", encoding="ascii") as f:
            children = f.read().split()
        if not children:
            return None
        with open(f"/proc/{children[0]}/comm", encoding="ascii") as f:
            return int(children[0]) if f.read().strip() == "systemd" else None

    def run(self, command, check=True, user=None):
        """A shell command inside; its output (stdout and stderr)."""
        if user:
            command = f"runuser -u {user} -- sh -c '{command}'"
        done = subprocess.run(["nsenter", "-t", str(self.init), "-a", "--", "/bin/sh", "-c", command], text=True,
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root",
                                   "DEBIAN_FRONTEND": "noninteractive", "SYSTEMD_COLORS": "0"},
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=WAIT, check=False)
        if check and done.returncode:
            raise Failed(f"{command}: status {done.returncode}: {done.stdout.strip()}")
        return done.stdout

    def path(self, inside):
        return f"/proc/{self.init}/root{inside}"

    def call(self, sock, method, **params):
        """One JSON-RPC call through a socket of the container, as its root."""
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(WAIT)
        s.connect(self.path(f"/run/umbra/{sock}"))
        s.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode())
        data = b""
        while True:
            data += s.recv(65536)
            try:
                return json.loads(data)
            except ValueError:
                pass

    def end(self, keep):
        if self.nspawn.poll() is None:
            self.run("systemctl poweroff", check=False)
            try:
                self.nspawn.wait(60)
            except subprocess.TimeoutExpired:
                self.nspawn.terminate()
                self.nspawn.wait()
        self.console.close()
        if keep:
            print(f"kept: {self.root}, console in {self.root}.console")
        else:
            shutil.rmtree(self.root)
            os.unlink(self.root + ".console")


def expect(condition, text):
    if not condition:
        raise Failed(text)


def show(c, unit, *names):
    out = c.run(f"systemctl show {unit} -p {','.join(names)}")
    return dict(line.split("=", 1) for line in out.splitlines())


def machine_pid(c, name):
    return json.loads(c.run(f"vmctl show {name} --json"))["pid"]


def clock(c, name):
    """The guest's own uptimes, as it has printed them."""
    return [float(x) for x in re.findall(r"^up (\d+\.\d+)", c.run(f"vmctl logs {name}"), re.M)]


def unharmed(c, what, act):
    """@act, and all machines live on: the same processes, guests whose clocks only go forward."""
    before = {p: (machine_pid(c, p), clock(c, p)[-1]) for p in POLICIES}
    act()
    for p, (pid, up) in before.items():
        expect(machine_pid(c, p) == pid, f"{p} has another process after {what}")
        ups = wait_for(f"{p}'s clock going on after {what}", lambda p=p, up=up: [
            u for u in [clock(c, p)] if u[-1] > up + 2])
        expect(ups == sorted(ups), f"the clock of {p} went back at {what}: {ups}")
    return ", ".join(f"{p} process {pid} up {up} -> {clock(c, p)[-1]}" for p, (pid, up) in before.items())


def check_install(c):
    c.run("dpkg -i /root/umbra.deb")
    files = c.run("dpkg -L umbra").split("\n")
    for path in ("/usr/sbin/umbrad", "/usr/bin/vmctl", "/etc/umbra/umbrad.conf",
                 "/usr/share/man/man5/umbrad.conf.5.gz"):
        expect(path in files, f"{path} is not in the package")
    expect(c.run("getent passwd umbra").split(":")[5] == "/var/lib/umbra", "no user umbra")
    c.run("umbrad --check")
    said = c.run("systemd-analyze verify --man=no umbrad.service umbrad.socket umbrad-ro.socket umbrad-http.socket "
                 "umbrad-tls.socket umbrad-https.socket umbrad-machines.service umbra.slice 2>&1 | grep umbra || true")
    expect(not said, f"systemd-analyze verify: {said}")
    enabled = c.run("systemctl list-unit-files 'umbrad*' --no-legend")
    return re.sub(r"\s+", " ", enabled)


def check_socket_activation(c):
    c.run("systemctl stop umbrad.service")
    for name in ("umbrad", "umbrad-ro", "umbrad-http"):
        state = show(c, f"{name}.socket", "ActiveState")["ActiveState"]
        expect(state == "active", f"{name}.socket is {state}")
    expect(show(c, "umbrad", "ActiveState")["ActiveState"] == "inactive", "umbrad runs after its stop")
    c.run("vmctl list")
    expect(show(c, "umbrad", "ActiveState")["ActiveState"] == "active", "the socket did not start umbrad")
    c.run("systemctl stop umbrad.service")
    answer = c.run("curl -sS --unix-socket /run/umbra/umbrad-http.sock http://localhost/api/v1/machines")
    json.loads(answer)
    c.run("systemctl stop umbrad.service")
    answer = c.call("umbrad-ro.sock", "machine.list")
    expect("result" in answer, f"umbrad-ro.sock: {answer}")
    return "umbrad.sock by vmctl, umbrad-http.sock by curl, umbrad-ro.sock by a plain client"


def check_start(c):
    c.run("systemctl restart umbrad")
    got = show(c, "umbrad", "ActiveState", "SubState", "Type", "NRestarts", "WatchdogUSec")
    expect(got["SubState"] == "running" and got["Type"] == "notify", f"umbrad: {got}")
    return str(got)


def check_read_only(c):
    answer = c.call("umbrad-ro.sock", "machine.create", definition={"kernel": "/root/vmlinuz"})
    kind = answer.get("error", {}).get("data", {}).get("kind")
    expect(kind == "denied", f"umbrad-ro.sock: {answer}")
    return "machine.create is denied"


def check_group(c):
    c.run("useradd -m -G umbra alice && useradd -m bob")
    there = "vmctl --connect unix:/run/umbra/umbrad.sock list"
    c.run(there, user="alice")
    done = c.run(f"if {there}; then echo served; fi", user="bob")
    expect("served" not in done, f"bob, who is not in umbra: {done}")
    done = c.run("if vmctl --connect unix:/run/umbra/umbrad-ro.sock list; then echo served; fi", user="bob")
    expect("served" not in done, f"bob on umbrad-ro.sock: {done}")
    return "a member of umbra is served, others are not"


def check_machines(c):
    for policy in POLICIES:
        c.run(f"vmctl create --name {policy} --kernel /root/vmlinuz --initrd /root/initrd --memory 192M "
              f"--engine soft --mmu {policy} --cmdline 'console=ttyS0 quiet umbra.run=\"while :; do read u i < /proc/uptime; "
              f"echo up $u; sleep 1; done\"'")
        c.run(f"vmctl start {policy}")
    for policy in POLICIES:
        wait_for(f"three lines of {policy}", lambda p=policy: len(clock(c, p)) >= 3)
    units = c.run("systemctl list-units 'umbra-*.service' --no-legend --plain")
    for policy in POLICIES:
        expect(f"umbra-{policy}.service" in units, f"{policy} is no service: {units}")
        got = show(c, f"umbra-{policy}.service", "Slice", "MainPID", "SubState")
        expect(got["Slice"] == "umbra.slice" and int(got["MainPID"]) == machine_pid(c, policy), str(got))
        told = json.loads(c.run(f"vmctl mmu policy {policy} --json"))
        expect(told["policy"] == policy, f"{policy} runs with {told}")
    return re.sub(r"\s+", " ", units)


def check_machinectl(c):
    out = c.run("machinectl list --no-pager --no-legend")
    for policy in POLICIES:
        expect(re.search(rf"\b{policy}\b.*vm\s+umbra", out), f"machinectl list: {out}")
    return re.sub(r"\s+", " ", out)


def check_sandbox(c):
    """Nothing of the sandbox is missing in a machine's service; what is, stands in the journal."""
    for policy in POLICIES:
        sandbox = json.loads(c.run(f"vmctl show {policy} --json"))["sandbox"]
        expect(not sandbox["missing"], f"{policy} lacks {sandbox['missing']}")
    return f"{len(sandbox['parts'])} parts"


def check_engine(c):
    """A container has no /dev/kvm unless it is given one: auto is soft there, and says why; explicit kvm is refused."""
    run = "vmctl run --kernel /root/debug_exit.elf"
    c.run("vmctl create --name engine --kernel /root/debug_exit.elf && vmctl start engine && vmctl wait engine || true")
    told = json.loads(c.run("vmctl show engine --json"))["exit"]
    expect((told["engine"], told["status"]) == ("soft", 7), f"auto without /dev/kvm: {told}")
    c.run("vmctl delete engine")
    why = told["engine_why"]
    expect("/dev/kvm: No such file" in why, f"auto without /dev/kvm: {told}")
    said = c.run(f"{run} --engine kvm --json", check=False)
    expect(json.loads(said)["error"]["data"]["kind"] == "not-supported", f"explicit kvm without it: {said}")
    if not os.path.exists("/dev/kvm"):
        return f"soft ({why}); this host has no /dev/kvm to give"
    c.run("mknod -m 600 /dev/kvm c 10 232")
    said = c.run(f"{run} --engine kvm; echo status $?", check=False)
    c.run("rm /dev/kvm")
    expect("status 7" in said, f"explicit kvm with a /dev/kvm that root alone may open: {said}")
    return f"soft ({why}); kvm once it has the device"


def check_restart(c):
    # The checks before have started it more often in 10 s than systemd's limit lets anybody.
    c.run("systemctl reset-failed umbrad.service")
    return unharmed(c, "systemctl restart umbrad", lambda: c.run("systemctl restart umbrad"))


def check_kill(c):
    def act():
        before = show(c, "umbrad", "MainPID")["MainPID"]
        c.run("systemctl kill -s KILL umbrad")
        wait_for("another umbrad", lambda: show(c, "umbrad", "MainPID", "SubState") not in (
            {"MainPID": before, "SubState": "running"},) and show(c, "umbrad", "SubState")["SubState"] == "running")
    return unharmed(c, "kill -9 of umbrad", act)


def check_watchdog(c):
    def act():
        c.run("mkdir -p /run/systemd/system/umbrad.service.d && printf '[Service]\\nWatchdogSec=2\\n' "
              ">/run/systemd/system/umbrad.service.d/test.conf && systemctl daemon-reload && systemctl restart umbrad")
        pid = show(c, "umbrad", "MainPID")["MainPID"]
        c.run(f"kill -STOP {pid}")
        wait_for("the watchdog", lambda: show(c, "umbrad", "MainPID")["MainPID"] not in (pid, "0"))
        c.run("rm -r /run/systemd/system/umbrad.service.d && systemctl daemon-reload && systemctl restart umbrad")
    return unharmed(c, "a umbrad that stood still", act)


def check_reload(c):
    drop_in = "/etc/umbra/umbrad.conf.d/test.conf"
    c.run(f"mkdir -p $(dirname {drop_in}) && printf '[limits]\\njobs = 9\\n' >{drop_in} && systemctl reload umbrad")
    wait_for("the entry of the reload", lambda: "has been read again" in c.run(
        "journalctl -u umbrad MESSAGE_ID=858fd3bde1454a30873639606fdeecde -o cat --no-pager"))
    c.run(f"printf '[limit]\\n' >{drop_in} && systemctl reload umbrad")
    said = wait_for("the refused reload", lambda: c.run(
        "journalctl -u umbrad MESSAGE_ID=20e28f7cd4944f69bedf5dd6bfe86a87 -o cat --no-pager"))
    expect("test.conf:1" in said, said)
    expect("test.conf:1" in c.run("umbrad --check", check=False), "umbrad --check accepts it")
    c.run(f"rm -r $(dirname {drop_in}) && vmctl list")
    return said.strip()


def check_journal(c):
    # The journal has taken what was sent before when a sync has returned.
    c.run("journalctl --sync")
    found = [json.loads(line) for line in c.run("journalctl -o json --no-pager UMBRA_MACHINE=tdp").splitlines()]
    started = [e for e in found if e.get("UMBRA_METHOD") == "machine.start"]
    expect(started and started[0]["UMBRA_WHO"] == "unix:0" and started[0]["UMBRA_OUTCOME"] == "ok" and
           started[0]["UMBRA_TRANSPORT"] == "rpc", f"machine.start: {started or found}")
    catalog = c.run("journalctl --list-catalog --no-pager | grep -c umbra || true").strip()
    ids = {e.get("MESSAGE_ID") for e in found}
    explained = c.run("journalctl -x --no-pager UMBRA_MACHINE=tdp")
    expect("Defined-By: umbra" in explained, "the catalog explains nothing")
    entry = {k: v for k, v in started[0].items() if k.startswith("UMBRA_") or k in ("MESSAGE", "MESSAGE_ID")}
    return f"{len(found)} entries, {len(ids)} kinds, {catalog} in the catalog; {json.dumps(entry)}"


def check_security(c):
    out = c.run("systemd-analyze security --no-pager --threshold=50 umbrad.service")
    return out.strip().splitlines()[-1]


def check_dbus(c):
    c.run("systemctl stop umbrad.service")
    out = c.run("busctl --system tree org.umbra.Vmm1 --no-pager")
    for policy in POLICIES:
        expect(f"/org/umbra/Vmm1/machine/{policy}" in out, out)
    return "activated by its name; " + re.sub(r"\s+", " ", out)


def check_upgrade(c):
    return unharmed(c, "dpkg -i of the same package", lambda: c.run("dpkg -i /root/umbra.deb"))


def check_stop(c):
    c.run("vmctl stop shadow --force")
    wait_for("shadow's end", lambda: json.loads(c.run("vmctl show shadow --json"))["state"] == "stopped")
    units = c.run("systemctl list-units --all 'umbra-*.service' --no-legend --plain")
    expect("umbra-shadow" not in units, units)
    expect("shadow" not in c.run("machinectl list --no-legend"), "machined still has it")
    return "no unit and no registration left"


def check_shutdown(c):
    """What the host's shutdown does before it stops services: the power button, then force."""
    c.run("mkdir -p /etc/umbra/umbrad.conf.d && printf '[machines]\\nstop_timeout = 2\\n' "
          ">/etc/umbra/umbrad.conf.d/stop.conf && systemctl reload umbrad && systemctl stop umbrad-machines.service")
    shown = json.loads(c.run("vmctl show tdp --json"))
    expect(shown["state"] == "stopped", f"tdp is {shown['state']}")
    said = c.run("journalctl --no-pager -o cat UMBRA_METHOD=system.stop_machines")
    expect("ok" in said, f"system.stop_machines: {said}")
    c.run("systemctl start umbrad-machines.service && vmctl start tdp")
    return said.strip()


def check_purge(c):
    files = [f for f in c.run("dpkg -L umbra").split("\n") if f]
    c.run("dpkg --purge umbra")
    mine = [f for f in files if not os.path.isdir(c.path(f)) and os.path.lexists(c.path(f))]
    for folder in ("/var/lib/umbra", "/run/umbra", "/etc/umbra", "/usr/libexec/umbra"):
        if os.path.lexists(c.path(folder)):
            mine.append(folder)
    expect(not mine, f"left: {mine}")
    links = c.run("find /etc/systemd /run/systemd/system /run/systemd/transient /var/lib/systemd "
                  "-name '*umbra*'").strip()
    expect(not links, f"left: {links}")
    units = c.run("systemctl list-units --all --no-legend --plain 'umbra*'; "
                  "systemctl list-unit-files --no-legend 'umbra*' || true").strip()
    expect(not units, f"units: {units}")
    left = c.run("pgrep -a umbra || true").strip()
    expect(not left, f"processes: {left}")
    return "no file, unit or process; " + c.run("getent passwd umbra").strip() + " stays, as system users do"


CHECKS = (check_install, check_socket_activation, check_start, check_read_only, check_group, check_machines,
          check_machinectl, check_sandbox, check_engine, check_restart, check_kill, check_watchdog, check_reload, check_journal,
          check_security, check_dbus, check_upgrade, check_stop, check_shutdown,
          check_purge)


def put_files(c, package):
    guests = f". {ROOT}/script/lib/guests.sh && guests_kernel cloud && guests_initrd cloud"
    kernel, initrd = sh("bash", "-c", guests).split()[-2:]
    payload = os.path.join(ROOT, "build/release/tests/guest/debug_exit.elf")
    for source, name in ((package, "umbra.deb"), (kernel, "vmlinuz"), (initrd, "initrd"), (payload, "debug_exit.elf")):
        shutil.copy(source, os.path.join(c.root, "root", name))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--packages", default=os.path.join(ROOT, "build/package"), metavar="FOLDER")
    parser.add_argument("--keep", action="store_true", help="keep the container's files")
    parser.add_argument("--only", help="a regular expression: checks to run (the first one always is)")
    args = parser.parse_args()
    if os.geteuid():
        sys.exit("tests/system/nspawn.py: only root can boot a container")
    if not glob.glob(args.packages + "/umbra_*.deb"):
        subprocess.run([os.path.join(ROOT, "script/package"), args.packages], check=True)
    package = glob.glob(args.packages + "/umbra_*.deb")[0]
    failed = 0
    c = Container(base_system(package))
    try:
        put_files(c, package)
        for check in CHECKS:
            name = check.__name__.removeprefix("check_").replace("_", "-")
            if args.only and check is not check_install and not re.search(args.only, name):
                continue
            try:
                print(f"ok     {name}: {check(c)}", flush=True)
            except (Failed, OSError, LookupError, ValueError, subprocess.TimeoutExpired) as e:
                failed += 1
                print(f"FAILED {name}: {type(e).__name__} {e}", flush=True)
                if check is check_install:
                    break
        if failed:
            print(c.run("journalctl -b --no-pager -n 60 -u umbrad", check=False))
    finally:
        c.end(args.keep)
    print(f"{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

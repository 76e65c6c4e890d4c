# SPDX-License-Identifier: LGPL-2.1-or-later
"""What umbra-vm gives up: every forbidden call is tried, and a running machine is looked at from outside."""
import json
import os
import re
import subprocess

import pytest
from conftest import UMBRA_VM, VMCTL, payload, wait_until

SANITIZED = os.environ.get("UMBRA_SANITIZE", "") != ""
PARTS = ["no-new-privs", "user", "mounts", "network", "ipc", "capabilities", "landlock", "rlimits", "dumpable",
         "seccomp"]
# What a sanitizer's runtime needs, it keeps (vm/sandbox_internal.h).
unsanitized = pytest.mark.skipif(SANITIZED, reason="a sanitizer's build has a wider list")
# A host, made by us, that lacks a part; nobody needs to be root for it.
POOR = ["unshare", "--user", "--map-root-user", "sh", "-c",
        'echo 0 > /proc/sys/user/max_net_namespaces && exec "$@"', "sh"]


def can_be_poor():
    return subprocess.run([*POOR, "true"], capture_output=True, check=False).returncode == 0


def umbra_vm(*args):
    return subprocess.run([UMBRA_VM, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def probe(*args):
    """(name -> (verdict, loop, vcpu, without the filter), exit status)"""
    done = umbra_vm("--sandbox-probe", *args)
    lines = re.findall(r"^(\w+) ([\w-]+): [^;]*; loop: (.*); vcpu: (.*); without the filter: (.*)$", done.stdout, re.M)
    return {name: (verdict, *rest) for verdict, name, *rest in lines}, done.returncode


def define(folder, **more):
    path = os.path.join(folder, "m.json")
    with open(path, "w") as f:
        json.dump({"kernel": payload("debug_exit"), "timeout": 60, "engine": "soft", **more}, f)
    return path


def strict_is_possible(folder):
    return umbra_vm("--config", define(folder, sandbox="strict")).returncode == 7


# ---- every forbidden call, from inside ----


@unsanitized
def test_each_forbidden_call_is_refused():
    seen, status = probe()
    allowed = {name: what for name, what in seen.items() if what[0] != "refused"}
    assert not allowed and status == 0
    assert seen.keys() >= {"open", "connect-out", "ptrace", "exec", "mount", "setuid", "socket-unix", "fork", "clone3",
                           "thread", "mprotect-exec", "mmap-exec", "ioctl-unknown", "io-uring", "keyctl", "bpf",
                           "userfaultfd", "int80", "x32"}
    # The filter refused it, not luck: its handler counted the call, or the kernel killed the caller.
    for name, (_, loop, vcpu, _) in seen.items():
        if name != "open":
            assert all("counted" in what or what == "Bad system call" for what in (loop, vcpu)), name


@unsanitized
def test_the_attempts_are_real(tmp_path):
    """The same calls without the filter: what nothing else forbids does happen, what other parts forbid does not."""
    if not strict_is_possible(str(tmp_path)):
        pytest.skip("this host does not allow every part")
    bare = {name: what[3] for name, what in probe()[0].items()}
    assert {"mprotect-exec", "mmap-exec", "memfd", "socket-unix", "madvise-other"} <= \
        {name for name, what in bare.items() if what == "ALLOWED"}
    for name in ("open", "create", "mount", "umount", "setuid", "setgid", "connect-out", "connect-passed", "exec",
                 "exec-fd", "ptrace", "kill", "unshare-mounts", "mlock", "raise-limit", "connect-abstract"):
        assert bare[name] != "ALLOWED", name


@unsanitized
def test_strict_kills(tmp_path):
    if not strict_is_possible(str(tmp_path)):
        pytest.skip("this host does not allow every part")
    seen, status = probe("--sandbox", "strict")
    assert status == 0
    assert {what[1:3] for name, what in seen.items() if name != "open"} == {("Bad system call", "Bad system call")}


def test_one_attempt_by_its_name():
    if not SANITIZED:
        assert list(probe("--sandbox-probe=mount")[0]) == ["mount"]
    assert umbra_vm("--sandbox-probe=nothing-of-ours").returncode != 0


# ---- the list ----


def test_list():
    lines = umbra_vm("--sandbox-list").stdout.splitlines()
    assert lines[0].split()[0] == "CALL"
    rows = [re.fullmatch(r"(\w+) +(loop vcpu|loop|vcpu) +(.+?)  +(\S.*)", line) for line in lines[1:]]
    assert all(rows), "a row without a class, a condition or a reason"
    plain = {m[1] for m in rows if m[3] == "-" and not m[4].startswith("sanitizer")}
    known = {m[1] for m in rows if m[3] != "EPERM" and not m[4].startswith("sanitizer")}
    doors = {"ioctl", "fcntl", "mmap", "mprotect", "madvise", "socketpair", "tgkill", "sendto", "newfstatat"}
    assert doors <= known and not doors & plain
    assert not known & {"open", "openat", "socket", "connect", "bind", "execve", "clone", "clone3", "fork", "ptrace",
                        "prctl", "seccomp", "memfd_create", "kill", "mount", "setuid", "prlimit64"}


# ---- a machine that runs ----


def running(real, **more):
    real.define("a", path=payload("echo"), **more)
    assert real.vmctl("start", "a").returncode == 0
    wait_until(lambda: real.vmctl("logs", "a").stdout)
    return json.loads(real.vmctl("show", "a", "--json").stdout)["pid"]


def status_of(pid, task):
    with open(f"/proc/{pid}/task/{task}/status") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


@pytest.mark.parametrize("clock,threads", [("host", 3), ("instructions", 2)])
def test_seen_from_outside(real, clock, threads):
    pid = running(real, cpus=2, clock=clock, engine="soft")
    told = json.loads(real.vmctl("sandbox", "a", "--json").stdout)
    missing = {m["part"] for m in told["missing"]}
    assert told["mode"] == "auto" and told["violations"] == 0 and "last_violation" not in told
    assert sorted(told["parts"] + sorted(missing)) == sorted(PARTS)
    tasks = os.listdir(f"/proc/{pid}/task")
    # TSan has a thread of its own, which began before.
    tasks = [t for t in tasks if not (SANITIZED and status_of(pid, t)["Seccomp"] == "0")]
    assert len(tasks) == threads
    for task in tasks:
        s = status_of(pid, task)
        assert s["NoNewPrivs"] == "1" and s["CapEff"] == s["CapPrm"] == s["CapAmb"] == "0" * 16
        assert s["Seccomp"] == ("0" if "seccomp" in missing else "2")
        if "capabilities" not in missing:
            assert s["CapBnd"] == "0" * 16
        if os.geteuid() == 0 and "user" not in missing:
            assert set(s["Uid"].split()) == {str(told["uid"])} and told["uid"] >= 0x70000000
            assert s["Groups"].strip() == ""
    if os.geteuid() == 0:
        if "mounts" not in missing:
            assert os.listdir(f"/proc/{pid}/root/") == []
            with open(f"/proc/{pid}/mountinfo") as f:
                assert len(f.readlines()) == 1
        for part, ns in (("network", "net"), ("ipc", "ipc"), ("ipc", "uts"), ("mounts", "mnt")):
            if part not in missing:
                assert os.readlink(f"/proc/{pid}/ns/{ns}") != os.readlink(f"/proc/self/ns/{ns}"), ns
    with open(f"/proc/{pid}/limits") as f:
        limits = {line[:26].strip(): line[26:].split()[:2] for line in f}
    assert limits["Max core file size"] == ["0", "0"] and limits["Max locked memory"] == ["0", "0"]
    assert SANITIZED or limits["Max processes"] == ["0", "0"]


@unsanitized
def test_two_machines_are_two_users(real):
    if os.geteuid():
        pytest.skip("only root can have several")
    uids = set()
    for name in ("a", "b"):
        real.define(name, path=payload("echo"))
        assert real.vmctl("start", name).returncode == 0
        uids.add(json.loads(real.vmctl("sandbox", name, "--json").stdout).get("uid"))
    assert len(uids) == 2 and 0 not in uids


def test_off(real):
    pid = running(real, sandbox="off")
    told = json.loads(real.vmctl("sandbox", "a", "--json").stdout)
    assert told == {"mode": "off", "parts": [], "missing": [], "violations": 0}
    assert status_of(pid, pid)["Seccomp"] == status_of(os.getpid(), os.getpid())["Seccomp"]


@unsanitized
def test_core_on_request(real):
    """Who asks for a core file gets a process that can be dumped, and is told so."""
    running(real, core=True)
    told = json.loads(real.vmctl("sandbox", "a", "--json").stdout)
    assert [m["why"] for m in told["missing"] if m["part"] == "dumpable"] == ["a core file is asked for"]


# ---- a host that lacks a part ----


@unsanitized
@pytest.mark.skipif(not can_be_poor(), reason="no user namespaces")
def test_auto_reports_what_is_missing(tmp_path):
    path = define(str(tmp_path))
    done = subprocess.run([*POOR, UMBRA_VM, "--config", path], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 7


@unsanitized
@pytest.mark.skipif(not can_be_poor(), reason="no user namespaces")
def test_strict_refuses_alone(tmp_path):
    path = define(str(tmp_path), sandbox="strict")
    done = subprocess.run([*POOR, UMBRA_VM, "--config", path], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 127
    assert '"strict" needs "network", which this host does not give: network namespace' in done.stderr


@unsanitized
@pytest.mark.skipif(not can_be_poor(), reason="no user namespaces")
def test_through_umbrad_on_a_poor_host(real):
    """The daemon and its machines where no network namespace is to be had."""
    args = [*POOR, VMCTL, "run", "--kernel", payload("debug_exit"), "--json", "--sandbox"]
    done = subprocess.run([*args, "strict"], env=real.env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    error = json.loads(done.stderr)["error"]
    assert done.returncode != 7 and error["data"]["kind"] == "not-supported" and '"network"' in error["message"]
    done = subprocess.run([*args, "auto"], env=real.env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 7

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which engine runs a machine, and why: explicit, automatic, and on hosts where KVM is absent, forbidden or broken."""
import errno
import glob
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile

import pytest

from conftest import UMBRA_VM, UMBRAD, VMCTL, alive, kvm_missing, payload, wait_until

LONG = os.environ.get("UMBRA_TEST_LONG") == "1"
HARDWARE = any(os.path.exists(f"/sys/module/{name}") for name in ("kvm_intel", "kvm_amd"))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NO_DEVICE = "/nonexistent/kvm"
DONE = 7  # debug_exit's status
NOBODY = 65534


needs_kvm = pytest.mark.skipif(kvm_missing() != "", reason=kvm_missing())


class Alone:
    """umbra-vm without umbrad, in an environment of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.env = dict(os.environ)
        self.prefix = []

    def run(self, *args, name="debug_exit", **definition):
        path = os.path.join(self.folder, "m.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"kernel": payload(name), "timeout": 60, **definition}, f)
        return subprocess.run([*self.prefix, UMBRA_VM, "--config", path, *args], env=self.env, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=120, check=False)

    def stats(self, *args, **definition):
        """The statistics of a run that ended well."""
        path = os.path.join(self.folder, "stats.json")
        done = self.run("--stats", path, *args, **definition)
        assert (done.returncode, done.stderr.count("\n")) == (DONE, 1), done.stderr
        with open(path, encoding="utf-8") as f:
            return json.load(f)


@pytest.fixture(name="alone")
def fixture_alone(tmp_path):
    return Alone(str(tmp_path))


@pytest.fixture(name="conf")
def fixture_conf(real_kvm):
    """umbrad's configuration, before it starts."""
    def write(text):
        path = os.path.join(real_kvm.folder, "umbrad.conf")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        real_kvm.env["UMBRA_CONFIG"] = path
    return write


def refusal(real_kvm, *args, name="debug_exit", **env):
    """vmctl's error as JSON: kind, field, message."""
    real_kvm.env.update(env)
    done = real_kvm.vmctl("run", "--json", "--kernel", payload(name), *args)
    assert done.returncode not in (0, DONE), done.stdout
    error = json.loads(done.stderr)["error"]
    return error["data"]["kind"], error["data"].get("details", {}).get("field", error["data"].get("field")), \
        error["message"]


def shown(real_kvm, *args, **env):
    """What machine.show says of a machine that runs."""
    real_kvm.env.update(env)
    done = real_kvm.vmctl("create", "--name", "a", "--kernel", payload("echo"), *args)
    assert done.returncode == 0, done.stderr
    done = real_kvm.vmctl("start", "a")
    assert done.returncode == 0, done.stderr
    return json.loads(real_kvm.vmctl("show", "a", "--json").stdout)


def kvm_descriptors(machine):
    """What its process has open of KVM's, the device itself aside; only root can see that."""
    if os.geteuid():
        return []
    fds = f"/proc/{machine['pid']}/fd"
    return [link for link in (os.readlink(f"{fds}/{fd}") for fd in os.listdir(fds)) if link.startswith("anon_inode:kvm")]


# ---- explicit ----


def test_soft(real_kvm):
    machine = shown(real_kvm, "--engine", "soft")
    assert (machine["engine"], machine["engine_why"]) == ("soft", "the definition says so")
    text = real_kvm.vmctl("show", "a").stdout
    assert b"engine: soft\n" in text and b"engine_why: the definition says so\n" in text
    # It has no way to the device at all.
    if os.geteuid() == 0:
        fds = f"/proc/{machine['pid']}/fd"
        assert "/dev/kvm" not in {os.readlink(f"{fds}/{fd}") for fd in os.listdir(fds)}


@needs_kvm
def test_kvm(real_kvm):
    machine = shown(real_kvm, "--engine", "kvm")
    assert (machine["engine"], machine["engine_why"]) == ("kvm", "the definition says so")
    if os.geteuid() == 0:
        fds = f"/proc/{machine['pid']}/fd"
        links = [os.readlink(f"{fds}/{fd}") for fd in os.listdir(fds)]
        assert "anon_inode:kvm-vm" in links and "anon_inode:kvm-vcpu:0" in links
        # It came with the descriptors: who it is now could not open the device.
        with open(f"/proc/{machine['pid']}/status", encoding="utf-8") as f:
            uids = next(line for line in f if line.startswith("Uid:")).split()[1:]
        assert os.environ.get("UMBRA_SANITIZE") or all(int(uid) >= 0x70000000 for uid in uids)
    told = json.loads(real_kvm.vmctl("sandbox", "a", "--json").stdout)
    assert told["violations"] == 0, told
    assert real_kvm.vmctl("stop", "-f", "a").returncode == 0
    assert json.loads(real_kvm.vmctl("show", "a", "--json").stdout)["exit"]["engine"] == "kvm"


@needs_kvm
@pytest.mark.parametrize("sandbox", ["auto", "strict", "off"])
def test_kvm_in_the_sandbox(alone, sandbox):
    if sandbox == "strict" and not strict_is_possible(alone):
        pytest.skip("this host does not allow every part")
    done = alone.run(engine="kvm", sandbox=sandbox)
    assert (done.returncode, done.stderr.count("\n")) == (DONE, 1), done.stderr


def strict_is_possible(alone):
    return alone.run(engine="soft", sandbox="strict").returncode == DONE


@needs_kvm
@pytest.mark.parametrize("engine", ["auto", "kvm"])
def test_engine_changes_in_the_sandbox(real_kvm, alone, engine):
    """A VM is made, run and left from inside; where a call were missing in the filter, "strict" would kill."""
    sandbox = "strict" if strict_is_possible(alone) else "auto"
    real_kvm.define("a", path=payload("ticker"), engine=engine, sandbox=sandbox, cpus=2, timeout=100)
    assert real_kvm.vmctl("start", "a").returncode == 0
    for to in ("kvm", "soft", "kvm", "soft"):
        assert real_kvm.vmctl("engine", "a", to, "--anyway").returncode == 0
        machine = json.loads(real_kvm.vmctl("show", "a", "--json").stdout)
        assert (machine["engine"], machine["state"]) == (to, "running")
    assert not kvm_descriptors(machine), "left over from a kvm that is no more"
    assert "machine.set_engine" in machine["engine_why"] and machine["sandbox"]["violations"] == 0


def test_the_filter_knows_each_request():
    """A request that engine/kvm/ makes on a rare path only would fail, or kill, there."""
    def words(pattern, *files):
        text = "".join(open(os.path.join(ROOT, name), encoding="utf-8").read() for name in files)
        return set(re.findall(pattern, re.sub(r"(?s)/\*.*?\*/", "", text)))
    sources = [name for name in glob.glob("engine/kvm/*.c", root_dir=ROOT) if not name.endswith("/sys.c")]
    known = words(r"ROW\((KVM_\w+)\)", "engine/kvm/sys.c")
    allowed = words(r"\bKVM\((KVM_\w+),", "vm/sandbox_filter.c")
    assert "KVM_RUN" in allowed <= known
    missing = (known & words(r"\bKVM_\w+", *sources)) - allowed
    assert missing == set(), "each needs a row in vm/sandbox_filter.c"


def test_soft_has_no_way_to_kvm(real_kvm):
    real_kvm.define("a", path=payload("echo"), engine="soft")
    assert real_kvm.vmctl("start", "a").returncode == 0
    done = real_kvm.vmctl("engine", "a", "kvm", "--json")
    error = json.loads(done.stderr)["error"]
    assert error["data"]["kind"] == "denied" and 'the definition\'s engine is "soft"' in error["message"]


@needs_kvm
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else and give him a device")
def test_kvm_as_a_user(tmp_path):
    """vmctl, umbrad and umbra-vm as nobody, who may open this /dev/kvm; then as nobody who may not."""
    folder = tempfile.mkdtemp(prefix="umbra-user-", dir="/tmp")
    os.chown(folder, NOBODY, NOBODY)
    device = os.path.join(folder, "kvm")
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.stat("/dev/kvm").st_rdev)
        os.chmod(device, 0o666)
        try:
            os.close(os.open(device, os.O_RDWR))
        except OSError:
            pytest.skip("/tmp has no devices")
        env = dict(os.environ, UMBRA_RUNTIME_DIR=f"{folder}/run", UMBRA_STATE_DIR=f"{folder}/state", UMBRA_VM=UMBRA_VM,
                   UMBRAD=UMBRAD, HOME=folder)
        for path, status in ((device, DONE), ("/dev/kvm", DONE if os.stat("/dev/kvm").st_mode & 6 == 6 else 1)):
            done = subprocess.run([VMCTL, "run", "--engine", "kvm", "--kernel", payload("debug_exit")],
                                  env=dict(env, UMBRA_KVM_DEVICE=path), user=NOBODY, group=NOBODY, extra_groups=[],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == status, done
            assert status == DONE or "/dev/kvm: Permission denied" in done.stderr
            version = subprocess.run([VMCTL, "version", "--json"], env=env, user=NOBODY, group=NOBODY,
                                     capture_output=True, check=True).stdout
            pid = json.loads(version)["umbrad"]["pid"]
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda pid=pid: not alive(pid))
    finally:
        shutil.rmtree(folder)


@needs_kvm
def test_kvm_ends_as_soft_does(real_kvm):
    for name in ("debug_exit", "triple_fault"):
        ends = [real_kvm.vmctl("run", "--engine", engine, "--kernel", payload(name)) for engine in ("soft", "kvm")]
        assert ends[0].returncode == ends[1].returncode and ends[0].stdout == ends[1].stdout, ends


# ---- automatic ----


def test_auto_here(real_kvm):
    """With hardware behind it, KVM; else our processor, and the reason is told."""
    machine = shown(real_kvm)
    if kvm_missing():
        assert (machine["engine"], machine["engine_why"]) == ("soft", kvm_missing())
    elif not HARDWARE:
        assert machine["engine"] == "soft" and "kvm = always in umbrad.conf overrides" in machine["engine_why"]
    else:
        assert machine["engine"] == "kvm" and "with hardware virtualization" in machine["engine_why"]


@needs_kvm
def test_auto_always(real_kvm, conf):
    conf("[machines]\nkvm = always\n")
    machine = shown(real_kvm)
    assert machine["engine"] == "kvm"
    assert HARDWARE or machine["engine_why"] == "umbrad.conf says kvm = always"


def test_auto_never(real_kvm, conf):
    conf("[machines]\nkvm = never\n")
    machine = shown(real_kvm)
    assert machine["engine"] == "soft" and "kvm = never" in machine["engine_why"]
    kind, field, message = refusal(real_kvm, "--engine", "kvm")
    assert (kind, field) == ("denied", "engine") and "kvm = never" in message


def test_config_is_checked(real_kvm, conf):
    conf("[machines]\nkvm = sometimes\n")
    done = subprocess.run([UMBRAD, "--check"], env=real_kvm.env, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "hardware, always, never" in done.stderr


# What only our own MMU and clock have: auto takes soft for it, explicit kvm is refused with the field.
OWN = [("clock", "instructions"), ("mmu_disable", "unsync"), ("mmu_max_page", "4K"), ("mmu_tables", "1M"),
       ("tdp_format", "npt")]


@pytest.mark.parametrize("field,value", OWN)
def test_what_only_soft_can(real_kvm, conf, field, value):
    conf("[machines]\nkvm = always\n")
    option = "--" + field.replace("_", "-")
    machine = shown(real_kvm, option, value)
    assert machine["engine"] == "soft" and '"kvm" cannot' in machine["engine_why"]
    kind, told, message = refusal(real_kvm, "--engine", "kvm", option, value)
    assert (kind, told) == ("not-supported", field) and '"kvm" cannot' in message


def test_ring_of_any_number(real_kvm):
    kind, field, _ = refusal(real_kvm, "--engine", "kvm", "--dirty-ring", "1000")
    assert (kind, field) == ("invalid-params", "dirty_ring")


# ---- a host without it ----


def test_no_device(real_kvm):
    kind, field, message = refusal(real_kvm, "--engine", "kvm", UMBRA_KVM_DEVICE=NO_DEVICE)
    assert (kind, field, message) == ("not-supported", "engine", "/dev/kvm: No such file or directory")
    machine = shown(real_kvm)
    assert (machine["engine"], machine["engine_why"]) == ("soft", "/dev/kvm: No such file or directory")


def test_no_device_alone(alone):
    alone.env["UMBRA_KVM_DEVICE"] = NO_DEVICE
    done = alone.run(engine="kvm")
    assert (done.returncode, done.stderr) == (127, "umbra-vm: /dev/kvm: No such file or directory\n")
    assert alone.stats("--kvm", "always")["engine"] == "soft"


def test_no_permission(alone):
    path = os.path.join(alone.folder, "forbidden")
    with open(path, "wb"):
        os.chmod(path, 0)
    alone.env["UMBRA_KVM_DEVICE"] = path
    if os.geteuid() == 0:  # whom only a capability lets open it
        alone.prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    done = alone.run(engine="kvm")
    assert (done.returncode, done.stderr) == (127, "umbra-vm: /dev/kvm: Permission denied\n")
    assert alone.stats("--kvm", "always")["engine"] == "soft"


@pytest.mark.parametrize("device,why", [("/dev/null", "is no KVM"), ("/proc/self/status", ""), ("/dev/full", "is no KVM")])
def test_no_kvm_behind_the_device(alone, device, why):
    alone.env["UMBRA_KVM_DEVICE"] = device
    done = alone.run(engine="kvm")
    assert done.returncode == 127 and why in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert alone.stats("--kvm", "always")["engine"] == "soft"


# ---- a KVM that is too old, or fails ----


@needs_kvm
def test_a_capability_is_missing(alone):
    alone.env["UMBRA_KVM_WITHOUT"] = "KVM_CAP_IMMEDIATE_EXIT"
    done = alone.run(engine="kvm")
    assert done.returncode == 127
    assert "this KVM has no KVM_CAP_IMMEDIATE_EXIT" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert alone.stats("--kvm", "always")["engine"] == "soft"


def requests(alone, *args, **definition):
    """What is asked of KVM in a small guest's life, in order."""
    path = os.path.join(alone.folder, "requests")
    if os.path.exists(path):
        os.unlink(path)
    alone.env["UMBRA_KVM_LOG"] = path
    done = alone.run(*args, **definition)
    del alone.env["UMBRA_KVM_LOG"]
    assert done.returncode == DONE, done.stderr
    with open(path, encoding="utf-8") as f:
        return f.read().split()


def chosen(count):
    """Each in turn; in CI a sample that moves over all kinds."""
    return range(1, count + 1) if LONG else range(1, count + 1, max(1, count // 12))


@needs_kvm
@pytest.mark.parametrize("code", [errno.EBUSY, errno.ENOMEM, errno.EINVAL])
def test_each_request_fails(alone, code):
    """Explicit kvm: the request is named, or the machine does without it; nothing hangs."""
    asked = requests(alone, engine="kvm", sandbox="off")
    assert len(asked) > 20
    for n in chosen(len(asked)):
        alone.env["UMBRA_KVM_FAIL"] = f"{n}:{code}"
        done = alone.run(engine="kvm", sandbox="off")
        assert done.returncode in (DONE, 127), (n, asked[n - 1], done)
        if done.returncode == 127:
            told = done.stderr.splitlines()[0]
            assert asked[n - 1] in told or os.strerror(code) in told or "KVM" in told, (n, asked[n - 1], told)
        assert "Sanitizer" not in done.stderr


@needs_kvm
def test_each_request_fails_under_auto(alone):
    """What fails while the machine is made is no reason not to run: soft takes over."""
    asked = requests(alone, "--kvm", "always", sandbox="off")
    loaded = asked.index("KVM_RUN") - asked[asked.index("KVM_RUN")::-1].index("KVM_SET_VCPU_EVENTS")
    assert asked[loaded - 1] == "KVM_SET_VCPU_EVENTS" or asked[loaded] == "KVM_SET_VCPU_EVENTS"
    for n in chosen(loaded):
        alone.env["UMBRA_KVM_FAIL"] = f"{n}:EBUSY"
        done = alone.run("--kvm", "always", sandbox="off")
        assert done.returncode == DONE, (n, asked[n - 1], done)
        assert "Sanitizer" not in done.stderr


@needs_kvm
def test_creation_fails(real_kvm, conf):
    """Through umbrad: the error's kind and field; under auto the reason is shown."""
    conf("[machines]\nkvm = always\n")
    alone = Alone(real_kvm.folder)
    n = requests(alone, engine="kvm").index("KVM_CREATE_VM") + 1
    kind, field, message = refusal(real_kvm, "--engine", "kvm", UMBRA_KVM_FAIL=f"{n}:EBUSY")
    assert field == "engine" and "KVM_CREATE_VM" in message and os.strerror(errno.EBUSY) in message
    assert kind == "limit"
    machine = shown(real_kvm)
    assert machine["engine"] == "soft"
    assert not kvm_descriptors(machine), "left over from the kvm that failed"
    assert machine["engine_why"].startswith("kvm failed: ") and "KVM_CREATE_VM" in machine["engine_why"]

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests as fixtures: Debian's kernels, and a vmctl with a daemon of its own."""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("UMBRA_BUILD", f"{ROOT}/build/release")
LONG = os.environ.get("UMBRA_TEST_LONG") == "1"


def guests(call):
    done = subprocess.run(["bash", "-c", f". {ROOT}/script/lib/guests.sh; {call}"], text=True,
                          stdout=subprocess.PIPE, check=True)
    return done.stdout.strip()


def kvm_missing():
    """Why engine kvm cannot be tested here; "" when it can."""
    try:
        os.close(os.open(os.environ.get("UMBRA_KVM_DEVICE", "/dev/kvm"), os.O_RDWR))
    except OSError as e:
        return f"/dev/kvm: {e.strerror}"
    return ""


class Vmctl:
    """vmctl with folders of its own, so with a daemon of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.env = dict(os.environ, UMBRA_RUNTIME_DIR=f"{folder}/run", UMBRA_STATE_DIR=f"{folder}/state")
        self.program = f"{BUILD}/cli/vmctl"

    def call(self, *args, timeout=600, **kw):
        return subprocess.run([self.program, *map(str, args)], env=self.env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, **kw)

    def run(self, *args, stats=False, timeout=600):
        path = f"{self.folder}/stats.json"
        extra = ["--stats", path] if stats else []
        done = self.call("run", "--engine", "soft", *args, *extra, timeout=timeout)
        done.text = done.stdout.decode(errors="replace")
        done.err = done.stderr.decode(errors="replace")
        if stats:
            with open(path, encoding="utf-8") as f:
                done.stats = json.load(f)
        return done

    def stop_daemon(self):
        """End our umbrad; what it and the machines logged must show no sanitizer's complaint."""
        version = json.loads(self.call("version", "--json").stdout)
        pid = version["umbrad"]["pid"]
        logs = list(self.logs())
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + 20
        while alive(pid) and time.monotonic() < end:
            time.sleep(0.02)
        for text in logs + list(self.logs()):
            for word in ("Sanitizer", "runtime error", "sandbox refused"):
                assert word not in text, text

    def logs(self):
        for where, _, files in os.walk(f"{self.folder}/state"):
            for name in files:
                if name.endswith(".log"):
                    with open(os.path.join(where, name), errors="replace", encoding="utf-8") as f:
                        yield f.read()


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture(scope="session")
def vmctl():
    folder = tempfile.mkdtemp(prefix="umbra-guest-")
    v = Vmctl(folder)
    yield v
    v.stop_daemon()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cloud():
    return guests("guests_kernel cloud"), guests("guests_initrd cloud")


@pytest.fixture(scope="session")
def generic():
    return guests("guests_kernel generic"), guests("guests_initrd generic")


@pytest.fixture(scope="session")
def vmlinux():
    return guests("guests_vmlinux cloud"), guests("guests_initrd cloud")

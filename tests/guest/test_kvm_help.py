# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the kernel cannot, our processor does: under kvm a guest sees what it sees on our own processor."""
import os

import pytest

from conftest import BUILD, LONG, kvm_missing

pytestmark = pytest.mark.skipif(bool(kvm_missing()), reason=kvm_missing())
HELPED = f"{BUILD}/tests/guest/helped.elf"
# Debian's kernel tests its ciphers for minutes when its own mode is emulated.
CMDLINE = "console=ttyS0 earlyprintk=ttyS0 panic=-1 reboot=t nosoftlockup cryptomgr.notests"


def table(stats):
    rows = sorted(stats["helped_by"].items(), key=lambda row: -row[1])
    return "".join(f"{name:16}{n:12}\n" for name, n in rows)


def test_same_as_ours(vmctl):
    texts = []
    for engine in ["soft", "kvm"]:
        done = vmctl.run("--engine", engine, "--kernel", HELPED, "--timeout", 120, stats=True)
        assert done.returncode == 1, done.text + done.err
        texts.append(done.text)
    assert texts[0] == texts[1]
    print(f"helped {done.stats['helped']} in {done.stats['help_runs']} runs\n{table(done.stats)}")
    assert done.stats["helped"] >= done.stats["help_runs"]


def test_off(vmctl):
    """Without help the machine ends as everywhere else, and says at what."""
    done = vmctl.run("--engine", "kvm", "--no-kvm-help", "--kernel", HELPED, "--timeout", 120, stats=True)
    if done.returncode == 1:
        pytest.skip("this KVM can carry out all of it")
    assert done.stats["helped"] == 0
    # POPCNT's bytes, and the registers.
    assert "cannot emulate" in done.err and "code f3 48 0f b8" in done.err, done.err
    assert "rip" in done.err


@pytest.mark.skipif(not LONG, reason="takes minutes: UMBRA_TEST_LONG=1")
def test_kernel(vmctl, vmlinux):
    """A stock Debian kernel, entered by PVH."""
    kernel, initrd = vmlinux
    done = vmctl.run("--engine", "kvm", "--kernel", kernel, "--initrd", initrd, "--memory", "256M", "--boot", "pvh",
                     "--cmdline", CMDLINE, "--timeout", 3000, stats=True, timeout=3100)
    print(f"helped {done.stats['helped']} in {done.stats['help_runs']} runs, the kernel's tables dropped "
          f"{done.stats['help_drops']} times\n{table(done.stats)}")
    assert done.returncode == 0, done.text[-2000:] + done.err
    assert "umbra: init reached" in done.text


@pytest.mark.skipif(not (LONG and os.environ.get("UMBRA_KUT")), reason="UMBRA_KUT=FOLDER of *.flat: kvm-unit-tests")
def test_kvm_unit_tests(vmctl):
    """See kvm_unit_tests.py -e kvm, which tells more."""
    for name in ["emulator", "memory", "smap"]:
        done = vmctl.run("--engine", "kvm", "--kernel", f"{os.environ['UMBRA_KUT']}/{name}.flat", "--boot",
                         "multiboot", "--memory", "128M", "--timeout", 600, timeout=700)
        assert done.returncode == 1, name + done.text[-2000:] + done.err

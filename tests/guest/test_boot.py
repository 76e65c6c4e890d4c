# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stock Debian kernels boot to a busybox init and power off."""
import pytest

from conftest import LONG

CMDLINE = "console=ttyS0 panic=-1"
POLICIES = ["tdp", "shadow"]


def boot(vmctl, guest, policy, cpus=1, form="payload", *options, **kw):
    kernel, initrd = guest
    done = vmctl.run("--kernel", kernel, "--initrd", initrd, "--memory", "256M", "--cpus", cpus, "--mmu", policy,
                     "--boot", form, "--cmdline", CMDLINE, "--timeout", 300, *options, **kw)
    assert done.returncode == 0, done.text[-2000:] + done.err
    assert "umbra: init reached" in done.text
    assert f"umbra: cpus {cpus}\n" in done.text.replace("\r", "")
    return done


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("cpus", [1, 2, 4])
@pytest.mark.parametrize("form", ["payload", "bzimage", "pvh"])
def test_cloud(vmctl, cloud, vmlinux, policy, cpus, form):
    if not LONG and (form, cpus) not in {("payload", 1), ("payload", 2), ("bzimage", 1), ("pvh", 4)}:
        pytest.skip("in script/test --long")
    boot(vmctl, vmlinux if form == "pvh" else cloud, policy, cpus, form)


@pytest.mark.parametrize("policy", POLICIES)
def test_generic(vmctl, generic, policy):
    boot(vmctl, generic, policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_many_in_a_row(vmctl, cloud, policy):
    for _ in range(20 if LONG else 2):
        boot(vmctl, cloud, policy, cpus=2)


@pytest.mark.parametrize("cpus", [1, 2])
def test_clock_instructions_repeats(vmctl, cloud, cpus):
    kernel, initrd = cloud
    seen = []
    for _ in range(2):
        done = vmctl.run("--kernel", kernel, "--initrd", initrd, "--memory", "256M", "--cpus", cpus, "--clock",
                         "instructions", "--cmdline", CMDLINE, "--timeout", 300, stats=True)
        assert done.returncode == 0, done.text[-2000:] + done.err
        seen.append((done.stats["instructions"], done.stats["memory_sha256"], done.stats["registers_sha256"],
                     done.text))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("policy", POLICIES)
def test_sanitizer_1(vmctl, cloud, policy):
    """One vCPU; for the build with ASan and UBSan, where one boot has to do."""
    boot(vmctl, cloud, policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_sanitizer_2(vmctl, cloud, policy):
    """Two vCPUs; for the build with TSan."""
    boot(vmctl, cloud, policy, cpus=2)

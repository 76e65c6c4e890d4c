# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kernels with every kind of paging: two levels of 4-byte entries, PAE; and NPT in place of EPT."""
import json

import pytest

from conftest import LONG, guests
from test_boot import POLICIES, boot
from test_machine import Shell

SHORT = {("pae", "shadow", 1), ("pae", "tdp", 2), ("686", "shadow", 1), ("686", "tdp", 2)}


def debian(name):
    return guests(f"guests_kernel {name}"), guests(f"guests_initrd {name}")


@pytest.mark.parametrize("cpus", [1, 2])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["pae", "686"])
def test_i386(vmctl, name, policy, cpus):
    if not LONG and (name, policy, cpus) not in SHORT:
        pytest.skip("in script/test --long")
    boot(vmctl, debian(name), policy, cpus)


@pytest.mark.parametrize("name", ["cloud", "pae", "686"])
@pytest.mark.parametrize("cpus", [1, 2])
def test_npt(vmctl, name, cpus):
    if not LONG and (name, cpus) != ("cloud", 2):
        pytest.skip("in script/test --long")
    done = boot(vmctl, debian(name), "tdp", cpus, "payload", "--tdp-format", "npt", stats=True)
    assert done.stats["exits"]["npf"] > 0 and "tdp_violation" not in done.stats["exits"]


@pytest.mark.parametrize("policy", POLICIES)
def test_quadrants(vmctl, policy):
    """A 32-bit page directory is shadowed by four tables of ours, and a page table by two."""
    m = Shell(vmctl, debian("686"), f"quadrants-{policy}", "--mmu", policy)
    pages = json.loads(vmctl.call("mmu", "pages", m.name, "--json").stdout)["pages"]
    seen = {(p["role"]["level"], p["role"]["quadrant"]) for p in pages
            if p["role"]["paging"] == "32-bit" and not p["frame"] and not p["role"]["direct"]}
    assert seen == ({(1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (2, 3)} if policy == "shadow" else set())
    assert vmctl.call("stop", "-f", m.name).returncode == 0
    assert m.console.wait(60) == 0
    assert vmctl.call("delete", m.name).returncode == 0

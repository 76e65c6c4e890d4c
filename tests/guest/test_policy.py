# SPDX-License-Identifier: LGPL-2.1-or-later
"""The policy switched over the API while a memory test runs: the guest does not notice."""
import json

import pytest

from conftest import BUILD, LONG

SWITCHES = 1000 if LONG else 50


def machine(vmctl, name, *more):
    done = vmctl.call("create", "--name", name, "--kernel", f"{BUILD}/tests/guest/memtest.elf", "--boot", "multiboot",
                      "--engine", "soft", "--memory", "16M", "--clock", "instructions",
                     "--cmdline", "long" if LONG else "short", *more)
    assert done.returncode == 0, done.stderr


def result(vmctl, name):
    """The console and the counters of a machine that runs to its end."""
    assert vmctl.call("wait", name).returncode == 1
    shown = json.loads(vmctl.call("show", name, "--json").stdout)
    text = vmctl.call("logs", name).stdout
    assert b"hash " in text
    assert vmctl.call("delete", name).returncode == 0
    return text, shown["exit"]["stats"]["instructions"]


@pytest.mark.parametrize("policy", ["tdp", "shadow"])
def test_memory_test(vmctl, policy):
    machine(vmctl, "plain", "--mmu", policy)
    assert vmctl.call("start", "plain").returncode == 0
    expected = result(vmctl, "plain")
    machine(vmctl, "switched", "--mmu", policy)
    assert vmctl.call("start", "switched").returncode == 0
    names = ["tdp", "shadow"] if policy == "shadow" else ["shadow", "tdp"]
    for k in range(SWITCHES):
        done = vmctl.call("mmu", "policy", "switched", names[k % 2])
        assert done.returncode == 0, f"after {k} switches: {done.stderr}"
    assert json.loads(vmctl.call("show", "switched", "--json").stdout)["state"] == "running"
    assert result(vmctl, "switched") == expected

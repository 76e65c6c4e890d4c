# SPDX-License-Identifier: LGPL-2.1-or-later
"""The dirty log against what a guest and a device really wrote, by three clients at once."""
import json
import os
import subprocess

import pytest

from conftest import BUILD, LONG, kvm_missing

ROUNDS = 1000 if LONG and not os.environ.get("UMBRA_SANITIZE") else 20
TESTS = f"{BUILD}/tests/guest"


def truth(*args, rounds=ROUNDS):
    done = subprocess.run([f"{TESTS}/dirty_truth", *args, "-r", str(rounds), f"{TESTS}/dirty_truth.elf"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          check=False)
    print(done.stdout)
    return done


def result_of(done, exact=True):
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["rounds"] == ROUNDS and result["changed"] > 100 * ROUNDS
    for client in result["clients"]:
        assert client["passes"] >= 2 * ROUNDS
        assert client["false"] < client["written"] / 4 or not exact
    return result


@pytest.mark.parametrize("tell", ["bitmap", "take", "ring"])
@pytest.mark.parametrize("policy, notice", [("shadow", "protect"), ("tdp", "protect"), ("tdp", "pml"), ("tdp", "both")])
def test_no_page_is_missing(policy, notice, tell):
    result = result_of(truth("-p", policy, "-n", notice, "-t", tell))
    assert (result["pml_entries"] > 0) == (notice != "protect")
    for client in result["clients"]:
        # Under PML a table that the processor only read counts as written (SDM: accessed and dirty bits of EPT).
        assert client["false"] == 0 or notice != "protect"


# A KVM that emulates (kvm_pvm) writes more entries than a ring's reserve holds: then all counts as dirty.
@pytest.mark.skipif(bool(kvm_missing()), reason=kvm_missing())
@pytest.mark.parametrize("ring, tell", [(0, "bitmap"), (0, "take"), (4096, "bitmap"), (4096, "take"), (4096, "ring"),
                                        (256, "take"), (256, "ring")])
def test_no_page_is_missing_kvm(ring, tell):
    result_of(truth("-e", "kvm", "-d", str(ring), "-t", tell), exact=not ring)


@pytest.mark.skipif(bool(kvm_missing()), reason=kvm_missing())
def test_rings_without_the_kernels():
    """The kernel's bitmap does not say which vCPU wrote."""
    done = truth("-e", "kvm", "-t", "ring")
    assert done.returncode == 2 and "dirty_ring_enable: Operation not supported" in done.stderr

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A counted run is the same to the instruction, whatever is looked at or switched meanwhile."""
import json
import subprocess

import pytest

from conftest import BUILD, LONG
from test_boot import CMDLINE

RUNS = {}


def boot(guest, cpus, policy="tdp", how="hold", every=0):
    kernel, initrd = guest
    definition = {"name": "d", "kernel": kernel, "initrd": initrd, "memory": "256M", "cpus": cpus, "mmu": policy,
                  "clock": "instructions", "cmdline": CMDLINE}
    done = subprocess.run([f"{BUILD}/tests/guest/disturb", how, str(every), json.dumps(definition)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=1200,
                          check=True)
    assert b"umbra: init reached" in done.stdout
    result = json.loads(done.stderr.splitlines()[-1])
    disturbed = result.pop("disturbed")
    result["console"] = done.stdout
    assert result["status"] == 0
    return result, disturbed


def plain(guest, cpus):
    if cpus not in RUNS:
        RUNS[cpus], disturbed = boot(guest, cpus)
        assert not disturbed
    return RUNS[cpus]


@pytest.mark.parametrize("cpus", [1, 2])
def test_policies_agree(cloud, cpus):
    assert boot(cloud, cpus, "shadow")[0] == plain(cloud, cpus)


# Instructions between two disturbances; the boot has some 1.3 thousand million, with 2 vCPUs the busier
# one 0.97. "policy" switches some 1,250 and 950 times in the long form.
@pytest.mark.parametrize("how, every, long_every", [("hold", 2_000_000, 100_000), ("pause", 10_000_000, 500_000),
                                                    ("stats", 50_000_000, 5_000_000),
                                                    ("policy", 10_000_000, 900_000)])
@pytest.mark.parametrize("cpus", [1, 2])
def test_disturbed(cloud, cpus, how, every, long_every):
    if not LONG and (cpus, how) not in {(1, "stats"), (2, "hold"), (1, "policy"), (2, "policy")}:
        pytest.skip("in script/test --long")
    result, disturbed = boot(cloud, cpus, how=how, every=long_every if LONG else every)
    print(f"{how}: disturbed {disturbed} times")
    assert disturbed >= 10
    assert result == plain(cloud, cpus)

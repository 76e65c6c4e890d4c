# SPDX-License-Identifier: LGPL-2.1-or-later
"""The dirty log against what a guest and a device really wrote, by three clients at once."""
import json
import os
import subprocess

import pytest

from conftest import BUILD, LONG

ROUNDS = 1000 if LONG and not os.environ.get("UMBRA_SANITIZE") else 20


@pytest.mark.parametrize("tell", ["bitmap", "take", "ring"])
@pytest.mark.parametrize("policy, notice", [("shadow", "protect"), ("tdp", "protect"), ("tdp", "pml"), ("tdp", "both")])
def test_no_page_is_missing(policy, notice, tell):
    tests = f"{BUILD}/tests/guest"
    done = subprocess.run([f"{tests}/dirty_truth", "-p", policy, "-n", notice, "-t", tell, "-r", str(ROUNDS),
                           f"{tests}/dirty_truth.elf"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["rounds"] == ROUNDS and result["changed"] > 100 * ROUNDS
    assert (result["pml_entries"] > 0) == (notice != "protect")
    for client in result["clients"]:
        assert client["passes"] >= 2 * ROUNDS
        # Under PML a table that the processor only read counts as written (SDM: accessed and dirty bits of EPT).
        assert client["false"] == 0 or notice != "protect"
        assert client["false"] < client["written"] / 4

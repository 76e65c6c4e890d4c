# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Debian kernel boots inside the sandbox: no call is refused, and it costs the guest nothing."""
import json
import os
import subprocess

import pytest

from conftest import BUILD


def boot(folder, guest, policy, sandbox):
    kernel, initrd = guest
    path, stats = os.path.join(folder, "m.json"), os.path.join(folder, "stats.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"kernel": kernel, "initrd": initrd, "memory": "256M", "mmu": policy, "clock": "instructions",
                   "cmdline": "console=ttyS0 panic=-1", "timeout": 300, "sandbox": sandbox}, f)
    done = subprocess.run([f"{BUILD}/vm/umbra-vm", "--config", path, "--stats", stats], stdin=subprocess.DEVNULL,
                          capture_output=True, check=False)
    # Every call that the filter refuses is told on stderr; with "strict" it would have been the end.
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"umbra: init reached" in done.stdout
    with open(stats, encoding="utf-8") as f:
        return done.stdout, json.load(f)


@pytest.mark.parametrize("policy", ["tdp", "shadow"])
def test_boot(tmp_path, cloud, policy):
    console, inside = boot(str(tmp_path), cloud, policy, "auto")
    console_outside, outside = boot(str(tmp_path), cloud, policy, "off")
    assert console == console_outside
    for what in ("instructions", "exits", "memory_sha256", "registers_sha256", "mmu"):
        assert inside[what] == outside[what], what

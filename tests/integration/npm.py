# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs of others from npm, pinned in a package.json, installed into the build folder."""
import os
import shutil
import subprocess

import pytest
from conftest import BUILD


def install(name):
    """Copies the folder NAME beside this file into the build and installs what it names; where that is."""
    if not shutil.which("npm") or not shutil.which("node"):
        pytest.skip("npm is not installed")
    folder = os.path.join(BUILD, "tests/integration", name)
    shutil.copytree(os.path.join(os.path.dirname(__file__), name), folder, dirs_exist_ok=True)
    done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=0"],
                          cwd=folder, capture_output=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install {name} here: " + done.stderr.decode()[-200:])
    return folder

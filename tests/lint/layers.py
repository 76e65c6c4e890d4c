#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fails when a folder includes what its row in ARCHITECTURE.md does not allow, a public header does not
compile alone, a file lacks its SPDX line or is too long, or a TODO was left.

usage: layers.py SOURCE-ROOT [--headers CC]
"""
import os
import re
import subprocess
import sys

# folder -> folders (or single headers) that it may include from
ALLOWED = {
    "base": [],
    "mmu": ["base"],
    "cpu": ["base"],
    # An engine with interrupt controllers of its own gives and takes their state in devices/' form.
    "engine": ["cpu", "mmu", "base", "devices/lapic.h", "devices/pic.h", "devices/ioapic.h",
               "devices/pit.h", "devices/state.h"],
    "devices": ["mmu/types.h", "mmu/slot.h", "mmu/dirty.h", "base"],
    "vm": ["engine", "devices", "mmu", "api", "base"],
    "api": ["base"],
    "daemon": ["api", "base"],
    "cli": ["api", "base"],
}
# Other folders' headers that never leave them.
INTERNAL = re.compile(r"_internal\.h$")
MAX_LINES = 1500
MAX_COLUMNS = 100
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
LEFT_OVER = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def sources(root):
    for folder in ALLOWED:
        for where, _, files in os.walk(os.path.join(root, folder)):
            for name in sorted(files):
                if name.endswith((".c", ".h")):
                    yield folder, os.path.relpath(os.path.join(where, name), root)


def may_include(folder, target):
    top = target.split("/")[0]
    if top == folder:
        return True
    if INTERNAL.search(target):
        return False
    return any(target == a or (top == a and "/" not in a) for a in ALLOWED[folder])


def check_file(root, folder, path):
    with open(os.path.join(root, path), encoding="utf-8") as f:
        lines = f.read().split("\n")
    if "SPDX-License-Identifier: LGPL-2.1-or-later" not in lines[0]:
        yield f"{path}:1: no SPDX line"
    if len(lines) > MAX_LINES:
        yield f"{path}: {len(lines)} lines, more than {MAX_LINES}"
    for number, line in enumerate(lines, 1):
        m = INCLUDE.match(line)
        if m:
            target = m.group(1)
            if not os.path.exists(os.path.join(root, target)):
                yield f"{path}:{number}: \"{target}\" is not a path from the root"
            elif not may_include(folder, target):
                yield f"{path}:{number}: {folder}/ may not include {target}"
        if LEFT_OVER.search(line):
            yield f"{path}:{number}: left over: {line.strip()}"
        if len(line.expandtabs(8)) > MAX_COLUMNS:
            yield f"{path}:{number}: longer than {MAX_COLUMNS} columns"


def check_header(root, path, cc):
    run = subprocess.run(
        [cc, "-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror",
         "-I", root, "-fsyntax-only", "-x", "c", "-include", os.path.join(root, path), "/dev/null"],
        capture_output=True, text=True)
    if run.returncode:
        yield f"{path}: does not compile alone:\n{run.stderr}"


def main():
    root = sys.argv[1]
    cc = sys.argv[3] if len(sys.argv) > 3 and sys.argv[2] == "--headers" else None
    problems = []
    for folder, path in sources(root):
        problems += check_file(root, folder, path)
        if cc and path.endswith(".h") and not path.endswith("_tmpl.h"):
            problems += check_header(root, path, cc)
    for p in problems:
        print(p)
    print(f"lint: {len(problems)} problem(s)")
    return 1 if problems else 0


sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plant bugs in mmu/, one at a time and mechanically, and see that the tests catch each.

Every call that flushes, protects, syncs, zaps, changes a reverse map, marks dirty or checks a role
is taken out by itself: a statement becomes nothing, an expression becomes the value in CALLS.
usage: mutants.py [-o OPERATIONS] [-j JOBS] [-k SUBSTRING] [SOURCE-ROOT]
"""
import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

# Name: what an expression becomes (None: it is only ever a statement).
CALLS = {
    "batch_frames": None, "batch_all": None, "batch_commit": None, "batch_flush": None,
    "rmap_write_protect": "false", "rmap_protect_level": "false", "rmap_zap": None,
    "rmap_add": None, "rmap_remove": None, "spte_account_leaf": None, "leaf_zap": None,
    "sync_entry": None, "sync_entries": None, "sync_below": None, "sync_root": None,
    "sync_mark_parents": None, "sync_forget": None, "sync_allow_write": "true",
    "spte_zap": None, "sp_zap": None, "sp_unshadow": "1", "slot_zap": None, "zap_all": None,
    "spte_protect": "false", "protect_page": None, "protect_slot": None, "collapse_slot": None,
    "dirty_mark": None, "dirty_mark_vcpu": None, "dirty_notice_slow": None, "dirty_note": None,
    "fold_slot": None, "ml_set_atomic": None,
    "sp_add_users": None, "sp_expel": None, "slot_account_shadow": None,
    "slots_new_generation": None, "track_write": None, "track_walk": None, "page_written": None,
    "entry_written": None, "frame_written": None, "walk_changed": "false",
    "gpte_present": "true", "gpte_accessed": "true", "gpte_reserved": "false",
    "spte_is_reduced": "false", "access_denied": "false", "root_matches": "true",
    "is_misaligned": "false", "relax_for_wp": "0", "slot_is_logged": "false",
    "is_unseen_writable": "false", "same_form": "true", "width_set": None, "root_switch": None,
    "root_release": None, "roots_drop": None, "sp_put_root": None, "context_set": None,
    "pte_update": "true",
}
TESTS = ["dirty", "inspect", "shadow", "slots", "walk", "property"]
SOURCES = ["audit", "dirty", "fault", "inspect", "mmu", "nested", "page", "role", "root", "slot",
           "sync", "track", "walk"]
SKIP_FILES = {"audit", "inspect"}
# Survivors that are no bug, by file and text of the line, with the reason.
EQUIVALENT = [
    ("dirty.c", "batch_commit(vm)", "unlock() commits as well, before the client can read"),
    ("fault.c", "is_unseen_writable(old", "it only spares a second note of the same page"),
    ("fault.c", "access_denied(c, f->access, spte_x86_access(old)", "else W is set in vain: a page falsely told"),
    ("mmu.c", "roots_drop(", "zap_all() makes the roots obsolete as well"),
    ("page.c", "sp_zap(vm, sp)", "an unsynced leaf beside a higher table: its old entries stay legal until a flush"),
    ("page.c", "batch_commit(vm)", "the next commit follows under the same lock"),
    ("slot.c", "batch_commit(vm)", "slot_zap() commits, or slots_unlock() does"),
    ("role.c", "batch_commit(vm)", "root_switch() commits as well"),
    ("nested.c", "batch_commit(vm)", "root_switch() or sync_root() commits as well"),
    ("root.c", "batch_commit(vm)", "mmu_load() and mmu_unload(): nothing is reused before the next commit"),
]


def find_calls(text):
    """Yields (start, end, name, is_statement) of each call."""
    for m in re.finditer(r"\b(" + "|".join(CALLS) + r")\(", text):
        line_start = text.rfind("\n", 0, m.start()) + 1
        if line_start == m.start() or not text[line_start].isspace():
            continue  # a definition or declaration
        before = text[line_start:m.start()].strip()
        if before.startswith(("/*", "*", "//", "#")):
            continue
        depth, i = 1, m.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[i], 0)
            i += 1
        statement = before in ("", "else") and text[i] == ";"
        if not statement and CALLS[m.group(1)] is None:
            continue
        yield m.start(), i, m.group(1), statement


def compile_one(root, source, output):
    return subprocess.run(
        ["gcc", "-std=gnu17", "-O1", "-g", "-D_GNU_SOURCE", "-DUMBRA_DEBUG", "-w", "-fno-strict-aliasing",
         "-I", root, "-I", os.path.join(root, "tests/unit/mmu"), "-c", source, "-o", output],
        stderr=subprocess.DEVNULL).returncode == 0


def build_base(root, work):
    jobs = [(f"mmu/{s}.c", f"mmu_{s}.o") for s in SOURCES]
    jobs += [(f"tests/unit/mmu/{s}.c", f"{s}.o") for s in ("machine", "oracle")]
    jobs += [(f"tests/unit/mmu/test_mmu_{t}.c", f"test_{t}.o") for t in TESTS]
    for source, output in jobs:
        if not compile_one(root, os.path.join(root, source), os.path.join(work, output)):
            sys.exit(f"{source} does not compile")


def run_tests(work, objects, directory, operations):
    """The name of the test that failed, or None."""
    for test in TESTS:
        binary = os.path.join(directory, test)
        link = ["gcc", os.path.join(work, f"test_{test}.o"), os.path.join(work, "machine.o"),
                os.path.join(work, "oracle.o"), *objects, "-lcmocka", "-lpthread", "-o", binary]
        if subprocess.run(link, stderr=subprocess.DEVNULL).returncode:
            return "link"
        runs = [[binary]]
        if test == "property":
            runs = [[binary, str(operations), str(seed)] for seed in range(1, 9)]
        for run in runs:
            try:
                r = subprocess.run(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
            except subprocess.TimeoutExpired:
                return test + " (hangs)"
            if r.returncode:
                return test
    return None


def mutant(root, work, name, text, call, operations):
    start, end, function, statement = call
    replacement = "(void)0" if statement else CALLS[function]
    line = text.count("\n", 0, start) + 1
    label = f"mmu/{name}.c:{line}: {text[start:end].splitlines()[0]}"
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, f"{name}.c")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text[:start] + replacement + text[end:])
        obj = os.path.join(directory, f"mmu_{name}.o")
        if not compile_one(root, path, obj):
            return label, "does not compile"
        objects = [obj if s == name else os.path.join(work, f"mmu_{s}.o") for s in SOURCES]
        return label, run_tests(work, objects, directory, operations)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--operations", type=int, default=6000)
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count())
    parser.add_argument("-k", "--only", default="")
    parser.add_argument("root", nargs="?", default=".")
    args = parser.parse_args()
    root, work = os.path.abspath(args.root), tempfile.mkdtemp()
    caught, survived = 0, []
    try:
        build_base(root, work)
        objects = [os.path.join(work, f"mmu_{s}.o") for s in SOURCES]
        broken = run_tests(work, objects, work, args.operations)
        if broken:
            sys.exit(f"the tests fail without a bug planted: {broken}")
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            pending = []
            for name in SOURCES:
                if name in SKIP_FILES:
                    continue
                with open(os.path.join(root, "mmu", f"{name}.c"), encoding="utf-8") as f:
                    text = f.read()
                for call in find_calls(text):
                    if args.only and args.only not in f"{name}.c {text[call[0]:call[1]]}":
                        continue
                    pending.append(pool.submit(mutant, root, work, name, text, call, args.operations))
            for future in pending:
                label, by = future.result()
                if by:
                    caught += 1
                    print(f"caught by {by}: {label}", flush=True)
                else:
                    why = next((w for f, part, w in EQUIVALENT if f in label and part in label), None)
                    print(f"SURVIVED{' (' + why + ')' if why else ''}: {label}", flush=True)
                    if not why:
                        survived.append(label)
    finally:
        shutil.rmtree(work)
    print(f"{caught} caught, {len(survived)} survived unexplained")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())

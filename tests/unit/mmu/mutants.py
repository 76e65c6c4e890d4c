#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plant bugs in mmu/, one at a time and mechanically, and see that the tests catch each.

Every call that flushes, protects, syncs, splits, zaps, changes a reverse map, marks dirty or checks
a role is taken out by itself: a statement becomes nothing, an expression becomes the value in CALLS.
The tests are built once against a shared library of mmu/; a mutant is one file compiled anew, the
library linked anew, and the tests run, the fastest first. A mutant that all let through must be
explained in EQUIVALENT. A function whose name is of PATTERN and that is in neither CALLS nor IGNORE
is an error: a new mechanism cannot stay out of this by accident.

usage: mutants.py [-o OPERATIONS] [-j JOBS] [-k SUBSTRING] [-l] [SOURCE-ROOT]
"""
import argparse
import concurrent.futures
import glob
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

# Name: what an expression becomes (None: it is only ever a statement).
CALLS = {
    # flushes
    "batch_frames": None, "batch_all": None, "batch_commit": None, "batch_flush": None,
    "flush_tlb": None, "drain_pml": None, "kick": None, "roots_flushed": None,
    "mmu_flush_guest_tlb": None,
    # protects
    "rmap_write_protect": "false", "rmap_protect_level": "false", "spte_protect": "false",
    "protect_rmap": None, "protect_large": None, "protect_slot": "0", "protect_tables": None,
    "dirty_protect_frames": "0", "ring_protect": None, "sync_allow_write": "true",
    "dirty_by_d": "false", "notice_by_pml": None, "notice_by_protection": None, "set_pml": None,
    # syncs
    "sync_entry": None, "sync_entries": None, "sync_below": None, "sync_root": None,
    "sync_mark_parents": None, "sync_forget": None, "sync_prefetch": "false",
    "track_write": None, "track_walk": None, "page_written": None, "entry_written": None,
    "frame_written": None, "walk_changed": "false",
    # splits, zaps
    "split_leaf": "NULL", "split_eagerly": "NULL", "split_frame": None, "split_frames": None, "split_logged": None,
    "split_some": "false", "awaits_split": "false", "sp_replace_leaf": None,
    "spte_zap": None, "sp_zap": None, "sp_unshadow": "1", "unshadow_for_user": "true",
    "slot_zap": None, "zap_all": None, "collapse_slot": None, "sp_expel": None,
    # reverse maps and what hangs on them
    "rmap_add": None, "rmap_remove": None, "rmap_zap": None, "spte_account_leaf": None,
    "sp_account_leaves": None, "leaf_forget": None, "link_child": None, "sp_add_users": None,
    "slot_account_shadow": None, "slots_new_generation": None,
    # marks dirty, tells of it
    "dirty_mark": None, "dirty_notice_slow": None, "dirty_note": None, "ml_set_atomic": "true",
    "dirty_fold_slot": None, "fold_range": "0", "fold_all": None, "fold_shared": None,
    "fold_summary": None, "fold_word": None, "forget_frames": "0", "ml_or": "0",
    "ml_set_all": None, "clear_batch": "0", "take_batch": "0", "dirty_ring_push": None,
    "dirty_rings_retire": None, "dirty_slot_added": "0", "dirty_slot_removed": None,
    "dirty_vcpu_added": "0", "dirty_vcpu_removed": None, "dirty_ring_is_full": "false",
    # a kernel beside us
    "kernel_protect": "0", "kernel_log": "0", "collect_kernel": "0", "dirty_collect": "0",
    "dirty_collect_all": "0", "slot_all_dirty": None, "slot_has_clean": "false", "dirty_slot_tell": "0",
    "dirty_attached": "0", "dirty_detached": None,
    # checks roles, rights and entries
    "gpte_present": "true", "gpte_accessed": "true", "gpte_reserved": "false",
    "gpte_usable": "true", "spte_is_reduced": "false", "access_denied": "false",
    "root_matches": "true", "is_misaligned": "false", "relax_for_wp": "0",
    "slot_is_logged": "false", "is_unseen_writable": "false", "same_form": "true",
    "maps_wanted": "true", "is_shared": "false", "may_share": "false",
    "nested_may_update": "1", "pte_update": "true", "slot_any_shadowed": "false",
    "width_set": None, "root_switch": None, "root_use": None, "root_release": None,
    "roots_drop": None, "sp_put_root": None, "context_set": None, "nested_set_guest": None,
}
PATTERN = re.compile("flush|protect|sync|zap|rmap|dirty|role|unshadow|split|batch")
# Of that pattern, and no such call.
IGNORE = {
    "cpu_role_of": "computes a role", "shadow_role_of": "computes a role",
    "tdp_role_of": "computes a role", "direct_role": "computes a role",
    "guest_role": "computes a role",
    "role_extra": "reads a role", "mmu_role_decode": "tells a role",
    "slot_rmap": "finds a reverse map", "dirty_lock": "a lock (its drain_pml is in CALLS)",
    "dirty_unlock": "a lock (its batch_commit is in CALLS)", "dirty_is_known": "the audit's",
    "dirty_ring_enable": "its inner calls are in CALLS",
}
# What these declare is the face of the folder: it does what calls inside of it do.
FACE = ["mmu.h", "slot.h", "dirty.h", "inspect.h", "stats.h"]

# Fastest first; then the property test, which also runs longer for who survives.
TESTS = ["shadow", "walk", "slots", "flush", "roles", "dirty", "large", "mechanisms", "inspect", "kernel"]
SKIP_FILES = {"audit.c", "inspect.c"}
CPU_SECONDS = 20

# Survivors that are no bug: file, function, beginning of the call, and why. None is left.
EQUIVALENT = []


class Tree:
    """The sources, and a folder with everything built once."""

    def __init__(self, root, work):
        self.root, self.work = root, work
        self.sources = sorted(os.path.basename(p) for p in glob.glob(f"{root}/mmu/*.c"))
        self.headers = sorted(os.path.basename(p) for p in glob.glob(f"{root}/mmu/*.h"))
        self.text = {}
        for name in self.sources + self.headers:
            with open(f"{root}/mmu/{name}", encoding="utf-8") as f:
                self.text[name] = f.read()

    def compile(self, source, output, include=()):
        flags = ["-std=gnu17", "-O1", "-fPIC", "-D_GNU_SOURCE", "-DUMBRA_DEBUG", "-w", "-fno-strict-aliasing"]
        paths = [*include, self.root, f"{self.root}/tests/unit/mmu", f"{self.root}/mmu"]
        return subprocess.run(["gcc", *flags, *(f"-I{p}" for p in paths), "-c", source, "-o", output],
                              stderr=subprocess.DEVNULL, check=False).returncode == 0

    def link(self, objects, output):
        return subprocess.run(["gcc", "-shared", *objects, "-lpthread", "-o", output],
                              stderr=subprocess.DEVNULL, check=False).returncode == 0

    def objects(self, instead=None):
        instead = instead or {}
        return [instead.get(s, f"{self.work}/{s}.o") for s in self.sources]

    def build(self, jobs):
        todo = [(f"{self.root}/mmu/{s}", f"{self.work}/{s}.o") for s in self.sources]
        own = ["machine", "oracle", "world", "test_mmu_property"] + [f"test_mmu_{t}" for t in TESTS]
        todo += [(f"{self.root}/tests/unit/mmu/{s}.c", f"{self.work}/{s}.o") for s in own]
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for (source, _), ok in zip(todo, pool.map(lambda t: self.compile(*t), todo)):
                if not ok:
                    sys.exit(f"{source} does not compile")
        os.mkdir(f"{self.work}/lib")
        if not self.link(self.objects(), f"{self.work}/lib/libmmu.so"):
            sys.exit("mmu/ does not link")
        for test in TESTS + ["property"]:
            objects = [f"{self.work}/{o}.o" for o in (f"test_mmu_{test}", "machine", "oracle")]
            objects += [f"{self.work}/world.o"] if test == "property" else []
            # What is not let go is a failure, too.
            subprocess.run(["gcc", "-fsanitize=leak", *objects, f"-L{self.work}/lib", "-lmmu", "-lcmocka", "-lpthread",
                            "-o", f"{self.work}/{test}"], check=True)

    def run(self, lib, operations):
        """The name of the test that failed, or None."""
        runs = [[t] for t in TESTS]
        runs += [["property", "-s", f"{n}", "-o", f"{operations}"] for n in range(1, 9)]
        runs += [["property", "-s", f"{n}", "-o", f"{operations * 5}"] for n in range(9, 21)]
        env = {**os.environ, "LD_LIBRARY_PATH": lib, "UMBRA_TEST_LONG": "0"}
        for run in runs:
            try:
                r = subprocess.run([f"{self.work}/{run[0]}", *run[1:]], env=env, timeout=300, check=False,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   preexec_fn=lambda: resource.setrlimit(
                                       resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS)))
            except subprocess.TimeoutExpired:
                return run[0] + " (waits for ever)"
            if r.returncode:
                return " ".join(run[:3])
        return None


def is_definition(text, start):
    line = text.rfind("\n", 0, start) + 1
    return line == start or not text[line].isspace()


def find_calls(text):
    """Yields (start, end, name, is_statement) of each call."""
    for m in re.finditer(r"\b(?:vm->ops->)?(" + "|".join(CALLS) + r")\(", text):
        if is_definition(text, m.start()):
            continue
        line_start = text.rfind("\n", 0, m.start()) + 1
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


def unknown_names(tree):
    """Functions of PATTERN that are called, and in no list."""
    everything = "\n".join(tree.text.values())
    found = []
    for name in sorted(set(re.findall(r"\b([a-z]\w+)\(", everything))):
        if not PATTERN.search(name) or name in CALLS or name in IGNORE:
            continue
        defined = re.search(rf"^[a-z].*\b{name}\([^;{{]*\)\s*\{{", everything, re.M)
        if not defined or name.startswith("audit_"):
            continue
        called = False
        for source, text in tree.text.items():
            if source in SKIP_FILES or source.startswith("inspect"):
                continue
            called |= any(not is_definition(text, m.start()) for m in re.finditer(rf"\b{name}\(", text)
                          if not text[text.rfind("\n", 0, m.start()) + 1:m.start()].strip().startswith(("*", "/*")))
        if called and not any(re.search(rf"\b{name}\(", tree.text[h]) for h in FACE):
            found.append(name)
    return found


def collect(tree, only):
    found = []
    for name in tree.sources + tree.headers:
        text = tree.text[name]
        if name in SKIP_FILES:
            continue
        for call in find_calls(text):
            if not only or only in f"{name}:{text[call[0]:call[1]]}":
                found.append((name, call))
    return found


def mutant(tree, name, call, operations):
    text = tree.text[name]
    start, end, function, statement = call
    replacement = "(void)0" if statement else CALLS[function]
    line = text.count("\n", 0, start) + 1
    label = f"mmu/{name}:{line}: {' '.join(text[start:end].split())}"
    with tempfile.TemporaryDirectory(dir=tree.work) as directory:
        os.mkdir(f"{directory}/mmu")
        with open(f"{directory}/mmu/{name}", "w", encoding="utf-8") as f:
            f.write(text[:start] + replacement + text[end:])
        if name.endswith(".c"):
            changed = [name]
        else:
            changed = [s for s in tree.sources if name != "walk_tmpl.h" or s == "walk.c"]
        instead = {}
        for source in changed:
            instead[source] = f"{directory}/{source}.o"
            path = f"{directory}/mmu/{source}" if source == name else f"{tree.root}/mmu/{source}"
            if not tree.compile(path, instead[source], [directory]):
                return label, "?"
        if not tree.link(tree.objects(instead), f"{directory}/libmmu.so"):
            return label, "?"
        return label, tree.run(directory, operations)


def reason(tree, name, call):
    """Why this survivor is none: by the function that the call stands in."""
    text = tree.text[name]
    heads = re.findall(r"^[a-z][^\n;]*?\b(\w+)\([^;{]*\)\s*\n\{", text[:call[0]], re.M)
    inside = heads[-1] if heads else ""
    snippet = " ".join(text[call[0]:call[1]].split())
    for file, function, part, why in EQUIVALENT:
        if file == name and function == inside and snippet.startswith(part):
            return why
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--operations", type=int, default=3000)
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count())
    parser.add_argument("-k", "--only", default="")
    parser.add_argument("-l", "--list", action="store_true")
    parser.add_argument("root", nargs="?", default=".")
    args = parser.parse_args()
    tree = Tree(os.path.abspath(args.root), tempfile.mkdtemp())
    begin, counts = time.monotonic(), {"caught": 0, "explained": 0, "unexplained": 0}
    try:
        unknown = unknown_names(tree)
        if unknown:
            sys.exit("neither in CALLS nor in IGNORE: " + ", ".join(unknown))
        todo = collect(tree, args.only)
        if args.list:
            for name, call in todo:
                print(f"{name}: {' '.join(tree.text[name][call[0]:call[1]].split())}")
            return 0
        tree.build(args.jobs)
        broken = tree.run(f"{tree.work}/lib", args.operations)
        if broken:
            sys.exit(f"the tests fail without a bug planted: {broken}")
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            pending = [pool.submit(mutant, tree, name, call, args.operations) for name, call in todo]
            for (name, call), future in zip(todo, pending):
                label, by = future.result()
                if by == "?":
                    sys.exit(f"does not compile without: {label}")
                why = None if by else reason(tree, name, call)
                if by:
                    counts["caught"] += 1
                    print(f"caught by {by}: {label}", flush=True)
                elif why:
                    counts["explained"] += 1
                    print(f"survived ({why}): {label}", flush=True)
                else:
                    counts["unexplained"] += 1
                    print(f"SURVIVED: {label}", flush=True)
    finally:
        shutil.rmtree(tree.work)
    print(f"{len(todo)} mutants, {counts['caught']} caught, {counts['explained']} explained survivors, "
          f"{counts['unexplained']} unexplained; {time.monotonic() - begin:.0f} s")
    return 1 if counts["unexplained"] else 0


if __name__ == "__main__":
    sys.exit(main())

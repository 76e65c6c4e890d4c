# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stock kernels of all three kinds of paging, under both policies, with one and two vCPUs: their counters."""
import collections
import json

import compare
from bench_mmu import Machine

# amd64: 4 levels of 8-byte entries. pae: 3 levels. 686: 2 levels of 4-byte entries.
KERNELS = ("cloud", "pae", "686")
NAME = "bench-counters"
# init waits here, all its memory mapped, until the host has looked at the shadow pages.
WAIT = 'umbra.run="echo ready; read x"'


def table_pages(machine):
    """How many of our table pages stand for what: the guest's paging, level, quadrant."""
    return collections.Counter(row_of(p) for p in machine.call("mmu", "pages")["pages"])


def row_of(page):
    role = page["role"]
    if role["direct"]:
        return f"  pages: direct, level {role['level']}"
    if page["frame"]:  # above what the guest has, for our 4 levels
        return f"  pages: {role['paging']}, level {role['level']}, ours"
    quadrant = f", quadrant {role['quadrant']}" if "quadrant" in role else ""
    return f"  pages: {role['paging']}, level {role['level']}{quadrant}"


def one(vmctl, files, policy, cpus, stats):
    kernel, initrd = files
    command = [vmctl, "run", "--name", NAME, "--kernel", kernel, "--initrd", initrd, "--memory", "256M",
               "--engine", "soft", "--mmu", policy, "--cpus", str(cpus), "--timeout", "600", "--stats", stats,
               "--cmdline", f"console=ttyS0 panic=-1 quiet {WAIT}"]
    machine = Machine(command, vmctl, NAME)
    if not machine.until("ready"):
        raise SystemExit(f"{kernel} under {policy}: init was not reached: {''.join(machine.text[-5:])}")
    pages = table_pages(machine)
    machine.go()
    machine.end()
    with open(stats, encoding="utf-8") as f:
        return {"stats": json.load(f), "pages": dict(sorted(pages.items()))}


def group(name):
    """Rows of one kind stay together, whichever machine was the first to have one."""
    if name.startswith("  pages: "):
        return 3
    return 1 if name.startswith("  exit ") else 2 if name.startswith("  ") else 0


def table(runs):
    columns = [dict(compare.rows(r["stats"])) | {k: f"{n:,}" for k, n in r["pages"].items()} for r in runs.values()]
    names = list(dict.fromkeys(n for c in columns for n in c))
    names.sort(key=group)
    for part in range(3):
        print(f"\n{'':34}" + "".join(f"{title.split()[part]:>14}" for title in runs), end="")
    print()
    for name in names:
        print(f"{name:34}" + "".join(f"{c.get(name, '0'):>14}" for c in columns))


def bench(vmctl, guest, stats):
    """@guest: a kernel's name to (kernel, initrd). Returns {"kernel policy cpus": {stats, pages}}."""
    runs = {}
    for kernel in KERNELS:
        for policy in "tdp", "shadow":
            for cpus in 1, 2:
                runs[f"{kernel} {policy} {cpus}"] = one(vmctl, guest(kernel), policy, cpus, stats)
    table(runs)
    return runs

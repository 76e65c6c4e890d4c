# SPDX-License-Identifier: LGPL-2.1-or-later
"""What harvesting the dirty log costs: tests/bench/dirty_harvest.c, its figures as a table."""
import json
import subprocess

SIDES = (("take_ns", "take"), ("get_clear_ns", "get+clear"), ("flat_scan_ns", "flat scan"))
NOTICES = {"protect": "write protection", "pml": "the processor's log (PML)"}


def cell(row, key):
    """Nanoseconds of one page; of a clean GiB where none is dirty."""
    return row[key] / (row["pages"] or row["gib"])


def table(rows, notice):
    print(f"\nharvest of the dirty log, noticed by {NOTICES[notice]}; a flat bitmap's scan beside it\n")
    print(f"{'slot':>7}{'dirty':>8}{'pages':>10}" + "".join(f"{name:>12}" for _, name in SIDES) + "   ns of")
    for row in rows:
        if row["notice"] != notice or row["percent"] < 0:
            continue
        print(f"{row['gib']:3} GiB{row['percent']:7g}%{row['pages']:10,}"
              + "".join(f"{cell(row, key):12.1f}" for key, _ in SIDES)
              + ("   a dirty page" if row["pages"] else "   a clean GiB"))


def growth(rows, notice):
    """The same pages dirtied in slots of all sizes; and none."""
    for text, of in (("nothing dirty", lambda r: r["percent"] == 0),
                     ("4,096 pages dirty", lambda r: r["percent"] < 0)):
        same = [r for r in rows if r["notice"] == notice and of(r)]
        print(f"{text}, " + " / ".join(str(r["gib"]) for r in same) + " GiB:  "
              + ";  ".join(f"{name} " + " / ".join(f"{r[key] / 1e3:.2f}" for r in same) for key, name in SIDES)
              + " us in all")


def bench(program):
    done = subprocess.run([program], check=True, stdout=subprocess.PIPE, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for notice in NOTICES:
        table(rows, notice)
        growth(rows, notice)
    return rows

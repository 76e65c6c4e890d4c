#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Put the statistics of two or more runs (vmctl run --stats FILE) side by side.

usage: compare.py FILE...
"""
import json
import sys


def rows(stats):
    yield "wall time", f"{stats['wall_ns'] / 1e9:.2f} s"
    yield "guest instructions", f"{stats['instructions']:,}"
    rate = stats["instructions"] * 1e3 / max(stats["wall_ns"], 1)
    yield "instructions per second", f"{rate:,.0f} million"
    yield "exits, all", f"{stats['exits_total']:,}"
    for name, count in sorted(stats["exits"].items(), key=lambda item: -item[1]):
        yield f"  exit {name}", f"{count:,}"
    for name, count in stats["mmu"].items():
        if count:
            yield f"  {name}", f"{count:,}"
    for name in ("tlb_misses", "walks", "emulated", "blocks_decoded"):
        yield f"  {name}", f"{sum(v[name] for v in stats['vcpus']):,}"


def main():
    runs = []
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as f:
            runs.append(json.load(f))
    tables = [dict(rows(r)) for r in runs]
    names = list(dict.fromkeys(n for t in tables for n in t))
    print(f"{'what it cost':34}" + "".join(f"{r['policy']:>18}" for r in runs))
    for name in names:
        print(f"{name:34}" + "".join(f"{t.get(name, '0'):>18}" for t in tables))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Draw text from standard input as a terminal in SVG, for the README.

usage: script/demo | tail -n 60 | script/lib/picture.py TITLE >docs/demo.svg
"""
import html
import sys

CHAR, LINE, PAD = 7.85, 17, 14


def main():
    title = sys.argv[1] if len(sys.argv) > 1 else ""
    lines = [line.rstrip("\n").expandtabs(8)[:110] for line in sys.stdin]
    width = max([len(line) for line in lines] + [40]) * CHAR + 2 * PAD
    height = (len(lines) + 2) * LINE + 2 * PAD
    print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
          'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="13">')
    print(f'<rect width="100%" height="100%" rx="8" fill="#14181f"/>')
    print(f'<text x="{PAD}" y="{PAD + 8}" fill="#7f8c9d">{html.escape(title)}</text>')
    for n, line in enumerate(lines):
        colour = "#8fd18f" if line.startswith("==") else "#f0c674" if line.startswith("umbra:") else "#d5dae2"
        print(f'<text x="{PAD}" y="{PAD + (n + 2) * LINE}" fill="{colour}" xml:space="preserve">'
              f'{html.escape(line)}</text>')
    print("</svg>")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest kernel's own list of symbols as an ELF file that gdb reads.

Debian's kernels come without symbols; the package that has them is 280 MB to fetch and 1.7 GB unpacked. The
kernel itself knows its symbols: booted with "nokaslr" it prints /proc/kallsyms, and the addresses are those
of every later boot with "nokaslr". There are no types, no lines and no unwind tables among them: gdb's
backtrace has what its look at the prologue finds, which at a function's first instruction is the function
and its caller.
"""
import re
import struct

LINE = re.compile(rb"^([0-9a-f]{16}) ([A-Za-z]) ([^\s\[]+)\s*$", re.M)


def parse(text):
    """[(address, kind, name)] of the kernel proper, in order."""
    found = {(int(a, 16), kind.decode(), name.decode()) for a, kind, name in LINE.findall(text.replace(b"\r", b""))}
    return sorted(s for s in found if s[0] >> 63)


def elf(symbols):
    """An ELF file with the symbols and the ranges they are in, and none of their contents."""
    sections = [b"", b".text", b".data", b".symtab", b".strtab", b".shstrtab"]
    names = b"\0" + b"".join(s + b"\0" for s in sections[1:])
    text = [s for s in symbols if s[1] in "tTwW"]
    data = [s for s in symbols if s[1] in "dDbBrRvV"]
    ranges = [(min(s[0] for s in part), max(s[0] for s in part) + 4096) for part in (text, data)]
    strings, table = bytearray(b"\0"), bytearray(24)
    rows = [(letter.isupper(), shndx, kind, addr, name)
            for shndx, kind, part in ((1, 2, text), (2, 1, data)) for addr, letter, name in part]
    rows.sort()  # those of a file's own come first in an ELF table
    for is_global, shndx, kind, addr, name in rows:
        table += struct.pack("<IBBHQQ", len(strings), is_global << 4 | kind, 0, shndx, addr, 0)
        strings += name.encode() + b"\0"
    first = 1 + sum(not row[0] for row in rows)
    heads, body, at = bytearray(64), bytearray(), 64
    offset = [names.index(b"\0" + s + b"\0") + 1 for s in sections[1:]]
    for k, (low, high) in enumerate(ranges):
        heads += struct.pack("<IIQQQQIIQQ", offset[k], 8, 6 if k == 0 else 3, low, at, high - low, 0, 0, 16, 0)
    for k, (content, kind, link, info, size) in enumerate(((table, 2, 4, first, 24), (strings, 3, 0, 0, 0),
                                                           (names, 3, 0, 0, 0))):
        heads += struct.pack("<IIQQQQIIQQ", offset[k + 2], kind, 0, 0, at + len(body), len(content), link, info, 8,
                             size)
        body += content
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, text[0][0], 0, at + len(body), 0, 64, 0, 0, 64,
                               len(sections), len(sections) - 1)
    return bytes(head) + bytes(body) + bytes(heads)

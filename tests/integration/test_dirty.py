# SPDX-License-Identifier: LGPL-2.1-or-later
"""The dirty log over the API and in vmctl, with a guest that writes what the console tells it to."""
import base64
import json
import os
import struct
import zlib

import pytest
from conftest import HANG, payload, wait_until

LOOP = range(0x1000, 0x1800)  # what the guest writes after "l"


def page_of(digit):
    return 0x800 + 16 * digit


class Guest:
    """scribble.S on a console of ours."""

    def __init__(self, host, policy, *options):
        self.host = host
        machine = {"kvm": ["--engine", "kvm"], "rings": ["--engine", "kvm", "--dirty-ring", "16384"]}
        self.tells_vcpus = policy != "kvm"
        # A KVM that emulates overruns its rings when much is written: then all counts as dirty.
        self.exact = policy != "rings"
        self.console = host.spawn("run", "--name", "a", "--kernel", payload("scribble"), "--memory", "64",
                                  *machine.get(policy, ["--mmu", policy]), "--timeout", "600", *options)
        assert self.console.stdout.readline() == b"ready\r\n"

    def type(self, text):
        """Each byte is answered once it has been acted on."""
        self.console.stdin.write(text.encode())
        self.console.stdin.flush()
        assert self.console.stdout.read(len(text)) == text.encode()

    def dirty(self, verb, *args):
        done = self.host.vmctl("dirty", verb, "a", "--json", *args)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout or b"null")

    def pages(self, *args):
        found = set()
        for r in self.dirty("get", *args)["ranges"]:
            first = int(r["gpa"], 16) >> 12
            found |= set(range(first, first + r["pages"]))
        return found

    def all_of_the_loop(self):
        """Until the log has each page that "l" writes."""
        wait_until(lambda: set(LOOP) <= self.pages())

    def end(self):
        self.console.stdin.write(b"xq")  # the first ends a loop
        self.console.stdin.close()
        assert self.console.wait(HANG) == 0


@pytest.fixture(params=["tdp protect", "tdp pml", "shadow protect", "kvm kernel", "rings kernel"])
def guest(request):
    policy, notice = request.param.split()
    if notice == "kernel" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("/dev/kvm cannot be opened")
    g = Guest(request.getfixturevalue("real_kvm" if notice == "kernel" else "real"), policy)
    assert g.dirty("start", "--notice", "keep" if notice == "kernel" else notice)["notice"] == notice
    yield g
    g.end()


def test_get_and_clear(guest):
    guest.type("135")
    written = {page_of(1), page_of(3), page_of(5)}
    assert written <= guest.pages()
    assert written <= guest.pages("--clear")
    assert not guest.pages() & written
    guest.type("3")
    assert guest.pages() & {page_of(n) for n in range(10)} == {page_of(3)}
    guest.type("4")
    assert guest.dirty("clear", "--from", hex(page_of(4) << 12), "--pages", "1") == {"cleared": 1}
    assert guest.pages() & {page_of(n) for n in range(10)} == {page_of(3)}
    assert guest.dirty("clear")["cleared"] >= 1
    guest.type("3")
    assert page_of(3) in guest.pages()


def test_clients_do_not_disturb_one_another(guest):
    guest.dirty("start", "--client", "other", "--initially-set")
    assert len(guest.pages("--client", "other")) == 64 << 8
    guest.type("2")
    guest.pages("--clear", "--client", "other")
    assert page_of(2) in guest.pages() and page_of(2) not in guest.pages("--client", "other")
    listed = {c["client"]: c for c in guest.dirty("list")["clients"]}
    assert listed["other"]["initially_set"] and not listed["api"]["initially_set"]
    assert guest.host.vmctl("dirty", "stop", "a", "--client", "other").returncode == 0
    assert [c["client"] for c in guest.dirty("list")["clients"]] == ["api"]
    guest.type("2")
    assert page_of(2) in guest.pages()


def test_bitmap_over_the_api(guest):
    client = guest.host.client()
    client.ok("dirty.clear", name="a")
    guest.type("79")
    got = client.ok("dirty.get", name="a", format="bitmap", pages=128, **{"from": hex(page_of(7) << 12)})
    bits = int.from_bytes(base64.b64decode(got["bitmap"]), "little")
    assert (int(got["gpa"], 16) >> 12, got["pages"]) == (page_of(7), 128)
    assert bits == 1 | 1 << (page_of(9) - page_of(7)) and "next" not in got
    mask = base64.b64encode((1 << (page_of(9) - page_of(7))).to_bytes(16, "little")).decode()
    assert client.ok("dirty.clear", name="a", bitmap=mask, **{"from": got["gpa"]}) == {"cleared": 1}
    assert guest.pages() & {page_of(7), page_of(9)} == {page_of(7)}
    ranges = client.ok("dirty.get", name="a", limit=1)
    assert len(ranges["ranges"]) == 1


def test_rate(guest):
    client = guest.host.client()
    client.ok("dirty.rate", name="a")
    guest.type("l")
    guest.all_of_the_loop()
    rate = client.ok("dirty.rate", name="a")
    assert rate["pages"] >= len(LOOP) and rate["pages_per_second"] > 0
    assert abs(rate["mib_per_second"] * 256 - rate["pages_per_second"]) < 1
    assert len(rate["vcpus"]) == 1 and (rate["vcpus"][0] >= len(LOOP) or not guest.tells_vcpus)
    text = guest.host.vmctl("dirty", "rate", "a", "--interval", "0.1").stdout.decode()
    assert "pages/s" in text and "MiB/s" in text
    assert [c["client"] for c in guest.dirty("list")["clients"]] == ["api"]  # its own is gone


def unpack_png(data):
    """Width, rows of RGB pixels; nothing but what is needed to read ours."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, idat = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + length:at + 12 + length])[0]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", body)
            assert (depth, colour, interlace) == (8, 2, 0)
        elif kind == b"IDAT":
            idat += body
        at += 12 + length
    raw, rows, last = zlib.decompress(idat), [], bytes(width * 3)
    for y in range(height):
        line = raw[y * (width * 3 + 1):(y + 1) * (width * 3 + 1)]
        last = unfilter(line[0], bytearray(line[1:]), last)
        rows.append([tuple(last[x:x + 3]) for x in range(0, width * 3, 3)])
    return width, rows


def unfilter(kind, line, above):
    for i, v in enumerate(line):
        left, up = line[i - 3] if i >= 3 else 0, above[i]
        corner = above[i - 3] if i >= 3 else 0
        near = min((abs(up - corner), 0, left), (abs(left - corner), 1, up),
                   (abs(left + up - 2 * corner), 2, corner))[2]
        line[i] = (v + (0, left, up, (left + up) // 2, near)[kind]) % 256
    return bytes(line)


def test_heat(guest):
    png = os.path.join(guest.host.folder, "heat.png")
    guest.type("l")
    guest.all_of_the_loop()
    guest.host.env["COLUMNS"] = "80"
    done = guest.host.vmctl("dirty", "heat", "a", "--client", "api", "--rounds", "1", "--interval", "0",
                            "--png", png)
    assert done.returncode == 0, done.stderr
    # 16 rows of 64 cells: 64 KiB each, and the loop's 8 MiB are two rows.
    lines = done.stdout.decode().splitlines()
    picture = [line.split()[1] for line in lines[:16]]
    assert [line.split()[0] for line in lines[:2]] == ["0x000000000000", "0x000000400000"]
    assert all(len(row) == 64 for row in picture)
    for row in 4, 5:
        assert "." not in picture[row]
    assert set(picture[15]) == {"."} or not guest.exact
    assert "64 KiB" in lines[16]
    # 16384 pages, a bucket each: 128 a row of 4 by 4 pixels.
    with open(png, "rb") as f:
        width, rows = unpack_png(f.read())
    assert (width, len(rows)) == (512, 512)
    for page in LOOP[0], LOOP[-1]:
        assert sum(rows[page // 128 * 4 + 1][page % 128 * 4 + 1]) > 0
    assert rows[511][511] == (0, 0, 0) or not guest.exact
    guest.all_of_the_loop()
    counts = guest.dirty("heat", "--client", "api", "--rounds", "1", "--interval", "0",
                         "--buckets", "16")["counts"]
    assert len(counts) == 16 and counts[4] + counts[5] >= len(LOOP)
    assert counts[15] == 0 or not guest.exact


def test_ring_lets_the_guest_wait(real):
    g = Guest(real, "tdp")
    g.dirty("start", "--notice", "protect", "--ring", "64", "--patience", "3600")
    client = real.client()

    def dirty():
        return client.ok("dirty.get", name="a")["dirty"]

    g.type("l")
    for _ in range(4):  # it comes no further than its ring, until that is emptied
        wait_until(lambda: dirty() > 32)
        client.ok("machine.pause", name="a")
        assert dirty() <= 64
        client.ok("machine.resume", name="a")
        client.ok("dirty.clear", name="a")
    # A client that goes away costs the guest its patience, and no more.
    real.vmctl("dirty", "stop", "a")
    g.dirty("start", "--ring", "64", "--patience", "1")
    wait_until(lambda: client.ok("dirty.list", name="a")["clients"][0]["ring_lost"])
    wait_until(lambda: dirty() >= len(LOOP))
    g.end()


def test_refusals(real):
    g = Guest(real, "shadow")
    client = real.client()
    for method in "stop", "get", "clear", "rate", "heat":
        assert client.error(f"dirty.{method}", name="a")["data"]["kind"] == "not-found"
    start = dict(name="a", client="x")
    assert client.error("dirty.start", **start, notice="pml")["data"]["kind"] == "invalid-params"
    assert client.ok("dirty.list", name="a")["clients"] == []
    for bad in {"ring": 100}, {"ring": 32}, {"client": ""}, {"client": "x" * 32}, {"notice": "magic"}:
        assert client.error("dirty.start", **{**start, **bad})["data"]["kind"] == "invalid-params"
    assert client.ok("dirty.start", **start, notice="auto")["notice"] == "protect"
    assert client.error("dirty.start", **start)["data"]["kind"] == "exists"
    client.ok("dirty.start", name="a", client="ring", ring=64)
    assert client.error("dirty.start", name="a", client="ring2", ring=64)["data"]["kind"] == "invalid-state"
    for i in range(6):
        client.ok("dirty.start", name="a", client=str(i))
    assert client.error("dirty.start", name="a", client="9")["data"]["kind"] == "limit"
    assert client.error("dirty.clear", **start, bitmap="?")["data"]["kind"] == "invalid-params"
    for far in "0xffffffffffffffff", "0xfffffffffffff000", "0x10000000000000":
        assert client.ok("dirty.get", **start, **{"from": far})["ranges"] == []
        assert client.ok("dirty.clear", **start, **{"from": far, "pages": 2**51 - 1})["cleared"] == 0
        assert client.ok("dirty.clear", **start, **{"from": far, "bitmap": "////"})["cleared"] == 0
    assert client.error("dirty.heat", **start, buckets=65537)["data"]["kind"] == "invalid-params"
    assert len(client.ok("dirty.heat", **start, buckets=65536)["counts"]) == 65536
    g.end()
    assert client.error("dirty.start", name="a")["data"]["kind"] in ("not-found", "invalid-state")


def test_kernel_refuses(real_kvm):
    """What the kernel's log cannot do is refused with the reason."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("/dev/kvm cannot be opened")
    g = Guest(real_kvm, "kvm")
    done = real_kvm.vmctl("dirty", "start", "a", "--notice", "pml")
    assert done.returncode and b"it is the kernel that notices" in done.stderr
    done = real_kvm.vmctl("dirty", "start", "a", "--ring", "1024")
    assert done.returncode and b"does not say which vCPU wrote" in done.stderr
    assert not g.dirty("list")["clients"]
    g.end()

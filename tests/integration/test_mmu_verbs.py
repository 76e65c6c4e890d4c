# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmctl mmu …: the verbs of two words, what they refuse, and what they tell of a small payload."""
import base64
import json
import os
import re
import signal
import subprocess
import threading

import pytest
from conftest import HANG, VMCTL, payload, wait_until

VERBS = ["audit", "context", "map", "pages", "policy", "rmap", "roots", "slots", "stat", "trace", "walk"]
# What each wants beside the machine's name.
MORE = {"rmap": ["0x100"], "walk": ["0x100000"], "trace": ["--count", "1"]}


def call(host, verb, *more, name="a"):
    return host.vmctl("mmu", verb, name, *MORE.get(verb, []), *more)


def answer(host, *args):
    r = host.vmctl("mmu", *args, "--json")
    assert r.returncode == 0, r.stderr.decode()
    return json.loads(r.stdout)


def refusal(host, *args):
    """The error's kind and text; vmctl's own status for it has been checked."""
    r = host.vmctl("mmu", *args, "--json")
    error = json.loads(r.stderr)["error"]
    kind = error["data"]["kind"]
    assert r.returncode == {"invalid-params": 64}.get(kind, 1), r.stderr
    return kind, error["message"]


@pytest.fixture(params=["tdp", "shadow"])
def spinning(request, real):
    real.define("a", path=payload("spin"), memory="64M", cpus=2, mmu=request.param)
    assert real.vmctl("start", "a").returncode == 0
    wait_until(lambda: real.vmctl("logs", "a").stdout)
    real.policy = request.param
    return real


# ---- words ----

def test_help_and_slips(host):
    listed = host.vmctl("mmu", "--help").stdout.decode()
    assert host.vmctl("help", "mmu").stdout.decode() == listed
    for verb in VERBS:
        assert re.search(rf"^  {verb} +[A-Z].*\.$", listed, re.M)
        for form in (["help", "mmu", verb], ["mmu", verb, "--help"]):
            r = host.vmctl(*form)
            assert r.returncode == 0 and f"Usage: vmctl mmu {verb} [OPTION]... NAME" in r.stdout.decode()
    assert "mmu" in host.vmctl("help").stdout.decode()
    r = host.vmctl("mmu")
    assert (r.returncode, r.stdout.decode()) == (64, listed)
    for args, near in ((["mmu", "wlak"], "mmu walk"), (["help", "mmu", "pagse"], "mmu pages"), (["mmo", "walk"], "mmu"),
                       (["mmu", "walk", "a", "0", "--vpcu", "1"], "--vcpu")):
        r = host.vmctl(*args)
        assert r.returncode == 64 and f'did you mean "{near}"?' in r.stderr.decode()
    assert not os.path.exists(host.runtime), "none of this needs umbrad"


@pytest.mark.parametrize("args, told", [
    (["walk"], "wants a NAME"),
    (["walk", "a"], "wants a ADDR"),
    (["rmap", "a"], "wants a GFN"),
    (["walk", "a", "0x1000", "more"], 'does not know what to do with "more"'),
    (["walk", "a", "-5"], "no option"),
    (["walk", "a", "0x"], "must be an address"),
    (["walk", "a", "12g"], "must be an address"),
    (["walk", "a", "0x10000000000000000"], "must be an address"),
    (["walk", "a", "0", "--vcpu", "64"], "from 0 to 63"),
    (["walk", "../a", "0"], "no machine's name"),
    (["policy", "a", "paging"], "one of shadow, tdp"),
    (["policy", "a", "tpd"], 'did you mean "tdp"?'),
    (["pages", "a", "--level", "6"], "from 1 to 5"),
    (["pages", "a", "--from", "1"], "no option"),
    (["context", "a", "--which", "other"], "one of current"),
])
def test_usage(host, args, told):
    r = host.vmctl("mmu", *args)
    assert r.returncode == 64 and told in r.stderr.decode()
    assert not os.path.exists(host.runtime)


def test_completion(host):
    def words(*args):
        return host.vmctl("__complete", "--", *args).stdout.decode().split()

    assert "mmu" in words() and "mmu walk" not in words()
    assert sorted(words("mmu")) == VERBS
    host.define("a")
    assert {"--vcpu", "--gpa", "--nested", "--json", "a"} <= set(words("mmu", "walk"))
    assert "--addr" not in words("mmu", "walk") and "--from" not in words("mmu", "pages")
    assert words("mmu", "context", "a", "--which") == ["current", "walk", "root", "guest", "nested"]
    assert words("mmu", "walk", "a", "--vcpu") == []
    assert sorted(words("help", "mmu")) == VERBS
    assert words("mmu", "nothing") == []


# ---- machines that do not run ----

@pytest.mark.parametrize("verb", VERBS)
def test_no_machine_and_a_stopped_one(host, verb):
    host.vmctl("list")
    assert refusal(host, verb, "a", *MORE.get(verb, []))[0] == "not-found"
    host.define("a")
    kind, text = refusal(host, verb, "a", *MORE.get(verb, []))
    assert kind == "invalid-state" and '"a" is stopped, not running' in text


def test_ended_machine(real):
    real.define("a", path=payload("debug_exit"))
    real.vmctl("start", "a")
    real.vmctl("wait", "a")
    for verb in VERBS:
        assert refusal(real, verb, "a", *MORE.get(verb, []))[0] == "invalid-state"


def test_ends_amid_a_watch(spinning):
    """Whoever follows a machine hears of its end as an error, not as silence."""
    watch = spinning.spawn("mmu", "stat", "a", "--watch", "--interval", "0.01")
    trace = spinning.spawn("mmu", "trace", "a", "--what", "faults", "--start", "0xffffffff00000000")
    assert watch.stdout.readline()
    spinning.vmctl("stop", "-f", "a")
    for p in (watch, trace):
        _, err = p.communicate(timeout=HANG)
        assert p.returncode not in (0, -signal.SIGSEGV) and b"vmctl: " in err


def test_umbra_vm_without_the_method(host):
    """An adopted umbra-vm may be older than umbrad."""
    host.define("a")
    host.vmctl("start", "a")
    assert refusal(host, "slots", "a") == ("not-supported", "mmu.slots is not served here")


# ---- a payload without paging ----

def test_walk(spinning):
    w = answer(spinning, "walk", "a", "0x100000")
    assert w["guest"]["paging"] == "none" and w["guest"]["steps"] == [] and w["gpa"] == "0x100000"
    assert w["guest"]["kernel_may"] == "rwx" and w["tables"]["state"] == "present"
    assert w["tables"]["hva"] == w["hva"] and w["tables"]["agrees"]
    assert base64.b64decode(w["bytes"])[0] == 0xbc, "mov $stack_top, %esp"
    assert w["slot"]["size"] == hex(64 << 20) and ("hpa" in w) != ("hpa_unknown" in w)
    # Linear addresses have 32 bits here.
    assert answer(spinning, "walk", "a", "0xffffffff00100000")["gpa"] == "0x100000"
    # Nothing was written there: not mapped, and asking does not map it.
    for _ in range(2):
        assert answer(spinning, "walk", "a", "0x3ff0000")["tables"]["agrees"]
    w = answer(spinning, "walk", "a", "0xfec00000")
    assert "slot" not in w and "bytes" not in w and "MMIO" in w["verdict"]
    text = spinning.vmctl("mmu", "walk", "a", "0x100000").stdout.decode()
    assert "gva 0x100000, vCPU 0" in text and "both ways end at the same byte" in text


def test_hostile_numbers(spinning):
    kind, text = refusal(spinning, "walk", "a", "0", "--vcpu", "2")
    assert kind == "invalid-params" and "the machine has 2" in text
    for verb in ("context", "map", "roots"):
        assert refusal(spinning, verb, "a", "--vcpu", "63")[0] == "invalid-params"
    for gfn in ("0x4000", "0xfec00", "0xfffffffffffff", "0x10000000000000", "0xffffffffffffffff"):
        kind, text = refusal(spinning, "rmap", "a", gfn)
        assert kind == "invalid-params" and "no memslot" in text
    for addr in ("0xffffffffffffffff", "0x8000000000000000", "18446744073709551615"):
        assert answer(spinning, "walk", "a", addr, "--gpa")["tables"]["state"] == "not-walked"
        answer(spinning, "walk", "a", addr)
    assert answer(spinning, "walk", "a", "0x7fffffffffff", "--gpa")["tables"]["state"] == "empty"
    assert refusal(spinning, "walk", "a", "0", "--nested")[0] == "invalid-state"
    assert refusal(spinning, "walk", "a", "0", "--nested", "--gpa")[0] == "invalid-params"


def test_hostile_calls(spinning):
    c = spinning.client()
    for addr in (-1, 1.5, True, None, [], {}, "", "0x", " 1", "1 ", "0x1g", "-1", "1e3", "0" * 40, 1 << 64):
        assert c.error("mmu.walk", name="a", addr=addr)["data"]["kind"] == "invalid-params", addr
    assert c.ok("mmu.walk", name="a", addr=0x100000)["gpa"] == "0x100000"
    for params in ({"from": -1}, {"from": 1 << 33}, {"limit": 0}, {"limit": 5000}, {"level": 0}, {"paging": "x"},
                   {"direct": 1}, {"other": 1}):
        assert c.error("mmu.pages", name="a", **params)["data"]["kind"] == "invalid-params", params
    assert c.ok("mmu.pages", name="a", **{"from": 4294967295})["pages"] == []
    assert c.ok("mmu.rmap", name="a", gfn="0x100", **{"from": 2147483647})["sptes"] == []
    for params in ({"since": -1}, {"max": 0}, {"max": 5000}, {"what": "some"}, {"result": "x" * 33}):
        assert c.error("mmu.trace", name="a", **params)["data"]["kind"] == "invalid-params", params
    told = c.ok("mmu.trace", name="a", since=1 << 62)
    assert told["events"] == [] and told["what"] == "off" and told["next"] < 1 << 62
    assert len(c.ok("mmu.map", name="a", limit=1)["ranges"]) == 1


def test_lists(spinning):
    pages = answer(spinning, "pages", "a")
    assert len(pages["pages"]) == pages["total"] > 0
    c = spinning.client()
    some, at = [], 0
    while at is not None:
        part = c.ok("mmu.pages", name="a", limit=1, **{"from": at})
        some += part["pages"]
        at = part.get("next")
    assert [p["hpa"] for p in some] == [p["hpa"] for p in pages["pages"]]
    roots = [r["hpa"] for r in answer(spinning, "roots", "a")["roots"] if r["current"]]
    assert roots and set(roots) <= {p["hpa"] for p in pages["pages"] if p["roots"]}
    assert [p for p in answer(spinning, "pages", "a", "--root")["pages"]] == [p for p in pages["pages"] if p["roots"]]
    assert answer(spinning, "pages", "a", "--root=false", "--level", "5")["pages"] == []
    slots = answer(spinning, "slots", "a")["slots"]
    assert [(s["id"], s["gpa"], s["size"]) for s in slots] == [(0, "0x0", hex(64 << 20))]
    assert slots[0]["pages_2m"]["all"] == 32 and sum(slots[0]["mapped"].values()) > 0
    rmap = answer(spinning, "rmap", "a", "0x100")
    assert len(rmap["sptes"]) == 1 and rmap["slot"] == 0
    assert rmap["sptes"][0]["at"] == answer(spinning, "walk", "a", "0x100000")["tables"]["steps"][-1]["at"]
    ranges = answer(spinning, "map", "a")["ranges"]
    assert ranges[0]["start"] == "0x0" and ranges[0]["end"] == hex((64 << 20) - 1) and ranges[0]["memory"]
    assert ranges[-1]["end"] == "0xffffffff" and not ranges[-1]["memory"]
    assert answer(spinning, "map", "a", "--from", "0x100000", "--to", "0x1fffff")["ranges"] == [
        dict(ranges[0], start="0x100000", end="0x1fffff", gpa="0x100000")]
    for verb in VERBS:
        if verb != "trace":
            r = call(spinning, verb)
            assert r.returncode == 0 and r.stdout and not r.stderr, r.stderr


def test_context(spinning):
    c = answer(spinning, "context", "a")
    assert c["policy"] == spinning.policy and c["direct"] and c["page_fault"] == "direct_page_fault"
    assert c["paging"] == "none" and len(c["rsvd_bits"]) == 2 and all(len(r) == 5 for r in c["rsvd_bits"])
    assert c["format"] == ("ept" if spinning.policy == "tdp" else "x86") and c["root_role"]["level"] == 4
    text = call(spinning, "context").stdout.decode()
    assert "vcpu[0].mmu = {" in text and "    root_hpa = 0x" in text and "rsvd_bits = {" in text
    for which in ("walk", "root", "guest", "nested"):
        assert answer(spinning, "context", "a", "--which", which, "--vcpu", "1")["which"] == which


def test_stat_schema(spinning):
    s = answer(spinning, "stat", "a")
    assert s["policy"] == spinning.policy and len(s["vcpus"]) == 2
    names = {}
    for d in s["schema"]:
        assert d["type"] in ("cumulative", "instant", "peak") and d["unit"] in ("none", "bytes", "ns", "pages")
        names.setdefault(d["of"], set()).add(d["name"])
    assert names["vm"] == set(s["vm"]) and all(names["vcpu"] == set(v) - {"exits"} for v in s["vcpus"])
    assert {"mmu_pte_write", "pages_4k", "remote_tlb_flush"} <= names["vm"] and "pf_taken" in names["vcpu"]
    assert s["vcpus"][0]["pf_taken"] > 0
    looks = spinning.vmctl("mmu", "stat", "a", "--watch", "--count", "3", "--interval", "0.01", "--json").stdout
    times = [json.loads(line)["time"] for line in looks.splitlines()]
    assert len(times) == 3 and times == sorted(times)
    text = spinning.vmctl("mmu", "stat", "a", "--watch", "--count", "2", "--interval", "0", "--all").stdout.decode()
    assert text.count("mmu_recycled") == 2 and "/s" in text


def test_paused(spinning):
    assert spinning.vmctl("pause", "a").returncode == 0
    for verb in VERBS:
        if verb != "trace":
            assert call(spinning, verb).returncode == 0
    assert answer(spinning, "walk", "a", "0x100000")["gpa"] == "0x100000"
    # Inspection holds the vCPUs and lets go of them: that must not let a paused machine run.
    before = answer(spinning, "stat", "a")["vcpus"]
    assert answer(spinning, "stat", "a")["vcpus"] == before
    assert json.loads(spinning.vmctl("show", "a", "--json").stdout)["state"] == "paused"
    assert spinning.vmctl("resume", "a").returncode == 0


def test_policy(spinning):
    other = "shadow" if spinning.policy == "tdp" else "tdp"
    assert answer(spinning, "policy", "a") == {"policy": spinning.policy, "was": spinning.policy}
    assert answer(spinning, "policy", "a", other) == {"policy": other, "was": spinning.policy}
    assert answer(spinning, "policy", "a", other) == {"policy": other, "was": other}
    assert json.loads(spinning.vmctl("stats", "a", "--json").stdout)["policy"] == other
    wait_until(lambda: answer(spinning, "walk", "a", "0x100000")["tables"]["state"] == "present")
    for _ in range(20):
        answer(spinning, "policy", "a", spinning.policy)
        answer(spinning, "policy", "a", other)
    assert answer(spinning, "audit", "a")["violations"] == 0


# ---- the stream ----

@pytest.fixture
def talking(real):
    """A payload that writes without end, so that ports are left for."""
    real.define("a", path=payload("echo"), cpus=1)
    assert real.vmctl("start", "a").returncode == 0
    wait_until(lambda: b"ready" in real.vmctl("logs", "a").stdout)
    return real


def test_trace_filters_and_loss(talking):
    """The payload polls a port, so the stream is fast; it stands still while we look."""
    c = talking.client()

    def look(**more):
        return c.ok("mmu.trace", name="a", since=first, **more)

    first = c.ok("mmu.trace", name="a", what="all")["next"]
    # The ring is bounded: the beginning is dropped, and it is told how much.
    wait_until(lambda: c.ok("mmu.trace", name="a")["next"] > first + 40000)
    c.ok("machine.pause", name="a")
    last = c.ok("mmu.trace", name="a")["next"]
    told = look(max=50)
    seqs = [e["seq"] for e in told["events"]]
    assert told["lost"] == last - 32768 - first
    assert seqs == list(range(first + told["lost"] + 1, first + told["lost"] + 51)) and told["next"] == seqs[-1]
    assert {"io"} <= {e.get("reason") for e in told["events"]}
    only = look(reason="io", start="0x3fd", end="0x3fd", vcpu=0)["events"]
    assert len(only) == 1024 and all((e["reason"], e["addr"]) == ("io", "0x3fd") for e in only)
    assert look(reason="io", start="0x3fe", end="0x3ff")["events"] == []
    nothing = look(result="retry", reason="io")
    assert nothing["events"] == [] and nothing["next"] == last, "what does not pass is not looked at again"
    assert c.error("mmu.trace", name="a", vcpu=1)["data"]["kind"] == "invalid-params"
    # Off is off.
    assert c.ok("mmu.trace", name="a", what="off")["what"] == "off"
    c.ok("machine.resume", name="a")
    before = c.ok("mmu.stat", name="a")["vcpus"][0]["exits"]["io"]
    wait_until(lambda: c.ok("mmu.stat", name="a")["vcpus"][0]["exits"]["io"] > before + 1000)
    assert c.ok("mmu.trace", name="a")["next"] == last


def test_trace_verb(talking):
    r = talking.vmctl("mmu", "trace", "a", "--count", "30")
    assert r.returncode == 0 and len(r.stdout.splitlines()) == 30 and b" exit  io " in r.stdout
    assert talking.client().ok("mmu.trace", name="a")["what"] == "off", "it turned it off again"
    p = talking.spawn("mmu", "trace", "a", "--json", "--reason", "io")
    assert json.loads(p.stdout.readline())["reason"] == "io"
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=HANG)
    assert p.returncode == 0
    assert talking.client().ok("mmu.trace", name="a")["what"] == "off"


def test_many_ask_at_once(spinning):
    """Clients of every method at once, while the policy is switched under them."""
    failed = []

    def ask(verb):
        for _ in range(5):
            r = subprocess.run([VMCTL, "mmu", verb, "a", *MORE.get(verb, [])], env=spinning.env, capture_output=True)
            if r.returncode:
                failed.append((verb, r.stderr))

    verbs = [v for v in VERBS if v not in ("trace", "policy")]
    threads = [threading.Thread(target=ask, args=(v,)) for v in verbs]
    for t in threads:
        t.start()
    for i in range(20):
        answer(spinning, "policy", "a", ["shadow", "tdp"][i % 2])
    for t in threads:
        t.join()
    assert not failed

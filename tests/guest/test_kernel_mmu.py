# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel's MMU and its statistics beside ours, on this host's /dev/kvm."""
import http.client
import json
import socket

import pytest

import kernel_mmu
from conftest import BUILD, kvm_missing

pytestmark = pytest.mark.skipif(bool(kvm_missing()), reason=kvm_missing())
TESTS = f"{BUILD}/tests/guest"


def test_beside_ours():
    """One guest on both: the same output, and where both shadow the same tables go for the same reasons."""
    result = kernel_mmu.compare(BUILD)
    kernel_mmu.print_table(result)
    ours, kernel = result["soft"], result["kvm"]
    phase = kernel_mmu.PHASES.index
    assert ours["mmu_flooded"][phase("reuse table")] == 1
    assert kernel["pf_fixed"] is not None and sum(kernel["pf_fixed"]) > 0
    if sum(kernel["mmu_cache_miss"]) == 0:
        return  # two dimensions: the guest's tables are nobody's but its own
    for name in ("mmu_shadow_zapped", "mmu_flooded"):
        assert kernel[name] == ours[name]
    # No unsynced page is forgotten: what INVLPG and CR3 must bring into step was faulted in again by both.
    for name in ("rewrite, INVLPG", "rewrite, CR3", "clear A, D"):
        assert kernel["pf_fixed"][phase(name)] >= 128 and ours["pf_fixed"][phase(name)] >= 128


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def test_statistics(vmctl):
    """The kernel's own counters by every way there is to ours: names, types, units, histograms."""
    name = "stat"
    for args in (["create", "--name", name, "--engine", "kvm", "--boot", "multiboot", "--kernel",
                  f"{TESTS}/spin.elf", "--memory", "16M"], ["start", name]):
        done = vmctl.call(*args)
        assert done.returncode == 0, done.stderr
    try:
        stat = json.loads(vmctl.call("mmu", "stat", name, "--json").stdout)
        # It has only just begun.
        while "missing" not in stat and not stat["vcpus"][0]["kernel_exits"]:
            stat = json.loads(vmctl.call("mmu", "stat", name, "--json").stdout)
        schema = {row["name"]: row for row in stat["schema"]}
        assert len(schema) == len(stat["schema"]), "a name twice"
        if "missing" in stat:
            pytest.skip(stat["missing"])
        # Names that every KVM with binary statistics has (arch/x86/kvm/x86.c, include/linux/kvm_host.h).
        assert schema["mmu_pte_write"] == {"name": "mmu_pte_write", "type": "cumulative", "unit": "none", "of": "vm"}
        assert schema["mmu_unsync"]["type"] == "instant" and schema["max_mmu_rmap_size"]["type"] == "peak"
        assert schema["halt_wait_ns"] == {"name": "halt_wait_ns", "type": "cumulative", "unit": "ns", "of": "vcpu"}
        assert schema["halt_wait_hist"]["type"] == "log_hist" and schema["halt_wait_hist"]["unit"] == "ns"
        assert schema["blocking"]["unit"] == "boolean"
        vcpu = stat["vcpus"][0]
        assert len(vcpu["halt_wait_hist"]) == 32 and vcpu["kernel_exits"] > 0
        assert isinstance(vcpu["exits"], dict) and stat["policy"] in ("shadow", "tdp")
        assert vmctl.call("mmu", "stat", name, "--all").returncode == 0
        policy = json.loads(vmctl.call("mmu", "policy", name, "--json").stdout)
        assert policy["policy"] == stat["policy"] and policy["kernel"]["spte"] == "unknown"
        assert policy["kernel"]["module"].startswith("kvm_")
        other = {"shadow": "tdp", "tdp": "shadow"}[stat["policy"]]
        done = vmctl.call("mmu", "policy", name, other)
        assert done.returncode and b"under kvm the policy is the kernel's" in done.stderr
        stats = json.loads(vmctl.call("stats", name, "--json").stdout)
        assert stats["mmu"]["mmu_cache_miss"] >= 0 and stats["kernel_mmu"] == policy["kernel"]
        metrics(vmctl, name)
    finally:
        vmctl.call("stop", "--force", name)
        vmctl.call("delete", name)


def metrics(vmctl, name):
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    connection = Unix(f"{vmctl.folder}/run/umbrad-http.sock")
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    families = {f.name: f for f in parser.text_string_to_metric_families(text)}
    hist = families["umbra_halt_wait_hist"]
    assert hist.type == "histogram"
    of = [s for s in hist.samples if s.labels["machine"] == name]
    assert len(of) == 32 and of[-1].labels["le"] == "+Inf" and of[0].labels["le"] == "0.0"
    assert families["umbra_mmu_pte_write"].type == "counter"
    assert any(s.labels["machine"] == name for s in families["umbra_kernel_exits"].samples)

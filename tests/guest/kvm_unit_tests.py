#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run kvm-unit-tests payloads, which stay outside this tree, as machines of ours.

usage: kvm_unit_tests.py [-e soft|kvm] [--vmctl PATH] [--policy tdp|npt|shadow] [--timeout S] [--more] [--long]
                         FOLDER [NAME...]

FOLDER holds the x86-64 *.flat files. Without names the payloads that must pass are run, with --more all that
we know of, with --long those too that take minutes. npt is tdp with AMD's form of the tables. With -e kvm the
machine's memory is virtualized as this host's KVM does it, and what our processor carried out for the kernel is
told for each payload.

A payload passes when it ends with status 1 (its own 0) and ran the number of checks that its row asks for: an
absent CPU feature makes some of them skip in silence.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# What a payload reads as its environment (a multiboot module): no test device, so that what only KVM's own
# hypercalls can satisfy is left out.
NO_HYPERCALLS = "TEST_DEVICE=0\nNR_CPUS=2\nMEMSIZE=128\n"

POLICIES = {
    "tdp": ("--mmu", "tdp"),
    "npt": ("--mmu", "tdp", "--tdp-format", "npt"),
    "shadow": ("--mmu", "shadow"),
}


class Test:
    """A payload, its arguments, vCPUs, the changes of the CPU model, the least number of checks to run."""

    def __init__(self, payload, least=0, arguments="", cpus=1, cpu="", env=""):
        self.payload, self.least, self.arguments = payload, least, arguments
        self.cpus, self.cpu, self.env = cpus, cpu, env


TESTS = {
    "dummy": Test("dummy"),
    "realmode": Test("realmode", 127),
    "memory": Test("memory", 1),
    "setjmp": Test("setjmp", 1),
    "sieve": Test("sieve"),
    "syscall": Test("syscall", 2, cpu="vendor=AuthenticAMD"),
    "tsc": Test("tsc", 1),
    "smap": Test("smap", 18),
    "rmap_chain": Test("rmap_chain", 1),
    "access": Test("access_test", 1916935, cpu="-pku"),
    "access-la57": Test("access_test", 2 * 1916935, cpu="+la57,-pku"),
    "access-maxphyaddr-36": Test("access_test", 2899975, cpu="maxphyaddr=36,-pku"),
    "access-maxphyaddr-40": Test("access_test", 1916935, cpu="maxphyaddr=40,-pku"),
    "umip": Test("umip", 21),
    "xsave": Test("xsave", 386),
    "smptest2": Test("smptest", 1, cpus=2),
    "smptest3": Test("smptest", 1, cpus=3),
    "vmexit_cpuid": Test("vmexit", arguments="cpuid"),
}
# Not asked for by name, but run to see what else holds.
MORE = {
    "emulator": Test("emulator", 150),
    "idt_test": Test("idt_test", 4),
    "debug": Test("debug", 25),
    "eventinj": Test("eventinj", 13),
    "ioapic": Test("ioapic", 30, cpus=4),
    "apic": Test("apic", 55, cpus=2, env=NO_HYPERCALLS),
    "xapic": Test("apic", 40, cpus=2, cpu="-x2apic", env=NO_HYPERCALLS),
    "pcid": Test("pcid", 2),
    "pcid-disabled": Test("pcid", 2, cpu="-pcid,-invpcid"),
    "pcid-asymmetric": Test("pcid", 2, cpu="-pcid"),
    "pku": Test("pku", 7),
    "la57": Test("la57", 56, cpu="+la57"),
    "la57-off": Test("la57", 56),
    "lam": Test("lam", 19),
    "rdpru": Test("rdpru", 1),
    "msr": Test("msr", 1000),
    "tsc_adjust": Test("tsc_adjust", 6),
    "tscdeadline_latency": Test("tscdeadline_latency", 1),
}
# Minutes each.
LONG = {
    "access-pku": Test("access_test", 19169286),
    "access-pku-la57": Test("access_test", 2 * 19169286, cpu="+la57"),
    "access-pku-maxphyaddr-36": Test("access_test", 28999686, cpu="maxphyaddr=36"),
}
for operation in ("wbinvd invd mov_from_cr8 mov_to_cr8 inl_from_pmtimer inl_from_qemu inl_from_kernel outl_to_kernel "
                  "mov_dr tscdeadline_immed tscdeadline self_ipi_sti_nop self_ipi_sti_hlt self_ipi_tpr "
                  "self_ipi_tpr_sti_nop self_ipi_tpr_sti_hlt ple_round_robin wr_kernel_gs_base wr_ibrs_msr "
                  "wr_ibpb_msr wr_tsc_adjust_msr rd_tsc_adjust_msr").split():
    MORE["vmexit_" + operation] = Test("vmexit", arguments=operation)
for operation in "ipi ipi_halt toggle_cr0_wp toggle_cr4_pge".split():
    MORE["vmexit_" + operation] = Test("vmexit", arguments=operation, cpus=2)

ALL = TESTS | MORE | LONG
# With -e kvm these must pass on any KVM: what it cannot carry out, our processor does.
ON_KVM = ["dummy", "emulator", "memory", "setjmp", "smap"]


def checks(text):
    """How many checks a payload's output shows: its summary's number, or its PASS and FAIL lines."""
    cases = re.findall(r"^(\d+) tests, \d+ failures", text, re.M)  # of access, once for each kind of paging
    if cases:
        return sum(int(n) for n in cases)
    summary = re.findall(r"(?:SUMMARY|summary): (\d+) tests?(?:, (\d+) (?:unexpected )?failures?)?", text)
    if summary:
        return sum(int(n) for n, _ in summary)
    return len(re.findall(r"^(?:PASS|FAIL|XPASS|XFAIL)\b", text, re.M))


def run(args, policy, name):
    test = ALL[name]
    path = os.path.join(args.folder, test.payload + ".flat")
    command = [args.vmctl, "run", "--kernel", path, "--boot", "multiboot", "--cpus", str(test.cpus),
               "--memory", "128M", "--engine", args.engine, *POLICIES.get(policy, ()),
               "--timeout", str(args.timeout)]
    if test.arguments:
        command += ["--cmdline", test.arguments]
    if test.cpu:
        command += ["--cpu", test.cpu]
    with tempfile.NamedTemporaryFile("w") as env, tempfile.NamedTemporaryFile() as stats:
        command += ["--stats", stats.name]
        if test.env:
            env.write(test.env)
            env.flush()
            command += ["--module", env.name]
        start = time.monotonic()
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=args.timeout + 30)
        took = time.monotonic() - start
        with open(stats.name, encoding="utf-8") as f:
            counters = json.loads(f.read() or "{}")
    text = done.stdout.decode(errors="replace")
    return done.returncode, text, done.stderr.decode(errors="replace"), took, counters.get("helped_by")


def helped(by):
    """What was carried out for the kernel, most first."""
    rows = sorted(by.items(), key=lambda row: -row[1])
    return " helped " + (", ".join(f"{name} {n}" for name, n in rows) or "nothing")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--engine", choices=["soft", "kvm"], default="soft")
    parser.add_argument("--vmctl", default=f"{ROOT}/build/release/cli/vmctl")
    parser.add_argument("--policy", choices=list(POLICIES), action="append")
    parser.add_argument("--timeout", type=int, default=1800)
    parser.add_argument("--more", action="store_true", help="all payloads that we know of")
    parser.add_argument("--long", action="store_true", help="also those that take minutes each")
    parser.add_argument("--verbose", action="store_true", help="print the output of what fails")
    parser.add_argument("folder")
    parser.add_argument("name", nargs="*")
    args = parser.parse_args()
    names = args.name or ((ON_KVM if args.engine == "kvm" else list(TESTS)) + (list(MORE) if args.more else []) +
                          (list(LONG) if args.long else []))
    policies = ["kernel"] if args.engine == "kvm" else args.policy or ["tdp", "shadow"]
    failed = 0
    for name in names:
        for policy in policies:
            by = None
            try:
                status, text, err, took, by = run(args, policy, name)
            except subprocess.TimeoutExpired:
                status, text, err, took = 124, "", "vmctl itself did not end", args.timeout
            ran, least = checks(text), ALL[name].least
            ok = status == 1 and ran >= least and not re.search(r"^FAIL", text, re.M)
            failed += not ok
            print(f"{'PASS' if ok else 'FAIL'} {name:26} {policy:7} status {status:3} checks {ran:4} "
                  f"(at least {least}) {took:7.1f} s{'' if by is None else helped(by)}", flush=True)
            if not ok and args.verbose:
                print("\n".join("    " + line for line in (text + err).splitlines()[-25:]))
            elif not ok:
                for line in re.findall(r"^FAIL.*", text, re.M)[:5]:
                    print("    " + line)
    total = len(names) * len(policies)
    print(f"{total - failed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run kvm-unit-tests payloads, which stay outside this tree, as machines of ours.

usage: kvm_unit_tests.py [--vmctl PATH] [--policy tdp|shadow] [--timeout S] FOLDER [NAME...]

FOLDER holds the x86-64 *.flat files. A payload passes when it ends with status 1 (its own 0) and ran the
number of checks that its row asks for: an absent CPU feature makes some of them skip in silence.
"""
import argparse
import os
import re
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# name: (payload, its arguments, vCPUs, MiB, least number of checks that must have run)
TESTS = {
    "dummy": ("dummy", "", 1, 128, 0),
    "realmode": ("realmode", "", 1, 128, 127),
    "memory": ("memory", "", 1, 128, 1),
    "setjmp": ("setjmp", "", 1, 128, 1),
    "sieve": ("sieve", "", 1, 128, 0),
    "syscall": ("syscall", "", 1, 128, 1),
    "tsc": ("tsc", "", 1, 128, 1),
    "smap": ("smap", "", 1, 128, 18),
    "umip": ("umip", "", 1, 128, 21),
    "xsave": ("xsave", "", 1, 128, 386),
    "smptest2": ("smptest", "", 2, 128, 1),
    "smptest3": ("smptest", "", 3, 128, 1),
    "vmexit_cpuid": ("vmexit", "cpuid", 1, 128, 0),
}
# Not asked for by name, but run to see what else holds.
MORE = {
    "emulator": ("emulator", "", 1, 128, 1),
    "idt_test": ("idt_test", "", 1, 128, 1),
    "debug": ("debug", "", 1, 128, 1),
    "eventinj": ("eventinj", "", 1, 128, 1),
    "ioapic": ("ioapic", "", 4, 128, 1),
    "apic": ("apic", "", 2, 128, 1),
    "pcid": ("pcid", "", 1, 128, 1),
    "pku": ("pku", "", 1, 128, 1),
    "la57": ("la57", "", 1, 128, 1),
    "msr": ("msr", "", 1, 128, 1),
    "rmap_chain": ("rmap_chain", "", 1, 128, 0),
    "init": ("init", "", 1, 128, 0),
    "tsc_adjust": ("tsc_adjust", "", 1, 128, 1),
    "tscdeadline_latency": ("tscdeadline_latency", "10", 1, 128, 0),
    "vmexit_ipi": ("vmexit", "ipi", 2, 128, 0),
    "hypercall": ("hypercall", "", 1, 128, 0),
    "access": ("access_test", "", 1, 128, 1),
}


def checks(text):
    """How many checks a payload's output shows: its summary's number, or its PASS and FAIL lines."""
    summary = re.findall(r"(?:SUMMARY|summary): (\d+) tests?(?:, (\d+) (?:unexpected )?failures?)?", text)
    if summary:
        return sum(int(n) for n, _ in summary)
    return len(re.findall(r"^(?:PASS|FAIL|XPASS|XFAIL)\b", text, re.M))


def run(args, policy, name):
    payload, arguments, cpus, memory, _ = (TESTS | MORE)[name]
    path = os.path.join(args.folder, payload + ".flat")
    command = [args.vmctl, "run", "--kernel", path, "--boot", "multiboot", "--cpus", str(cpus), "--memory",
               f"{memory}M", "--engine", "soft", "--mmu", policy, "--timeout", str(args.timeout)]
    if arguments:
        command += ["--cmdline", arguments]
    start = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=args.timeout + 30)
    text = done.stdout.decode(errors="replace")
    return done.returncode, text, done.stderr.decode(errors="replace"), time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vmctl", default=f"{ROOT}/build/release/cli/vmctl")
    parser.add_argument("--policy", choices=["tdp", "shadow"], action="append")
    parser.add_argument("--timeout", type=int, default=300)
    parser.add_argument("--more", action="store_true", help="all payloads that we know of")
    parser.add_argument("--verbose", action="store_true", help="print the output of what fails")
    parser.add_argument("folder")
    parser.add_argument("name", nargs="*")
    args = parser.parse_args()
    names = args.name or list(TESTS) + (list(MORE) if args.more else [])
    failed = 0
    for name in names:
        for policy in args.policy or ["tdp", "shadow"]:
            try:
                status, text, err, took = run(args, policy, name)
            except subprocess.TimeoutExpired:
                status, text, err, took = 124, "", "vmctl itself did not end", args.timeout
            ran, least = checks(text), (TESTS | MORE)[name][4]
            ok = status == 1 and ran >= least and not re.search(r"^FAIL", text, re.M)
            failed += not ok
            print(f"{'PASS' if ok else 'FAIL'} {name:16} {policy:7} status {status:3} checks {ran:4} "
                  f"(at least {least}) {took:7.1f} s", flush=True)
            if not ok and args.verbose:
                print("\n".join("    " + line for line in (text + err).splitlines()[-25:]))
            elif not ok:
                for line in re.findall(r"^FAIL.*", text, re.M)[:5]:
                    print("    " + line)
    total = len(names) * len(args.policy or [1, 2])
    print(f"{total - failed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())

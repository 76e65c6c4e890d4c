# SPDX-License-Identifier: LGPL-2.1-or-later
"""gdb on Debian kernels: breakpoints in functions by name, backtrace, watchpoint, step, continue; both policies.

The symbols are the kernel's own list (symbols.py). It has no unwind tables: a backtrace is right for the function
whose first instruction is next and for its caller, which is what is asked for here.
"""
import os
import re
import subprocess
import time

import pytest

import symbols
from conftest import BUILD, LONG, guests

PATIENCE = 300
POLICIES = ["tdp", "shadow"]
LOOP = 'umbra.run="while true; do read x </proc/uptime; done"'
RECIPE = "1"  # of the files made here; another number makes them anew


def cached(kernel, text_of):
    """The symbols of a kernel, made once and kept beside it."""
    path = f"{os.path.dirname(kernel)}/symbols-{RECIPE}.elf"
    if not os.path.exists(path) or os.path.getmtime(path) < os.path.getmtime(kernel):
        data = symbols.elf(symbols.parse(text_of()))
        with open(f"{path}.{os.getpid()}", "wb") as f:
            f.write(data)
        os.replace(f.name, path)
    return path


def kallsyms(vmctl, guest):
    kernel, initrd = guest
    done = vmctl.run("--kernel", kernel, "--initrd", initrd, "--memory", "256M", "--timeout", 300, "--cmdline",
                     "console=ttyS0 panic=-1 nokaslr quiet umbra.run=\"cat /proc/kallsyms\"")
    assert done.returncode == 0 and "umbra: run status 0" in done.text, done.err
    return done.stdout


@pytest.fixture(scope="module")
def names(vmctl, cloud):
    return cached(cloud[0], lambda: kallsyms(vmctl, cloud))


class Machine:
    def __init__(self, vmctl, name, guest, *options, run=LOOP):
        self.vmctl, self.name = vmctl, name
        self.ok("create", "--name", name, "--kernel", guest[0], "--initrd", guest[1], "--memory", "256M", "--engine",
                "soft", "--cmdline", f"console=ttyS0 panic=-1 nokaslr {run}", *options)
        self.ok("start", name)

    def ok(self, *args):
        done = self.vmctl.call(*args)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def wait_for(self, text):
        end = time.monotonic() + PATIENCE
        while text not in self.ok("logs", self.name):
            assert time.monotonic() < end, self.ok("logs", self.name)[-2000:]
            time.sleep(0.1)

    def gdb(self, elf, *commands, arch="auto"):
        """What gdb says to these commands."""
        env = dict(self.vmctl.env, LC_ALL="C")
        target = f"target remote | {BUILD}/cli/vmctl gdb --stdio --arch {arch} {self.name}"
        every = ["set pagination off", "set confirm off", f"set remotetimeout {PATIENCE}", target, *commands]
        done = subprocess.run(["gdb", "-q", "-nx", "-batch", *[a for c in every for a in ("-ex", c)],
                               *([elf] if elf else [])], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, check=False)
        return done.stdout

    def delete(self):
        self.ok("delete", "--force", self.name)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("cpus", [1, 2])
def test_kernel(vmctl, cloud, names, policy, cpus):
    """Must-show 8: by symbol, backtrace, watchpoint, continue."""
    m = Machine(vmctl, f"gdb-{policy}-{cpus}", cloud, "--mmu", policy, "--cpus", cpus)
    m.wait_for(f"umbra: cpus {cpus}")
    said = m.gdb(names, "break uptime_proc_show", "continue", "backtrace 2", "info threads", "echo --finish\\n",
                 "finish", "info symbol $pc", "echo --watch\\n", "delete", "watch *(long *)&jiffies_64", "continue",
                 "info symbol $pc", "echo --step\\n", "delete", "hbreak seq_read_iter", "continue", "stepi",
                 "info symbol $pc", "echo --again\\n", "continue", "backtrace 1", "delete",
                 "monitor mmu walk 0xffffffff81000000", "x/2i 0xffffffff81000000", "detach")
    begin, finish, watch, step, again = re.split(r"--\w+\n", said)
    assert re.search(r"Breakpoint 1, 0x\w+ in uptime_proc_show \(\)", begin), said
    assert re.search(r"#0 +0x\w+ in uptime_proc_show \(\)\n#1 +0x\w+ in seq_read_iter \(\)", begin), said
    assert len(re.findall(r"Thread \d \"vCPU \d\" \(vCPU", begin)) == cpus, said
    assert "seq_read_iter + " in finish, said
    assert re.search(r"Hardware watchpoint \d: .*\n\nOld", watch) and "Old value = " in watch, said
    old, new = (int(re.search(f"{word} value = (\\d+)", watch).group(1)) for word in ("Old", "New"))
    assert new > old and re.search(r"(tick_do_update_jiffies64|do_timer) \+ ", watch), said
    assert re.search(r"Breakpoint \d, 0x\w+ in seq_read_iter", step), said
    assert re.search(r"seq_read_iter \+ [1-9]", step), said
    assert re.search(r"Breakpoint \d, .*\n#0 .*seq_read_iter", again), said
    assert "level 2 at gpa" in again and "ours: level" in again and "[Inferior 1 (Remote target) detached]" in again
    # And the guest goes on.
    before = m.ok("stats", "--json", m.name)
    end = time.monotonic() + PATIENCE
    while re.search(r'"instructions": ?(\d+)', m.ok("stats", "--json", m.name)).group(1) == \
            re.search(r'"instructions": ?(\d+)', before).group(1):
        assert time.monotonic() < end
    m.delete()


@pytest.mark.parametrize("policy", POLICIES)
def test_from_the_first_instruction(vmctl, cloud, names, policy):
    """A breakpoint that is set before the kernel has unpacked itself, and a boot that goes on to it at speed."""
    m = Machine(vmctl, f"gdb-boot-{policy}", cloud, "--mmu", policy, run='umbra.run="read x </proc/uptime"')
    said = m.gdb(names, "monitor reset", "break uptime_proc_show", "continue", "backtrace 1", "delete", "continue",
                 arch="amd64")
    assert re.search(r"#0 +0x\w+ in uptime_proc_show", said), said
    assert "exited normally" in said, said
    m.delete()


def test_clock_instructions(vmctl, cloud, names):
    """vCPUs that take turns on one thread stop and step as well."""
    m = Machine(vmctl, "gdb-turns", cloud, "--clock", "instructions", "--cpus", 2)
    m.wait_for("umbra: cpus 2")
    said = m.gdb(names, "break uptime_proc_show", "continue", "stepi", "info symbol $pc", "continue", "backtrace 1",
                 "detach")
    assert said.count("hit Breakpoint 1") == 2 and "uptime_proc_show + " in said, said
    m.delete()


@pytest.mark.skipif(not LONG, reason="in script/test --long")
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("guest", ["pae", "686"])
def test_i386(vmctl, guest, policy):
    """32-bit kernels, PAE and two-level: gdb is told i386."""
    files = guests(f"guests_kernel {guest}"), guests(f"guests_initrd {guest}")
    m = Machine(vmctl, f"gdb-{guest}-{policy}", files, "--mmu", policy)
    m.wait_for("umbra: cpus 1")
    said = m.gdb(None, "info registers eip cr3 cr4", "stepi", "x/i $eip", "detach")
    assert re.search(r"eip +0x\w+", said) and ("PAE" in said) == (guest == "pae"), said
    assert re.search(r"=> 0x\w+:\t\w+", said), said
    m.delete()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""umbrad is killed at every step that it takes, while eight machines run; the next one must find all in order.

What the steps are is learned from umbrad itself: each scenario is played once with $UMBRA_FAULT_LOG, which
lists the points that it passes; then once for each of them with $UMBRA_FAULT, which kills it there. The
eight bystanders live through the whole matrix: guests with a clock of their own, whose count must never stop
or start again."""
import glob
import json
import os
import signal
import subprocess
import time

import pytest
from conftest import (FAKE_VM, HANG, UMBRA_VM, UMBRAD, Client, Host, alive, complaints, machine_processes, payload,
                      wait_until)

LONG = os.environ.get("UMBRA_TEST_LONG") == "1"
SHORT_POINTS = 32
BYSTANDERS = 8
OVERS = 200  # looks at a scenario that is over, until it is clear that the point does not come


class Umbrad:
    """One that runs until it is killed, by itself or by us."""

    def __init__(self, host, **env):
        r, w = os.pipe()
        with open(os.path.join(host.folder, "umbrad.log"), "ab") as log:
            self.process = subprocess.Popen([UMBRAD, "--ready-fd", str(w)], env={**host.env, **env},
                                            pass_fds=[w], stdin=subprocess.DEVNULL, stderr=log)
        os.close(w)
        self.ready = os.read(r, 1) == b"1"
        os.close(r)

    def end(self, sig=signal.SIGKILL):
        self.process.send_signal(sig)
        self.process.wait(HANG)


class Peer(Client):
    """A client that takes the end of umbrad for an answer."""

    def ask(self, method, **params):
        try:
            return self.call(method, **params).get("result")
        except (OSError, AssertionError):
            return None


def state(client, name):
    answer = client.call("machine.show", name=name)
    return answer["result"]["state"] if "result" in answer else None


class Matrix:
    def __init__(self, folder):
        self.host = Host(folder)
        # Bystanders are real machines; the one that things are done to only plays one.
        self.host.env["UMBRA_VM"] = os.path.join(folder, "umbra-vm")
        with open(self.host.env["UMBRA_VM"], "w") as f:
            f.write('#!/bin/bash\ncase "$*" in\n*"--name w"*) exec -a umbra-vm ' + UMBRA_VM + ' "$@";;\n'
                    '*) exec -a umbra-vm ' + FAKE_VM + ' "$@";;\nesac\n')
        os.chmod(self.host.env["UMBRA_VM"], 0o755)
        self.umbrad = Umbrad(self.host)
        client = Peer(self.host.socket)
        self.told, self.known = client.ok("events.subscribe")["last"], {}
        client.ok("events.unsubscribe")
        for i in range(BYSTANDERS):
            client.ok("machine.create", definition={"name": f"w{i}", "kernel": payload("ticker"), "memory": "2M"})
            client.ok("machine.start", name=f"w{i}")
        self.pids = {f"w{i}": client.ok("machine.show", name=f"w{i}")["pid"] for i in range(BYSTANDERS)}
        client.close()
        self.umbrad.end()
        self.counts = {name: 0 for name in self.pids}
        wait_until(lambda: all(self.count(name) for name in self.pids))

    def console(self, name):
        with open(os.path.join(self.host.state, "logs", f"{name}.console.log"), errors="replace") as f:
            return f.read()

    def count(self, name):
        lines = self.console(name).split("\n")
        return int(lines[-2], 16) if len(lines) > 2 else 0

    def check_bystanders(self, machines):
        """They run, as the same processes, and their clocks have gone on since the last look."""
        for name, pid in self.pids.items():
            assert machines[name]["pid"] == pid and alive(pid)
        for name, before in self.counts.items():
            wait_until(lambda n=name, b=before: self.count(n) > b)
            self.counts[name] = self.count(name)

    def check_clocks(self):
        """From the first tick to the last: no count was left out, none came twice."""
        for name in self.pids:
            lines = self.console(name).split("\n")
            assert lines[0] == "ticking"
            # A console log is bounded: its start may be gone, never its middle.
            counts = [int(line, 16) for line in lines[1:-1]]
            assert counts == list(range(10, 10 * len(counts) + 1, 10))

    def knows_all(self, client):
        """Who heard all events, of every umbrad, knows what there is. They are replayed without a gap."""
        answer = client.ok("events.subscribe", since=self.told)
        client.ok("system.version")
        client.ok("events.unsubscribe")
        assert not answer["lost"]
        for e in client.events:
            assert e["seq"] == self.told + 1
            self.told = e["seq"]
            if e["type"] == "deleted":
                del self.known[e["machine"]]
            elif e["type"] == "created":
                assert e["machine"] not in self.known
                self.known[e["machine"]] = "stopped"
            elif e["type"] == "state":
                self.known[e["machine"]] = e["state"]
        client.events.clear()
        return self.known == {name: m["state"] for name, m in self.machines(client).items()}

    def check_disk(self, machines):
        host = self.host
        files = os.listdir(os.path.join(host.state, "machines"))
        assert not [f for f in files if f.endswith(".tmp")]
        assert {f[:-5] for f in files if f.endswith(".json")} == set(machines)
        for f in files:
            with open(os.path.join(host.state, "machines", f)) as text:
                whole = json.load(text)
            assert f[:-5] in machines
            if f.endswith(".json"):
                assert whole["definition"] == machines[f[:-5]]["definition"]
        for f in os.listdir(os.path.join(host.runtime, "vm")):
            m = machines[f.rsplit(".", 1)[0]]
            assert m["state"] != "stopped" or (f.endswith(".json") and "restart_at" in m), f
        for f in os.listdir(os.path.join(host.state, "logs")):
            assert f.split(".")[0] in machines, f

    def check_groups(self, machines):
        known = {g for m in machines.values() for g in m.get("host", {}).get("cgroups", [])}
        for tag in {os.path.basename(g)[:15] for g in known}:
            there = glob.glob(f"/sys/fs/cgroup/**/{tag}*", recursive=True)
            assert set(there) <= known

    def machines(self, client):
        return {m["name"]: m for m in client.ok("machine.list")["machines"]}

    def asked(self):
        """Something was asked of the victim that is yet to be done."""
        try:
            with open(os.path.join(self.host.runtime, "vm", "victim.json")) as f:
                return json.load(f)["intent"] != "keep"
        except FileNotFoundError:
            return False

    def settled(self, client, scenario):
        machines = self.machines(client)
        v = machines.get("victim")
        if v and (v["state"] in ("starting", "stopping") or "restart_at" in v or self.asked()):
            return None
        if {m["pid"] for m in machines.values() if "pid" in m} != machine_processes(self.host):
            return None
        return machines

    def check(self, client, scenario):
        """Nothing is lost, doubled or orphaned, and nothing half-written."""
        if scenario.freeze:
            wait_until(lambda: scenario.freeze(client))
        wait_until(lambda: self.settled(client, scenario) is not None)
        machines = self.machines(client)
        assert set(machines) - {"victim"} == set(self.pids)
        if "victim" not in machines:
            assert scenario.may_vanish
        else:
            assert machines["victim"]["state"] in scenario.ends
            assert machines["victim"]["definition"]["kernel"] == self.host.kernel
        self.check_bystanders(machines)
        wait_until(lambda: self.knows_all(client))
        self.check_disk(machines)
        self.check_groups(machines)

    def remove_victim(self, client):
        """Whatever was half done, it can still be used: started, stopped, deleted."""
        if state(client, "victim") == "stopped":
            client.call("machine.stop", name="victim")  # a restart that is due
            answer = client.call("machine.start", name="victim")
            assert "result" in answer or answer["error"]["data"]["kind"] == "bad-image"
        if state(client, "victim"):
            client.ok("machine.delete", name="victim", force=True)
        assert state(client, "victim") is None

    def play(self, scenario, **env):
        """The scenario under a umbrad that has @env; whether it still runs, and what it passed before."""
        self.umbrad = Umbrad(self.host)
        client = Peer(self.host.socket)
        scenario.prepare(self, client)
        client.close()
        self.umbrad.end()
        if scenario.away:
            scenario.away(self)
        self.umbrad = Umbrad(self.host, **env)
        try:
            client = Peer(self.host.socket)
        except OSError:
            return  # it has died already, as it should
        scenario.act(client)
        client.close()

    def recover(self, scenario):
        self.umbrad = Umbrad(self.host)
        assert self.umbrad.ready
        client = Peer(self.host.socket)
        self.check(client, scenario)
        self.remove_victim(client)
        client.close()
        self.umbrad.end()

    def learn(self, scenario):
        """The points that are passed, each with how often it was passed before: POINT:N."""
        log = os.path.join(self.host.folder, "passed")
        if os.path.exists(log):
            os.unlink(log)
        self.play(scenario, UMBRA_FAULT_LOG=log)
        client = Peer(self.host.socket)
        wait_until(lambda: scenario.over(client))
        client.close()
        self.umbrad.end()
        with open(log) as f:
            passed = f.read().split()
        self.recover(scenario)
        return [f"{p}:{passed[:i + 1].count(p)}" for i, p in enumerate(passed)]

    def dies(self, scenario):
        """Whether it has; or the scenario is over, and there is nothing more to come that could kill it."""
        if self.umbrad.process.poll() is not None:
            return True
        try:
            client = Peer(self.host.socket)
            over = scenario.over(client)
            client.close()
        except (OSError, AssertionError):
            return False
        self.overs += bool(over)
        return self.overs > OVERS

    def kill_at(self, scenario, point):
        """Whether it died there: how often a point is passed depends a little on who is how quick."""
        self.play(scenario, UMBRA_FAULT=point)
        self.overs = 0
        wait_until(lambda: self.dies(scenario))
        died = self.umbrad.process.poll() is not None
        if not died:
            self.umbrad.end()
        assert self.umbrad.process.returncode == -signal.SIGKILL
        self.recover(scenario)
        return died

    def finish(self):
        if self.umbrad.process.poll() is None:
            self.umbrad.end()
        self.umbrad = Umbrad(self.host)
        client = Peer(self.host.socket)
        for name in self.machines(client):
            client.ok("machine.delete", name=name, force=True)
        client.close()
        self.umbrad.end(signal.SIGTERM)
        assert machine_processes(self.host) == set()


class Scenario:
    """What is done to the machine "victim" while umbrad is to die, and how it may be found afterwards."""

    def __init__(self, name, act, over, ends=("stopped", "running"), **more):
        self.name = name
        self.act = act
        self.over = over
        self.ends = ends
        self.definition = more.get("definition", {})
        self.running = more.get("running", False)  # before
        self.defined = more.get("defined", True)
        self.away = more.get("away")
        self.may_vanish = more.get("may_vanish", False)
        self.freeze = more.get("freeze")

    def prepare(self, matrix, client):
        if self.defined:
            client.ok("machine.create", definition=dict(name="victim", kernel=matrix.host.kernel, **self.definition))
        if self.running:
            client.ok("machine.start", name="victim")


def is_in(*states):
    return lambda client: state(client, "victim") in states


def has_restarted(client):
    m = client.ok("machine.show", name="victim")
    return m["state"] == "running" and m.get("restarts")


def freeze(client):
    """The policy goes on: after that is seen, it is stopped, for there is nothing to look at in a moving thing."""
    m = client.ok("machine.show", name="victim")
    if m["state"] == "stopped" and "exit" not in m:
        client.call("machine.start", name="victim")  # the start was undone
    if m["state"] == "stopped" and m.get("restarts"):
        client.call("machine.stop", name="victim")
    m = client.ok("machine.show", name="victim")
    return m["state"] == "stopped" and "exit" in m and not m.get("restarts")


def run(client):
    definition = {"name": "victim", "kernel": KERNEL, "cmdline": "fake=poweroff"}
    if client.ask("machine.create", definition=definition, transient=True):
        client.ask("machine.start", name="victim")
        client.ask("machine.wait", name="victim")


def not_autostarted(matrix):
    os.unlink(os.path.join(matrix.host.runtime, "autostarted"))


def end_victim(matrix):
    for pid in machine_processes(matrix.host) - set(matrix.pids.values()):
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda p=pid: not alive(p))


KERNEL = ""
CRASH = {"cmdline": "fake=crash", "restart": "on-failure"}
SCENARIOS = [
    Scenario("create", lambda c: c.ask("machine.create", definition={"name": "victim", "kernel": KERNEL}),
             is_in("stopped"), ("stopped",), defined=False, may_vanish=True),
    Scenario("start", lambda c: c.ask("machine.start", name="victim"), is_in("running")),
    Scenario("stop by force", lambda c: c.ask("machine.stop", name="victim", force=True), is_in("stopped"),
             running=True),
    Scenario("stop by button", lambda c: c.ask("machine.stop", name="victim"), is_in("stopped"), running=True),
    Scenario("stop of a deaf one", lambda c: c.ask("machine.stop", name="victim", timeout=0.1), is_in("stopped"),
             definition={"cmdline": "deaf"}, running=True),
    Scenario("delete", lambda c: c.ask("machine.delete", name="victim"), is_in(None), ("stopped",),
             may_vanish=True),
    Scenario("delete by force", lambda c: c.ask("machine.delete", name="victim", force=True), is_in(None),
             running=True, may_vanish=True),
    Scenario("run to its end", run, is_in(None), defined=False, may_vanish=True),
    Scenario("hang", lambda c: c.ask("machine.start", name="victim"), is_in("stopped"),
             definition={"cmdline": "fake=spin", "on_hang": "kill"}, freeze=is_in("stopped")),
    Scenario("end of the guest",
             lambda c: c.ask("machine.start", name="victim") and c.ask("machine.wait", name="victim"),
             is_in("stopped"), definition={"cmdline": "fake=poweroff"}),
    Scenario("restart by policy", lambda c: c.ask("machine.start", name="victim"),
             lambda c: c.ok("machine.show", name="victim").get("restarts", 0) >= 2, definition=CRASH, freeze=freeze),
    Scenario("autostart", lambda c: None, is_in("running"), definition={"autostart": True}, away=not_autostarted),
    Scenario("killed while umbrad was away", lambda c: None, lambda c: has_restarted(c), running=True,
             definition={"restart": "always"}, away=end_victim),
    Scenario("start of what is no kernel", lambda c: c.ask("machine.start", name="victim"), is_in("stopped"),
             definition={"cmdline": "fake=refuse"}),
]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    global KERNEL
    folder = str(tmp_path_factory.mktemp("matrix"))
    conf = os.path.join(folder, "umbrad.conf")
    with open(conf, "w") as f:
        f.write("[machines]\nrestart_delay = 0.1\nrestart_delay_max = 0.2\n")
    os.environ["UMBRA_CONFIG"] = conf
    m = Matrix(folder)
    del os.environ["UMBRA_CONFIG"]
    KERNEL = m.host.kernel
    yield m
    m.finish()
    assert not list(complaints(m.host.state)) + list(complaints(folder))


def test_crash_matrix(matrix, capsys):
    """Must show: at least 200 kill points in the long form."""
    begin = time.monotonic()
    known = subprocess.run([UMBRAD, "--fault-points"], capture_output=True, text=True, check=True).stdout.split()
    all_points = [(s, p) for s in SCENARIOS for p in matrix.learn(s)]
    passed = {p.split(":")[0] for _, p in all_points}
    assert passed == set(known)  # a point that nothing passes would prove nothing
    points = all_points if LONG else all_points[::max(1, len(all_points) // SHORT_POINTS)]
    missed = []
    for scenario, point in points:
        try:
            if not matrix.kill_at(scenario, point):
                missed.append(f"{scenario.name} {point}")
        except AssertionError as e:
            raise AssertionError(f"killed at {point} in \"{scenario.name}\"") from e
    matrix.check_clocks()
    with capsys.disabled():
        print()
        for s in SCENARIOS:
            print(f"{s.name:32} {sum(x is s for x, _ in points):4} of {sum(x is s for x, _ in all_points)} points")
    assert len(points) - len(missed) >= (200 if LONG else 24)
    assert len(missed) <= len(points) / 10, missed
    with capsys.disabled():
        print(f"\ncrash matrix: {len(points) - len(missed)} kill points run of {len(all_points)} in "
              f"{len(SCENARIOS)} scenarios, {BYSTANDERS} machines running, {time.monotonic() - begin:.0f} s")

"""A bridge, three machines on it and the Swarm that they form."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tests.managers.machine import Machine
from tests.swarm.sandbox import docker, eventually

PROGRAMS = ("dockerd", "docker", "docker-init", "setpriv", "unshare", "nsenter", "ip", "iptables")
NETWORK = "factory-net"
_MARK = "ofm"


def lacking() -> str:
    """Return what this machine lacks to be three, in words; empty where it lacks nothing."""
    if os.geteuid() != 0:
        return "three managers on one machine need root: network namespaces are made"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"three managers on one machine need {', '.join(missing)}" if missing else ""


class Rack:
    """Three managers.

    Attributes:
        machines: in the order in which they joined.
        host: the address under which the machines and their containers reach this host.
    """

    def __init__(self) -> None:
        """Choose names and addresses that no one else has; nothing is started."""
        self.bridge = f"{_MARK}{os.getpid()}"
        subnet = _free_subnet()
        self.host = f"{subnet}.1"
        self._home = _homes() / self.bridge
        self.machines = [
            Machine(f"m{number}", f"{subnet}.{10 + number}", self.bridge, self._home / f"m{number}")
            for number in (1, 2, 3)
        ]

    def build(self, images: list[str]) -> None:
        """Start the machines, load the images everywhere and form the Swarm."""
        _remove_leftovers(self.bridge)
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("address", "add", f"{self.host}/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")
        _iptables("-I", *_accept(self.bridge))
        for machine in self.machines:
            machine.power_on()
        self._load(images)
        self._join()

    def demolish(self) -> None:
        """Remove everything, whatever state it is in."""
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self._home, ignore_errors=True)
            stack.callback(_remove_bridge, self.bridge)
            for machine in self.machines:
                stack.callback(machine.power_off)

    # ---- who is who

    def leader(self) -> Machine:
        """Return the leader, waiting for one."""
        found: list[Machine] = eventually(lambda: [one for one in self.machines if one.leads()], bool)
        return found[0]

    def others(self, *machines: Machine) -> list[Machine]:
        """Return all machines but these."""
        return [one for one in self.machines if one not in machines]

    def whole(self) -> bool:
        """Whether every manager answers, reaches the others, and sees all three ready."""
        return all(_sees_all_ready(machine) for machine in self.machines)

    def find_deaf(self) -> list[Machine]:
        """Return the machines whose network does not know where all tasks are, after the time that this may take.

        An engine of version 20.10 whose cable was pulled sometimes never learns of the others' tasks again (measured:
        for more than six minutes); no operator can cure that, and a person restarts the engine.
        """
        with suppress(AssertionError):
            eventually(self._list_deaf, lambda deaf: not deaf)
        return self._list_deaf()

    def _list_deaf(self) -> list[Machine]:
        tasks = self.tasks().values()
        ids, busy = {task for task, _ in tasks}, {where for _, where in tasks}
        return [one for one in self.machines if one.name in busy and not ids <= self._known_tasks(one)]

    def _known_tasks(self, machine: Machine) -> set[str]:
        """Return the ids of the tasks whose addresses are known in the machine's network."""
        seen = machine.ask(lambda client: client.inspect_network(NETWORK, verbose=True)) or {}
        services = (seen.get("Services") or {}).values()
        return {task["Name"].rpartition(".")[2] for service in services for task in service.get("Tasks") or ()}

    # ---- what runs

    def ask(self, question: Any) -> Any:
        """Ask the Swarm through the first machine that gives an answer, waiting for one."""
        return eventually(lambda: self._first_answer(question), lambda answer: answer is not None)

    def tasks(self) -> dict[str, tuple[str, str]]:
        """Return id and machine of each running task that should run, by its service's name and slot."""
        names = {raw["ID"]: raw["Spec"]["Name"] for raw in self.ask(lambda client: client.services())}
        hosts = {raw["ID"]: raw["Description"]["Hostname"] for raw in self.ask(lambda client: client.nodes())}
        wanted = {"desired-state": "running"}
        return {
            f"{names.get(raw['ServiceID'])}.{raw.get('Slot')}": (raw["ID"], hosts.get(raw.get("NodeID"), ""))
            for raw in self.ask(lambda client: client.tasks(filters=wanted))
            if raw["Status"]["State"] == "running"
        }

    def ids(self) -> dict[str, str]:
        """Return the id of every service by its name: one that was created again has another."""
        return {raw["Spec"]["Name"]: raw["ID"] for raw in self.ask(lambda client: client.services())}

    def index(self) -> int:
        """Return the highest version of a service or config: any write raises it."""
        services, configs = self.ask(lambda client: client.services()), self.ask(lambda client: client.configs())
        return max(int(raw["Version"]["Index"]) for raw in [*services, *configs])

    def logs(self) -> str:
        """Return the end of every engine's log."""
        return "\n".join(f"{machine.name}: {machine.log()}" for machine in self.machines)

    def _first_answer(self, question: Any) -> Any:
        for machine in self.machines:
            answer = machine.ask(question)
            if answer is not None:
                return answer
        return None

    def _load(self, images: list[str]) -> None:
        archive = self._home / "images.tar"
        docker("save", "--output", str(archive), *images)
        loading = [
            subprocess.Popen(
                ["docker", "-H", machine.url, "load", "--quiet", "--input", archive], stdout=subprocess.PIPE
            )
            for machine in self.machines
        ]
        assert [process.wait(60) for process in loading] == [0, 0, 0]
        archive.unlink()

    def _join(self) -> None:
        first, *others = self.machines
        # The heartbeat stays at 5 s: with 2 s Swarm moves tasks that are well, because engines come back too late.
        first.docker("swarm", "init", "--advertise-addr", first.address, "--listen-addr", first.address)
        token = first.docker("swarm", "join-token", "--quiet", "manager")
        for machine in others:
            where = ("--advertise-addr", machine.address, "--listen-addr", machine.address)
            machine.docker("swarm", "join", "--token", token, *where, first.address)
        first.docker("network", "create", "--driver", "overlay", "--attachable", NETWORK)
        eventually(self.whole, bool)


def _sees_all_ready(machine: Machine) -> bool:
    nodes = machine.ask(lambda client: client.nodes()) or ()
    states = [(node["Status"]["State"], node.get("ManagerStatus", {}).get("Reachability")) for node in nodes]
    return states == [("ready", "reachable")] * 3


def runs(pid: str) -> bool:
    """Whether there is a process of this id; names of what a run makes end with its own."""
    return Path("/proc", pid).exists()


def _homes() -> Path:
    """Return the directory beside the engine's own data: it must be on a file system that images can live on."""
    return Path(os.environ.get("OFA_STATE_DIR", "/var/lib/openfactory-dev")) / "managers"


def _free_subnet() -> str:
    """Return the start of a /24 of the range for benchmarks that no interface of this host is in."""
    taken = _ip("-4", "-o", "address", "show")
    start = os.getpid() % 250
    subnets = (f"198.18.{(start + step) % 250}" for step in range(250))
    return next(subnet for subnet in subnets if f" {subnet}." not in taken)


def _remove_leftovers(own: str) -> None:
    """Remove what runs left behind that were killed: their processes are gone, bridges, rules and files are not."""
    bridges = set(re.findall(rf"^\d+: ({_MARK}\d+)", _ip("-o", "link", "show"), re.MULTILINE))
    homes = {path.name for path in _homes().glob(f"{_MARK}*")}
    ruled = set(re.findall(rf"-i ({_MARK}\d+) ", _iptables("-S", "FORWARD")))
    for name in bridges | homes | ruled:
        if name == own or not runs(name.removeprefix(_MARK)):
            _remove_bridge(name)
            shutil.rmtree(_homes() / name, ignore_errors=True)


def _remove_bridge(name: str) -> None:
    for link in (name, *(f"{name}-m{number}" for number in (1, 2, 3))):
        with suppress(subprocess.CalledProcessError):  # it is not there
            _ip("link", "delete", link)
    with suppress(subprocess.CalledProcessError):  # nor is the rule
        _iptables("-D", *_accept(name))


def _accept(bridge: str) -> tuple[str, ...]:
    """Return the rule without which the engine's own rules drop what passes through the bridge."""
    return ("FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT")


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def _iptables(*arguments: str) -> str:
    return subprocess.run(["iptables", "-w", *arguments], check=True, capture_output=True, text=True).stdout

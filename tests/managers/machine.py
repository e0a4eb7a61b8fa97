"""One manager: a Docker engine in namespaces of its own, which can lose power, its cable or its control port."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from docker.api.client import APIClient
from docker.errors import DockerException
from requests.exceptions import RequestException

from tests.harness.processes import WITH_US
from tests.swarm.sandbox import docker, eventually

#: Managers speak Raft and the control API to each other on this port; containers' traffic uses others.
CONTROL_PORT = 2377
_NEW = ("unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--")
#: The engine keeps sockets and network namespaces in places that no option moves; each machine gets its own.
_BOOT = """
hostname "$1"
for place in /run/docker /run/containerd; do [ ! -d $place ] || mount -t tmpfs tmpfs $place; done
ip link set lo up
exec docker-init -s -- sleep infinity
"""


class Machine:
    """A machine with an engine, plugged into a bridge of the host.

    Attributes:
        name: its host name, which Swarm shows as the node's.
        address: its IPv4 address on the bridge.
        url: of the engine's socket, which the host can use whatever becomes of the machine's network.
    """

    def __init__(self, name: str, address: str, bridge: str, home: Path) -> None:
        """Describe a machine; nothing is started.

        Args:
            name: host name, at most 12 characters.
            address: IPv4 address, in the bridge's /24.
            bridge: that its cable is plugged into.
            home: directory for the engine's data, which survives a power cut.
        """
        self.name, self.address = name, address
        self.url = f"unix://{home / 'sock'}"
        self._bridge, self._home = bridge, home
        self._cable = f"{bridge}-{name}"
        self._shell: subprocess.Popen[bytes] | None = None
        self._engine: subprocess.Popen[bytes] | None = None

    def power_on(self) -> None:
        """Start the machine and its engine; the same node as before if it was one."""
        self._home.mkdir(parents=True, exist_ok=True)
        (self._home / "daemon.json").write_text("{}")  # not this host's own
        (self._home / "engine.pid").unlink(missing_ok=True)
        Path("/run/docker").mkdir(parents=True, exist_ok=True)
        command = [*WITH_US, *_NEW, "sh", "-euc", _BOOT, "sh", self.name]
        self._shell = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        eventually(lambda: self._comm() == "docker-init", bool)
        self._plug_in()
        self.start_engine()

    def power_off(self) -> None:
        """Cut the power: engine, containers and network are gone at once."""
        _end(self._shell)
        _end(self._engine)
        self._shell = self._engine = None

    def start_engine(self) -> None:
        """Start the engine and wait until it answers; the Swarm may need longer."""
        home = self._home
        (home / "engine.pid").unlink(missing_ok=True)
        options = {
            "config-file": home / "daemon.json",
            "data-root": home / "data",
            "exec-root": "/run/docker",
            "pidfile": home / "engine.pid",
            "host": self.url,
            "log-level": "warn",
        }
        command = [*WITH_US, *self._inside("mount", "uts", "ipc", "pid"), "dockerd"]
        with (home / "log").open("ab") as log:
            self._engine = subprocess.Popen(
                [*command, *(f"--{name}={value}" for name, value in options.items())], stdout=log, stderr=log
            )
        eventually(self._engine_is_up, bool)

    def kill_engine(self) -> None:
        """Kill the engine alone, by its process id; its containers go on."""
        assert self._engine is not None
        for child in _children(self._engine.pid):
            os.kill(child, signal.SIGKILL)
        self._engine.wait(10)
        self._engine = None

    def unplug(self) -> None:
        """Pull the network cable."""
        _run("ip", "link", "set", self._cable, "down")

    def replug(self) -> None:
        """Put the cable back."""
        _run("ip", "link", "set", self._cable, "up")

    def close_control_port(self) -> None:
        """Drop what other managers say to this one; containers' traffic goes on."""
        self._control_port("-I")

    def open_control_port(self) -> None:
        """Undo `close_control_port`."""
        self._control_port("-D")

    def repair(self) -> None:
        """Put right whatever is broken."""
        if self._shell is None:
            self.power_on()
        if self._engine is None:
            self.start_engine()
        self.replug()
        with suppress(subprocess.CalledProcessError):  # it is open
            self.open_control_port()

    def takes_tasks(self, machine: str, *, new: bool) -> None:
        """Say by this engine's client whether a machine takes new tasks; those that it has go on."""
        self.docker("node", "update", "--availability", "active" if new else "pause", machine)

    def docker(self, *arguments: str) -> str:
        """Do by this engine's client what a person would do there."""
        return docker("-H", self.url, *arguments)

    def ask(self, question: Callable[[APIClient], Any]) -> Any:
        """Ask the engine's API on a connection of its own; None where it gives no answer or an error."""
        with suppress(DockerException, RequestException, OSError):
            client = APIClient(self.url, version="auto", timeout=5)
            try:
                return question(client)
            finally:
                client.close()
        return None

    def answers(self) -> bool:
        """Whether the engine answers at all."""
        return self.ask(lambda client: client.ping()) is not None

    def leads(self) -> bool:
        """Whether the engine says of itself that it is the leader."""
        nodes = self.ask(lambda client: client.nodes()) or ()
        return any(
            node["Description"]["Hostname"] == self.name and node.get("ManagerStatus", {}).get("Leader")
            for node in nodes
        )

    def _engine_is_up(self) -> bool:
        assert self._engine is not None
        assert self._engine.poll() is None, f"the engine of {self.name} ended: {self.log()}"
        return self.answers()

    def log(self) -> str:
        """Return the end of the engine's log."""
        return (self._home / "log").read_text(errors="replace")[-2000:]

    def _plug_in(self) -> None:
        with suppress(subprocess.CalledProcessError):  # the end of a cable that a power cut left for a moment
            _run("ip", "link", "delete", self._cable)
        host = ("ip", "link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", str(self._pid()))
        _run(*host)
        _run("ip", "link", "set", self._cable, "master", self._bridge, "up")
        _run(*self._inside(), "ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        _run(*self._inside(), "ip", "link", "set", "eth0", "up")

    def _control_port(self, change: str) -> None:
        for end in ("--dport", "--sport"):
            rule = (change, "INPUT", "-i", "eth0", "-p", "tcp", end, str(CONTROL_PORT), "-j", "DROP")
            _run(*self._inside(), "iptables", "-w", *rule)

    def _inside(self, *namespaces: str) -> list[str]:
        """Return the start of a command that runs in the machine's network and the other given namespaces."""
        return ["nsenter", "--target", str(self._pid()), *(f"--{name}" for name in ("net", *namespaces)), "--"]

    def _pid(self) -> int:
        assert self._shell is not None
        assert self._shell.poll() is None, f"{self.name} is off: exit code {self._shell.returncode}"
        [pid] = _children(self._shell.pid)
        return pid

    def _comm(self) -> str:
        assert self._shell is not None
        assert self._shell.poll() is None, f"{self.name} did not start: namespaces need root and a kernel with them"
        children = _children(self._shell.pid)
        return Path(f"/proc/{children[0]}/comm").read_text().strip() if children else ""


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()
        process.wait(10)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)

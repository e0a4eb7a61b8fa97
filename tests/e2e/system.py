"""One deployment of the demo that belongs to a test run alone, and the hands and eyes of a person beside it."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.recorder import Recorder, UnixConnection
from tests.harness.ports import free_port
from tests.swarm.sandbox import docker, eventually

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "{{.Spec.TaskTemplate.ContainerSpec.Image}}"
SOCKET = "/var/run/docker.sock"
WORKCENTERS = ("Weld", "Paint", "Assembly")


class System:
    """The demo under names, ports and a network of its own.

    Attributes:
        name: of the stack; also the owner and the prefix of all that the operator makes.
        shown: what bringing it up printed.
    """

    def __init__(self) -> None:
        """Choose names and ports; nothing is deployed."""
        self.name = f"e{uuid.uuid4().hex[:7]}"
        self.routing, self.ksqldb, self.operator = free_ports(3)
        self.shown = ""
        self._env = {
            "STACK": self.name,
            "RESOURCE_PREFIX": self.name,
            "RECONCILER_OWNER": self.name,
            "DOCKER_NETWORK": f"{self.name}-net",
            "ROUTING_LAYER_PORT": str(self.routing),
            "KSQLDB_PORT": str(self.ksqldb),
            "RECONCILER_PORT": str(self.operator),
            "WORKCENTERS": ",".join(WORKCENTERS),
            "RECONCILE_INTERVAL": "2s",
            "PRUNE_GRACE": "6s",
            "DRAIN_SECONDS": "3s",
            "DEMO_TIMEOUT": "150",
        }

    def configure(self, **variables: str) -> None:
        """Set variables of the deployment, before it is brought up."""
        self._env |= variables

    def set(self, **variables: str) -> None:
        """Change variables of the operator that runs, which restarts it."""
        changed = [part for name, value in variables.items() for part in ("--env-add", f"{name}={value}")]
        docker("service", "update", "--detach", *changed, f"{self.name}_reconciler")

    def demo(self, *command: str) -> str:
        """Do what `make demo` (``up``) and `make demo-down` (``down``) do; return what it printed."""
        program = [sys.executable, str(ROOT / "scripts" / "demo.py"), *command]
        done = subprocess.run(program, env=os.environ | self._env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}{self.logs()}"
        return done.stdout + done.stderr

    def cli(self, *arguments: str) -> str:
        """Do what `make cli` does: run the operator's command line in its container."""
        return self.demo("cli", "--", *arguments)

    def logs(self) -> str:
        """Return the end of what the operator logged."""
        command = ["docker", "service", "logs", "--raw", "--tail", "40", f"{self.name}_reconciler"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return f"\n{done.stdout}{done.stderr}"

    def explain(self) -> str:
        """Return the operator's status and the end of its log, for a failed test; also where it answers nothing."""
        try:
            status = httpx.get(f"http://127.0.0.1:{self.operator}/status", timeout=5).text
        except httpx.HTTPError as error:
            status = repr(error)
        return f"{status}\n{self.logs()}"

    def group(self, value: str) -> str:
        """Return the name of a group's service."""
        return f"{self.name}_group_{value}"

    # ---- ksqlDB, through its REST API alone

    def ksql(self, statement: str) -> Any:
        """Execute one statement."""
        url, accept = f"http://127.0.0.1:{self.ksqldb}/ksql", {"Accept": "application/json"}
        answer = httpx.post(url, json={"ksql": statement}, headers=accept, timeout=30)
        assert answer.status_code == http.client.OK, answer.text
        return answer.json()

    def place(self, asset: str, workcenter: str) -> None:
        """Map an asset to a workcenter, or move it there."""
        values = f"('{asset}', 'acme/{workcenter}/{asset}', MAP('workcenter' := '{workcenter}'))"
        self.ksql(f"INSERT INTO asset_to_uns_map_raw (asset_uuid, uns_id, uns_levels) VALUES {values};")

    def asset_of(self, workcenter: str) -> str:
        """Return an asset of a workcenter."""
        sql = "SELECT ASSET_UUID, UNS_LEVELS FROM ASSET_TO_UNS_MAP;"
        url, accept = f"http://127.0.0.1:{self.ksqldb}/query-stream", {"Accept": "application/json"}
        rows = httpx.post(url, json={"sql": sql}, headers=accept, timeout=30).json()[1:]
        return str(min(asset for asset, levels in rows if levels.get("workcenter") == workcenter))

    def streams(self) -> set[str]:
        """Return the names of the group streams that exist."""
        listed = self.ksql("LIST STREAMS;")[0]["streams"]
        return {stream["name"] for stream in listed if stream["name"].startswith("ASSET_STREAM_")}

    # ---- the Swarm

    def services(self) -> dict[str, str]:
        """Return the id of every service that the operator keeps, by name."""
        owned = f"label=org.openfactory.owner={self.name}"
        lines = docker("service", "ls", "--filter", owned, "--format", "{{.Name}} {{.ID}}").splitlines()
        return dict(line.split() for line in lines)

    def versions(self) -> dict[str, int]:
        """Return the version of each such service, which any write changes, once no update is under way."""
        found = eventually(self._inspected, lambda services: not any(map(_rolling, services)))
        return {service["Spec"]["Name"]: service["Version"]["Index"] for service in found}

    def _inspected(self) -> list[Any]:
        found: list[Any] = json.loads(docker("service", "inspect", *self.services().values()))
        return found

    def environment(self, service: str) -> dict[str, str]:
        """Return a service's environment variables."""
        spec = json.loads(docker("service", "inspect", service))[0]["Spec"]["TaskTemplate"]["ContainerSpec"]
        return dict(variable.split("=", 1) for variable in spec.get("Env", []))

    def healthy(self, service: str) -> bool:
        """Whether a service has a running task (one with a healthcheck counts only once it is healthy)."""
        ours = f"name={service}"
        lines = docker("service", "ls", "--filter", ours, "--format", "{{.Name}} {{.Replicas}}").splitlines()
        return f"{service} 1/1" in lines

    def scale(self, part: str, replicas: int) -> None:
        """Stop (0) or start (1) a part of the stack and wait until it is so."""
        service = f"{self.name}_{part}"
        docker("service", "scale", "--detach", f"{service}={replicas}")
        if replicas:
            eventually(lambda: self.healthy(service), bool)
        else:
            label = f"label=com.docker.swarm.service.name={service}"
            eventually(lambda: docker("ps", "-q", "--filter", label), lambda ids: not ids)

    def leftovers(self) -> dict[str, str]:
        """Return everything in the engine that carries our names or labels."""
        owned, stacked = f"label=org.openfactory.owner={self.name}", f"label=com.docker.stack.namespace={self.name}"
        listings = {
            "services": ("service", "ls", "-q", "--filter", f"name={self.name}"),
            "owned services": ("service", "ls", "-q", "--filter", owned),
            "configs": ("config", "ls", "-q", "--filter", f"name={self.name}"),
            "owned configs": ("config", "ls", "-q", "--filter", owned),
            "containers": ("ps", "-aq", "--filter", f"name={self.name}"),
            "volumes": ("volume", "ls", "-q", "--filter", stacked),
            "networks": ("network", "ls", "-q", "--filter", f"name={self.name}-net"),
        }
        return {kind: found for kind, listing in listings.items() if (found := docker(*listing))}

    # ---- what clients and the operator's own server see

    def registry(self) -> dict[str, str]:
        """Return the groups that are served now, with their URLs."""
        groups: dict[str, str] = httpx.get(f"http://127.0.0.1:{self.operator}/registry").json()["groups"]
        return groups

    def alive(self) -> bool:
        """Whether the operator's `/healthz` answers 200."""
        return httpx.get(f"http://127.0.0.1:{self.operator}/healthz").status_code == http.client.OK

    def failed_reads(self) -> int:
        """Return how many reads of ksqlDB the operator has counted as failed or not complete."""
        metrics = httpx.get(f"http://127.0.0.1:{self.operator}/metrics").text
        counted = re.findall(r'^reconciler_source_read_errors_total{.*source="ksqldb".*} (\S+)$', metrics, re.MULTILINE)
        return round(sum(map(float, counted)))

    def stream_url(self, asset: str) -> str:
        """Return where the routing layer serves an asset's events."""
        return f"http://127.0.0.1:{self.routing}/asset_stream?asset_uuid={urllib.parse.quote(asset)}"

    def receives(self, asset: str) -> bool:
        """Whether a client that asks for an asset's stream now gets an event of it."""
        try:
            return bool(next(events(self.stream_url(asset), silence=15))["asset_uuid"] == asset)
        except (httpx.HTTPError, StopIteration):
            return False

    # ---- the operator on this host, watched from outside

    @contextmanager
    def on_this_host(self) -> Iterator[Host]:
        """Stop the deployed operator and give its command line, with recorders between it and both servers."""
        environment = self.environment(f"{self.name}_reconciler")
        self.scale("reconciler", 0)
        try:
            with ExitStack() as stack:
                engine = stack.enter_context(Recorder(lambda: UnixConnection(SOCKET)))
                ksqldb = stack.enter_context(
                    Recorder(lambda: http.client.HTTPConnection("127.0.0.1", self.ksqldb, timeout=60))
                )
                yield Host(environment, engine, ksqldb)
        finally:
            self.scale("reconciler", 1)

    @contextmanager
    def stack_file_instead(self) -> Iterator[str]:
        """Replace the deployed operator by one from `stack.yml` with the same settings; give its address."""
        stack, [port] = f"{self.name}s", free_ports(1)
        environment = self.environment(f"{self.name}_reconciler")
        more = {"RECONCILER_PORT": str(port), "DOCKER_SOCK_GID": str(Path(SOCKET).stat().st_gid)}
        image = docker("service", "inspect", f"{self.name}_reconciler", "--format", IMAGE)
        variables = os.environ | environment | more | {"RECONCILER_IMAGE": image}
        self.scale("reconciler", 0)
        manifest = str(ROOT / "manifests" / "stack.yml")
        deploy = ["docker", "stack", "deploy", "--resolve-image", "never", "-c", manifest, stack]
        try:
            subprocess.run(deploy, env=variables, capture_output=True, check=True)
            yield f"http://127.0.0.1:{port}"
        finally:
            docker("stack", "rm", stack)
            label = f"label=com.docker.stack.namespace={stack}"
            eventually(lambda: docker("ps", "-aq", "--filter", label), lambda ids: not ids)
            self.scale("reconciler", 1)


class Host:
    """The command line on this host with the deployed operator's settings.

    Attributes:
        engine: records what goes to the engine.
        ksqldb: records what goes to ksqlDB.
    """

    def __init__(self, environment: dict[str, str], engine: Recorder, ksqldb: Recorder) -> None:
        """Take the operator's settings; only the two addresses differ from them."""
        self.engine, self.ksqldb = engine, ksqldb
        self._env = os.environ | environment
        self._env |= {
            "KSQLDB_URL": f"http://{ksqldb.address}",
            "KSQLDB_SERVICE_URL": environment["KSQLDB_URL"],
            "DOCKER_HOST": f"tcp://{engine.address}",
            "PYTHONPATH": str(ROOT),
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `reconciler` with some arguments."""
        program = [sys.executable, "-m", "reconciler", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(program, env=self._env, stdout=pipe, stderr=pipe, text=True)

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run it to its end; return the exit code and everything it said."""
        self.engine.requests.clear()
        self.ksqldb.requests.clear()
        process = self.start(*arguments)
        out, err = process.communicate(timeout=240)
        return process.returncode, out + err

    def registry(self) -> dict[str, str]:
        """Return where each group is published; its revision has the installation's id in it, another each time."""
        out, err = self.start("status", "-o", "json").communicate(timeout=60)
        assert out, err
        return {item["group"]: item["url"] for item in json.loads(out)["items"] if item["url"]}


class Client:
    """A user who follows an asset's stream for a while, on one connection."""

    def __init__(self, url: str) -> None:
        """Connect; events are counted until the connection ends."""
        self.events = 0
        self.connected = True
        threading.Thread(target=self._follow, args=(url,), daemon=True).start()

    def _follow(self, url: str) -> None:
        with suppress(httpx.HTTPError):
            for _ in events(url, silence=60):
                self.events += 1
        self.connected = False


def events(url: str, silence: float) -> Iterator[dict[str, Any]]:
    """Yield the data of the events of an SSE stream until it ends.

    Raises:
        httpx.HTTPError: it is not served, breaks, or is silent for ``silence`` seconds.
    """
    with httpx.stream("GET", url, timeout=silence) as answer:
        if answer.is_error:
            said = answer.read().decode(errors="replace")
            raise httpx.HTTPStatusError(f"{answer.status_code} {said}", request=answer.request, response=answer)
        for line in answer.iter_lines():
            if line.startswith("data:"):
                yield json.loads(line[5:])


def _rolling(service: Any) -> bool:
    """Whether the engine is still carrying out an update, at whose end it writes the service itself."""
    return bool(service.get("UpdateStatus", {}).get("State") == "updating")


def free_ports(count: int) -> list[int]:
    """Return ports of this host that no one listens on now."""
    return [free_port() for _ in range(count)]

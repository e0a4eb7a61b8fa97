"""Run the demo: deploy it, wait until it serves, show it, remove it. Standard library only.

``make demo`` calls ``up``, ``make demo-down`` calls ``down``, ``make cli`` calls ``cli``.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # names are derived in one place
from reconciler.domain.names import names_of  # noqa: E402 - needs the line above

#: Seconds within which the demo must serve.
DEADLINE = float(os.environ.get("DEMO_TIMEOUT", "420"))
SETTLED_WITHIN = 20.0
GONE_WITHIN = 90.0
#: Seconds to wait for an operator that restarts.
RESTARTED_WITHIN = float(os.environ.get("DEMO_RESTARTED_WITHIN", "30"))
EVENTS = 5
#: Variables of the caller's terminal that the operator's command line reads.
TERMINAL_VARIABLES = ("NO_COLOR", "COLUMNS")
#: Label of the network that `up` creates; its value is the stack's name.
DEMO_LABEL = "org.openfactory.demo"


def read_settings() -> dict[str, str]:
    """Return the environment of the deployment: the caller's, the images', and defaults."""
    engine = Path("/var/run/docker.sock")
    env = {
        "STACK": "ofa",
        "RESOURCE_PREFIX": "ofa",
        "RECONCILER_OWNER": "ofa",
        "DOCKER_NETWORK": "factory-net",
        "ROUTING_LAYER_PORT": "5555",
        "KSQLDB_PORT": "8088",
        "RECONCILER_PORT": "8080",
        "WORKCENTERS": "Weld,Paint,Assembly",
        "DOCKER_SOCK_GID": str(engine.stat().st_gid) if engine.exists() else "0",
    }
    images = ROOT / "build" / "images.env"
    if images.exists():
        env |= dict(line.split("=", 1) for line in images.read_text().split())
    return env | os.environ


def docker(*arguments: str, env: dict[str, str] | None = None, check: bool = True) -> str:
    """Run the docker command and return what it printed."""
    done = subprocess.run(["docker", *arguments], env=env, capture_output=True, text=True, check=False)  # noqa: S603, S607
    if check and done.returncode:
        sys.exit(f"docker {' '.join(arguments[:3])} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def say(text: str) -> None:
    """Print progress."""
    print(f"  {text}", file=sys.stderr, flush=True)


def up(env: dict[str, str]) -> None:
    """Deploy, wait, and show the running system."""
    started = time.monotonic()
    check_is_demo(env)
    check_ports(env)
    make_network(env)
    say(f"deploying stack {env['STACK']}")
    manifest = str(ROOT / "manifests" / "demo.yml")
    docker("stack", "deploy", "--resolve-image", "never", "--prune", "-c", manifest, env["STACK"], env=env)
    asset = wait_until_served(env)
    print()
    print(wait_for_sync(env))
    print(f"\nFive live events of asset {asset}, through {make_stream_url(env, asset)}\n")
    received = receive_events(env, asset, EVENTS)
    for event in received:
        print(event)
    if len(received) < EVENTS:
        sys.exit(f"demo: the stream of {asset} ended or was silent after {len(received)} events")
    print(f"Up after {time.monotonic() - started:.0f} s; it continues to run.\n")
    print(describe_next_steps(env, asset))


#: Variables of the ports that the demo publishes on this host.
PORTS = ("KSQLDB_PORT", "ROUTING_LAYER_PORT", "RECONCILER_PORT")
_TAKEN = re.compile(r"address already in use|port is already allocated|port already in use", re.IGNORECASE)


def check_ports(env: dict[str, str]) -> None:
    """Exit and name the holder and the variable if a port that the demo needs is in use."""
    taken = []
    for variable in PORTS:
        port = env[variable]
        if not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= 65535:  # noqa: PLR2004 - TCP's ports
            taken.append(f"{variable}={port!r} is not a port")
        elif holder := find_port_holder(env, int(port)):
            taken.append(f"port {port} ({variable}) is in use by {holder}: stop it, or set {variable} to another port")
    if taken:
        sys.exit("\n".join(f"demo: {one}" for one in taken))


def find_port_holder(env: dict[str, str], port: int) -> str:
    """Return what else publishes or listens on a port of this host; empty if free or used by the demo itself."""
    ours = (f"{env['STACK']}_", f"{env['RESOURCE_PREFIX']}_")
    form = '{{.Names}}\t{{.Label "com.docker.swarm.service.name"}}'
    for line in docker("ps", "--filter", f"publish={port}", "--format", form).splitlines():
        name, _, service = line.partition("\t")
        return "" if service.startswith(ours) else f"container {name}"
    for line in docker("service", "ls", "--format", "{{.Name}}\t{{.Ports}}").splitlines():
        name, _, ports = line.partition("\t")
        if f":{port}->" in ports:
            return "" if name.startswith(ours) else f"service {name}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the engine binds it
        try:
            probe.bind(("", port))
        except OSError as error:
            return find_listener(port) or f"another program ({error.strerror})"
    return ""


def find_listener(port: int) -> str:
    """Return the process that listens on a port, if this user may see it."""
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(fd.readlink()) in inodes for fd in (process / "fd").iterdir()):
                return f"process {process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:  # it has ended, or belongs to another user
            continue
    return ""


def find_port_error(env: dict[str, str]) -> str:
    """Return the error of a task that did not get its port; empty without."""
    services = {*list_ids("service", "ls", "-q", *filter_by_stack(env)), *list_own_services(env)}
    for service in sorted(services):
        for line in docker("service", "ps", service, "--no-trunc", "--format", "{{.Name}}: {{.Error}}").splitlines()[
            :1
        ]:
            if _TAKEN.search(line):
                return line
    return ""


def make_network(env: dict[str, str]) -> None:
    """Create the overlay network of the demo; an existing one is used as it is."""
    name = env["DOCKER_NETWORK"]
    # Not by the engine's filter: of the Swarm's networks that no task is in, it compares the start of the name alone.
    listed = docker("network", "ls", "--format", "{{.Name}} {{.Scope}}").splitlines()
    scope = dict(line.split() for line in listed).get(name, "")
    if scope not in ("", "swarm"):
        sys.exit(f"demo: network {name} exists and is not an overlay network; set DOCKER_NETWORK to another name")
    if not scope:
        docker(
            "network", "create", "--driver", "overlay", "--attachable", "--label", f"{DEMO_LABEL}={env['STACK']}", name
        )


def wait_until_served(env: dict[str, str]) -> str:
    """Wait until every workcenter is registered and an asset's stream delivers; return that asset."""
    started = time.monotonic()
    said, round_ = "", 0
    while time.monotonic() < started + DEADLINE:
        missing, asset = check_progress(env)
        if missing != said:
            say(f"{time.monotonic() - started:3.0f} s  {missing}")
            said = missing
        if (round_ := round_ + 1) % 10 == 0 and (error := find_port_error(env)):
            sys.exit(f"demo: {error}; free the port, or set one of {', '.join(PORTS)}")
        if asset and receive_events(env, asset, 1):
            return asset
        time.sleep(0.5)
    sys.exit(f"demo: not up after {DEADLINE:.0f} s ({said})\n{describe_problems(env)}")


def wait_for_sync(env: dict[str, str]) -> str:
    """Return the operator's status once it is in sync, one or two healthchecks after the first event."""
    deadline = time.monotonic() + SETTLED_WITHIN
    while "in sync" not in (status := run_operator(env, "status")) and time.monotonic() < deadline:
        time.sleep(1)
    return status


def check_progress(env: dict[str, str]) -> tuple[str, str | None]:
    """Return what the demo waits for, and an asset to try once only its events are missing."""
    registry = get_json(f"http://127.0.0.1:{env['RECONCILER_PORT']}/registry")
    if registry is None:
        said = get_json(f"http://127.0.0.1:{env['RECONCILER_PORT']}/readyz", also=HTTPStatus.SERVICE_UNAVAILABLE)
        return "waiting for a first group; the operator " + (f"says: {said['last']}" if said else "starts"), None
    if missing := sorted(set(env["WORKCENTERS"].split(",")) - registry["groups"].keys()):
        return f"waiting for groups {', '.join(missing)}", None
    if get_json(f"http://127.0.0.1:{env['ROUTING_LAYER_PORT']}/readyz") is None:
        return "waiting for the routing layer", None
    return "waiting for the first event", find_asset(env)


def describe_problems(env: dict[str, str]) -> str:
    """Return which tasks do not run, why, and where to look."""
    template = "  {{.Name}}: {{.CurrentState}} {{.Error}}"
    lines = [
        line
        for service in docker("service", "ls", "-q", *filter_by_stack(env)).split()
        for line in docker("service", "ps", service, "--no-trunc", "--format", template).splitlines()[:2]
        if "Running" not in line
    ]
    return "\n".join([*lines, f"  see also: docker service logs {env['STACK']}_reconciler"])


def filter_by_stack(env: dict[str, str]) -> tuple[str, str]:
    """Return the filter for the stack's own services; those of the operator have its owner label instead."""
    return "--filter", f"label=com.docker.stack.namespace={env['STACK']}"


def get_json(url: str, also: HTTPStatus = HTTPStatus.OK) -> Any:
    """GET a JSON document; None if there is none yet. ``also`` is a status that counts like 200."""
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:  # noqa: S310 - http on this host
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error) if error.code == also else None
    except (OSError, ValueError):
        return None


def find_asset(env: dict[str, str]) -> str | None:
    """Return one asset of the demo's groups from ksqlDB."""
    body = {"sql": "SELECT ASSET_UUID, UNS_LEVELS FROM ASSET_TO_UNS_MAP;"}
    rows = post(f"http://127.0.0.1:{env['KSQLDB_PORT']}/query-stream", body, "application/json")
    groups = env["WORKCENTERS"].split(",")
    return min((asset for asset, levels in rows[1:] if levels.get("workcenter") in groups), default=None)


def post(url: str, body: object, accept: str) -> list[Any]:
    """POST JSON and return the JSON response."""
    request = urllib.request.Request(  # noqa: S310 - http on this host
        url, json.dumps(body).encode(), {"Content-Type": "application/json", "Accept": accept}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - http on this host
            rows: list[Any] = json.load(answer)
            return rows
    except (OSError, ValueError):
        return []


def make_stream_url(env: dict[str, str], asset: str) -> str:
    """Return the URL of an asset's events."""
    return f"http://localhost:{env['ROUTING_LAYER_PORT']}/asset_stream?asset_uuid={urllib.parse.quote(asset)}"


def receive_events(env: dict[str, str], asset: str, count: int) -> list[str]:
    """Receive events of an asset as a client does; fewer if the stream ends or is silent for 20 s."""
    found: list[str] = []
    try:
        with urllib.request.urlopen(make_stream_url(env, asset), timeout=20) as answer:  # noqa: S310 - http on this host
            event: list[str] = []
            for raw in answer:
                line = raw.decode().rstrip("\r\n")
                if line:
                    event += [line] if not line.startswith(":") else []
                else:  # a block without data is no event
                    found += ["\n".join(event) + "\n"] if any(field.startswith("data:") for field in event) else []
                    event = []
                if len(found) == count:
                    break
    except OSError:  # URLError and time-outs are OSErrors
        pass
    return found


def find_operator(env: dict[str, str]) -> str:
    """Return the id of the operator's container; empty if it does not run."""
    service = f"label=com.docker.swarm.service.name={env['STACK']}_reconciler"
    return docker("ps", "-q", "--filter", service).partition("\n")[0]


def wait_for_operator(env: dict[str, str]) -> str:
    """Return the id of the operator's container, after waiting for a restart."""
    deadline, said = time.monotonic() + RESTARTED_WITHIN, False
    while not (container := find_operator(env)):
        service = f"{env['STACK']}_reconciler"
        if not docker("service", "ls", "-q", "--filter", f"name={service}"):
            sys.exit("demo: the operator is not deployed; start it with: make demo")
        if time.monotonic() > deadline:
            state = docker("service", "ps", service, "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}")
            sys.exit(f"demo: the operator is deployed but does not run: {state.partition(chr(10))[0] or 'no task yet'}")
        if not said:
            say("the operator is restarting; waiting for it")
            said = True
        time.sleep(0.5)
    return container


def run_operator(env: dict[str, str], *arguments: str, check: bool = True) -> str:
    """Run the operator's command line in its container and return the output."""
    if container := find_operator(env):
        return docker("exec", container, "reconciler", *arguments, check=check)
    return "the operator does not run" if check else ""


def describe_next_steps(env: dict[str, str], asset: str) -> str:
    """Return what to try next."""
    stack, prefix = env["STACK"], env["RESOURCE_PREFIX"]
    group = env["WORKCENTERS"].split(",")[0]
    levels = "MAP('workcenter' := 'Laser')"
    insert = f"INSERT INTO asset_to_uns_map_raw (asset_uuid, uns_levels) VALUES ('LASER-01', {levels});"  # noqa: S608 - constants
    return f"""What to try next:

  curl -N '{make_stream_url(env, asset)}'
      follow an asset
  curl -s localhost:{env["KSQLDB_PORT"]}/ksql -H 'Content-Type: application/json' -d @- <<'END'
{json.dumps({"ksql": insert})}
END
  curl -N 'http://localhost:{env["ROUTING_LAYER_PORT"]}/asset_stream?asset_uuid=LASER-01'
      map an asset to a new workcenter, and follow it while its stream and service are created
  docker service rm {prefix}_group_{group}
  docker service update --detach --env-add X=1 {prefix}_group_{group}
      break something: the operator repairs it
  http://localhost:{env["RECONCILER_PORT"]}/
  make cli ARGS="plan"
  make cli ARGS="status"
  make cli ARGS="why {group}"
  docker service logs -f {stack}_reconciler
      see the operator's state
  curl -s localhost:{env["RECONCILER_PORT"]}/metrics | grep ^reconciler_
  docs/demo.md
      move and unmap assets, change a setting, break and repair an image
  make demo-down
      remove everything"""


def down(env: dict[str, str]) -> None:
    """Remove what the operator created, then the stack, its volume and the network, until nothing is left."""
    if subprocess.run(["docker", "version"], capture_output=True, check=False).returncode:  # noqa: S607 - found on PATH
        say("no Docker engine answers, so the demo does not run")
        return
    check_is_demo(env)
    if not is_demo(env):
        say("nothing of the demo is left")
        return
    services = list_own_services(env)
    if said := run_operator(env, "teardown", "--yes", check=False):
        print(said)
    docker("stack", "rm", env["STACK"], check=False)
    # The operator goes first: a running loop would recreate what is removed here.
    remove_until_gone(lambda: list_ids("service", "ls", "-q", *filter_by_stack(env)), ("service", "rm"))
    remove_until_gone(lambda: list_ids("ps", "-aq", *filter_by_stack(env)))
    remove_until_gone(lambda: list_own_services(env), ("service", "rm"))
    remove_until_gone(lambda: [container for service in services for container in list_tasks(service)])
    remove_until_gone(lambda: list_own_configs(env), ("config", "rm"))
    remove_until_gone(lambda: list_ids("volume", "ls", "-q", *filter_by_stack(env)), ("volume", "rm"))
    networks = ("network", "ls", "-q", "--filter", f"label={DEMO_LABEL}={env['STACK']}")
    if list_ids(*networks) and (guests := list_network_members(env)):
        network, named = env["DOCKER_NETWORK"], ", ".join(guests)
        sys.exit(
            f"demo: all else is removed; network {network} is kept, because it is used by {named}; remove that or "
            f"take it out (docker network disconnect {network} NAME), then: make demo-down"
        )
    remove_until_gone(lambda: list_ids(*networks), ("network", "rm"))
    for name in list_other_services(env):
        say(f"service {name} is left alone: it has the owner label {env['RECONCILER_OWNER']} but is not the demo's")
    say("nothing of the demo is left (its images are kept for the next time)")


def is_demo(env: dict[str, str]) -> bool:
    """Return whether there is something that only a demo has: its factory, its ksqlDB's volume, its network."""
    stack = env["STACK"]
    return any(
        (
            stack + "_factory" in list_ids("service", "ls", "--format", "{{.Name}}", *filter_by_stack(env)),
            list_ids("volume", "ls", "-q", *filter_by_stack(env)),
            list_ids("network", "ls", "-q", "--filter", f"label={DEMO_LABEL}={stack}"),
        )
    )


def check_is_demo(env: dict[str, str]) -> None:
    """Exit if an operator under the demo's name does not belong to a demo."""
    operator_there = f"{env['STACK']}_reconciler" in list_ids("service", "ls", "--format", "{{.Name}}")
    if operator_there and not is_demo(env):
        sys.exit(
            f"demo: stack {env['STACK']} exists and is not a demo: it is left alone; for a demo beside it set STACK, "
            "RESOURCE_PREFIX, RECONCILER_OWNER, DOCKER_NETWORK and the ports to others"
        )


def list_ids(*command: str) -> list[str]:
    """Return the ids or names that a docker command lists."""
    return docker(*command).split()


def read_labels(kind: str, env: dict[str, str]) -> dict[str, tuple[str, dict[str, str]]]:
    """Return name and labels of each service or config that has the owner label, by id."""
    found = list_ids(kind, "ls", "-q", "--filter", f"label=org.openfactory.owner={env['RECONCILER_OWNER']}")
    specs = [(raw["ID"], raw["Spec"]) for raw in json.loads(docker(kind, "inspect", *found, check=False) or "[]")]
    return {identity: (spec["Name"], spec["Labels"]) for identity, spec in specs} if found else {}


def read_installation_id(env: dict[str, str]) -> str:
    """Return the id of the demo's installation; empty without its record, and then no service counts as its own."""
    name = f"{env['RESOURCE_PREFIX']}_installation"
    records = [labels for found, labels in read_labels("config", env).values() if found == name]
    return records[0].get("org.openfactory.record.id", "") if records else ""


def list_own_services(env: dict[str, str]) -> list[str]:
    """Return the ids of the services that the demo's operator created: by owner, installation *and* name."""
    ours, prefix = read_installation_id(env), env["RESOURCE_PREFIX"]
    return [
        identity
        for identity, (name, labels) in read_labels("service", env).items()
        if ours and labels.get("org.openfactory.installation") == ours and name == make_service_name(prefix, labels)
    ]


def make_service_name(prefix: str, labels: dict[str, str]) -> str:
    """Return the name of a service with these labels, unless it is a copy."""
    if group := labels.get("org.openfactory.group", ""):
        return names_of(group, prefix).service
    return f"{prefix}_{labels.get('org.openfactory.kind', '').replace('-', '_')}"


def list_own_configs(env: dict[str, str]) -> list[str]:
    """Return the ids of the demo's registries and records: the record of the installation goes last."""
    ours, prefix = read_installation_id(env), f"{env['RESOURCE_PREFIX']}_"
    found = {
        identity: name
        for identity, (name, labels) in read_labels("config", env).items()
        if name.startswith(prefix) and labels.get("org.openfactory.installation", ours) == ours
    }
    last = [identity for identity, name in found.items() if name == f"{prefix}installation"]
    return [identity for identity in found if identity not in last] or last


def list_other_services(env: dict[str, str]) -> list[str]:
    """Return the names of the services that still have the owner label."""
    return sorted(name for name, _ in read_labels("service", env).values())


def list_tasks(service: str) -> list[str]:
    """Return the containers of a service, also of a removed one."""
    return list_ids("ps", "-aq", "--filter", f"label=com.docker.swarm.service.id={service}")


def list_network_members(env: dict[str, str]) -> list[str]:
    """Return the containers and services in the demo's network, once its own are gone."""
    name = env["DOCKER_NETWORK"]
    form = '{{.Names}}\t{{.Label "com.docker.swarm.service.name"}}'
    found = []
    for line in docker("ps", "--filter", f"network={name}", "--format", form).splitlines():
        container, _, service = line.partition("\t")
        found.append(f"service {service}" if service else f"container {container}")
    return sorted(set(found))


def remove_until_gone(list_them: Callable[[], list[str]], remove: tuple[str, ...] = ()) -> None:
    """Remove what is listed until nothing is left; without a command, wait until it is gone."""
    deadline = time.monotonic() + GONE_WITHIN
    while found := list_them():
        if time.monotonic() > deadline:
            what = " ".join(remove[:1]) or "container"
            sys.exit(f"demo: still there after {GONE_WITHIN:.0f} s: {what} {', '.join(found)}; then: make demo-down")
        if remove:
            docker(*remove, *found, check=False)
        time.sleep(0.3)


def main() -> int:
    """Run one command: up, down, or cli with the operator's arguments after ``--``."""
    env = read_settings()
    match sys.argv[1:]:
        case ["up"]:
            up(env)
        case ["down"]:
            down(env)
        case ["cli", "--", *arguments]:
            container = wait_for_operator(env)
            tty = ["-t"] if sys.stdout.isatty() else []
            passed = [part for name in TERMINAL_VARIABLES if name in os.environ for part in ("-e", name)]
            command = ["docker", "exec", *tty, *passed, container, "reconciler", *arguments]
            code = subprocess.run(command, check=False).returncode  # noqa: S603
            if code and find_operator(env) != container:
                say("the operator restarted meanwhile: run the command again")
            return code
        case _:
            sys.exit(__doc__)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Drive the demo: deploy it, wait until it serves, show it working, remove it. Standard library only.

``make demo`` calls ``up``, ``make demo-down`` calls ``down``, ``make cli`` calls ``cli``.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEADLINE = 420.0
EVENTS = 5


def settings() -> dict[str, str]:
    """Return the environment of the deployment: the caller's, the images', and defaults."""
    env = {
        "STACK": "ofa",
        "RESOURCE_PREFIX": "ofa",
        "RECONCILER_OWNER": "ofa",
        "DOCKER_NETWORK": "factory-net",
        "ROUTING_LAYER_PORT": "5555",
        "KSQLDB_PORT": "8088",
        "RECONCILER_PORT": "8080",
        "WORKCENTERS": "Weld,Paint,Assembly",
        "DOCKER_SOCK_GID": str(Path("/var/run/docker.sock").stat().st_gid),
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
    """Deploy, wait, and show the system at work."""
    started = time.monotonic()
    network = env["DOCKER_NETWORK"]
    if not docker("network", "ls", "-q", "--filter", f"name=^{network}$"):
        docker("network", "create", "--driver", "overlay", "--attachable", "--label", "org.openfactory.demo=1", network)
    say(f"deploying stack {env['STACK']}")
    manifest = str(ROOT / "manifests" / "demo.yml")
    docker("stack", "deploy", "--resolve-image", "never", "--prune", "-c", manifest, env["STACK"], env=env)
    asset = wait_until_served(env)
    print()
    print(operator(env, "status"))
    print(f"\nFive live events of asset {asset}, through {stream_url(env, asset)}\n")
    for event in events(env, asset, EVENTS):
        print(event)
    print(f"\nUp after {time.monotonic() - started:.0f} s, and it stays up.\n")
    print(next_steps(env, asset))


def wait_until_served(env: dict[str, str]) -> str:
    """Wait until every workcenter is ready and registered and an asset's stream delivers; return that asset."""
    wanted = set(env["WORKCENTERS"].split(","))
    deadline = time.monotonic() + DEADLINE
    said = ""
    while time.monotonic() < deadline:
        missing, said_now = progress(env, wanted)
        if said_now != said:
            say(said_now)
            said = said_now
        if not missing:
            asset = any_asset(env)
            if asset and next(iter(events(env, asset, 1)), None):
                return asset
        time.sleep(1)
    print(docker("service", "ls"), file=sys.stderr)
    sys.exit(f"demo: not ready after {DEADLINE:.0f} s ({said}); look at: docker service logs {env['STACK']}_reconciler")


def progress(env: dict[str, str], wanted: set[str]) -> tuple[set[str], str]:
    """Return the groups that are not registered yet, and the state in words."""
    registry = get_json(f"http://127.0.0.1:{env['RECONCILER_PORT']}/registry")
    if registry is None:
        return wanted, "waiting for the operator's first registry"
    missing = wanted - registry["groups"].keys()
    if missing:
        return missing, f"waiting for groups {', '.join(sorted(missing))}"
    if get_json(f"http://127.0.0.1:{env['ROUTING_LAYER_PORT']}/readyz") is None:
        return wanted, "waiting for the routing layer"
    return set(), "waiting for the first event"


def get_json(url: str) -> dict[str, dict[str, str]] | None:
    """GET a JSON document; None where there is none yet."""
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:  # noqa: S310 - http on this host
            document: dict[str, dict[str, str]] = json.load(answer)
            return document
    except (OSError, ValueError):
        return None


def any_asset(env: dict[str, str]) -> str | None:
    """Ask ksqlDB for one mapped asset."""
    body = {"sql": "SELECT ASSET_UUID FROM ASSET_TO_UNS_MAP LIMIT 1;"}
    rows = post(f"http://127.0.0.1:{env['KSQLDB_PORT']}/query-stream", body, "application/json")
    return str(rows[1][0]) if len(rows) > 1 else None


def post(url: str, body: object, accept: str) -> list[list[str]]:
    """POST JSON and return the JSON answer."""
    request = urllib.request.Request(  # noqa: S310 - http on this host
        url, json.dumps(body).encode(), {"Content-Type": "application/json", "Accept": accept}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - http on this host
            rows: list[list[str]] = json.load(answer)
            return rows
    except (OSError, ValueError):
        return []


def stream_url(env: dict[str, str], asset: str) -> str:
    """Return where an asset's events are served."""
    return f"http://localhost:{env['ROUTING_LAYER_PORT']}/asset_stream?asset_uuid={urllib.parse.quote(asset)}"


def events(env: dict[str, str], asset: str, count: int) -> list[str]:
    """Receive some events of an asset as a client would; fewer where the stream ends or is silent for 20 s."""
    found: list[str] = []
    try:
        with urllib.request.urlopen(stream_url(env, asset), timeout=20) as answer:  # noqa: S310 - http on this host
            event: list[str] = []
            for raw in answer:
                line = raw.decode().rstrip("\r\n")
                if line:
                    event += [line] if not line.startswith(":") else []
                elif event:
                    found.append("\n".join(event) + "\n")
                    event = []
                if len(found) == count:
                    break
    except OSError:  # URLError and time-outs are OSErrors
        pass
    return found


def operator(env: dict[str, str], *arguments: str, check: bool = True) -> str:
    """Run the operator's command line in the operator's container."""
    container = docker("ps", "-q", "-f", f"label=com.docker.swarm.service.name={env['STACK']}_reconciler").split()
    if not container:
        return "the operator does not run" if check else ""
    return docker("exec", container[0], "reconciler", *arguments, check=check)


def next_steps(env: dict[str, str], asset: str) -> str:
    """Say what to try."""
    stack, prefix = env["STACK"], env["RESOURCE_PREFIX"]
    group = env["WORKCENTERS"].split(",")[0]
    insert = (
        "INSERT INTO asset_to_uns_map_raw (asset_uuid, uns_id, uns_levels) VALUES "
        "('LASER-01', 'acme/Laser/LASER-01', MAP('workcenter' := 'Laser'));"
    )
    body = shlex.quote(json.dumps({"ksql": insert}))
    return f"""What to try next:

  curl -N '{stream_url(env, asset)}'
      follow an asset
  curl -s localhost:{env["KSQLDB_PORT"]}/ksql -H 'Content-Type: application/json' -d {body}
  curl -N 'http://localhost:{env["ROUTING_LAYER_PORT"]}/asset_stream?asset_uuid=LASER-01'
      map an asset to a new workcenter, and follow it: its stream and service are made meanwhile
  docker service rm {prefix}_group_{group}
  docker service update --detach --env-add X=1 {prefix}_group_{group}
      break something: it is repaired
  make cli ARGS="plan"
  make cli ARGS="status"
  docker service logs -f {stack}_reconciler
      see what the operator thinks
  curl -s localhost:{env["RECONCILER_PORT"]}/metrics | grep ^reconciler_
  make demo-down
      remove everything"""


def down(env: dict[str, str]) -> None:
    """Remove what the operator made, then the stack, the volume and the network."""
    stack = env["STACK"]
    said = operator(env, "teardown", "--yes", check=False)
    print(said)
    sweep(env)
    docker("stack", "rm", stack, check=False)
    until_gone("service", "ls", "-q", "--filter", f"label=com.docker.stack.namespace={stack}")
    until_gone("ps", "-aq", "--filter", f"label=com.docker.stack.namespace={stack}")
    until_gone("ps", "-aq", "--filter", f"name=^{env['RESOURCE_PREFIX']}_(group_|routing_layer|state_api)")
    for volume in docker("volume", "ls", "-q", "--filter", f"label=com.docker.stack.namespace={stack}").split():
        docker("volume", "rm", volume, check=False)
    labelled = ("network", "ls", "-q", "--filter", "label=org.openfactory.demo=1")
    for network in docker(*labelled, "--filter", f"name=^{env['DOCKER_NETWORK']}$").split():
        docker("network", "rm", network, check=False)
    say("nothing of the demo is left (images are kept for the next time)")


def sweep(env: dict[str, str]) -> None:
    """Remove what carries the demo's owner label, also where the operator could not (it was not running)."""
    owner = f"label=org.openfactory.owner={env['RECONCILER_OWNER']}"
    for kind in ("service", "config"):
        for found in docker(kind, "ls", "-q", "--filter", owner).split():
            docker(kind, "rm", found, check=False)


def until_gone(*listing: str) -> None:
    """Wait until a listing is empty, for at most a minute."""
    deadline = time.monotonic() + 60
    while docker(*listing) and time.monotonic() < deadline:
        time.sleep(0.5)


def main() -> int:
    """Run one command: up, down, or cli with the operator's arguments after ``--``."""
    env = settings()
    match sys.argv[1:]:
        case ["up"]:
            up(env)
        case ["down"]:
            down(env)
        case ["cli", "--", *arguments]:
            container = docker("ps", "-q", "-f", f"label=com.docker.swarm.service.name={env['STACK']}_reconciler")
            if not container:
                sys.exit("demo: the operator does not run; start it with: make demo")
            tty = ["-t"] if sys.stdout.isatty() else []
            command = ["docker", "exec", *tty, container.split()[0], "reconciler", *arguments]
            return subprocess.run(command, check=False).returncode  # noqa: S603
        case _:
            sys.exit(__doc__)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

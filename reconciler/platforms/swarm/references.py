"""Whether a Swarm has what services are to refer to."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from openfactory_common.errors import PlatformUnreachable
from reconciler.platforms.engine import Engine
from reconciler.platforms.protocol import Reference

#: Networks of each node that services may join, too.
_PREDEFINED = frozenset({"bridge", "host", "none"})


def missing_references(engine: Engine, kind: Reference, names: Collection[str]) -> Mapping[str, str]:
    """Return those of the names that services could not use, each with the reason and what helps.

    Raises:
        PlatformError: it cannot be told.
    """
    return _networks(engine, names) if kind is Reference.NETWORK else _secrets(engine, names)


def _networks(engine: Engine, names: Collection[str]) -> Mapping[str, str]:
    listed = engine.get("/networks")
    usable = {raw["Name"] for raw in listed if raw["Scope"] == "swarm"}
    if not usable:  # measured: without a leader this is a 200 without the Swarm's own networks
        raise PlatformUnreachable("GET /networks: the list has no network of the Swarm: no leader?")
    of_node = {raw["Name"] for raw in listed} - usable
    return {name: _no_network(name, of_node) for name in names if name not in usable | _PREDEFINED}


def _no_network(name: str, of_node: Collection[str]) -> str:
    why = "belongs to one node and not to the Swarm" if name in of_node else "does not exist in this Swarm"
    cure = f"docker network create --driver overlay --attachable {name}"
    return f"{why}: no service can be created; {cure}"


def _secrets(engine: Engine, names: Collection[str]) -> Mapping[str, str]:
    """The engine's filter also matches parts of names."""
    listed = engine.get("/secrets", params={"filters": {"name": list(names)}})
    there = {raw["Spec"]["Name"] for raw in listed}
    why = "does not exist in this Swarm: the routing layer cannot be created; docker secret create {} FILE"
    return {name: why.format(name) for name in names if name not in there}

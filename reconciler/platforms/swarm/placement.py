"""Which nodes a constraint allows, by SwarmKit's rules: values compare without case, a missing label is empty."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Raw = Mapping[str, Any]


def find_unmet(constraints: Iterable[str], nodes: Iterable[Raw]) -> str:
    """Return why no node that may have tasks fulfils all constraints; ``""`` where one does.

    Args:
        constraints: in their usual form, ``node.labels.gpu==yes``.
        nodes: as the engine lists them.
    """
    asked = list(constraints)
    able = [
        node
        for node in nodes
        # One that is paused keeps its tasks.
        if node["Status"]["State"] == "ready" and node["Spec"].get("Availability", "active") != "drain"
    ]
    if any(all(_is_met(one, node) for one in asked) for node in able):
        return ""
    alone = [one for one in asked if not any(_is_met(one, node) for node in able)]
    return f"none of the {len(able)} nodes that may have tasks fulfils {' and '.join(alone or asked)}"


def _is_met(constraint: str, node: Raw) -> bool:
    """Whether a node fulfils one constraint; of what is not known here (``node.ip``) that it does."""
    name, equals, wanted = constraint.partition("==")
    if not equals:
        name, _, wanted = constraint.partition("!=")
    found = _read(name, node)
    return found is None or (found.casefold() == wanted.strip().casefold()) == bool(equals)


def _read(name: str, node: Raw) -> str | None:
    spec, description = node["Spec"], node.get("Description") or {}
    kind, _, label = name.partition(".labels.")
    if label:
        labels = spec.get("Labels") if kind.casefold() == "node" else (description.get("Engine") or {}).get("Labels")
        return str((labels or {}).get(label, ""))
    values = {
        "node.id": node.get("ID"),
        "node.hostname": description.get("Hostname"),
        "node.role": spec.get("Role"),
        "node.platform.os": (description.get("Platform") or {}).get("OS"),
        "node.platform.arch": (description.get("Platform") or {}).get("Architecture"),
    }
    found = values.get(name.casefold())
    return None if found is None else str(found)

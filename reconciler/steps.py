"""What plans are made of: the facts they depend on, and one step for each object. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from reconciler.ksqldb.topology import Topology
from reconciler.model import Action, Condition, Item
from reconciler.registry import Membership as Lookup
from reconciler.settings import Settings


@dataclass(frozen=True)
class Facts:
    """What a plan depends on besides the survey and the verdict.

    Attributes:
        settings: of the operator.
        topology: the SQL side's names and definitions.
        lookup: how the proxy finds an asset's group.
        aged: registry documents that became current longer than `REGISTRY_ROLL_AFTER` ago. (Not the time itself: it
            is never the same twice, and a plan whose facts are the same is the same.)
        stalled: services of which nothing has moved for `PROGRESS_DEADLINE` although they are not as they should be.
        failures: the last error of every object whose write failed and is waited for.
        silent: why streams are silent (see `reconciler.flow`), by group; that of the shared stream by "".
        query_limit: how many persistent queries ksqlDB allows; None where it was not asked or does not say.
    """

    settings: Settings
    topology: Topology
    lookup: Lookup
    aged: frozenset[str] = frozenset()
    stalled: frozenset[str] = frozenset()
    failures: Mapping[str, str] = field(default_factory=dict)
    query_limit: int | None = None
    silent: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """What one object needs: actions, and how it fares meanwhile."""

    item: Item
    actions: tuple[Action, ...] = ()


def failing(item: Item, actions: Iterable[Action], facts: Facts) -> Item:
    """Say why a write that is still wanted failed the last time; a failure of what is done meanwhile is history."""
    for action in actions:
        if action.key in facts.failures:
            return replace(item, condition=Condition.DEGRADED, detail=facts.failures[action.key])
    return item


def busy(mark: str, detail: str) -> Item:
    """Say of an object that something is being done about it."""
    return Item("", Condition.PROGRESSING, mark, detail)


def conflict(group: str, detail: str) -> Step:
    """Say of a group that it cannot be, and do nothing."""
    return Step(Item(f"group {group}", Condition.CONFLICT, "x", detail, group=group))

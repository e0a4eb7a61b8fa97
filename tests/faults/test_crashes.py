"""T1-T4: a crash before and after every single write, a write that was done but not answered, a lost race.

After each the operator is started anew and must reach the same end as an undisturbed one, having removed exactly the
same things.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from fakes import Stage

from reconciler.errors import KsqlConflict, KsqlUnknownOutcome, PlatformConflict, PlatformUnreachable

WRITES = {
    "platform": ("create_service", "update_service", "remove_service", "publish_registry", "remove_registry"),
    "ksqldb": ("execute",),
}


class Crash(BaseException):
    """The process ends here; nothing may catch it."""


@dataclass
class Saboteur:
    """Counts writes and spoils the k-th in one way."""

    stage: Stage
    at: int = -1
    way: str = "none"
    seen: int = 0
    removed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Stand between the operator and every write of both sides."""
        for side, names in WRITES.items():
            target = getattr(self.stage, side)
            for name in names:
                setattr(target, name, self._wrapped(side, name, getattr(target, name)))

    def _wrapped(self, side: str, name: str, write: Callable[..., Any]) -> Callable[..., Any]:
        def spoiled(*args: Any, **kwargs: Any) -> Any:
            self.seen += 1
            way = self.way if self.seen - 1 == self.at else "none"
            self._before(way, side)
            done = write(*args, **kwargs)
            self._note(name, args[0])
            self._after(way, side)
            return done

        return spoiled

    def _before(self, way: str, side: str) -> None:
        if way == "crash before":
            raise Crash
        if way == "conflict":
            raise PlatformConflict("update out of sequence") if side == "platform" else KsqlConflict("fenced")

    def _after(self, way: str, side: str) -> None:
        if way == "crash after":
            raise Crash
        if way == "done but not answered":
            raise PlatformUnreachable("timed out") if side == "platform" else KsqlUnknownOutcome("timed out")

    def _note(self, name: str, what: Any) -> None:
        if name == "remove_service":
            self.removed.append(what.name)
        if name == "execute" and what.verb == "drop":
            self.removed.append(what.target)


def first(stage: Stage) -> None:
    """First convergence of five groups: nothing exists."""
    stage.ksqldb.assets = {f"a{n}": f"g{n}" for n in range(5)}


def added(stage: Stage) -> None:
    """A sixth group comes."""
    settled(stage)
    stage.ksqldb.assets["b"] = "g5"


def deleted(stage: Stage) -> None:
    """A group loses its last asset."""
    settled(stage)
    del stage.ksqldb.assets["a4"]


def changed(stage: Stage) -> None:
    """Another image for all group services."""
    settled(stage)
    stage.options["fastapi_group_image"] = "other:2"


def regrouped(stage: Stage) -> None:
    """Another definition of the shared stream: every group stream moves."""
    settled(stage)
    stage.options["ksqldb_uns_join_table"] = "asset_to_uns_map_raw"


def settled(stage: Stage) -> None:
    """Five groups, settled."""
    first(stage)
    stage.settle(stage.controller())


SCENARIOS = (first, added, deleted, changed, regrouped)
WAYS = ("crash before", "crash after", "done but not answered", "conflict")


def run(scenario: Callable[[Stage], None], at: int = -1, way: str = "none") -> tuple[Saboteur, Any]:
    """Play a scenario with one spoiled write; return who spoiled it and the end state."""
    stage = Stage(now=1000.0)
    scenario(stage)
    saboteur = Saboteur(stage, at, way)
    try:
        stage.settle(stage.controller(), cycles=80)
    except Crash:
        stage.settle(stage.controller(), cycles=80)
    # Which document the proxy mounts to start from depends on when groups became ready; the current one does not.
    specs = {name: replace(live.spec, configs=()) for name, live in stage.platform.services.items() if live.spec}
    newest = max(stage.platform.registries.values(), key=lambda one: one.sequence).data
    return saboteur, (specs, stage.ksqldb.made, newest, stage.ksqldb.kept_topics)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_whatever_write_is_spoiled_the_end_is_the_same(scenario: Callable[[Stage], None], way: str) -> None:
    """For every write k: same end state, same set of removals, whatever happened to write k."""
    undisturbed, expected = run(scenario)
    assert undisturbed.seen > 0
    for at in range(undisturbed.seen):
        saboteur, end = run(scenario, at, way)
        assert end == expected, f"write {at}"
        assert set(saboteur.removed) == set(undisturbed.removed), f"write {at}"

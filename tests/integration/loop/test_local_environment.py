"""`ENVIRONMENT=local` beside a world that another environment made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openfactory_common.registry import parse
from reconciler.domain.actions import PublishRegistry, RemoveService
from reconciler.domain.status import Condition
from tests.harness.fakes import FakeKsqldb, Stage

ROUTER = "ofa_routing_layer"


@pytest.fixture
def stage() -> Stage:
    """An installation of another environment, in sync, whose settings now say `local`."""
    made = Stage(ksqldb=FakeKsqldb(assets={"a": "Weld", "b": "Paint"}))
    made.settle(made.controller())
    assert ROUTER in made.platform.services
    made.options["environment"] = "local"
    return made


def test_the_routing_layer_of_another_environment_goes(stage: Stage) -> None:
    """It would hold the port that `runserver` needs; it goes after the addresses that `runserver` needs are published.

    Nothing else is removed, and the second run writes nothing.
    """
    done: list[type] = []
    controller = stage.controller()
    for _ in range(20):
        done += [type(result.action) for result in controller.cycle().results]
        stage.now += 5
    assert ROUTER not in stage.platform.services
    assert done.count(RemoveService) == 1
    assert done.index(PublishRegistry) < done.index(RemoveService)
    newest = max(stage.platform.registries.values(), key=lambda live: live.sequence)
    assert parse(newest.data).groups == {
        "Paint": "http://localhost:6001/asset_stream",
        "Weld": "http://localhost:6002/asset_stream",
    }
    before = stage.writes
    stage.settle(stage.controller())
    assert stage.writes == before


def test_a_plan_says_so_beforehand(stage: Stage) -> None:
    """A person who set the variable by mistake reads it before it is done."""
    controller = stage.controller()
    plan = controller.plan(*controller.observe())
    [item] = [item for item in plan.items if item.title == f"service {ROUTER}"]
    assert (item.condition, item.change) == (Condition.LEAVING, "-")
    assert "ENVIRONMENT=local" in item.detail


@pytest.mark.parametrize("owner", [None, "someone"])
def test_a_routing_layer_of_another_owner_stays(stage: Stage, owner: str | None) -> None:
    """A name alone is no reason to remove anything."""
    stage.platform.services[ROUTER] = replace(stage.platform.services[ROUTER], owner=owner, spec=None)
    stage.settle(stage.controller())
    assert ROUTER in stage.platform.services


def test_a_policy_that_removes_nothing_keeps_it(stage: Stage) -> None:
    """`RECONCILE_POLICY=upsert-only` holds here too, and the status says what is held."""
    stage.options["reconcile_policy"] = "upsert-only"
    controller = stage.controller()
    stage.settle(controller)
    assert ROUTER in stage.platform.services
    plan = controller.plan(*controller.observe())
    [item] = [item for item in plan.items if item.title == f"service {ROUTER}"]
    assert item.condition is Condition.HELD

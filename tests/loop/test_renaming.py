"""What docs/operations.md says about changed names: prefix, owner, level."""

from __future__ import annotations

import pytest
from fakes import FakeKsqldb, Stage

from reconciler.model import Condition
from reconciler.teardown import teardown

STREAMS = {"ASSET_STREAM_WELD", "ASSET_STREAM_PAINT"}


@pytest.fixture
def stage() -> Stage:
    """Two groups, settled under the default names."""
    made = Stage(ksqldb=FakeKsqldb(assets={"a": "Weld", "b": "Paint"}))
    made.ksqldb.levels = {"area": {"a": "North", "b": "South"}}
    made.settle(made.controller())
    return made


def test_a_new_prefix_after_a_teardown_touches_no_stream(stage: Stage) -> None:
    """`teardown --keep-streams`, then another RESOURCE_PREFIX: other services, no statement to ksqlDB."""
    before = len(stage.ksqldb.statements)
    assert all(result.error is None for result in teardown(stage.controller().world, keep_streams=True))
    assert (stage.platform.services, stage.platform.registries) == ({}, {})
    stage.options["resource_prefix"] = stage.platform.prefix = "new"
    stage.settle(stage.controller())
    assert {name.partition("_")[0] for name in stage.platform.services} == {"new"}
    assert len(stage.ksqldb.statements) == before


def test_a_new_prefix_alone_leaves_the_old_services_where_they_are(stage: Stage) -> None:
    """Beside each old service a new one is made; nothing is removed that a client may still use."""
    stage.options["resource_prefix"] = stage.platform.prefix = "new"
    stage.settle(stage.controller())
    names = {name.partition("_")[2] for name in stage.platform.services}
    assert set(stage.platform.services) == {f"{prefix}_{name}" for prefix in ("ofa", "new") for name in names}


def test_another_owner_touches_nothing(stage: Stage) -> None:
    """Everything that is there is a conflict."""
    services, streams = dict(stage.platform.services), dict(stage.ksqldb.made)
    stage.options["reconciler_owner"] = stage.platform.owner = "other"
    controller = stage.controller()
    for _ in range(10):
        plan = controller.cycle().plan
        stage.now += 10
    assert plan is not None
    assert {item.condition for item in plan.items} == {Condition.CONFLICT}
    assert dict(stage.platform.services) == services
    assert streams.items() <= stage.ksqldb.made.items()


def test_another_level_waits_for_a_persons_word_before_the_old_groups_go(stage: Stage) -> None:
    """The groups of the new level are served while those of the old one stay, held by the budget."""
    stage.options["uns_fastapi_group_grouping_level"] = "area"
    controller = stage.controller()
    for _ in range(30):
        plan = controller.cycle().plan
        stage.now += 10
    assert plan is not None
    assert {refusal.guard for refusal in plan.refusals} == {"budget"}
    assert stage.ksqldb.made.keys() >= STREAMS | {"ASSET_STREAM_NORTH", "ASSET_STREAM_SOUTH"}

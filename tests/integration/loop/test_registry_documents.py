"""The registry across an accepted change of cluster, a newer operator that was rolled back, and an older one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from openfactory_common.registry import Registry, parse, revision_of
from reconciler.domain.services import LiveRegistry
from reconciler.planning.guards import Overrides
from tests.harness.fakes import FakeKsqldb, Stage


@pytest.fixture
def stage() -> Stage:
    """Two groups, settled."""
    stage = Stage(ksqldb=FakeKsqldb(assets={"W1": "Weld", "P1": "Paint"}))
    stage.settle(stage.controller())
    return stage


def newest(stage: Stage) -> LiveRegistry:
    """Return the current document."""
    return max(stage.platform.registries.values(), key=lambda one: one.sequence)


def test_the_document_of_an_accepted_cluster_names_those_that_it_replaces(stage: Stage) -> None:
    """Running proxies follow it at once, each time it changes; an ordinary publication changes nothing of it."""
    used: list[Registry] = [parse(newest(stage).data)]
    for kafka in ("kafka-2", "kafka-3", "kafka-1"):
        stage.ksqldb.identity = (kafka, "default_")
        stage.settle(stage.controller(Overrides(accept_identity=True)))
        used.append(parse(newest(stage).data, before=used[-1]))
        stage.ksqldb.assets[f"at {kafka}"] = kafka
        stage.settle(stage.controller())
        assert parse(newest(stage).data).replaces == used[-1].replaces
    assert [one.kafka for one in used[-1].replaces] == ["kafka-1", "kafka-2", "kafka-3"]


def newer(document: dict[str, Any]) -> None:
    """Add fields as a newer operator might."""
    document["new"] = document["membership"]["new"] = {"x": [1]}


def older(document: dict[str, Any]) -> None:
    """Write the membership as it was once written."""
    level = document["membership"].pop("levels")[0]
    del document["membership"]["separator"]
    document["membership"]["group"] = f"UNS_LEVELS['{level}']"


@pytest.mark.parametrize("change", [newer, older])
def test_a_document_of_another_version_is_the_memory_of_this_one(
    stage: Stage, change: Callable[[dict[str, Any]], None]
) -> None:
    """Its groups stay; it is served under the name of its own bytes, and then replaced by this version's rendering."""
    before = newest(stage)
    document = json.loads(before.data)
    change(document)
    data = json.dumps(document).encode()
    stage.platform.publish_registry(data, revision_of(data), before.sequence + 1)
    controller, shown = stage.controller(), list[tuple[bytes, str]]()
    controller.reporter.on_registry = lambda *one: shown.append(one)
    outcome = controller.cycle()
    assert outcome.plan is not None
    assert outcome.plan.registry_before == revision_of(data)
    assert (outcome.plan.added, outcome.plan.removed) == ((), ())
    stage.settle(controller)
    assert shown[0] == (data, revision_of(data))
    assert all(revision == revision_of(content) for content, revision in shown)
    assert newest(stage).data == before.data == shown[-1][0]
    mounted = stage.platform.services["ofa_routing_layer"].spec
    assert mounted is not None
    assert {config.name for config in mounted.configs} <= set(stage.platform.registries)

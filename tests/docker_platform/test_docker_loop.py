"""The whole loop with plain containers: a ksqlDB in memory on the one side, a real engine on the other."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from openfactory_common.errors import GuardRefusal
from reconciler.app import topology_of
from reconciler.control.controller import Controller, Dependencies
from reconciler.control.converge import Exit, converge
from reconciler.control.teardown import prove, remove_records, teardown
from reconciler.grouping.unslevel import UNSLevelGroupingStrategy
from reconciler.metrics import Metrics
from reconciler.settings import Settings
from tests.docker_platform.sandbox import ContainerSandbox
from tests.harness.fakes import FakeKsqldb

pytestmark = pytest.mark.engine


class Crash(BaseException):
    """The process ends here; nothing may catch it."""


def world(sandbox: ContainerSandbox, ksqldb: FakeKsqldb) -> Dependencies:
    """Return a world as a freshly started process would make it."""
    given: dict[str, object] = {
        "kafka_broker": "k:9092",
        "ksqldb_url": "http://k:8088",
        "environment": "devswarm",
        "deployment_platform": "docker",
        "reconciler_owner": sandbox.owner,
        "resource_prefix": sandbox.owner,
        "docker_network": sandbox.network,
        "routing_layer_publish": "none",
        "prune_grace": 0.2,
        "prune_reads": 2,
        "drain_seconds": 0.2,
    }
    given |= {f"{part}_image": sandbox.image for part in ("routing_layer", "fastapi_group", "state_api")}
    settings = Settings(_env_file=None, **given)  # type: ignore[arg-type]
    strategy = UNSLevelGroupingStrategy(settings, ksqldb)
    return Dependencies(settings, ksqldb, sandbox.process(), strategy, topology_of(settings))


def test_killed_after_every_write_of_the_first_convergence(sandbox: ContainerSandbox, sent: list[str]) -> None:
    """The end is the same as undisturbed, a second run writes nothing, and teardown leaves nothing of its cluster."""
    ksqldb = FakeKsqldb(assets={"a": "Weld", "b": "Weld", "d": "O'Brien & Söhne"})
    deaths = 0

    def die() -> None:
        raise Crash

    while True:
        controller = Controller(world(sandbox, ksqldb), Metrics(CollectorRegistry()))
        controller.on_step = die
        try:
            code, _ = converge(controller, 60)
        except Crash:
            deaths += 1
            controller.deps.platform.close()
            continue
        break
    assert code is Exit.OK
    assert deaths >= 8
    assert [statement.verb for statement in ksqldb.statements] == ["create"] * 3
    before = sandbox.containers()
    assert len(before) == 4
    sent.clear()
    code, outcome = converge(controller, 60)
    assert (code, outcome.results, sandbox.containers()) == (Exit.OK, (), before)
    assert [request for request in sent if not request.startswith("GET ")] == []

    del ksqldb.assets["d"]
    code, _ = converge(Controller(controller.deps, Metrics(CollectorRegistry())), 60)
    assert code is Exit.OK
    assert set(before) - set(sandbox.containers()) == {name for name in before if "O_Brien" in name}

    own, ksqldb.identity = ksqldb.identity, ("another-cluster", "default_")
    with pytest.raises(GuardRefusal, match="ksqlDB default_ instead of kafka-1, default_"):
        prove(controller.deps)
    ksqldb.identity = own
    assert all(result.outcome == "ok" for result in teardown(controller.deps))
    remove_records(controller.deps.platform, streams_left=False)
    controller.deps.platform.close()
    assert sandbox.containers() == {}
    assert sandbox.networks() == []
    assert list(sandbox.files.iterdir()) == []

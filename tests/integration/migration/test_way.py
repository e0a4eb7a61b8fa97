"""The whole way there and back, on an embedded ksqlDB that had the old system's streams and a platform in memory."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from reconciler.control.teardown import teardown
from reconciler.ksqldb.client import KsqlClient
from reconciler.migration.legacy import PORT
from reconciler.migration.migrate import (
    MigrationState,
    StepRefused,
    observe,
    remove_old,
    restore_names,
    restore_port,
    start,
    switch,
)
from tests.harness.fakes import Stage
from tests.integration.migration.old import FakeOldServices, embedded, event, old_statement, send, values, watch


@dataclass
class Plant:
    """Both systems in one plant: the old one runs when it begins."""

    url: str
    ksqldb: KsqlClient
    old: FakeOldServices = field(default_factory=lambda: FakeOldServices.of("Weld", "Paint"))
    stage: Stage = field(default_factory=lambda: Stage(options={"routing_layer_port": 5556}))
    sent: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        """Let the old system make its streams, and let the new one see this ksqlDB."""
        for group in ("Weld", "Paint"):
            send(self.url, old_statement(group))
        self.stage.ksqldb = self.ksqldb  # type: ignore[assignment]
        self.watched = watch(self.url, "Weld")

    def observe(self) -> MigrationState:
        """Read both sides with the settings of now."""
        return observe(self.stage.controller(), self.old)

    def converge(self) -> None:
        """Let the operator make what it can."""
        self.stage.settle(self.stage.controller())

    def event(self) -> str:
        """Send one event of an asset of the group Weld."""
        value = str(next(self.numbers))
        event(self.url, "A1", value)
        self.sent.append(value)
        return value

    def start(self) -> list[str]:
        """Free the names while events come, and wait no longer than one of them takes."""
        over = threading.Event()
        sender = threading.Thread(target=self._send_until, args=(over,))
        sender.start()
        try:
            return list(start(self.observe(), self.stage.controller().deps, lambda _: self.until_fed()))
        finally:
            over.set()
            sender.join()

    def _send_until(self, over: threading.Event) -> None:
        while not over.wait(0.02):
            self.event()

    def until_fed(self) -> None:
        """Wait until one more event has come through to the old topic."""
        value = self.event()
        self.until(lambda: value in self.read())

    def read(self) -> list[str]:
        """Return what the old topic of Weld has had so far."""
        return values(self.url, self.watched)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for at most 20 seconds."""
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "it did not come about"
            time.sleep(0.05)

    @property
    def streams(self) -> set[str]:
        """Names of all streams but those of the plant itself."""
        return {one.name for one in self.ksqldb.streams()} - {"ENRICHED_ASSETS_STREAM", self.watched}

    def with_port(self, port: int) -> None:
        """Give the new router another port at the operator and here."""
        self.stage.options = {"routing_layer_port": port}


@pytest.fixture
def plant() -> Iterator[Plant]:
    """A plant that the old system serves."""
    with embedded() as (url, client):
        yield Plant(url, client)


def test_the_whole_way(plant: Plant) -> None:
    """Side by side, switched, the old one removed; its topic has had every event, and the new side never stopped."""
    first = plant.observe()
    assert first.next_step == "reconciler migrate --start"
    assert [one.name for one in first.conflicting] == ["ASSET_STREAM_PAINT", "ASSET_STREAM_WELD"]
    assert len(plant.start()) == 4
    plant.converge()
    assert plant.streams >= {"ASSET_STREAM_WELD", "OFA_STANDIN_ASSET_STREAM_WELD"}
    plant.until_fed()
    assert set(plant.sent) <= set(plant.read())
    assert plant.observe().next_step == "reconciler migrate --switch"
    plant.with_port(PORT)
    assert list(switch(plant.observe(), plant.old))
    plant.converge()
    assert plant.observe().new_has_port
    assert plant.observe().next_step == "reconciler migrate --remove-old"
    removed = list(remove_old(plant.observe(), plant.stage.controller().deps, plant.old))
    assert len(removed) == 6
    assert not plant.old.services
    assert not any("STANDIN" in name for name in plant.streams)
    assert "asset_stream_Weld_topic" in plant.ksqldb.topics()
    assert plant.observe().next_step == ""
    plant.converge()


def test_every_step_can_be_run_again(plant: Plant) -> None:
    """A second run of a step that is done does nothing, on either side."""
    plant.start()
    assert plant.start() == []
    plant.converge()
    plant.with_port(PORT)
    list(switch(plant.observe(), plant.old))
    assert list(switch(plant.observe(), plant.old)) == []
    plant.converge()
    world = plant.stage.controller().deps
    list(remove_old(plant.observe(), world, plant.old))
    assert list(remove_old(plant.observe(), world, plant.old)) == []


def test_a_start_that_was_cut_off_goes_on(plant: Plant) -> None:
    """After each of its writes in turn: the next run ends in the same state, and the topic misses nothing."""
    for _ in range(4):
        steps = start(plant.observe(), plant.stage.controller().deps, lambda _: plant.until_fed())
        next(steps, None)
        del steps  # what runs it is gone
        plant.until_fed()
    plant.start()
    plant.converge()
    plant.until_fed()
    assert set(plant.sent) <= set(plant.read())
    assert not plant.observe().conflicting


def test_the_way_back(plant: Plant) -> None:
    """The port at once; the names after a teardown; in the end the plant is as it was and every event has come."""
    before = plant.streams
    plant.start()
    plant.converge()
    plant.with_port(PORT)
    list(switch(plant.observe(), plant.old))
    plant.converge()
    with pytest.raises(StepRefused, match="still publishes 5555"):
        list(restore_port(plant.observe(), plant.old))
    plant.with_port(5556)
    plant.converge()
    assert list(restore_port(plant.observe(), plant.old))
    assert plant.observe().old_has_port
    controller = plant.stage.controller()
    assert list(restore_names(plant.observe(), controller.deps)) == []
    assert all(result.error is None for result in teardown(controller.deps))
    assert len(list(restore_names(plant.observe(), controller.deps, lambda _: plant.until_fed()))) == 4
    assert plant.streams == before
    plant.until_fed()
    assert set(plant.sent) <= set(plant.read())
    assert list(restore_names(plant.observe(), controller.deps)) == []


def test_the_switch_waits_for_a_new_side_that_serves(plant: Plant) -> None:
    """No port is taken from a router that works before another can take over, nor for settings that want another."""
    plant.start()
    plant.with_port(PORT)
    with pytest.raises(StepRefused, match="not ready"):
        list(switch(plant.observe(), plant.old))
    plant.stage.platform.healthy = lambda name: "Paint" not in name
    plant.with_port(5556)
    controller = plant.stage.controller()
    for _ in range(5):
        controller.cycle()
    plant.with_port(PORT)
    with pytest.raises(StepRefused, match="group Paint is Progressing"):
        list(switch(plant.observe(), plant.old))
    plant.stage.platform.healthy = lambda _: True
    plant.with_port(5556)
    plant.converge()
    with pytest.raises(StepRefused, match="ROUTING_LAYER_PORT=5555"):
        list(switch(plant.observe(), plant.old))
    assert plant.observe().old_has_port


def test_the_port_is_not_fought_over(plant: Plant) -> None:
    """A new router on the old one's port would only fail beside it: the start says so before it touches anything."""
    plant.with_port(PORT)
    with pytest.raises(StepRefused, match="ROUTING_LAYER_PUBLISH=none"):
        plant.start()
    assert not any("STANDIN" in name for name in plant.streams)


def test_the_old_side_stays_until_the_switch(plant: Plant) -> None:
    """Nothing is removed while clients still come in through the old router, or while old streams have our names."""
    world = plant.stage.controller().deps
    with pytest.raises(StepRefused, match="--switch"):
        list(remove_old(plant.observe(), world, plant.old))
    router = plant.observe().router
    assert router is not None
    plant.old.publish(router, None)
    with pytest.raises(StepRefused, match="--start"):
        list(remove_old(plant.observe(), world, plant.old))
    assert len(plant.old.services) == 4


def test_a_stream_that_a_user_reads_is_not_dropped(plant: Plant) -> None:
    """Who reads the stream and not the topic has to be asked first; nothing is written before that is known."""
    send(plant.url, "CREATE STREAM mine AS SELECT * FROM asset_stream_Weld EMIT CHANGES;")
    with pytest.raises(StepRefused, match="is read by MINE"):
        list(start(plant.observe(), plant.stage.controller().deps))
    assert not any("STANDIN" in name for name in plant.streams)

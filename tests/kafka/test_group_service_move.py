"""A client whose asset has moved from one group to another, with a real Kafka."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.harness.group_service import group_service, wait_for
from tests.harness.kafka import KafkaBroker
from tests.kafka.test_group_service import Plant

pytestmark = pytest.mark.kafka


@pytest.fixture
def weld(kafka: KafkaBroker) -> Plant:
    """The group that the asset leaves."""
    return Plant(kafka)


@pytest.fixture
def paint(kafka: KafkaBroker) -> Plant:
    """The group that it comes to."""
    return Plant(kafka)


@pytest.mark.parametrize("history", ["32MiB", "0"])
def test_nothing_is_lost_or_sent_twice_across_a_move(weld: Plant, paint: Plant, tmp_path: Path, history: str) -> None:
    """The rest of the old topic comes first, also what is still being written, then the new topic from that time."""
    weld.produce("A", 20)
    paint.produce("B", 20)
    paint.produce("A", 3)  # an earlier stay of the asset
    time.sleep(0.005)  # timestamps are milliseconds
    weld.produce("A", 5)
    with group_service(tmp_path / "log", **paint.settings(history_bytes=history)) as service:
        service.wait_ready()
        paint.produce("A", 4)
        late = threading.Timer(0.3, weld.produce, ("A", 2))
        with group_service(tmp_path / "weld", **weld.settings()) as old:
            whole = old.wait_ready().stream("A", f"{weld.slug}/0/-1").wait_live()
        given = whole.blocks[21].id
        late.start()
        client = service.stream("A", given).wait_live()
        late.join()
        assert client.values == weld.sent["A"][22:] + paint.sent["A"][3:]
        assert not client.gaps
        paint.produce("A", 1)
        client.wait_values(weld.sent["A"][22:] + paint.sent["A"][3:])
        ids = [block.id.partition("/")[0] for block in client.blocks]
        assert ids == [weld.slug] * 5 + [paint.slug] * 5


def test_what_is_left_of_a_move_when_the_old_topic_is_gone(paint: Plant, tmp_path: Path) -> None:
    """The client is told that events of the old topic may be missing, and goes on from that time."""
    before = int(time.time() * 1000) - 1000
    paint.produce("A", 3)
    with group_service(tmp_path / "log", **paint.settings()) as service:
        client = service.wait_ready().stream("A", f"Gone/0/7@{before}").wait_live()
        assert client.values == paint.sent["A"]
        assert client.gaps == [{"from": f"Gone/0/7@{before}", "to": f"{paint.slug}/0/-1", "reason": "deleted"}]


def test_a_whole_group_cannot_be_resumed_in_another(weld: Plant, paint: Plant, tmp_path: Path) -> None:
    """An id of another group on a stream of all assets is told as a gap."""
    weld.produce("A", 3)
    paint.produce("B", 3)
    with group_service(tmp_path / "log", **paint.settings()) as service:
        client = service.wait_ready().stream(None, f"{weld.slug}/0/1").wait_live()
        assert [gap["reason"] for gap in client.gaps] == ["moved"]
        assert client.values == []


def test_the_old_topic_was_made_again(weld: Plant, paint: Plant, tmp_path: Path) -> None:
    """An id that the old topic cannot have given is told as a gap."""
    weld.produce("A", 3)
    now = int(time.time() * 1000)
    paint.kafka.produce(paint.topic, [("A", b"later", now + 10)])
    with group_service(tmp_path / "log", **paint.settings()) as service:
        client = service.wait_ready().stream("A", f"{weld.slug}/0/1@{now - 99_000}").wait_live()
        assert [gap["reason"] for gap in client.gaps] == ["recreated"]
        assert client.values == ["later"]


def test_a_name_of_a_topic_is_never_made_of_an_illegal_slug(paint: Plant, tmp_path: Path) -> None:
    """An id with other characters in its slug is unknown, and nothing is read."""
    with group_service(tmp_path / "log", **paint.settings()) as service:
        client = service.wait_ready().stream("A", "../etc/0/1").wait_live()
        assert [gap["reason"] for gap in client.gaps] == ["unknown"]


@pytest.mark.parametrize("history", ["32MiB", "0"])
def test_events_that_a_topic_has_twice_are_sent_once(weld: Plant, paint: Plant, tmp_path: Path, history: str) -> None:
    """A stream that is created again repeats events; also those from before the client's position are recognized."""
    now = int(time.time() * 1000)
    records = [("A", f'{{"n":{n}}}'.encode(), now + n * 10) for n in range(20)]
    values = [value.decode() for _, value, _ in records]
    for plant in (weld, paint):
        plant.kafka.produce(plant.topic, [*records[:15], *records[5:15], *records[5:20]])
    with group_service(tmp_path / "log", **weld.settings(history_bytes=history)) as service:
        service.wait_ready()
        for last in (3, 9, 14):
            given = f"{weld.slug}/0/{last}@{now + last * 10}"
            client = service.stream("A", given).wait_live()
            assert (client.values, client.gaps) == (values[last + 1 :], [])
    later = ("A", b"later", now + 1000)
    paint.kafka.delete_records(paint.topic, {0: -1})
    paint.kafka.produce(paint.topic, [later])
    with group_service(tmp_path / "log2", **paint.settings(history_bytes=history)) as service:
        client = service.wait_ready().stream("A", f"{weld.slug}/0/9@{now + 90}").wait_live()
        assert (client.values, client.gaps) == ([*values[10:], "later"], [])


def test_a_position_of_another_asset_does_not_hide_events_of_before_the_move(
    weld: Plant, paint: Plant, tmp_path: Path
) -> None:
    """A client hears of a move late: meanwhile its own events come elsewhere, and those of other assets here."""
    now = int(time.time() * 1000) - 60_000
    weld.kafka.produce(weld.topic, [("A", b"a1", now)])
    paint.kafka.produce(paint.topic, [("A", b"earlier", now - 10), ("A", b"a2", now + 10), ("A", b"a3", now + 5000)])
    with (
        group_service(tmp_path / "weld", **weld.settings(ping_seconds="1")) as old,
        group_service(tmp_path / "paint", **paint.settings()) as new,
    ):
        client = old.wait_ready().stream("A", f"@{now}").wait_live()
        weld.kafka.produce(weld.topic, [("B", b"b", now + 4000)])
        wait_for(lambda: client.last_id.startswith(f"{weld.slug}/0/1@"), "a ping with the position of the other asset")
        live = old.stream("A", client.last_id).wait_live()
        for given in (client.last_id, live.last_id):
            moved = new.wait_ready().stream("A", given).wait_live()
            assert (moved.values, moved.gaps) == (["a2", "a3"], [])

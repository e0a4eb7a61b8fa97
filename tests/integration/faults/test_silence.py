"""Events go on after every repair: on a server whose joins behave as real ones do, counted in the groups' topics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.control.controller import Controller
from reconciler.control.teardown import remove_records, teardown
from reconciler.domain.actions import Result
from reconciler.domain.names import SharedName
from tests.harness.fake_platform import FakePlatform
from tests.harness.serving import Plant, plant

EVENTS = "enriched_assets_stream"


@pytest.fixture
def made() -> Iterator[Plant]:
    """Two groups of one asset each, in place."""
    with plant(groups=2) as running:
        yield running


def shared(running: Plant) -> list[SharedName]:
    """Return the shared streams that there are, in order."""
    found = [name for one in sorted(running.ksqldb.streams) if (name := SharedName.parse(one)) is not None]
    return sorted(found, key=lambda name: (name.digest, name.generation))


def send(running: Plant, *values: str, asset: str = "a0") -> None:
    """Write events of an asset."""
    for value in values:
        running.ksqldb.sql(f"INSERT INTO {EVENTS} (asset_uuid, id, value) VALUES ('{asset}', 'i', '{value}');")


def arrived(running: Plant, topic: str = "asset_stream_g0") -> list[str]:
    """Return the values of all records in a group's topic."""
    return [str((record.value or {})["value"]) for record in running.ksqldb.server.catalog.topics[topic].records]


def terminate(running: Plant, stream: str) -> None:
    """End the query that writes a stream, as a person can."""
    queries = running.ksqldb.server.catalog.queries
    running.ksqldb.sql(f"TERMINATE {next(one for one, query in queries.items() if query.sink.name == stream)};")


def follow(running: Plant, operator: Controller, *, settle: bool = True) -> None:
    """Run cycles until there is one more shared stream, and then until the groups have moved to it."""
    before = shared(running)
    for _ in range(40):
        running.run(operator)
        if set(shared(running)) - set(before):
            break
    else:
        raise AssertionError("no other shared stream was made")
    if settle:
        running.settle(operator)


def tear_down(running: Plant) -> list[Result]:
    """Remove everything, topics of groups excepted, as the command does."""
    world = running.operator().deps
    results = list(teardown(world))
    remove_records(world.platform, streams_left=any(result.outcome != "ok" for result in results))
    return results


def test_after_a_teardown_the_next_installation_hears_everything(made: Plant) -> None:
    """The groups' topics are kept, the shared one has another name: nothing is lost, nothing comes twice."""
    send(made, "1", "2")
    (before,) = shared(made)
    assert {result.outcome for result in tear_down(made)} == {"ok"}
    assert shared(made) == []
    assert "asset_stream_g0" in made.ksqldb.topics
    assert before.text.lower() not in made.ksqldb.topics
    made.settle(made.operator())
    (after,) = shared(made)
    assert after.installation != before.installation
    send(made, "3", "4")
    assert arrived(made) == ["1", "2", "3", "4"]


def test_a_topic_that_an_earlier_version_left_is_never_taken_over(made: Plant) -> None:
    """Whatever topic is there under our next name, the stream gets a number that no topic has."""
    (before,) = shared(made)
    operator = made.operator()
    operator.observe()
    following = operator.deps.topology.after([before.text])
    made.ksqldb.sql(
        f"CREATE STREAM X (v VARCHAR) WITH (KAFKA_TOPIC='{following.shared_name.lower()}', VALUE_FORMAT='JSON', "
        "PARTITIONS=1);",
        "DROP STREAM X;",
    )
    terminate(made, before.text)
    follow(made, made.operator())
    (after,) = shared(made)
    assert after.generation == before.generation + 2
    send(made, "1")
    assert arrived(made) == ["1"]


def test_a_terminated_shared_query_is_followed_by_another_stream(made: Plant) -> None:
    """The groups move to it, and get all that came since it is there, also before they had moved; the old one goes."""
    operator = made.operator()
    send(made, "1")
    (before,) = shared(made)
    terminate(made, before.text)
    send(made, "lost")
    follow(made, operator, settle=False)
    send(made, "2", "3")
    made.settle(operator)
    send(made, "4")
    (after,) = shared(made)
    assert (after.digest, after.generation) == (before.digest, before.generation + 1)
    assert before.text.lower() not in made.ksqldb.topics
    assert arrived(made) == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("there", "back"),
    [
        ({"uns_fastapi_group_grouping_level": "area"}, {"uns_fastapi_group_grouping_level": "workcenter"}),
        ({"shared_retention": "2h"}, {"shared_retention": "1h"}),
    ],
)
def test_a_setting_that_goes_and_comes_back_loses_nothing(
    made: Plant, there: dict[str, object], back: dict[str, object]
) -> None:
    """Both times the shared stream is made beside the one before, with a topic of its own."""
    for asset in ("a0", "a1"):
        levels = {"workcenter": f"g{asset[1]}", "area": f"g{asset[1]}"}
        value = {"uns_id": asset, "uns_levels": levels}
        made.ksqldb.http.post(
            "/dev/produce", json={"topic": "asset_to_uns_map_topic", "key": asset, "value": value}
        ).raise_for_status()
    send(made, "1")
    for number, options in enumerate((there, back)):
        made.options.update(options)
        made.settle(made.operator())
        send(made, f"after {number}")
        assert len(shared(made)) == 1
    assert arrived(made) == ["1", "after 0", "after 1"]


def test_a_first_installation_replays_nothing() -> None:
    """The shared stream begins with the events of now, and with the whole map of before."""
    with plant() as running:
        running.platform.kept_records.clear()
        running.ksqldb.assign({"a0": "g0"})
        send(running, "old")
        running.settle(running.operator())
        send(running, "new")
        assert arrived(running) == ["new"]


def test_a_server_that_begins_early_says_so_before() -> None:
    """All events that are still held come; the plan has said which setting of the server makes it so."""
    with plant(offset_reset="earliest") as running:
        running.ksqldb.assign({"a0": "g0"})
        send(running, "old")
        operator = running.operator()
        seen, verdict = operator.observe()
        (note,) = operator.plan(seen, verdict).notes
        assert "ksql.streams.auto.offset.reset=earliest" in note
        running.settle(operator)
        assert arrived(running) == ["old"]
        seen, verdict = operator.observe()
        assert operator.plan(seen, verdict).notes == ()


def test_a_server_that_makes_every_join_deaf_is_refused() -> None:
    """No shared stream is made; the groups are degraded and name the setting; once it is gone, all goes on."""
    with plant(offset_reset="latest") as running:
        running.ksqldb.assign({"a0": "g0"})
        operator = running.operator()
        outcomes = running.run(operator, 3)
        plan = outcomes[-1].plan
        assert plan is not None
        assert [refusal.guard for refusal in plan.refusals] == ["offset"]
        assert "ksql.streams.auto.offset.reset=latest" in plan.refusals[0].text
        (item,) = (one for one in plan.items if one.group == "g0")
        assert item.condition == "Degraded"
        assert "ksql.streams.auto.offset.reset=latest" in item.detail
        assert shared(running) == []


def test_what_others_read_stays_and_the_groups_move_all_the_same(made: Plant) -> None:
    """A stream, a table and an insert of a person on the shared stream: they are named, and so is what they keep."""
    (before,) = shared(made)
    made.ksqldb.sql(
        f"CREATE STREAM ASSET_STREAM_ALARMS WITH (KAFKA_TOPIC='plant_alarms', VALUE_FORMAT='JSON') AS "
        f"SELECT ASSET_KEY, `id`, `value` FROM {before.text} WHERE `type` = 'Condition' EMIT CHANGES;",
        f"CREATE TABLE COUNTED AS SELECT UNS_GROUP, COUNT(*) AS N FROM {before.text} GROUP BY UNS_GROUP EMIT CHANGES;",
        f"CREATE STREAM MINE AS SELECT * FROM {before.text} EMIT CHANGES;",
        f"INSERT INTO MINE SELECT * FROM {before.text} EMIT CHANGES;",
    )
    made.options["delete_topics"] = True
    terminate(made, before.text)
    operator = made.operator()
    follow(made, operator)
    send(made, "1")
    assert arrived(made) == ["1"]
    assert [one.generation for one in shared(made)] == [before.generation, before.generation + 1]
    seen, verdict = operator.observe()
    (note,) = operator.plan(seen, verdict).notes
    assert all(name in note for name in ("ASSET_STREAM_ALARMS", "COUNTED", "MINE", "INSERTQUERY", before.text))
    results = {result.action.key: result for result in tear_down(made)}
    assert {"ASSET_STREAM_ALARMS", "MINE", before.text} <= made.ksqldb.streams
    assert "plant_alarms" in made.ksqldb.topics
    assert "read by" in str(results[f"stream {before.text}"].error)
    assert list(made.platform.kept_records) == ["installation"]


def test_another_installation_on_the_same_server_touches_nothing(made: Plant) -> None:
    """Same owner id, another Swarm: its groups are in conflict and say whose the streams are; its teardown is empty."""
    send(made, "1")
    (first,) = shared(made)
    other = Plant(made.ksqldb, FakePlatform(kept_records={}), {"shared_retention": "2h"})
    streams = made.ksqldb.streams
    operator = other.operator()
    outcomes = other.run(operator, 12)
    plan = outcomes[-1].plan
    assert plan is not None
    details = [item.detail for item in plan.items if item.group is not None]
    assert all(f"belongs to installation {first.installation}" in detail for detail in details)
    assert {"ASSET_STREAM_G0", "ASSET_STREAM_G1", first.text} <= made.ksqldb.streams
    made.settle(made.operator())
    assert {result.outcome for result in tear_down(other)} <= {"ok"}
    assert made.ksqldb.streams == streams
    send(made, "2")
    assert arrived(made) == ["1", "2"]

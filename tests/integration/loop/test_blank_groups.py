"""A value that is empty or blank is no group, for the operator, the streams and the proxy alike."""

from __future__ import annotations

import pytest

from openfactory_common.ksqldb.levels import JoinedLevels, group_sql
from openfactory_common.ksqldb.wire import Column
from reconciler.domain.names import SharedName, names_of
from tests.harness.serving import Plant, plant

BLANK = ["", " ", "   ", "\t", "\n \r\n"]
COLUMNS = (Column("ASSET_UUID", "STRING", key=True), Column("UNS_GROUP", "STRING"))


def groups(running: Plant, sql: str) -> dict[str, str | None]:
    """Return the group of each asset as this expression gives it."""
    return dict(running.client().pull(f"SELECT ASSET_UUID, {sql} AS UNS_GROUP FROM ASSET_TO_UNS_MAP;", COLUMNS))


def test_assets_with_a_blank_value_are_ungrouped() -> None:
    """They are counted as assets, nothing is made for them, and the plan has nothing to do ever after."""
    with plant() as running:
        running.ksqldb.assign({"w": "Weld", **{f"b{number}": value for number, value in enumerate(BLANK)}})
        operator = running.operator()
        running.settle(operator)
        outcomes = running.run(operator, 20)
        assert not any(outcome.results for outcome in outcomes)
        seen, _ = operator.observe()
        assert dict(seen.observed.membership.groups) == {"Weld": 1}
        assert seen.observed.membership.ungrouped == len(BLANK)
        assert set(running.platform.services) == {"ofa_group_weld", "ofa_state_api", "ofa_routing_layer"}
        assert seen.published is not None
        found = groups(running, group_sql(seen.published.document.membership.level))
        assert found == {"w": "Weld", **{f"b{number}": None for number in range(len(BLANK))}}


def test_an_asset_that_loses_its_value_leaves_its_group() -> None:
    """An empty value takes the last asset out of a group as a removal does."""
    with plant() as running:
        running.ksqldb.assign({"w": "Weld", "p": "Paint"})
        operator = running.operator()
        running.settle(operator)
        running.ksqldb.assign({"p": " "})
        running.run(operator, 2)
        running.settle(operator)
        assert set(running.platform.services) == {"ofa_group_weld", "ofa_state_api", "ofa_routing_layer"}


@pytest.mark.parametrize("value", BLANK)
def test_the_stream_of_a_blank_value_that_an_earlier_version_made_goes(value: str) -> None:
    """Once, by the way of every group without assets; it is not made again."""
    with plant() as running:
        running.ksqldb.assign({"w": "Weld", "b": value})
        operator = running.operator()
        running.settle(operator)
        (shared,) = (one for one in running.ksqldb.streams if SharedName.parse(one))
        running.client().execute(operator.deps.topology.create_group(names_of(value)))
        stale = names_of(value).stream
        outcomes = running.run(operator, 30)
        assert [result.action.key for outcome in outcomes for result in outcome.results] == [f"stream {stale}"]
        assert running.ksqldb.streams == {"ENRICHED_ASSETS_STREAM", "ASSET_STREAM_WELD", shared}


@pytest.mark.parametrize("value", BLANK)
def test_of_joined_levels_each_has_to_be_there(value: str) -> None:
    """A blank part is a missing one, also for the question before a removal."""
    level = JoinedLevels(("workcenter", "area"))
    with plant() as running:
        levels = {"a": {"workcenter": "A", "area": "B"}, "b": {"workcenter": "A", "area": value}}
        for asset, uns_levels in levels.items():
            body = {
                "topic": "asset_to_uns_map_topic",
                "key": asset,
                "value": {"uns_id": asset, "uns_levels": uns_levels},
            }
            running.ksqldb.http.post("/dev/produce", json=body).raise_for_status()
        assert groups(running, group_sql(level)) == {"a": "A-B", "b": None}
        client = running.client()
        asked = ("ASSET_TO_UNS_MAP", "ASSET_UUID", level)
        assert dict(client.members(*asked)) == {"a": "A-B", "b": None}
        assert dict(client.members_directly(*asked, 2)) == {"a": "A-B", "b": None}


def test_other_white_space_around_a_value_is_part_of_it() -> None:
    """Only a value with nothing else in it is blank."""
    with plant() as running:
        running.ksqldb.assign({"a": " Weld ", "b": "\N{NO-BREAK SPACE}"})
        assert groups(running, group_sql("workcenter")) == {"a": " Weld ", "b": "\N{NO-BREAK SPACE}"}

"""What DESCRIBE ... EXTENDED tells of a query's progress: the recorded form, and any other, which tells nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.ksqldb.entities import Consumed, Description
from reconciler.ksqldb.replies import parse_entities

PLAIN = {
    "name": "S",
    "topic": "s",
    "writeQueries": [],
    "readQueries": [],
    "sourceConstraints": [],
    "fields": [],
}
TOTAL = {"name": "total-messages", "host": "a:8088", "value": 5.0, "timestamp": 1}


def offsets(*pairs: tuple[Any, Any], topic: Any = "t") -> list[Any]:
    """Return the summaries of one query that reads one topic, with an end and a position for each partition."""
    partitions = [
        {"partition": at, "logEndOffset": end, "consumerOffset": read} for at, (end, read) in enumerate(pairs)
    ]
    return [{"groupId": "g", "topicSummaries": [{"kafkaTopic": topic, "offsets": partitions}]}]


@pytest.mark.parametrize(
    ("members", "consumed", "written"),
    [
        ({}, {}, None),
        ({"queryOffsetSummaries": [], "clusterStatistics": []}, {}, None),
        ({"queryOffsetSummaries": [{"groupId": "g", "topicSummaries": []}]}, {}, None),  # nothing committed (recorded)
        ({"queryOffsetSummaries": offsets((10, 4))}, {"t": Consumed(10, 4)}, None),
        ({"queryOffsetSummaries": offsets((10, 4), (7, 7))}, {"t": Consumed(17, 11)}, None),
        ({"clusterStatistics": [TOTAL, {**TOTAL, "host": "b", "value": 7}]}, {}, 12),
        ({"clusterStatistics": [{**TOTAL, "name": "messages-per-sec"}]}, {}, None),
        # Other forms.
        ({"queryOffsetSummaries": offsets((10, 4), (7, None))}, {}, None),
        ({"queryOffsetSummaries": offsets((10, "4"))}, {}, None),
        ({"queryOffsetSummaries": offsets((True, False))}, {}, None),
        ({"queryOffsetSummaries": offsets()}, {}, None),
        ({"queryOffsetSummaries": None, "clusterStatistics": None}, {}, None),
        ({"queryOffsetSummaries": "none", "clusterStatistics": {"a": 1}}, {}, None),
        ({"queryOffsetSummaries": [1, None, []], "clusterStatistics": [1, None, []]}, {}, None),
        ({"queryOffsetSummaries": [{"topicSummaries": [{"offsets": [3]}]}]}, {}, None),
        ({"clusterStatistics": [{**TOTAL, "value": "5"}]}, {}, None),
        ({"clusterStatistics": [{"name": "total-messages"}]}, {}, None),
    ],
)
def test_progress_is_what_was_told(members: dict[str, Any], consumed: dict[str, Consumed], written: int | None) -> None:
    """Never a failed read: a server that does not tell is no server that fails."""
    body = json.dumps([{"@type": "sourceDescription", "sourceDescription": {**PLAIN, **members}}])
    (entity,) = parse_entities(body.encode())
    found: Description = entity.value
    assert dict(found.consumed) == consumed
    assert found.written == written


KEY = {"name": "ASSET_UUID", "schema": {"type": "STRING", "fields": None, "memberSchema": None}, "type": "KEY"}
VALUE = {"name": "ID", "schema": {"type": "STRING", "fields": None, "memberSchema": None}}
FIELDS: list[tuple[Any, dict[str, str]]] = [
    ([KEY, VALUE], {"ASSET_UUID": "STRING"}),
    ([VALUE], {}),
    (None, {}),
    ([{**KEY, "schema": None}, 7], {"ASSET_UUID": "None"}),
]


@pytest.mark.parametrize(("fields", "keys"), FIELDS)
def test_key_columns_are_those_that_are_marked(fields: Any, keys: dict[str, str]) -> None:
    """Another form is no failed read: nothing but `doctor` needs them."""
    body = json.dumps([{"@type": "sourceDescription", "sourceDescription": {**PLAIN, "fields": fields}}])
    (entity,) = parse_entities(body.encode())
    assert dict(entity.value.keys) == keys

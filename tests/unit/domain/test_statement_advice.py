"""What helps against errors that no repetition cures: texts as a real server sends them."""

from __future__ import annotations

import pytest

from reconciler.ksqldb.advice import statement_advice

NAMES = {"KAFKA_BROKER": "kafka:9092", "KSQLDB_ASSETS_STREAM": "events", "join_table": "map"}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            "500: A Kafka topic with the name 'asset_stream_Weld' already exists, with different partition\n\t/",
            "`kafka-topics --bootstrap-server kafka:9092 --delete --topic asset_stream_Weld`",
        ),
        (
            "Could not determine output schema: Can't join `S` with `H` since the number of partitions\n\tdon't match.",
            "the topics of events (KSQLDB_ASSETS_STREAM) and of map",
        ),
        ("Failed to Describe Kafka Topic(s): [x_topic]", "the topic x_topic is gone"),
        ("Exception while preparing statement: EVENTS does not exist.", "events (KSQLDB_ASSETS_STREAM) or map"),
        ("Line: 1, Col: 9: Column 'S.TAG' cannot be resolved.", "lacks a column"),
        (
            "as it would cause the number of active, persistent queries to exceed the configured limit",
            "group by a coarser",
        ),
        ("The server has detected corruption in the command topic due to modifications", "restart the ksqlDB server"),
        ("User is not authorized", "KSQLDB_USERNAME"),
        ("stream X is read by THEIRS: drop those first", "drop what reads it"),
    ],
)
def test_what_a_person_has_to_do(error: str, expected: str) -> None:
    """Each text has its advice, with the names that are configured, whatever its line ends."""
    found = statement_advice(error, NAMES)
    assert found is not None
    assert expected in found


@pytest.mark.parametrize(
    "error",
    [
        "",
        "no answer",
        "Producer has been fenced by another producer",
        "503: not yet ready",
        "not final after 30 s",
        "{x}",
    ],
)
def test_what_time_cures_has_none(error: str) -> None:
    """Nothing is asked of a person where waiting helps."""
    assert statement_advice(error, NAMES) is None

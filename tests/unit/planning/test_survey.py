"""What an observation means: the state of streams, and who reads and writes them; a line a case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.domain.names import names_of
from reconciler.domain.observed import LiveQuery, SourceState
from reconciler.planning.survey import StreamVerdict
from tests.unit.planning.tables import document, live_registry, observed, seen, source, topology

WELD = names_of("Weld")
SHARED = topology().shared_name
MADE = topology().create_group(WELD).sql


def with_query(text: str, **more: object) -> SourceState:
    """Group Weld's stream, written by a query of this text."""
    read = source({"Weld": "ok"}, **more)
    return replace(read, queries={**read.queries, WELD.stream: LiveQuery("Q", text)})


OTHER_TOPIC = MADE.replace(WELD.topic, "asset_stream_weld")
CHECKS = [
    # stream's statement, partitions of (its topic, the shared one), verdict, detail, its retention is kept
    (MADE, {}, StreamVerdict.IN_SYNC, "", False),
    (OTHER_TOPIC, {}, StreamVerdict.FOREIGN, "is not a group stream as we make them", False),
    (MADE.replace(SHARED, "OFA_ASSETS_WITH_UNS_AAAAAAAA_0BADC0DE_1"), {}, StreamVerdict.FOREIGN, "", False),
    (MADE, {WELD.topic: 1, SHARED.lower(): 1}, StreamVerdict.IN_SYNC, "", False),
    (MADE, {WELD.topic: 4, SHARED.lower(): 1}, StreamVerdict.IN_SYNC, "has 4 of 1 partitions", False),
    (MADE, {WELD.topic: 4}, StreamVerdict.IN_SYNC, "", False),
    (MADE, {SHARED.lower(): 4}, StreamVerdict.IN_SYNC, "", False),
]


@pytest.mark.parametrize(("text", "partitions", "verdict", "detail", "retention"), CHECKS)
def test_the_state_of_a_groups_stream(
    text: str, partitions: dict[str, int], verdict: StreamVerdict, detail: str, retention: bool
) -> None:
    """By the statement of its query and by its topic."""
    check = seen(observed({"Weld": 1}, with_query(text, partitions=partitions))).streams["Weld"]
    assert check.verdict is verdict
    assert detail in check.detail
    assert (check.retention_ms is not None) is retention


@pytest.mark.parametrize(("word", "kept"), [("moved", True), ("topicless", True), ("twin", False), ("ok", False)])
def test_a_stream_that_is_created_again_over_its_topic_keeps_the_retention(word: str, kept: bool) -> None:
    """A topic that exists keeps what it was created with; that of a twin in another case is another topic."""
    check = seen(observed({"Weld": 1}, source({"Weld": word}))).streams["Weld"]
    assert (check.retention_ms == topology().group_retention_ms) is kept


@pytest.mark.parametrize("served", [False, True])
def test_a_topic_that_another_query_writes_is_not_ours(served: bool) -> None:
    """Unless the group is served: then its stream may have been dropped to be created again."""
    read = source({"Weld": "absent"})
    theirs = LiveQuery("Q", f"CREATE STREAM THEIRS WITH (KAFKA_TOPIC='{WELD.topic}') AS SELECT * FROM X EMIT CHANGES;")
    read = replace(read, queries={**read.queries, "THEIRS": theirs})
    made = live_registry(document(["Weld"] if served else []), 1)
    check = seen(observed({"Weld": 1}, read, [], [made])).streams["Weld"]
    assert check.verdict is (StreamVerdict.ABSENT if served else StreamVerdict.FOREIGN)
    assert ("is written by the query of THEIRS" in check.detail) is not served


@pytest.mark.parametrize(
    ("groups", "losers"),
    [
        (["Weld"], {}),
        (["Weld", "weld"], {"weld": "its names are held by group Weld"}),
        (["Weld", "\ud800"], {"\ud800": "its name is not valid text"}),
        (["\udfff x"], {"\udfff x": "its name is not valid text"}),
    ],
)
def test_groups_that_cannot_exist(groups: list[str], losers: dict[str, str]) -> None:
    """Names that differ in case only, and values that cannot be encoded."""
    survey = seen(observed(dict.fromkeys(groups, 1), source({})))
    assert survey.losers == losers
    assert survey.wanted.keys() == set(groups) - losers.keys()


READERS = [
    # statement, is it a reader, which of our streams it reads or writes
    (f"CREATE STREAM R AS SELECT * FROM {WELD.stream} EMIT CHANGES;", True, {WELD.stream}),
    (f"CREATE STREAM R AS SELECT * FROM {SHARED} EMIT CHANGES;", True, {SHARED}),
    ("CREATE STREAM R AS SELECT * FROM OTHER EMIT CHANGES;", False, set()),
]


@pytest.mark.parametrize(("text", "reads", "streams"), READERS)
def test_who_reads_our_streams(text: str, reads: bool, streams: set[str]) -> None:
    """A source that others made from one of ours; what it reads stays."""
    read = source({"Weld": "ok"})
    read = replace(read, queries={**read.queries, "R": LiveQuery("Q", text)})
    found = seen(observed({"Weld": 1}, read)).readers
    assert found == ({"R": frozenset(streams)} if reads else {})


def test_a_shared_stream_whose_statement_is_unknown_is_ours_by_its_name() -> None:
    """It lost its query: what others made from it is still named, so that it is not dropped under them."""
    theirs = LiveQuery("Q", f"CREATE STREAM R AS SELECT * FROM {SHARED} EMIT CHANGES;")
    read = source({"Weld": "ok"}, "silent")
    read = replace(read, queries={"R": theirs})
    assert seen(observed({"Weld": 1}, read)).readers == {"R": frozenset({SHARED})}

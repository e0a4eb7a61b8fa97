"""What the status page shows for which documents: the state in one word, the rows, the filter, the warnings."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from reconciler.domain.status import Condition
from reconciler.report.documents import (
    EventDocument,
    KsqldbDocument,
    ObjectDocument,
    OperatorDocument,
    RefusalDocument,
    StatusDocument,
)
from reconciler.settings import Settings
from reconciler.web.status_view import MOST_EVENTS, MOST_ROWS, Filter, View, make_view

EVERYTHING = Filter()
REFUSAL = RefusalDocument(guard="budget", text="3 of 5 groups are missing", stops=True)


def item(group: str, condition: Condition = Condition.READY) -> ObjectDocument:
    """Return a group with this condition."""
    return ObjectDocument(
        group=group,
        title=f"group {group}",
        condition=condition,
        change=None,
        detail=None,
        reason=None,
        members=2,
        stream=f"S_{group}",
        topic=None,
        service=f"svc_{group}",
        running=1,
        wanted=1,
        url=f"http://svc_{group}:8000/asset_stream",
    )


def status(*items: ObjectDocument, in_sync: bool = True, refusals: tuple[RefusalDocument, ...] = ()) -> StatusDocument:
    """Return the document of a full read."""
    return StatusDocument(
        in_sync=in_sync,
        counts={condition: sum(one.condition is condition for one in items) for condition in Condition},
        items=items,
        refusals=refusals,
        approval=None,
        notes=("paused until noon", "another note"),
        assets=2,
        ungrouped=0,
        registry=None,
        ksqldb=KsqldbDocument(version="7", unhealthy_reason=None, kafka="k", ksqldb="s"),
    )


def operator(result: str = "in_sync", paused: str | None = None) -> OperatorDocument:
    """Return the state of an operator after a cycle."""
    return OperatorDocument(
        version="1.2.3",
        last_result=result,
        last_sentence="it did something",
        last_cycle=datetime(2026, 1, 1, tzinfo=UTC),
        last_read=None,
        last_write=None,
        role="leader",
        paused=paused,
        backoff=(),
    )


def view(
    document: StatusDocument | None, state: OperatorDocument | None = None, filter_: Filter = EVERYTHING, **options: Any
) -> View:
    """Return what the page shows."""
    settings = Settings(_env_file=None, kafka_broker="k:9092", ksqldb_url="http://k:8088", **options)  # type: ignore[call-arg]
    return make_view(settings, state, document, None, filter_)


@pytest.mark.parametrize(
    ("document", "state", "word"),
    [
        (None, None, "Starting"),
        (None, operator("read_error"), "Read failed"),
        (status(item("a")), operator("bug"), "Read failed"),
        (status(item("a")), operator(), "In sync"),
        (status(item("a")), operator("standby"), "In sync"),
        (status(item("a"), in_sync=False), operator("standby"), "Standby"),
        (status(item("a"), in_sync=False), operator("progressing"), "Reconciling"),
        (status(item("a", Condition.DEGRADED), in_sync=False), operator(), "Needs attention"),
        (status(item("a", Condition.CONFLICT), in_sync=False), operator(), "Needs attention"),
        (status(item("a")), operator("paused", "paused until noon"), "Paused"),
        (status(item("a"), refusals=(REFUSAL,)), operator("refused", "paused until noon"), "Refused by a safety rule"),
    ],
)
def test_the_state_is_one_word(document: StatusDocument | None, state: OperatorDocument | None, word: str) -> None:
    """A failed read comes first, then a refusal, a pause, and what needs attention."""
    assert view(document, state).state.word == word


@pytest.mark.parametrize(
    ("filter_", "names", "caption"),
    [
        (Filter(), ["c", "b", "a"], "All 3"),
        (Filter("SVC_A"), ["a"], "1 of 3"),
        (Filter(condition=Condition.DEGRADED), ["b"], "1 of 3"),
        (Filter("a", Condition.DEGRADED), [], "0 of 3"),
    ],
)
def test_rows_match_the_filter(filter_: Filter, names: list[str], caption: str) -> None:
    """What needs attention comes first; a text is searched in names and details, whatever its case."""
    document = status(item("a"), item("b", Condition.DEGRADED), item("c", Condition.CONFLICT))
    shown = view(document, filter_=filter_)
    assert ([row.name for row in shown.rows], shown.caption) == (names, caption)


def test_only_the_first_rows_are_shown_unless_all_are_requested() -> None:
    """A page of thousands of groups stays small."""
    document = status(*(item(f"g{at}") for at in range(MOST_ROWS + 1)))
    assert (len(view(document).rows), view(document).matching) == (MOST_ROWS, MOST_ROWS + 1)
    assert view(document).caption == "200 of 201, what needs attention first"
    assert len(view(document, filter_=Filter(everything=True)).rows) == MOST_ROWS + 1


def test_a_conflict_has_no_members_and_every_row_an_address() -> None:
    """The members of a conflicting name belong to another group; the common end of all URLs is left out."""
    conflict, ready = view(status(item("a", Condition.CONFLICT), item("b"))).rows
    assert (conflict.members, ready.members, ready.served) == ("\N{EN DASH}", "2", "http://svc_b:8000")


@pytest.mark.parametrize(
    ("filter_", "href"),
    [
        (Filter(), "./"),
        (Filter("a b&"), "?q=a+b%26"),
        (Filter("a", Condition.READY), "?q=a"),
    ],
)
def test_a_link_keeps_the_search(filter_: Filter, href: str) -> None:
    """A link to another condition has the same text, encoded."""
    assert filter_.href() == href


def test_chips_count_conditions_and_mark_the_current_one() -> None:
    """A condition without objects has no chip, unless it is the requested one."""
    chips = view(status(item("a")), filter_=Filter(condition=Condition.HELD)).chips
    assert [(chip.sign.word, chip.count, chip.current) for chip in chips] == [
        ("All", 1, False),
        ("Held", 0, True),
        ("Ready", 1, False),
    ]


def test_warnings_name_the_cause_and_what_ends_it() -> None:
    """A failed read, a refusal, a note, a pause and a policy that corrects less; an old pause is not repeated."""
    document = status(item("a"), refusals=(REFUSAL,))
    shown = view(document, operator("read_error", "paused until noon"), reconcile_policy="create-only")
    assert [(one.title, one.text) for one in shown.warnings] == [
        (
            "The last read failed.",
            "it did something. The page shows the last full read. Nothing is written until a read succeeds.",
        ),
        (
            "Refused by the rule budget:",
            "3 of 5 groups are missing. Nothing is written until this is resolved.",
        ),
        ("Note:", "another note."),
        ("Writes are suspended:", "paused until noon. `reconciler resume` ends the pause."),
        ("RECONCILE_POLICY=create-only.", "Not every difference is corrected."),
    ]


def event(number: int, group: str | None = None, level: str = "info", **fields: str) -> EventDocument:
    """Return an entry of the history."""
    return EventDocument(
        id=number,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        level=level,
        event=f"event {number}",
        object=group and f"group {group}",
        group=group,
        reason="no image" if level == "warning" else None,
        fields=fields,
    )


SETTINGS = Settings(_env_file=None, kafka_broker="k:9092", ksqldb_url="http://k:8088")  # type: ignore[call-arg]
EVENTS = (
    event(1, "Weld", action="create_stream"),
    event(2, "Paint", "warning", drift="image"),
    event(3, level="error"),
)


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        (
            "",
            [
                ("bad", "event 3"),
                ("warn", "event 2: group Paint: no image; drift image"),
                ("plain", "event 1: create_stream group Weld"),
            ],
        ),
        ("weld", [("plain", "event 1: create_stream group Weld")]),
        ("NO IMAGE", [("warn", "event 2: group Paint: no image; drift image")]),
        ("elsewhere", []),
    ],
)
def test_the_history_is_shown_newest_first(query: str, shown: list[tuple[str, str]]) -> None:
    """Of a group, by the same filter as the rows."""
    view = make_view(SETTINGS, operator(), status(item("Weld")), None, Filter(query), EVENTS)
    assert [(one.sign.tone, one.text) for one in view.events] == shown


def test_a_long_history_is_cut() -> None:
    """The rest is in the document."""
    many = tuple(event(number) for number in range(1000))
    view = make_view(SETTINGS, operator(), status(), None, EVERYTHING, many)
    assert [one.text for one in view.events] == [f"event {number}" for number in range(999, 999 - MOST_EVENTS, -1)]

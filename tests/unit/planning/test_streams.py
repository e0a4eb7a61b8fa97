"""What is planned for the shared stream: where its query begins, and when it is dropped; a line a case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.domain.actions import CreateSharedStream, CreateStream, DropStream
from reconciler.domain.names import names_of
from reconciler.domain.observed import LiveQuery
from reconciler.domain.status import Guard
from reconciler.planning.guards import Verdict
from reconciler.planning.plan import make_plan
from reconciler.planning.streams import plan_shared_cleanup
from tests.unit.planning.tables import (
    observed,
    older_shared,
    plan_inputs,
    rows,
    seen,
    source,
    topology,
)

SHARED = topology().shared_name
#: Guards that believe that the shared stream's query is gone.
SURE = Verdict(silent=frozenset({SHARED}))
OFFSET = """
    # server's offset  shared  created  refused  noted
    -                  absent  yes      no       no
    latest             absent  no       yes      no
    latest             silent  no       yes      no
    latest             ok      no       no       no
    latest             paused  no       no       no
    earliest           absent  yes      no       yes
    earliest           silent  yes      no       yes
    earliest           ok      no       no       no
"""


@pytest.mark.parametrize(("offset", "shared", "created", "refused", "noted"), rows(OFFSET))
def test_a_servers_own_offset_is_refused_or_noted(
    offset: str, shared: str, created: str, refused: str, noted: str
) -> None:
    """Only before the shared stream is created: ``latest`` empties its join, ``earliest`` replays all events."""
    inputs = plan_inputs(offset_reset=offset)
    plan = make_plan(seen(observed({"Weld": 1}, source({"Weld": "ok"}, shared))), SURE, inputs)
    assert any(isinstance(action, CreateSharedStream) for action in plan.actions) == (created == "yes")
    assert (Guard.OFFSET in [refusal.guard for refusal in plan.refusals]) == (refused == "yes")
    assert any("earliest" in note for note in plan.notes) == (noted == "yes")


CLEANUP = """
    # shared    read by  planned  dropped
    ok          -        -        yes
    ok          group    -        no      # a group has not moved yet
    ok          other    -        no      # others read it
    ok          -        create   no      # a group that is still to come begins where it ended
    absent      -        -        no
    silent      -        -        no
    paused      -        -        no
"""


@pytest.mark.parametrize(("shared", "reader", "planned", "dropped"), rows(CLEANUP))
def test_when_an_earlier_shared_stream_is_dropped(shared: str, reader: str, planned: str, dropped: str) -> None:
    """Once the groups have left it and nothing reads it, never before its successor works."""
    old = replace(topology(), generation=2)
    read = source({"Weld": "moved" if reader == "group" else "ok"}, shared)
    name = older_shared() if reader == "group" else old.shared_name
    queries = {**read.queries, name: LiveQuery("Q", old.create_shared().sql.replace(old.shared_name, name))}
    if reader == "other":
        queries["THEIRS"] = LiveQuery("T", f"CREATE STREAM THEIRS AS SELECT * FROM {name} EMIT CHANGES;")
    stream = replace(read.streams.get(SHARED) or next(iter(read.streams.values())), name=name)
    read = replace(read, streams={**read.streams, name: stream}, queries=queries)
    survey = seen(observed({"Weld": 1}, read))
    check = survey.shared if shared == "ok" else seen(observed({}, source({}, shared))).shared
    actions = [CreateStream(names_of("Weld"))] if planned else []
    inputs = plan_inputs()
    found = plan_shared_cleanup(survey, inputs, check, actions)
    assert found == ([DropStream(name, None, delete_topic=True)] if dropped == "yes" else [])

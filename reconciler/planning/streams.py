"""Plan the streams. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from openfactory_common.text import list_some
from reconciler.domain.actions import (
    Action,
    AdoptStream,
    CreateSharedStream,
    CreateStream,
    DropStream,
    PauseStream,
    RecreateStream,
    ReplaceStream,
    ResumeStream,
)
from reconciler.domain.names import GroupNames, fold
from reconciler.domain.status import Condition, ObjectStatus
from reconciler.ksqldb.definition import sources_of
from reconciler.ksqldb.entities import OFFSET_RESET
from reconciler.ksqldb.ownership import Whose
from reconciler.planning.guards import Verdict
from reconciler.planning.inputs import (
    Adoption,
    PlanInputs,
    PlannedObject,
    add_failure,
    make_conflict,
    make_degraded,
    make_progressing,
)
from reconciler.planning.survey import StreamCheck, StreamVerdict, Survey

#: What can be repaired only when the shared stream is seen to exist.
_NEED_SHARED = (StreamVerdict.MOVED, StreamVerdict.SILENT, StreamVerdict.TOPICLESS)


def plan_stream(  # noqa: C901, PLR0912 - one case a verdict; what it depends on
    survey: Survey,
    verdict: Verdict,
    shared: StreamCheck,
    names: GroupNames,
    adoption: Adoption | None = None,
    *,
    paused: bool = False,
    behind: bool = False,
) -> PlannedObject:
    """Plan what the group's stream needs; one of a user is changed only as ``adoption`` says.

    Its query is to be ``paused`` while the group sleeps. One that is ``behind`` reads its source before it moves to
    another, as what it has not read yet would be lost.
    """
    check = survey.streams[names.group]
    if check.verdict is StreamVerdict.FOREIGN:
        return _plan_foreign(survey, check, shared, names, adoption)
    blocked = _find_shared_problem(shared)
    if blocked and check.verdict is not StreamVerdict.IN_SYNC:
        return PlannedObject(ObjectStatus("", Condition.DEGRADED, "!", blocked))
    if check.verdict in _NEED_SHARED and shared.verdict is not StreamVerdict.IN_SYNC:
        # A stream is dropped only when the source of its successor is seen to exist.
        return PlannedObject(make_progressing("~", f"waits for the shared stream: {check.detail}"))
    if check.verdict is StreamVerdict.SILENT and names.stream not in verdict.silent:
        return PlannedObject(ObjectStatus("", Condition.DEGRADED, "?", "its query is not listed; waiting to be sure"))
    action: Action
    match check.verdict:
        case StreamVerdict.ABSENT:
            change, text, action = "+", f"create stream {names.topic}", CreateStream(names)
        case StreamVerdict.MOVED if check.paused:
            action = ResumeStream(names.stream, check.query_id, names.group)
            change, text = "~", f"resume its paused query, then move stream: {check.detail}"
        case StreamVerdict.MOVED if behind:
            return PlannedObject(make_progressing("~", f"its query catches up, then it moves: {check.detail}"))
        case StreamVerdict.MOVED:
            action = RecreateStream(names, check.detail, check.retention_ms)
            change, text = "~", f"move stream: {check.detail}"
        case StreamVerdict.TOPICLESS:
            why = f"{check.detail}, and what its paused query has not read is lost" if check.paused else check.detail
            action = RecreateStream(names, why, check.retention_ms, topic_gone=True)
            change, text = "!", f"recreate stream: {why}"
        case StreamVerdict.PAUSED if paused:
            return PlannedObject(ObjectStatus("", Condition.READY))
        case StreamVerdict.IN_SYNC if paused and not check.detail and not blocked:
            action = PauseStream(names.stream, check.query_id, names.group)
            change, text = "~", "pause its query"
        case StreamVerdict.PAUSED:
            action = ResumeStream(names.stream, check.query_id, names.group)
            change, text = "!", "resume its paused query"
        case StreamVerdict.SILENT:
            change, text, action = "!", f"replace stream: {check.detail}", ReplaceStream(names, check.detail)
        case _:
            problem = check.detail or blocked
            ready = ObjectStatus("", Condition.READY)
            return PlannedObject(make_degraded(ready, problem) if problem else ready)
    return PlannedObject(make_progressing(change, text), (action,))


def _plan_foreign(
    survey: Survey, check: StreamCheck, shared: StreamCheck, names: GroupNames, adoption: Adoption | None
) -> PlannedObject:
    """Leave a stream of others alone, unless a person was shown exactly this one of a user and wants ours instead."""
    found = survey.observed.source.identify(names.stream)
    shown = (adoption.group, adoption.stream) if adoption is not None else None
    allowed = check.of_user and shared.verdict is StreamVerdict.IN_SYNC
    if not found or not allowed or shown != (names.group, found):
        return make_conflict(names.group, f"{check.detail}, not touched")
    return PlannedObject(make_progressing("~", "adopt stream"), (AdoptStream(names, found),))


def _find_shared_problem(shared: StreamCheck) -> str:
    failed = shared.verdict is StreamVerdict.IN_SYNC and shared.detail
    if failed or shared.verdict in (StreamVerdict.REFUSED, StreamVerdict.SILENT):
        return f"the shared stream: {shared.detail}"
    return ""


def plan_shared_stream(shared: StreamCheck, survey: Survey, verdict: Verdict, inputs: PlanInputs) -> PlannedObject:
    """Plan what the shared stream needs before any group's stream does; its failure is every group's.

    One that lost its query is not created again but followed by another: a join over a topic that exists would need an
    explicit offset (see `Topology.after`). The groups then move over, and nothing is dropped before they have.
    """
    topology, source = inputs.topology, survey.observed.source
    item = ObjectStatus(f"stream {topology.shared_name}", Condition.READY)
    problem = _find_shared_problem(shared).removeprefix("the shared stream: ") or inputs.silent.get("", "")
    action: Action
    if shared.verdict is StreamVerdict.ABSENT or (
        shared.verdict is StreamVerdict.SILENT and topology.shared_name in verdict.silent
    ):
        action = CreateSharedStream(topology.after([*source.streams, *(source.topics or ())]).shared_name)
    elif shared.verdict is StreamVerdict.PAUSED:
        action = ResumeStream(topology.shared_name, shared.query_id, None)
    else:
        return PlannedObject(make_degraded(item, problem) if problem else item)
    item = replace(make_progressing("+", action.verb.replace("_", " ")), title=action.key)
    return PlannedObject(add_failure(item, (action,), inputs), (action,))


def add_shared_problem(item: ObjectStatus, shared: ObjectStatus) -> ObjectStatus:
    """Say of a group whose stream is not ready yet why the shared stream is not."""
    if shared.condition is not Condition.DEGRADED:
        return item
    return make_degraded(item, f"waits for the shared stream: {shared.detail}", shared.reason)


def check_offset(shared: StreamCheck, inputs: PlanInputs) -> StreamCheck:
    """Refuse to create a shared stream on a server whose own offset would make every join drop all events."""
    if inputs.offset_reset != "latest" or shared.verdict not in (StreamVerdict.ABSENT, StreamVerdict.SILENT):
        return shared
    text = (
        f"ksqlDB's own {OFFSET_RESET}=latest empties the table side of every join, so the shared stream would drop "
        "every event: remove it from the server's settings (events begin now with the default too)"
    )
    return StreamCheck(StreamVerdict.REFUSED, text)


def note_offset(actions: Iterable[Action], inputs: PlanInputs) -> tuple[str, ...]:
    """Say before it is created that the shared stream will begin with old events."""
    if inputs.offset_reset != "earliest" or not any(isinstance(action, CreateSharedStream) for action in actions):
        return ()
    text = (
        f"ksqlDB's own {OFFSET_RESET}=earliest: the new shared stream replays all events that "
        f"{inputs.topology.assets_stream} still holds; remove it from the server's settings to begin now"
    )
    return (text,)


def plan_shared_cleanup(
    survey: Survey, inputs: PlanInputs, shared: StreamCheck, planned: Iterable[Action]
) -> list[Action]:
    """Drop the shared streams that the groups have left and nothing reads any more, with their topics.

    These topics contain only our data, which has been written to the groups' topics.
    """
    source, topology = survey.observed.source, inputs.topology
    if shared.verdict is not StreamVerdict.IN_SYNC or any(
        isinstance(a, (CreateStream, RecreateStream)) for a in planned
    ):
        return []  # a group that is still to move may read it
    read = {one for text in source.statements.values() for one in sources_of(text)}
    kept = {one for ours in survey.readers.values() for one in ours}
    return [
        DropStream(name, None, delete_topic=True)
        for name, text in sorted(source.statements.items())
        if topology.ownership(name, text).whose is Whose.SHARED
        and name in source.streams
        and name != topology.shared_name
        and name not in read | kept
    ]


def note_readers(survey: Survey) -> tuple[str, ...]:
    """Name what others built on our streams: none of it is ever changed, and what it reads stays."""
    readers = sorted(survey.readers)
    if not readers:
        return ()
    streams = sorted({one for ours in survey.readers.values() for one in ours})
    built = f"built by others on {list_some(streams)}: {list_some(readers)}"
    return (f"{built}; none of it is changed, and what it reads stays",)


def note_left_tables(survey: Survey, inputs: PlanInputs) -> tuple[str, ...]:
    """Name the tables of counts that an earlier version created: nothing reads them; only a person drops them."""
    named = re.compile(f"{fold(inputs.topology.owner)}_GROUPS_[0-9A-F]{{8}}")
    return tuple(
        f"table {name} is left from an earlier version and is not read; when no operator of that version runs, "
        f"drop it in ksqlDB: DROP TABLE `{name}` DELETE TOPIC;"
        for name, query in sorted(survey.observed.source.queries.items())
        if named.fullmatch(name) and "COUNT(*)" in query.text
    )

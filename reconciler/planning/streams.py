"""What streams need. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from reconciler.domain.actions import (
    Action,
    CreateSharedStream,
    CreateStream,
    DropStream,
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
from reconciler.planning.inputs import PlanInputs, PlannedObject, conflict, failing, progressing
from reconciler.planning.survey import StreamCheck, StreamVerdict, Survey

#: Streams that a note names before it says how many more there are.
_NAMED = 5
#: What can be put right only when the shared stream is seen to be there.
_NEED_SHARED = (StreamVerdict.MOVED, StreamVerdict.SILENT, StreamVerdict.TOPICLESS)


def stream_step(survey: Survey, verdict: Verdict, shared: StreamCheck, names: GroupNames) -> PlannedObject:
    """What the group's stream needs."""
    check = survey.streams[names.group]
    if check.verdict is StreamVerdict.FOREIGN:
        return conflict(names.group, f"{check.detail}, not touched")
    blocked = _shared_trouble(shared)
    if blocked and check.verdict is not StreamVerdict.IN_SYNC:
        return PlannedObject(ObjectStatus("", Condition.DEGRADED, "!", blocked))
    if check.verdict in _NEED_SHARED and shared.verdict is not StreamVerdict.IN_SYNC:
        # A stream is dropped only when what it is to be made from anew is seen to be there.
        return PlannedObject(progressing("~", f"waits for the shared stream: {check.detail}"))
    if check.verdict is StreamVerdict.SILENT and names.stream not in verdict.silent:
        return PlannedObject(ObjectStatus("", Condition.DEGRADED, "?", "its query is not listed; waiting to be sure"))
    repair = _stream_repair(check, names)
    if repair is not None:
        return repair
    if check.detail or blocked:
        return PlannedObject(ObjectStatus("", Condition.DEGRADED, "!", check.detail or blocked))
    return PlannedObject(ObjectStatus("", Condition.READY))


def _stream_repair(check: StreamCheck, names: GroupNames) -> PlannedObject | None:
    """What puts a stream in order; None where it is in order already."""
    match check.verdict:
        case StreamVerdict.ABSENT:
            return PlannedObject(
                progressing("+", f"create stream {names.topic}"), (CreateStream(names, check.starved),)
            )
        case StreamVerdict.MOVED:
            move = RecreateStream(names, check.detail, check.retention_ms, starved=check.starved)
            return PlannedObject(progressing("~", f"move stream: {check.detail}"), (move,))
        case StreamVerdict.TOPICLESS:
            again = RecreateStream(names, check.detail, check.retention_ms, topic_gone=True)
            return PlannedObject(progressing("!", f"make stream anew: {check.detail}"), (again,))
        case StreamVerdict.PAUSED:
            resume = ResumeStream(names.stream, check.query_id, names.group)
            return PlannedObject(progressing("!", "resume its paused query"), (resume,))
        case StreamVerdict.SILENT:
            silent = ReplaceStream(names, check.detail)
            return PlannedObject(progressing("!", f"replace stream: {check.detail}"), (silent,))
    return None


def _shared_trouble(shared: StreamCheck) -> str:
    failed = shared.verdict is StreamVerdict.IN_SYNC and shared.detail
    if failed or shared.verdict in (StreamVerdict.REFUSED, StreamVerdict.SILENT):
        return f"the shared stream: {shared.detail}"
    return ""


def shared_step(shared: StreamCheck, actions: Sequence[Action], inputs: PlanInputs) -> PlannedObject:
    """How the shared stream fares, with what it needs: a failure of it is every group's, and has a line of its own."""
    title = f"stream {inputs.topology.shared_name}"
    trouble = _shared_trouble(shared) or inputs.silent.get("", "")
    item = ObjectStatus(title, Condition.READY)
    if actions:
        item = replace(progressing("+", actions[0].verb.replace("_", " ")), title=actions[0].key)
    elif trouble:
        item = ObjectStatus(title, Condition.DEGRADED, "!", trouble.removeprefix("the shared stream: "))
    return PlannedObject(failing(item, actions, inputs), tuple(actions))


def waiting_for(item: ObjectStatus, shared: ObjectStatus) -> ObjectStatus:
    """Say of a group whose stream is not in order yet why the shared stream is not."""
    if shared.condition is not Condition.DEGRADED:
        return item
    detail = f"waits for the shared stream: {shared.detail}"
    return replace(item, condition=Condition.DEGRADED, change="!", detail=detail, reason=shared.reason)


def shared_actions(verdict: Verdict, shared: StreamCheck, survey: Survey, inputs: PlanInputs) -> list[Action]:
    """What the shared stream needs before any group's stream does.

    One that lost its query is not made anew but followed by another: a join over a topic that exists would need an
    explicit offset (see `Topology.after`). The groups then move over, and nothing is dropped before they have.
    """
    topology, source = inputs.topology, survey.observed.source
    if shared.verdict is StreamVerdict.ABSENT or (
        shared.verdict is StreamVerdict.SILENT and topology.shared_name in verdict.silent
    ):
        return [CreateSharedStream(topology.after([*source.streams, *(source.topics or ())]).shared_name)]
    if shared.verdict is StreamVerdict.PAUSED:
        return [ResumeStream(topology.shared_name, shared.query_id, None)]
    return []


def check_offset(shared: StreamCheck, inputs: PlanInputs) -> StreamCheck:
    """Refuse to make a shared stream on a server whose own offset would make every join deaf."""
    if inputs.offset_reset != "latest" or shared.verdict not in (StreamVerdict.ABSENT, StreamVerdict.SILENT):
        return shared
    text = (
        f"ksqlDB's own {OFFSET_RESET}=latest empties the table side of every join, so the shared stream would drop "
        "every event: take it out of the server's settings (its default begins the events now all the same)"
    )
    return StreamCheck(StreamVerdict.REFUSED, text)


def note_offset(actions: Iterable[Action], inputs: PlanInputs) -> tuple[str, ...]:
    """Say before it is made that the shared stream will begin with old events."""
    if inputs.offset_reset != "earliest" or not any(isinstance(action, CreateSharedStream) for action in actions):
        return ()
    text = (
        f"ksqlDB's own {OFFSET_RESET}=earliest: the new shared stream replays all events that "
        f"{inputs.topology.assets_stream} still holds; take it out of the server's settings to begin now"
    )
    return (text,)


def old_shared(survey: Survey, inputs: PlanInputs, shared: StreamCheck, planned: Iterable[Action]) -> list[Action]:
    """Drop the shared streams that the groups have left and nothing reads any more, with their topics.

    What is in those topics is ours alone, and has been written to the groups' topics.
    """
    source, topology = survey.observed.source, inputs.topology
    if shared.verdict is not StreamVerdict.IN_SYNC or any(
        isinstance(a, (CreateStream, RecreateStream)) for a in planned
    ):
        return []  # while it is there, a group that is still to come knows where to begin
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


def kept_for_readers(survey: Survey) -> tuple[str, ...]:
    """Name what others built on our streams: none of it is ever changed, and what it reads stays."""
    readers = sorted(survey.readers)
    if not readers:
        return ()
    streams = sorted({one for ours in survey.readers.values() for one in ours})
    built = f"built by others on {_listed(streams)}: {_listed(readers)}"
    return (f"{built}; none of it is changed, and what it reads stays",)


def left_tables(survey: Survey, inputs: PlanInputs) -> tuple[str, ...]:
    """Name the tables of counts that an earlier version made: nothing reads them, and only a person drops them."""
    named = re.compile(f"{fold(inputs.topology.owner)}_GROUPS_[0-9A-F]{{8}}")
    return tuple(
        f"table {name} is left from an earlier version and is not read; when no operator of that version runs, "
        f"drop it in ksqlDB: DROP TABLE `{name}` DELETE TOPIC;"
        for name, query in sorted(survey.observed.source.queries.items())
        if named.fullmatch(name) and "COUNT(*)" in query.text
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more

"""What streams need. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reconciler.guards import Verdict
from reconciler.model import (
    Action,
    Condition,
    CreateSharedStream,
    CreateStream,
    DropStream,
    Item,
    RebuildSharedStream,
    RecreateStream,
    ReplaceStream,
    ResumeStream,
    StreamAction,
)
from reconciler.names import GroupNames
from reconciler.steps import Facts, Step, busy, conflict, failing
from reconciler.survey import StreamCheck, StreamVerdict, Survey

#: What can be put right only when the shared stream is seen to be there.
_NEED_SHARED = (StreamVerdict.MOVED, StreamVerdict.SILENT, StreamVerdict.TOPICLESS)


def stream_step(survey: Survey, verdict: Verdict, shared: StreamCheck, names: GroupNames) -> Step:
    """What the group's stream needs."""
    check = survey.streams[names.group]
    if check.verdict is StreamVerdict.FOREIGN:
        return conflict(names.group, f"{check.detail}, not touched")
    blocked = _shared_trouble(shared)
    if blocked and check.verdict is not StreamVerdict.IN_SYNC:
        return Step(Item("", Condition.DEGRADED, "!", blocked))
    if check.verdict in _NEED_SHARED and shared.verdict is not StreamVerdict.IN_SYNC:
        # A stream is dropped only when what it is to be made from anew is seen to be there.
        return Step(busy("~", f"waits for the shared stream: {check.detail}"))
    if check.verdict is StreamVerdict.SILENT and names.stream not in verdict.silent:
        return Step(Item("", Condition.DEGRADED, "?", "its query is not listed; waiting to be sure"))
    repair = _stream_repair(check, names)
    if repair is not None:
        return repair
    if check.detail or blocked:
        return Step(Item("", Condition.DEGRADED, "!", check.detail or blocked))
    return Step(Item("", Condition.READY))


def _stream_repair(check: StreamCheck, names: GroupNames) -> Step | None:
    """What puts a stream in order; None where it is in order already."""
    match check.verdict:
        case StreamVerdict.ABSENT:
            return Step(busy("+", f"create stream {names.topic}"), (CreateStream(names),))
        case StreamVerdict.CHANGED:
            replacement = ReplaceStream(names, check.detail, retention_ms=check.retention_ms)
            return Step(busy("~", f"replace stream: {check.detail}"), (replacement,))
        case StreamVerdict.MOVED:
            move = RecreateStream(names, check.detail, check.retention_ms)
            return Step(busy("~", f"move stream: {check.detail}"), (move,))
        case StreamVerdict.TOPICLESS:
            again = RecreateStream(names, check.detail, check.retention_ms, topic_gone=True)
            return Step(busy("!", f"make stream anew: {check.detail}"), (again,))
        case StreamVerdict.PAUSED:
            resume = ResumeStream(names.stream, check.query_id, names.group)
            return Step(busy("!", "resume its paused query"), (resume,))
        case StreamVerdict.SILENT:
            silent = ReplaceStream(names, check.detail, prove=True)
            return Step(busy("!", f"replace stream: {check.detail}"), (silent,))
    return None


def _shared_trouble(shared: StreamCheck) -> str:
    failed = shared.verdict is StreamVerdict.IN_SYNC and shared.detail
    if failed or shared.verdict in (StreamVerdict.FOREIGN, StreamVerdict.SILENT):
        return f"the shared stream: {shared.detail}"
    return ""


def shared_step(shared: StreamCheck, actions: Sequence[Action], facts: Facts) -> Step:
    """How the shared stream fares, with what it needs: a failure of it is every group's, and has a line of its own."""
    title = f"stream {facts.topology.shared_name}"
    trouble = _shared_trouble(shared) or facts.silent.get("", "")
    item = Item(title, Condition.READY)
    if actions:
        item = replace(busy("+", actions[0].verb.replace("_", " ")), title=title)
    elif trouble:
        item = Item(title, Condition.DEGRADED, "!", trouble.removeprefix("the shared stream: "))
    return Step(failing(item, actions, facts), tuple(actions))


def waits(step: Step, shared: Step) -> Step:
    """Say of a group whose stream waits for the shared one why that is not made."""
    if shared.item.condition is not Condition.DEGRADED or not any(
        isinstance(one, StreamAction) for one in step.actions
    ):
        return step
    detail = f"waits for the shared stream: {shared.item.detail}"
    return replace(step, item=replace(step.item, condition=Condition.DEGRADED, mark="!", detail=detail))


def shared_actions(verdict: Verdict, shared: StreamCheck, facts: Facts) -> list[Action]:
    """What the shared stream needs before any group's stream does."""
    name = facts.topology.shared_name
    if shared.verdict is StreamVerdict.SILENT and name in verdict.silent:
        return [RebuildSharedStream(name)]
    if shared.verdict is StreamVerdict.ABSENT:
        return [CreateSharedStream(facts.topology.shared_name)]
    if shared.verdict is StreamVerdict.PAUSED:
        return [ResumeStream(facts.topology.shared_name, shared.query_id, None)]
    return []


def old_shared(survey: Survey, facts: Facts, shared: StreamCheck) -> list[Action]:
    """Drop the shared streams of earlier definitions that nothing reads any more; their topics run dry."""
    source, topology = survey.observed.source, facts.topology
    if shared.verdict is not StreamVerdict.IN_SYNC:
        return []
    made = {**source.strays, **{name: query.text for name, query in source.queries.items()}}
    definitions = (topology.definition_of(text) for text in made.values())
    read = {definition.source for definition in definitions if definition is not None}
    return [
        DropStream(name, None)
        for name, text in sorted(made.items())
        if topology.makes_shared(name, text)
        and name in source.streams
        and name != topology.shared_name
        and name not in read
    ]

"""Everything that is known about one group, from its members to the last error, and what a person can do. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ConfigDict, Field

from openfactory_common.text import printable, told_apart
from reconciler.control.backoff import Backoff
from reconciler.domain.actions import Action, UpdateService
from reconciler.domain.observed import SourceState
from reconciler.domain.services import LiveService
from reconciler.domain.status import Condition, Guard, ObjectStatus, Plan
from reconciler.ksqldb.advice import statement_advice
from reconciler.planning.guards import Absence, GuardMemory
from reconciler.planning.survey import StreamVerdict, Survey
from reconciler.platforms.advice import advice
from reconciler.report.documents import Document
from reconciler.report.text import spoken
from reconciler.settings import Policy, Settings


@dataclass(frozen=True)
class WhyContext:
    """What there is to answer from.

    Attributes:
        settings: of the operator.
        survey: of the last full read.
        plan: made from it.
        read_at: when it ended.
        memory: the guards' counters.
        backoff: what waits after a failed write.
        now: monotonic seconds of the same clock as the counters.
        last: what the last cycle said, ``""`` where there was none.
        role: ``leader`` or ``standby``; None where no lease decides.
        paused: the pause that holds writes back, ``""`` without.
    """

    settings: Settings
    survey: Survey
    plan: Plan
    read_at: datetime
    memory: GuardMemory
    backoff: Backoff
    now: float
    last: str = ""
    role: str | None = None
    paused: str = ""


class _Part(Document):
    model_config = ConfigDict(extra="ignore")


class ReadPart(_Part):
    """The last full read of both sides."""

    at: datetime
    assets: int
    groups: int
    kafka: str
    ksqldb: str
    unhealthy_reason: str | None = Field(description="Why ksqlDB is not trusted now; null when it is well.")
    last_cycle: str | None = Field(description="What the operator's last cycle said; null where none runs.")


class StreamPart(_Part):
    """The group's stream: as it should be called, whether it is there, and how its definition compares."""

    name: str | None
    topic: str | None
    exists: bool
    state: str | None = Field(description="`in sync`, `absent`, `moved`, `silent`, ...; null for a group to remove.")
    detail: str | None


class ServicePart(_Part):
    """The group's service."""

    name: str | None
    exists: bool
    ours: bool
    running: int
    wanted: int
    update: str | None = Field(description="State of a rolling update, in the engine's words.")
    error: str | None = Field(description="Why its tasks do not run, in the engine's words.")
    drift: tuple[str, ...] = Field(description='Fields that differ: `env LOG_LEVEL: "debug" -> "info"`.')


class MissingPart(_Part):
    """How far the count is that must be full before the group may be removed."""

    reads: int
    reads_needed: int
    seconds: float
    seconds_needed: float
    out_of_registry_seconds: float | None


class BackoffPart(_Part):
    """An object whose write failed."""

    object: str
    failures: int
    retry_in_seconds: float
    error: str


class WhyDocument(_Part):
    """The answer: `reconciler why GROUP -o json`, and the operator's `GET /groups/GROUP`."""

    schema_version: int = 2
    owner: str
    group: str
    condition: Condition
    plan: str | None = Field(description="What the plan does about it, or why it does nothing.")
    desired: bool = Field(description="The UNS map names it.")
    members: int
    url: str | None = Field(description="Where the registry says it is served.")
    read: ReadPart
    stream: StreamPart
    service: ServicePart
    writes: tuple[str, ...] = Field(description="Writes that the plan has for it, in order.")
    missing: MissingPart | None
    guards: tuple[str, ...] = Field(description="What safety rules say no to now; they concern every group.")
    backoff: tuple[BackoffPart, ...]
    role: str | None
    paused: str | None
    next: tuple[str, ...] = Field(description="What a person can do, or what will happen by itself.")
    source: str = Field(description="Whose look this is.")


def known_groups(survey: Survey) -> frozenset[str]:
    """Return every group that is wanted, cannot be, or is still there."""
    return frozenset(survey.wanted.keys() | survey.losers.keys() | survey.owned.keys())


def similar(group: str, survey: Survey) -> tuple[str, ...]:
    """Return names of groups that may have been meant, the likeliest first."""
    names = sorted(known_groups(survey))
    by_case: dict[str, list[str]] = {}
    for name in names:
        by_case.setdefault(name.casefold(), []).append(name)
    close = difflib.get_close_matches(group.casefold(), by_case, n=5, cutoff=0.5)
    return tuple(name for match in close for name in by_case[match])[:5]


def why(group: str, known: WhyContext, source: str) -> WhyDocument | None:
    """Say everything about a group; None where there is no such group."""
    item = next((one for one in known.plan.items if one.group == group), None)
    if item is None:
        return None
    actions = [action for action in known.plan.actions if action.group == group]
    live, missing = _live(item, known), _missing(group, known)
    return WhyDocument(
        owner=known.settings.reconciler_owner,
        group=group,
        condition=item.condition,
        plan=_planned(item, missing) or None,
        desired=group in known.survey.observed.membership.groups,
        members=known.survey.observed.membership.groups.get(group, 0),
        url=item.url,
        read=_read(known),
        stream=_stream(group, item, known.survey),
        service=_service(item, live, actions, known.settings),
        writes=tuple(f"{action.verb} {action.key}" for action in actions),
        missing=missing,
        guards=tuple(f"{refusal.guard}: {refusal.text}" for refusal in known.plan.refusals),
        backoff=tuple(_backoff(group, item, live, known)),
        role=known.role,
        paused=known.paused or None,
        next=tuple(_next(group, item, live, actions, known)),
        source=source,
    )


def _live(item: ObjectStatus, known: WhyContext) -> LiveService | None:
    services = known.survey.observed.platform.services
    if item.names is not None:
        return services.get(item.names.service.lower())
    owned = known.survey.owned.get(item.group or "")
    return owned.service if owned else None


def _read(known: WhyContext) -> ReadPart:
    membership, source = known.survey.observed.membership, known.survey.observed.source
    return ReadPart(
        at=known.read_at.astimezone(UTC),
        assets=membership.assets,
        groups=len(membership.groups),
        kafka=known.survey.identity.kafka,
        ksqldb=known.survey.identity.ksqldb,
        unhealthy_reason=source.unhealthy or None,
        last_cycle=known.last or None,
    )


def _stream(group: str, item: ObjectStatus, survey: Survey) -> StreamPart:
    owned, check = survey.owned.get(group), survey.streams.get(group)
    name = item.names.stream if item.names else owned.stream if owned else None
    there = survey.observed.source.streams.get(name or "")
    return StreamPart(
        name=name,
        topic=there.topic if there else item.names.topic if item.names else None,
        exists=there is not None,
        state=check.verdict.value if check else None,
        detail=(check.detail or None) if check else None,
    )


def _service(item: ObjectStatus, live: LiveService | None, actions: list[Action], settings: Settings) -> ServicePart:
    updates = [action for action in actions if isinstance(action, UpdateService)]
    return ServicePart(
        name=live.name if live else item.names.service if item.names else None,
        exists=live is not None,
        ours=live is not None and live.owner == settings.reconciler_owner,
        running=live.running if live else 0,
        wanted=item.wanted or (live.spec.replicas if live and live.spec else 0),
        update=(live.update_state or None) if live else None,
        error=(live.error or None) if live else None,
        drift=tuple(f"{one.field}: {one.live} -> {one.wanted}" for action in updates for one in action.drift),
    )


def _planned(item: ObjectStatus, missing: MissingPart | None) -> str:
    """Return what the plan says; a count in it is the one of now, for it has gone on since the plan was made."""
    count, comma, rest = item.detail.partition("; ")
    if missing is None or not count.startswith("missing "):
        return item.detail
    return f"missing {_counted(missing)}{comma}{rest}"


def _missing(group: str, known: WhyContext) -> MissingPart | None:
    if group not in known.survey.missing:
        return None
    seen = known.memory.missing.get(group, Absence(0, known.now))
    out = known.memory.unregistered.get(group)
    return MissingPart(
        reads=seen.reads,
        reads_needed=known.settings.prune_reads,
        seconds=round(known.now - seen.since, 1),
        seconds_needed=known.settings.prune_grace,
        out_of_registry_seconds=None if out is None else round(known.now - out, 1),
    )


def _backoff(group: str, item: ObjectStatus, live: LiveService | None, known: WhyContext) -> Iterator[BackoffPart]:
    owned = known.survey.owned.get(group)
    stream = item.names.stream if item.names else owned.stream if owned else None
    service = item.names.service if item.names else live.name if live else None
    shared = (action.key for action in known.plan.actions if action.group is None)
    for key in dict.fromkeys((f"stream {stream}", f"service {service}", *shared)):
        failure = known.backoff.failures.get(key)
        if failure is not None:
            left = round(max(0.0, failure.until - known.now), 1)
            yield BackoffPart(object=key, failures=failure.times, retry_in_seconds=left, error=failure.text)


def _next(
    group: str, item: ObjectStatus, live: LiveService | None, actions: list[Action], known: WhyContext
) -> Iterator[str]:
    """Say what helps, the most urgent first."""
    plan = known.plan
    if known.paused:
        yield "everything is paused: `reconciler resume` goes on"
    if any(refusal.stops for refusal in plan.refusals):
        rules = ", ".join(refusal.guard for refusal in plan.refusals if refusal.stops)
        yield f"nothing at all is written until this is resolved: {rules}"
    if item.condition is Condition.CONFLICT:
        yield from _next_conflict(live, known)
    if group in known.survey.missing:
        yield from _next_missing(known)
    if live is not None and (live.error or live.since is not None):
        yield from advice(live)
        yield f"`docker service ps --no-trunc {live.name}` and `docker service logs {live.name}` show more"
    check = known.survey.streams.get(group)
    if check is not None and check.verdict is StreamVerdict.SILENT:
        yield "its query is not listed: if that lasts for several reads, the stream is made anew over its topic"
    yield from _next_source(known.survey.observed.source)
    yield from _next_shared(known)
    cures = tuple(_cures(item, live, known))
    yield from cures
    if actions and not known.paused:
        who = "the operator that holds the lease" if known.role == "standby" else "the next cycle"
        again = "alone helps nothing until then" if cures else "follows its back-off"
        yield f"{who} does the writes that are listed; trying again what failed {again}"
    elif item.condition is Condition.READY:
        port = known.settings.fastapi_group_port
        yield (
            "nothing: it is as it should be; if clients get 502 all the same, compare "
            f"FASTAPI_GROUP_PORT ({port}) with the port that its image listens on"
        )


def _next_shared(known: WhyContext) -> Iterator[str]:
    for action in known.plan.actions:
        if action.group is None and action.key in known.backoff.failures:
            yield f"{action.key} serves all groups and its write fails; groups that need it wait until that is resolved"


def _cures(item: ObjectStatus, live: LiveService | None, known: WhyContext) -> Iterator[str]:
    """Say what a person has to do about an error of ksqlDB, not of the engine, that no repetition cures."""
    settings = known.settings
    failed = known.backoff.failures.get(f"service {item.names.service}") if item.names is not None else None
    of_engine = [failed.text if failed is not None else "", live.error if live is not None else ""]
    if any(text and text in item.detail for text in of_engine):
        return
    names = {
        "KAFKA_BROKER": settings.kafka_broker,
        "KSQLDB_ASSETS_STREAM": settings.ksqldb_assets_stream,
        "join_table": settings.join_table,
    }
    found = statement_advice(item.detail, names) if item.condition is Condition.DEGRADED else None
    if found is not None:
        yield found


def _next_source(source: SourceState) -> Iterator[str]:
    if source.unhealthy_reason:
        yield f"ksqlDB is not well ({source.unhealthy_reason}): its streams wait until it is"
    elif source.degraded:
        yield f"ksqlDB is degraded ({source.degraded}): nothing is removed until it runs on every server"


def _next_conflict(live: LiveService | None, known: WhyContext) -> Iterator[str]:
    settings, published = known.settings, known.survey.published
    yield (
        "give the group or the other object another name: what is not ours is never touched, "
        "and of two groups with one name the first in order has it"
    )
    installation = (published.document.installation if published else None) or ""
    if live is None or live.installation not in ("", installation) or settings.deployment_platform != "swarm":
        return
    if live.owner is None or live.owner.startswith(f"{settings.reconciler_owner}, installation "):
        labels = {"owner": settings.reconciler_owner, "installation": installation}
        added = " ".join(f"--label-add org.openfactory.{label}={value}" for label, value in labels.items() if value)
        yield (
            f"only if this operator made {live.name} and it has lost labels since: "
            f"`docker service update {added} {live.name}`"
        )


def _next_missing(known: WhyContext) -> Iterator[str]:
    if known.settings.reconcile_policy is not Policy.SYNC:
        yield f"it is kept: RECONCILE_POLICY={known.settings.reconcile_policy} removes nothing"
    elif known.plan.approval:
        empty = any(refusal.guard is Guard.EMPTY for refusal in known.plan.refusals)  # stops everything else
        options = f"{'--allow-empty ' if empty else ''}--approve {known.plan.approval}"
        yield f"too many groups are missing; if that is meant: `reconciler --once {options}`"
    elif known.plan.unknown:
        yield from (note for note in known.plan.notes if note.startswith("Ownership of "))
    else:
        yield "it goes after the reads and the grace time; an asset that is mapped to it keeps it"


def why_text(answer: WhyDocument) -> str:
    """Render an answer for a terminal: one line a fact."""
    return "\n".join(f"{head:<10}{printable(text)}".rstrip() for head, text in _lines(answer))


def _lines(answer: WhyDocument) -> Iterator[tuple[str, str]]:
    read, stream, service = answer.read, answer.stream, answer.service
    yield "group", f"{told_apart([answer.group])[answer.group]}: {answer.condition.value}"
    yield "plan", answer.plan or "nothing to do"
    yield (
        "members",
        f"{answer.members} of {read.assets} assets{'' if answer.desired else ', the UNS map does not name it'}",
    )
    yield "stream", _described(stream.name, (stream.state or "there") if stream.exists else "not there", stream.detail)
    tasks = f"{service.running} of {service.wanted} tasks" if service.exists else "not there"
    foreign = "not ours" if service.exists and not service.ours else None
    yield "service", _described(service.name, tasks, foreign, _update(service.update))
    if service.error:
        yield "error", service.error
    yield from (("drift", one) for one in service.drift)
    yield "URL", answer.url or "not in the registry"
    yield from (("write", _said(*write.split(" ", 1))) for write in answer.writes)
    if answer.missing is not None and not (answer.plan or "").startswith("missing "):
        yield "missing", _counted(answer.missing)
    yield from (("refused", text) for text in answer.guards)
    for one in answer.backoff:
        yield "back-off", f"{one.object}: {one.failures} failures, again in {one.retry_in_seconds:g} s: {one.error}"
    if answer.paused:
        yield "paused", answer.paused.removeprefix("paused ")
    yield "read", f"{read.at:%Y-%m-%d %H:%M:%S} UTC, {read.groups} groups, ksqlDB: {read.unhealthy_reason or 'well'}"
    if read.last_cycle:
        yield "cycle", read.last_cycle
    yield "seen by", answer.source + (f" ({answer.role})" if answer.role else "")
    yield from (("next", text) for text in answer.next)


def _update(state: str | None) -> str | None:
    """Say how a rolling update fares; one that is over is no news."""
    return None if state in (None, "completed") else "update under way" if state == "updating" else f"update {state}"


def _said(verb: str, key: str = "") -> str:
    return f"{spoken(verb, key)} {key}".rstrip()


def _counted(missing: MissingPart) -> str:
    """Say how far the count is: what is counted beyond what is needed says nothing."""
    out = missing.out_of_registry_seconds
    reads, seconds = min(missing.reads, missing.reads_needed), min(missing.seconds, missing.seconds_needed)
    drained = "" if out is None else f", out of the registry for {out:.0f} s"
    return f"{reads}/{missing.reads_needed} reads, {seconds:.0f} s of {missing.seconds_needed:.0f} s{drained}"


def _described(name: str | None, *parts: str | None) -> str:
    return f"{name or '-'}: " + ", ".join(part for part in parts if part)

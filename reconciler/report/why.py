"""Everything that is known about one group, or about what all groups share, and what to do. Pure."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import Field

from openfactory_common.text import distinguish, printable
from reconciler.control.backoff import SURPLUS_SECONDS, Backoff
from reconciler.control.controller import Controller
from reconciler.domain.actions import Action, CreateService, UpdateService
from reconciler.domain.advice import engine_advice, service_advice, statement_advice
from reconciler.domain.readiness import Readiness, ReadyState
from reconciler.domain.services import LiveService
from reconciler.domain.status import Condition, Guard, ObjectStatus, Plan, Reason
from reconciler.ksqldb.definition import definition_of
from reconciler.planning.guards import Absence, GuardMemory
from reconciler.planning.options import GroupFile
from reconciler.planning.sleep import idle_after_of
from reconciler.planning.specs import routing_layer_name, state_api_name
from reconciler.planning.survey import StreamVerdict, Survey
from reconciler.report.documents import BackoffDocument, ExtensibleDocument, backoff_documents
from reconciler.report.text import shorten_verb
from reconciler.settings import Policy, Settings

#: What all groups share and can be explained too; with ``service:`` or ``stream:`` before it, or a service's own name.
SHARED = ("routing_layer", "state_api", "shared_stream", "operator")


@dataclass(frozen=True)
class WhyContext:
    """What an explanation is made from.

    Attributes:
        settings: of the operator.
        survey: of the last full read.
        plan: made from it.
        read_at: when it ended.
        memory: the guards' counters.
        backoff: objects in backoff after a failed write.
        now: monotonic seconds of the same clock as the counters.
        readiness: what the probes of services found; None where nothing is probed.
        last: the sentence of the last cycle, ``""`` without one.
        role: ``leader`` or ``standby``; None without leader election.
        paused: the pause that suspends writes, ``""`` without one.
        options: what single groups have of their own.
    """

    settings: Settings
    survey: Survey
    plan: Plan
    read_at: datetime
    memory: GuardMemory
    backoff: Backoff
    now: float
    readiness: Mapping[str, Readiness] | None = None
    last: str = ""
    role: str | None = None
    paused: str = ""
    options: GroupFile = field(default_factory=GroupFile)


def make_context(controller: Controller, survey: Survey, plan: Plan, read_at: datetime, last: str = "") -> WhyContext:
    """Return the context of a controller's last full read."""
    return WhyContext(
        settings=controller.deps.settings,
        survey=survey,
        plan=plan,
        read_at=read_at,
        memory=controller.memory.guards,
        backoff=controller.memory.backoff,
        now=controller.clocks.monotonic(),
        readiness=controller.memory.readiness,
        last=last,
        role=controller.write_gate.role,
        paused=describe_pause(controller),
        options=controller.deps.groups_file.current,
    )


def describe_pause(controller: Controller) -> str:
    """Return the pause that suspends writes now, ``""`` without one."""
    pause = controller.memory.find_active_pause(controller.clocks.wall())
    return pause.text if pause is not None else ""


class ReadPart(ExtensibleDocument):
    """The last full read of ksqlDB and the platform."""

    at: datetime
    assets: int
    groups: int
    kafka: str
    ksqldb: str
    unhealthy_reason: str | None = Field(description="Why no statements are sent to ksqlDB; null if it is healthy.")
    last_cycle: str | None = Field(description="Sentence of the operator's last cycle; null without one.")


class StreamPart(ExtensibleDocument):
    """The group's stream: its name, whether it exists, and how its definition compares."""

    name: str | None
    topic: str | None
    exists: bool
    state: str | None = Field(description="`in sync`, `absent`, `moved`, `silent`, ...; null for a group to remove.")
    detail: str | None


class ServicePart(ExtensibleDocument):
    """The group's service."""

    name: str | None
    exists: bool
    ours: bool
    running: int
    wanted: int
    update: str | None = Field(description="State of a rolling update, in the engine's words.")
    error: str | None = Field(description="Why its tasks do not run, in the engine's words.")
    readiness: str | None = Field(default=None, description="What its tasks answer to the question whether they serve.")
    drift: tuple[str, ...] = Field(description='Fields that differ: `env LOG_LEVEL: "debug" -> "info"`.')
    options: tuple[str, ...] = Field(
        default=(),
        description="What it has that is not the default, with its origin: a variable, or a line of the file.",
    )


class MissingPart(ExtensibleDocument):
    """The counts that must be reached before the group may be removed."""

    reads: int
    reads_needed: int
    seconds: float
    seconds_needed: float
    out_of_registry_seconds: float | None


class WhyDocument(ExtensibleDocument):
    """The explanation: `reconciler why GROUP -o json`, and the operator's `GET /groups/GROUP`."""

    schema_version: int = 2
    owner: str
    kind: str = Field(default="group", description="`group`; `service`, `stream` or `operator` for what groups share.")
    group: str = Field(description="The group's value; the name of an object that groups share.")
    condition: Condition
    reason: Reason | None = Field(default=None, description="Why, as one word; null where `plan` alone says it.")
    plan: str | None = Field(description="What the plan does about it, or why it does nothing.")
    desired: bool = Field(description="The UNS map names the group.")
    members: int
    url: str | None = Field(description="Where it is served, as published in the registry.")
    read: ReadPart
    stream: StreamPart
    service: ServicePart
    writes: tuple[str, ...] = Field(description="Its planned writes, in order.")
    missing: MissingPart | None
    guards: tuple[str, ...] = Field(description="Refusals by safety rules; they concern every group.")
    backoff: tuple[BackoffDocument, ...]
    role: str | None
    paused: str | None
    next: tuple[str, ...] = Field(description="What to do, or what happens by itself.")
    source: str = Field(description="Who read it.")


def known_groups(survey: Survey) -> frozenset[str]:
    """Return every group that is desired, that cannot be served, or that still exists."""
    return frozenset(survey.wanted.keys() | survey.losers.keys() | survey.owned.keys())


def find_similar(group: str, survey: Survey) -> tuple[str, ...]:
    """Return groups with similar names, the most similar first."""
    by_case: dict[str, list[str]] = {}
    for name in sorted(known_groups(survey)):
        by_case.setdefault(name.casefold(), []).append(name)
    close = difflib.get_close_matches(group.casefold(), by_case, n=5, cutoff=0.5)
    return tuple(name for match in close for name in by_case[match])[:5]


def explain_group(group: str, context: WhyContext, source: str) -> WhyDocument | None:
    """Return everything that is known about a group, or an object of `SHARED`; None if there is no such group."""
    item = next((one for one in context.plan.items if one.group == group), None) or _find_shared(group, context)
    return None if item is None else _Explanation(context, group, item).make_document(source)


def _find_shared(name: str, context: WhyContext) -> ObjectStatus | None:
    """Return the status of what all groups share; a group of the same name comes first."""
    plain, settings = re.sub("^(service|stream):", "", name), context.settings
    if plain == "operator":
        stops = [refusal for refusal in context.plan.refusals if refusal.stops]
        detail = context.paused or "; ".join(refusal.text for refusal in stops)
        return ObjectStatus("operator", Condition.HELD if detail else Condition.READY, detail=detail)
    titles = {
        "routing_layer": f"service {routing_layer_name(settings)}",
        "state_api": f"service {state_api_name(settings)}",
    }
    shared = [one for one in context.plan.items if one.group is None]
    if plain == "shared_stream":
        streams = [one for one in shared if one.title.startswith("stream ")]
        return streams[0] if streams else _find_read_stream(context.survey)
    wanted = titles.get(plain, f"service {plain}")
    return next((one for one in shared if one.title == wanted), None)


def _find_read_stream(survey: Survey) -> ObjectStatus | None:
    """Return the shared stream that groups read: the plan names it only where something is wrong with it."""
    queries = survey.observed.source.queries
    texts = (queries[names.stream].text for names in survey.wanted.values() if names.stream in queries)
    found = next(filter(None, map(definition_of, texts)), None)
    return ObjectStatus(f"stream {found.source}", Condition.READY) if found else None


class _Explanation:
    """The explanation of one group while it is made."""

    def __init__(self, context: WhyContext, group: str, item: ObjectStatus) -> None:
        self.context, self.group, self.item = context, group, item
        self.owned = context.survey.owned.get(group)
        self.check = context.survey.streams.get(group)
        self.actions: list[Action] = [action for action in context.plan.actions if action.group == group]
        self.live: LiveService | None = self.owned.service if self.owned else None
        self.stream = self.owned.stream if self.owned else None
        if item.names is not None:
            self.live = context.survey.observed.platform.services.get(item.names.service.lower())
            self.stream = item.names.stream
        self.service = item.names.service if item.names else self.live.name if self.live else None
        self.missing = self._find_missing()
        self.kind, _, name = ("group", "", "") if item.group is not None else item.title.partition(" ")
        if self.kind == "service":
            self.service, self.live = name, context.survey.observed.platform.services.get(name.lower())
        elif self.kind == "stream":
            self.stream, self.check = name, context.survey.shared
        if self.kind != "group":
            self.actions = [action for action in context.plan.actions if action.key == item.title]

    def make_document(self, source: str) -> WhyDocument:
        context, item, membership = self.context, self.item, self.context.survey.observed.membership
        return WhyDocument(
            owner=context.settings.reconciler_owner,
            kind=self.kind,
            group=self.group,
            condition=item.condition,
            reason=item.reason,
            plan=self._update_count(item.detail) or None,
            desired=self.group in membership.groups,
            members=membership.groups.get(self.group, 0),
            url=item.url,
            read=ReadPart(
                at=context.read_at.astimezone(UTC),
                assets=membership.assets,
                groups=len(membership.groups),
                kafka=context.survey.identity.kafka,
                ksqldb=context.survey.identity.ksqldb,
                unhealthy_reason=context.survey.observed.source.unhealthy or None,
                last_cycle=context.last or None,
            ),
            stream=self._make_stream(),
            service=self._make_service(),
            writes=tuple(f"{action.verb} {action.key}" for action in self.actions),
            missing=self.missing,
            guards=tuple(f"{refusal.guard}: {refusal.text}" for refusal in context.plan.refusals),
            backoff=self._find_backoff(),
            role=context.role,
            paused=context.paused or None,
            next=tuple(self._advise()),
            source=source,
        )

    def _find_missing(self) -> MissingPart | None:
        context, group = self.context, self.group
        if group not in context.survey.missing:
            return None
        absence = context.memory.missing.get(group, Absence(0, context.now))
        out = context.memory.unregistered.get(group)
        return MissingPart(
            reads=absence.reads,
            reads_needed=context.settings.prune_reads,
            seconds=round(context.now - absence.since, 1),
            seconds_needed=context.settings.prune_grace,
            out_of_registry_seconds=None if out is None else round(context.now - out, 1),
        )

    def _update_count(self, detail: str) -> str:
        """Return the plan's detail with the present count: counting continues after the plan was made."""
        count, comma, rest = detail.partition("; ")
        if self.missing is None or not count.startswith("missing "):
            return detail
        return f"missing {_describe_count(self.missing)}{comma}{rest}"

    def _make_stream(self) -> StreamPart:
        names, check = self.item.names, self.check
        live = self.context.survey.observed.source.streams.get(self.stream or "")
        return StreamPart(
            name=self.stream,
            topic=live.topic if live else names.topic if names else None,
            exists=live is not None,
            state=check.verdict.value if check else None,
            detail=(check.detail or None) if check else None,
        )

    def _make_service(self) -> ServicePart:
        item, live = self.item, self.live
        updates = [action for action in self.actions if isinstance(action, UpdateService)]
        return ServicePart(
            name=live.name if live else self.service,
            exists=live is not None,
            ours=live is not None and live.owner == self.context.settings.reconciler_owner,
            running=live.running if live else 0,
            wanted=item.wanted or (live.spec.replicas if live and live.spec else 0),
            update=(live.update_state or None) if live else None,
            error=(live.error or None) if live else None,
            readiness=self._describe_readiness(),
            drift=tuple(f"{one.field}: {one.live} -> {one.wanted}" for action in updates for one in action.drift),
            options=self.context.options.of_service(self.group, self.context.settings).describe(),
        )

    def _find_readiness(self) -> Readiness | None:
        """Return what the probes found; None where nothing was probed."""
        return (self.context.readiness or {}).get(self.live.name.casefold()) if self.live is not None else None

    def _describe_readiness(self) -> str | None:
        found = self._find_readiness()
        if found is None:
            return None
        if found.state is ReadyState.UNREACHABLE:
            return "not probed: the operator is outside of the services' network, and the engine's view counts"
        since = f" for {max(0.0, self.context.now - found.since):.0f} s"
        return f"{found.state.value}{since}" + (f": {found.text}" if found.text else "")

    def _find_backoff(self) -> tuple[BackoffDocument, ...]:
        """Return what is in backoff of the group, then of the objects that all groups share."""
        shared = (action.key for action in self.context.plan.actions if action.group is None)
        keys = dict.fromkeys((f"stream {self.stream}", f"service {self.service}", *shared))
        documents = {one.object_: one for one in backoff_documents(self.context.backoff, self.context.now)}
        return tuple(documents[key] for key in keys if key in documents)

    def _advise(self) -> Iterator[str]:
        """Say what to do, the most urgent first."""
        context, plan, live = self.context, self.context.plan, self.live
        if context.paused:
            yield "writes are paused: `reconciler resume` ends the pause"
        if stops := ", ".join(refusal.guard for refusal in plan.refusals if refusal.stops):
            yield f"nothing is written until this is resolved: {stops}"
        if self.item.condition is Condition.CONFLICT:
            yield from self._advise_conflict()
        if self.missing is not None and self.item.reason is not Reason.PAUSED:
            yield from self._advise_missing()
        if live is not None:
            yield from self._advise_service(live)
        yield from self._advise_write()
        if self.check is not None and self.check.verdict is StreamVerdict.SILENT:
            yield "its query is not listed: if that continues for several reads, the stream is recreated over its topic"
        yield from self._advise_shared()
        statement = self._advise_statement()
        if statement:
            yield statement
        if self.actions and not context.paused:
            who = "the operator that holds the lease" if context.role == "standby" else "the next cycle"
            retry = "do not help before that" if statement else "follow the backoff"
            yield f"{who} does the listed writes; retries of failed ones {retry}"
        elif self.item.condition is Condition.READY:
            port = f"FASTAPI_GROUP_PORT ({context.settings.fastapi_group_port})"
            hint = f"; if clients still get 502, compare {port} with the port that its image listens on"
            found = self._find_readiness()
            is_known = found is not None and found.state is ReadyState.READY
            yield f"nothing: it is in its desired state{'' if is_known or self.kind != 'group' else hint}"

    def _advise_service(self, live: LiveService) -> Iterator[str]:
        """Say what helps where its tasks do not run, or do not serve, or are too many."""
        if live.has_surplus:
            yield (
                f"after {SURPLUS_SECONDS:.0f} s of too many tasks the operator writes the same spec again, so that the "
                f"engine ends them, then ever more rarely; if that does not help: `docker service update --force "
                f"{live.name}`"
            )
        if live.error or live.since is not None:
            yield from service_advice(live)
            yield f"`docker service ps --no-trunc {live.name}` and `docker service logs {live.name}` show more"
        elif self.item.reason is Reason.NOT_READY:
            settings = self.context.settings
            logs = f"`docker service logs {live.name}` shows what it logs"
            if self.kind == "group":
                path = settings.ready_path(live.spec.image if live.spec else "") or "empty"
                yield (
                    f"its tasks are asked at FASTAPI_GROUP_PORT ({settings.fastapi_group_port}), path "
                    f"FASTAPI_GROUP_READY_PATH ({path}): set what the image has; {logs}"
                )
            else:
                yield f"its tasks are asked at /ready; {logs}"

    def _advise_write(self) -> Iterator[str]:
        """Say what helps where the engine refuses to create or to update the service."""
        failed = self.context.backoff.failures.get(f"service {self.service}")
        if failed is not None:
            specs = (one.spec for one in self.actions if isinstance(one, CreateService | UpdateService))
            yield from engine_advice(failed.text, next(specs, None))

    def _advise_shared(self) -> Iterator[str]:
        """Say what blocks this group, or also others."""
        if self.item.reason is Reason.PAUSED:
            yield "nothing of it is written; `reconciler resume GROUP` ends the pause of a group"
        if self.item.condition is Condition.ASLEEP and self.live is not None and self.live.spec is not None:
            idle = idle_after_of(self.group, self.context.options, self.context.settings)
            yield (
                f"nothing: no client has asked for it for IDLE_AFTER ({idle:.15g} s); the first request for one of its "
                f"assets at the routing layer wakes it, with image {self.live.spec.image}"
            )
        if self.item.reason is Reason.ROLLOUT:
            yield (
                "change the settings of the group services (FASTAPI_GROUP_IMAGE, ...) to start another rollout; to try "
                "the same again: `docker service update --label-rm org.openfactory.failed SERVICE` at the group that "
                "was rolled back"
            )
        source = self.context.survey.observed.source
        if source.unhealthy_reason:
            yield f"ksqlDB is not healthy ({source.unhealthy_reason}): its streams wait until it is"
        elif source.degraded:
            yield f"ksqlDB is degraded ({source.degraded}): nothing is removed until it runs on every server"
        for action in self.context.plan.actions:
            if action.group is None and action.key in self.context.backoff.failures:
                yield f"{action.key} serves all groups and its write fails; it blocks the groups that need it"

    def _advise_statement(self) -> str | None:
        """Say what to do about an error of ksqlDB, not of the engine, that no retry fixes."""
        settings, item = self.context.settings, self.item
        failed = self.context.backoff.failures.get(f"service {self.service}") if item.names is not None else None
        engine_errors = [failed.text if failed is not None else "", self.live.error if self.live is not None else ""]
        if self.kind == "service" or item.condition is not Condition.DEGRADED:
            return None
        if any(text and text in item.detail for text in engine_errors):
            return None
        names = {
            "KAFKA_BROKER": settings.kafka_broker,
            "KSQLDB_ASSETS_STREAM": settings.ksqldb_assets_stream,
            "join_table": settings.join_table,
        }
        return statement_advice(item.detail, names)

    def _advise_conflict(self) -> Iterator[str]:
        settings, published, live = self.context.settings, self.context.survey.published, self.live
        yield (
            "rename the group or the other object: objects of others are never changed, and of two groups with the "
            "same name the first in order gets it"
        )
        if self.kind == "group" and self.group not in self.context.survey.losers:
            yield (
                f"`reconciler adopt {shlex.quote(self.group)}` shows whose it is, and takes it over if a user made it"
            )
        installation = (published.document.installation if published else None) or ""
        if live is None or live.installation not in ("", installation) or settings.deployment_platform != "swarm":
            return
        if live.owner is None or live.owner.startswith(f"{settings.reconciler_owner}, installation "):
            labels = {"owner": settings.reconciler_owner, "installation": installation}
            added = " ".join(f"--label-add org.openfactory.{label}={value}" for label, value in labels.items() if value)
            yield (
                f"only if this operator created {live.name} and it has lost its labels since: "
                f"`docker service update {added} {live.name}`"
            )

    def _advise_missing(self) -> Iterator[str]:
        plan, policy = self.context.plan, self.context.settings.reconcile_policy
        if policy is not Policy.SYNC:
            yield f"it is kept: RECONCILE_POLICY={policy} removes nothing"
        elif plan.approval:
            empty = any(refusal.guard is Guard.EMPTY for refusal in plan.refusals)  # stops everything else
            options = f"{'--allow-empty ' if empty else ''}--approve {plan.approval}"
            yield f"too many groups are missing; if this is intended: `reconciler --once {options}`"
        elif plan.unknown:
            yield from (note for note in plan.notes if note.startswith("Ownership of "))
        else:
            yield "it is removed after the reads and the grace time, unless an asset is mapped to it before"


def why_text(document: WhyDocument) -> str:
    """Render an explanation for a terminal, one line for each fact."""
    return "\n".join(f"{head:<10}{printable(text)}".rstrip() for head, text in _list_facts(document))


def _list_facts(document: WhyDocument) -> Iterator[tuple[str, str]]:
    read, stream = document.read, document.stream
    yield document.kind, f"{distinguish([document.group])[document.group]}: {document.condition.value}"
    yield "plan", document.plan or "nothing to do"
    is_group = document.kind == "group"
    if is_group:
        unmapped = "" if document.desired else ", the UNS map does not name it"
        yield "members", f"{document.members} of {read.assets} assets{unmapped}"
    if stream.name or is_group:
        yield "stream", _join(stream.name, (stream.state or "exists") if stream.exists else "absent", stream.detail)
    yield from _list_service_facts(document)
    if is_group:
        yield "URL", document.url or "not in the registry"
    for write in document.writes:
        verb, _, key = write.partition(" ")
        yield "write", f"{shorten_verb(verb, key)} {key}".rstrip()
    if document.missing is not None and not (document.plan or "").startswith("missing "):
        yield "missing", _describe_count(document.missing)
    yield from (("refused", text) for text in document.guards)
    for one in document.backoff:
        yield "backoff", f"{one.object_}: {one.failures} failures, retry in {one.retry_in_seconds:g} s: {one.error}"
    if document.paused:
        yield "paused", document.paused.removeprefix("paused ")
    state = read.unhealthy_reason or "healthy"
    yield "read", f"{read.at:%Y-%m-%d %H:%M:%S} UTC, {read.groups} groups, ksqlDB: {state}"
    if read.last_cycle:
        yield "cycle", read.last_cycle
    yield "read by", document.source + (f" ({document.role})" if document.role else "")
    yield from (("next", text) for text in document.next)


def _list_service_facts(document: WhyDocument) -> Iterator[tuple[str, str]]:
    service = document.service
    if not service.name and document.kind != "group":
        return
    tasks = f"{service.running} of {service.wanted} tasks" if service.exists else "absent"
    foreign = "not ours" if service.exists and not service.ours else None
    update = {None: None, "completed": None, "updating": "update in progress"}.get(
        service.update, f"update {service.update}"
    )
    yield "service", _join(service.name, tasks, foreign, update)
    if service.error:
        yield "error", service.error
    if service.readiness:
        yield "readiness", service.readiness
    yield from (("drift", one) for one in service.drift)
    yield from (("option", one) for one in service.options)


def _describe_count(missing: MissingPart) -> str:
    """Return how far the counts are, up to what is needed."""
    out = missing.out_of_registry_seconds
    reads, seconds = min(missing.reads, missing.reads_needed), min(missing.seconds, missing.seconds_needed)
    drained = "" if out is None else f", out of the registry for {out:.0f} s"
    return f"{reads}/{missing.reads_needed} reads, {seconds:.0f} s of {missing.seconds_needed:.0f} s{drained}"


def _join(name: str | None, *parts: str | None) -> str:
    return f"{name or '-'}: " + ", ".join(part for part in parts if part)

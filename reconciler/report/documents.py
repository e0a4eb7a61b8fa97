"""The documents for programs: plan and status, as models from which their JSON Schemas are generated. Pure.

A new ``schema_version`` comes with each field that is renamed or removed or changes its meaning; fields may be added.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from reconciler.control.backoff import Backoff
from reconciler.control.journal import KEPT, Entry, Journal
from reconciler.domain.status import Condition, Guard, ObjectStatus, Plan, Reason
from reconciler.planning.survey import Survey

SCHEMA_VERSION: Literal[2] = 2
_MAX_INT = 2**63 - 1


class Document(BaseModel):
    """A document, or a part of one; every observed value can be serialized."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    @field_validator("*", mode="before")
    @classmethod
    def _sanitize(cls, value: Any) -> Any:
        return _make_serializable(value)


class ExtensibleDocument(Document):
    """A document that a newer version may extend: unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore")


class ObjectDocument(Document):
    """One group, or a service or stream without a group."""

    group: str | None = Field(description="The group's value in the UNS; null for an object without a group.")
    title: str = Field(description="As shown in plans: `group Weld`, `service ofa_state_api`, `stream OFA_...`.")
    condition: Condition = Field(description="Its condition.")
    change: Literal["+", "~", "!", "-", "?", "x"] | None = Field(
        description="What the plan does: create, update, repair, remove, wait, conflict; null: nothing."
    )
    detail: str | None = Field(description="What is done, or why nothing is done; for people.")
    reason: Reason | None = Field(description="Reason of the condition, for programs; null: see `detail`.")
    members: int = Field(description="Assets in the group.")
    stream: str | None = Field(description="Name of its ksqlDB stream as stored.")
    topic: str | None = Field(description="Name of its Kafka topic.")
    service: str | None = Field(description="Name of its service, also its DNS name; null: it has none.")
    running: int = Field(description="Healthy tasks.")
    wanted: int = Field(description="Tasks asked for.")
    url: str | None = Field(description="Published URL at which it is served; null if it is not served.")


class RefusalDocument(Document):
    """A refusal by a safety rule."""

    guard: Guard = Field(description="The rule.")
    text: str = Field(description="What the rule observed and how to continue; for people.")
    stops: bool = Field(description="Nothing is written until this is resolved.")


class ActionDocument(Document):
    """One write."""

    action: str = Field(description="The kind of write, as in the metric `reconciler_actions_total`.")
    object_: str = Field(alias="object", description="The object that is written: `stream ASSET_STREAM_WELD`.")
    group: str | None = Field(description="The group that the object serves; null if it serves all.")


class RegistryDocument(Document):
    """The published registry of groups and URLs, before and after the plan."""

    before: str | None = Field(description="Current revision; null before the first.")
    after: str | None = Field(description="Revision after the plan; null if there is nothing to publish.")
    added: tuple[str, ...] = Field(description="Groups that are added.")
    removed: tuple[str, ...] = Field(description="Groups that are removed.")


class _PlanSummary(Document):
    schema_version: Literal[2] = Field(default=SCHEMA_VERSION, description="Version of this document's schema.")
    in_sync: bool = Field(description="Everything is in its desired state, as far as the policy allows.")
    counts: dict[Condition, int] = Field(description="How many items have each condition.")
    items: tuple[ObjectDocument, ...] = Field(description="The groups in the order of names, then the other objects.")
    refusals: tuple[RefusalDocument, ...] = Field(description="Refusals by safety rules.")
    approval: str | None = Field(description="Id for `--approve`; null if no removals are refused.")
    notes: tuple[str, ...] = Field(description="Further notes, for people.")


class PlanDocument(_PlanSummary):
    """What would be done: `reconciler plan -o json`."""

    settled: bool = Field(description="Nothing is to be done, in progress or unknown; a conflict may remain.")
    actions: tuple[ActionDocument, ...] = Field(description="Every write, in order.")
    registry: RegistryDocument


class KsqldbDocument(Document):
    """The ksqlDB server that was read."""

    version: str
    unhealthy_reason: str | None = Field(description="Why no statements are sent to it now; null if it is healthy.")
    kafka: str = Field(description="Id of the Kafka cluster.")
    ksqldb: str = Field(description="The server's service id.")


class BackoffDocument(Document):
    """An object in backoff after a failed write."""

    object_: str = Field(alias="object", description="The object.")
    failures: int = Field(description="Failures in a row.")
    retry_in_seconds: float = Field(description="Seconds until the next try.")
    error: str = Field(description="The last error.")


class OperatorDocument(Document):
    """The running operator; only in documents that it serves itself (`GET /status`)."""

    version: str = Field(description="Version of the software, as `reconciler --version` has it.")
    last_result: str = Field(description="Result of the last cycle, as in the metric `reconciler_reconcile_total`.")
    last_sentence: str = Field(description="What the last cycle did; for people.")
    last_cycle: datetime = Field(description="When the last cycle ended.")
    last_read: datetime | None = Field(description="End of the last full read; the rest of the document is from then.")
    last_write: datetime | None = Field(description="End of the last cycle in which this process wrote.")
    role: str | None = Field(description="`leader` or `standby`; null without leader election.")
    paused: str | None = Field(description="The pause that suspends writes, with its end; null without one.")
    backoff: tuple[BackoffDocument, ...] = Field(description="Objects in backoff after a failed write.")


class StatusDocument(_PlanSummary):
    """The current state: `reconciler status -o json`, and the operator's `GET /status`."""

    assets: int = Field(description="Assets in the UNS map.")
    ungrouped: int = Field(description="Assets without a value at the grouping level.")
    registry: str | None = Field(description="Published revision; null before the first.")
    ksqldb: KsqldbDocument
    operator: OperatorDocument | None = Field(default=None, description="Null unless served by a running operator.")


class EventDocument(ExtensibleDocument):
    """One decision or transition; also the data of one event of `GET /events` as Server-Sent Events."""

    id: int = Field(description="Grows with every event, also across restarts; it is near the time in milliseconds.")
    at: datetime = Field(description="When it was recorded.")
    level: str = Field(description="`info`, `warning` or `error`.")
    event: str = Field(description="What happened, in the words of the operator's log.")
    object_: str | None = Field(alias="object", description="The object that it happened to; null: the installation.")
    group: str | None = Field(description="The group that the object serves; null if it serves all.")
    reason: str | None = Field(description="Why; for people. Null: the event says it.")
    fields: dict[str, str | tuple[str, ...]] = Field(description="Other fields of the log line.")


class EventsDocument(ExtensibleDocument):
    """The history of one operator: `reconciler events -o json`, and the operator's `GET /events`."""

    schema_version: Literal[2] = Field(default=SCHEMA_VERSION, description="Version of this document's schema.")
    owner: str = Field(description="Owner id of the operator.")
    role: str | None = Field(description="`leader` or `standby`; null without leader election.")
    first: int | None = Field(description="Id of the oldest event that is kept; null where there is none.")
    last: int = Field(description="Id of the newest event: `since` of the next request.")
    missed: bool = Field(description="Events after `since` may be gone: too many came, or the operator was restarted.")
    events: tuple[EventDocument, ...] = Field(description="The newest of the requested events, oldest first.")


def event_document(entry: Entry) -> EventDocument:
    """Return an entry of the history as a document."""
    return EventDocument(
        id=entry.id,
        at=entry.at,
        level=entry.level,
        event=entry.event,
        object=entry.object,
        group=entry.group,
        reason=entry.reason,
        fields={
            name: tuple(map(str, value)) if isinstance(value, list | tuple) else str(value)
            for name, value in entry.fields.items()
            if value is not None
        },
    )


def events_document(
    journal: Journal, owner: str, role: str | None, since: int = 0, group: str | None = None, limit: int = KEPT
) -> EventsDocument:
    """Return the newest entries after an id, of one group or of all; what ``since`` 0 misses is not said."""
    return EventsDocument(
        owner=owner,
        role=role,
        first=journal.first,
        last=journal.last,
        missed=since > 0 and journal.has_lost(since),
        events=tuple(map(event_document, journal.after(since, group, limit))),
    )


#: The documents that have a published schema.
_MODELS: dict[str, type[Document]] = {"plan": PlanDocument, "status": StatusDocument, "events": EventsDocument}


def make_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a document: ``plan``, ``status`` or ``events``."""
    model = _MODELS[name]
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:openfactory:reconciler:{name}:{SCHEMA_VERSION}",
    }
    return {**head, **model.model_json_schema(by_alias=True, mode="serialization")}


def plan_document(plan: Plan) -> PlanDocument:
    """Return a plan as a document."""
    return PlanDocument(
        **_summarize(plan),
        settled=plan.settled,
        actions=tuple(ActionDocument(action=a.verb, object=a.key, group=a.group) for a in plan.actions),
        registry=RegistryDocument(
            before=plan.registry_before,
            after=plan.registry.revision if plan.registry else None,
            added=plan.added,
            removed=plan.removed,
        ),
    )


def status_document(plan: Plan, survey: Survey, operator: OperatorDocument | None = None) -> StatusDocument:
    """Return the current state as a document."""
    source, membership = survey.observed.source, survey.observed.membership
    return StatusDocument(
        **_summarize(plan),
        assets=membership.assets,
        ungrouped=membership.ungrouped,
        registry=plan.registry_before,
        ksqldb=KsqldbDocument(
            version=source.version,
            unhealthy_reason=source.unhealthy or None,
            kafka=survey.identity.kafka,
            ksqldb=survey.identity.ksqldb,
        ),
        operator=operator,
    )


def backoff_documents(backoff: Backoff, now: float) -> tuple[BackoffDocument, ...]:
    """Return the objects in backoff; ``now`` is in monotonic seconds."""
    return tuple(
        BackoffDocument(
            object=key,
            failures=failure.times,
            retry_in_seconds=round(max(0.0, failure.until - now), 1),
            error=failure.text,
        )
        for key, failure in sorted(backoff.failures.items())
    )


def _summarize(plan: Plan) -> dict[str, Any]:
    counts = Counter(item.condition for item in plan.items)
    return {
        "in_sync": plan.in_sync,
        "counts": {condition: counts[condition] for condition in Condition},
        "items": tuple(map(_make_object_document, plan.items)),
        "refusals": tuple(RefusalDocument(guard=one.guard, text=one.text, stops=one.stops) for one in plan.refusals),
        "approval": plan.approval or None,
        "notes": plan.notes,
    }


def _make_object_document(item: ObjectStatus) -> ObjectDocument:
    kind, _, name = item.title.partition(" ") if item.group is None else ("", "", "")
    return ObjectDocument(
        group=item.group,
        title=item.title,
        condition=item.condition,
        change=item.change.strip() or None,  # type: ignore[arg-type]
        detail=item.detail or None,
        reason=item.reason,
        members=item.members,
        stream=item.names.stream if item.names else name if kind == "stream" else None,
        topic=item.names.topic if item.names else None,
        service=item.names.service if item.names else name if kind == "service" else None,
        running=item.running,
        wanted=item.wanted,
        url=item.url,
    )


def _make_serializable(value: Any) -> Any:
    """Return a value that every JSON parser accepts: an invalid number must not make the whole document fail."""
    match value:
        case bool() | Enum():
            return value
        case str():
            return value.encode("utf-8", "replace").decode("utf-8")  # lone surrogates: the UNS can contain them
        case int():
            return max(-_MAX_INT, min(value, _MAX_INT))
        case float() if not math.isfinite(value):
            return 0.0
        case tuple():
            return tuple(map(_make_serializable, value))
        case Mapping():
            return {_make_serializable(key): _make_serializable(item) for key, item in value.items()}
    return value

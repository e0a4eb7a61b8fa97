"""The documents that machines read: plan and status, as models from which their JSON Schemas come. Pure.

A field is never renamed, removed or given another meaning without a new ``schema_version``; new ones may be added.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from enum import Enum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from reconciler.domain.status import Condition, Guard, ObjectStatus, Plan, Reason, Refusal
from reconciler.planning.survey import Survey

SCHEMA_VERSION: Literal[2] = 2
_LARGEST = 2**63 - 1


class Document(BaseModel):
    """A document, or a part of one: whatever was observed, it can be written."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    @field_validator("*", mode="before")
    @classmethod
    def _can_be_written(cls, value: Any) -> Any:
        return _writable(value)


class ObjectDocument(Document):
    """One group, or a service or stream that belongs to none."""

    group: str | None = Field(description="The group's value in the UNS; null for what belongs to no group.")
    title: str = Field(description="As plans show it: `group Weld`, `service ofa_state_api`, `stream OFA_...`.")
    condition: Condition = Field(description="How it fares.")
    change: Literal["+", "~", "!", "-", "?", "x"] | None = Field(
        description="What a plan does about it: create, update, repair, remove, wait, conflict; null: nothing."
    )
    detail: str | None = Field(description="What is done about it, or why nothing is, for a person.")
    reason: Reason | None = Field(description="Why it has its condition, for programs; null: see `detail`.")
    members: int = Field(description="Assets in the group.")
    stream: str | None = Field(description="Name of its ksqlDB stream as stored.")
    topic: str | None = Field(description="Name of its Kafka topic.")
    service: str | None = Field(description="Name of its service, which is also its DNS name; null: it has none.")
    running: int = Field(description="Healthy tasks.")
    wanted: int = Field(description="Tasks asked for.")
    url: str | None = Field(description="Where it is served, as published; null where it is not.")


class RefusalDocument(Document):
    """A safety rule's no."""

    guard: Guard = Field(description="Which rule.")
    text: str = Field(description="What it saw and how to go on, for a person.")
    stops: bool = Field(description="Nothing at all is written until it is resolved.")


class ActionDocument(Document):
    """One write, in the order in which they are done."""

    action: str = Field(description="The kind of write, as in the metric `reconciler_actions_total`.")
    object_: str = Field(alias="object", description="What is written: `stream ASSET_STREAM_WELD`.")
    group: str | None = Field(description="The group that it serves; null where it serves all.")


class RegistryDocument(Document):
    """The published list of groups and URLs, before and after the plan."""

    before: str | None = Field(description="Revision that is current; null before the first.")
    after: str | None = Field(description="Revision after the plan; null while there is nothing to publish.")
    added: tuple[str, ...] = Field(description="Groups that enter it.")
    removed: tuple[str, ...] = Field(description="Groups that leave it.")


class PlanDocument(Document):
    """What would be done: `reconciler plan -o json`."""

    schema_version: Literal[2] = Field(default=SCHEMA_VERSION, description="Of this document's form.")
    in_sync: bool = Field(description="Everything is as it should be, as far as the policy lets it.")
    settled: bool = Field(description="Nothing to do, on its way or left to ask; a conflict may still stand.")
    counts: dict[Condition, int] = Field(description="How many items have each condition.")
    actions: tuple[ActionDocument, ...] = Field(description="Every write, in order.")
    items: tuple[ObjectDocument, ...] = Field(description="One a group in order of names, then what belongs to none.")
    registry: RegistryDocument
    refusals: tuple[RefusalDocument, ...] = Field(description="What safety rules said no to.")
    approval: str | None = Field(description="Id for `--approve`; null where no removals are refused.")
    notes: tuple[str, ...] = Field(description="What else a person should know.")


class KsqldbDocument(Document):
    """The ksqlDB server that answered."""

    version: str
    unhealthy_reason: str | None = Field(description="Why it is not trusted with statements now; null when it is well.")
    kafka: str = Field(description="Id of the Kafka cluster.")
    ksqldb: str = Field(description="The server's service id.")


class BackoffDocument(Document):
    """An object whose write failed and is waited for."""

    object_: str = Field(alias="object", description="What could not be written.")
    failures: int = Field(description="Failures in a row.")
    retry_in_seconds: float = Field(description="Seconds until it is tried again.")
    error: str = Field(description="The last error.")


class OperatorDocument(Document):
    """The running operator: only in what it serves itself (`GET /status`)."""

    last_result: str = Field(description="Of the last cycle, as in the metric `reconciler_reconcile_total`.")
    last_sentence: str = Field(description="What the last cycle did, for a person.")
    last_cycle: datetime = Field(description="When the last cycle ended.")
    last_read: datetime | None = Field(description="When everything was last read in full; the rest is from then.")
    last_write: datetime | None = Field(description="When something was last written by this process.")
    role: str | None = Field(description="`leader` or `standby`; null where no lease decides.")
    paused: str | None = Field(description="What holds writes back and until when; null when nothing does.")
    backoff: tuple[BackoffDocument, ...] = Field(description="What waits after a failed write.")


class StatusDocument(Document):
    """What is: `reconciler status -o json`, and the operator's `GET /status`."""

    schema_version: Literal[2] = Field(default=SCHEMA_VERSION, description="Of this document's form.")
    in_sync: bool = Field(description="Everything is as it should be, as far as the policy lets it.")
    counts: dict[Condition, int] = Field(description="How many items have each condition.")
    items: tuple[ObjectDocument, ...] = Field(description="One a group in order of names, then what belongs to none.")
    assets: int = Field(description="Assets in the UNS map.")
    ungrouped: int = Field(description="Assets without a value at the grouping level.")
    registry: str | None = Field(description="Revision that is published; null before the first.")
    ksqldb: KsqldbDocument
    refusals: tuple[RefusalDocument, ...] = Field(description="What safety rules say no to.")
    approval: str | None = Field(description="Id for `--approve`; null where no removals are refused.")
    notes: tuple[str, ...] = Field(description="What else a person should know.")
    operator: OperatorDocument | None = Field(default=None, description="Null where no running operator says it.")


def schema(name: Literal["plan", "status"]) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a document as it is written."""
    model = PlanDocument if name == "plan" else StatusDocument
    made = model.model_json_schema(by_alias=True, mode="serialization")
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:openfactory:reconciler:{name}:{SCHEMA_VERSION}",
    }
    return {**head, **made}


def plan_document(plan: Plan) -> PlanDocument:
    """Return a plan as a document."""
    return PlanDocument(
        in_sync=plan.in_sync,
        settled=plan.settled,
        counts=_counts(plan.items),
        actions=tuple(ActionDocument(action=a.verb, object=a.key, group=a.group) for a in plan.actions),
        items=tuple(_item(item) for item in plan.items),
        registry=RegistryDocument(
            before=plan.registry_before,
            after=plan.registry.revision if plan.registry else None,
            added=plan.added,
            removed=plan.removed,
        ),
        refusals=_refusals(plan.refusals),
        approval=plan.approval or None,
        notes=plan.notes,
    )


def status_document(plan: Plan, survey: Survey, operator: OperatorDocument | None = None) -> StatusDocument:
    """Return what is as a document."""
    source, membership = survey.observed.source, survey.observed.membership
    return StatusDocument(
        in_sync=plan.in_sync,
        counts=_counts(plan.items),
        items=tuple(_item(item) for item in plan.items),
        assets=membership.assets,
        ungrouped=membership.ungrouped,
        registry=plan.registry_before,
        ksqldb=KsqldbDocument(
            version=source.version,
            unhealthy_reason=source.unhealthy or None,
            kafka=survey.identity.kafka,
            ksqldb=survey.identity.ksqldb,
        ),
        refusals=_refusals(plan.refusals),
        approval=plan.approval or None,
        notes=plan.notes,
        operator=operator,
    )


def _counts(items: Iterable[ObjectStatus]) -> dict[Condition, int]:
    counts = dict.fromkeys(Condition, 0)
    for item in items:
        counts[item.condition] += 1
    return counts


def _refusals(refusals: Iterable[Refusal]) -> tuple[RefusalDocument, ...]:
    return tuple(RefusalDocument(guard=one.guard, text=one.text, stops=one.stops) for one in refusals)


def _item(item: ObjectStatus) -> ObjectDocument:
    return ObjectDocument(
        group=item.group,
        title=item.title,
        condition=item.condition,
        change=item.change.strip() or None,  # type: ignore[arg-type]
        detail=item.detail or None,
        reason=item.reason,
        members=item.members,
        stream=item.names.stream if item.names else _of_kind("stream", item),
        topic=item.names.topic if item.names else None,
        service=item.names.service if item.names else _of_kind("service", item),
        running=item.running,
        wanted=item.wanted,
        url=item.url,
    )


def _of_kind(kind: str, item: ObjectStatus) -> str | None:
    """Return the name of a service or stream that belongs to no group."""
    own = item.group is None and item.title.startswith(f"{kind} ")
    return item.title.removeprefix(f"{kind} ") if own else None


def text(raw: str) -> str:
    """Replace halves of surrogate pairs, which a person can put into the UNS and no document can carry."""
    return raw.encode("utf-8", "replace").decode("utf-8")


def _writable(value: Any) -> Any:
    """Return the value as every reader of JSON can take it: a sick number must not cost the document that shows it."""
    match value:
        case bool() | Enum():
            return value
        case str():
            return text(value)
        case int():
            return max(-_LARGEST, min(value, _LARGEST))
        case float() if not math.isfinite(value):
            return 0.0
        case tuple():
            return tuple(map(_writable, value))
    return value

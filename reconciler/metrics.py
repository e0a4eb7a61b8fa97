"""Prometheus metrics. Every label value that is known beforehand exists from the start, at 0.

No label names a group: groups come and go, and each would stay as a series for ever.
"""

from __future__ import annotations

from collections import Counter as Tally
from enum import StrEnum
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import REGISTRY

from openfactory_common import __version__
from openfactory_common.errors import KsqlError, ReconcilerError
from reconciler.domain.actions import Action, PublishRegistry, Result, UpdateService, WriteResult
from reconciler.domain.readiness import ProbeResult
from reconciler.domain.status import BlockReason, Condition, CycleResult, Guard, Part, Plan
from reconciler.planning.survey import Survey

disable_created_metrics()  # type: ignore[no-untyped-call]  # otherwise one more series for each counter

KINDS = (
    "unreachable",
    "not_ready",
    "transient",
    "bad_statement",
    "refused",
    "conflict",
    "in_band",
    "truncated",
    "wrong_shape",
    "other",
)
_TIMES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_KIND_OF = {
    "KsqlUnreachable": "unreachable",
    "KsqlNotReady": "not_ready",
    "KsqlTransient": "transient",
    "KsqlBadStatement": "bad_statement",
    "KsqlRefused": "refused",
    "KsqlConflict": "conflict",
    "KsqlInBandFailure": "in_band",
    "KsqlTruncated": "truncated",
    "KsqlWrongShape": "wrong_shape",
    "PlatformUnreachable": "unreachable",
    "PlatformConflict": "conflict",
    "PlatformRefused": "refused",
}


class Metrics:
    """All metrics of one operator."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register with ``registry`` and create every known label value."""
        r = registry
        self.reconciles = Counter("reconciler_reconcile", "Cycles by result", ["result"], registry=r)
        self.seconds = Histogram("reconciler_reconcile_time_seconds", "Duration of a cycle", buckets=_TIMES, registry=r)
        self.last_success = Gauge(
            "reconciler_last_success_timestamp_seconds",
            "When a cycle last ended in which no read and no write had failed",
            registry=r,
        )
        self.read_errors = Counter(
            "reconciler_source_read_errors", "Reads that failed or were not complete", ["source", "kind"], registry=r
        )
        self.desired = Gauge("reconciler_desired_groups", "Groups named by the UNS map", registry=r)
        self.assets = Gauge("reconciler_assets", "Assets in the UNS map", registry=r)
        self.live = Gauge("reconciler_live_groups", "Groups that exist, by what exists of them", ["kind"], registry=r)
        self.groups = Gauge("reconciler_groups", "Groups by condition", ["condition"], registry=r)
        self.actions = Counter("reconciler_actions", "Writes by action and result", ["action", "result"], registry=r)
        self.blocked = Counter(
            "reconciler_deletes_blocked", "Cycles in which removals were suspended", ["reason"], registry=r
        )
        self.guard = Gauge("reconciler_guard_active", "1 while a guard refuses", ["guard"], registry=r)
        self.drift = Counter("reconciler_drift", "Fields found different on a live service", ["field"], registry=r)
        self.conflicts = Counter("reconciler_conflicts", "Writes lost to another writer", registry=r)
        self.registry_info = Gauge("reconciler_registry_info", "The current registry", ["revision"], registry=r)
        self.registry_bytes = Gauge("reconciler_registry_bytes", "Size of the current registry", registry=r)
        self.requests = Counter(
            "reconciler_api_requests", "Requests to ksqlDB and the engine", ["target", "method", "code"], registry=r
        )
        self.request_seconds = Histogram(
            "reconciler_api_request_duration_seconds",
            "Duration of requests to ksqlDB and the engine",
            ["target"],
            buckets=_TIMES,
            registry=r,
        )
        self.paused = Gauge("reconciler_paused", "1 while a pause suspends all writes", registry=r)
        self.paused_groups = Gauge(
            "reconciler_paused_groups", "Groups of which nothing is written because they are paused", registry=r
        )
        self.leader = Gauge("reconciler_leader", "1 while this operator holds the lease", registry=r)
        self.lease_info = Gauge("reconciler_lease_info", "Who holds the lease", ["holder"], registry=r)
        self.bugs = Counter("reconciler_bugs", "Unexpected exceptions, by part of the operator", ["part"], registry=r)
        self.contested = Gauge(
            "reconciler_contested_objects",
            "Objects that are not written because another writer keeps changing them",
            registry=r,
        )
        self.probes = Counter(
            "reconciler_probes",
            "Answers of services' tasks to the question whether they are ready",
            ["result"],
            registry=r,
        )
        self.wakes = Counter("reconciler_group_wakes", "Groups that slept and were woken", registry=r)
        Gauge("reconciler_build_info", "Version of the software", ["version"], registry=r).labels(__version__).set(1)
        self._create_labels()

    def _create_labels(self) -> None:
        simple: tuple[tuple[Counter, type[StrEnum]], ...] = (
            (self.reconciles, CycleResult),
            (self.bugs, Part),
            (self.probes, ProbeResult),
        )
        for counter, values in simple:
            for value in values:
                counter.labels(value)
        for source, kind in product(("ksqldb", "platform"), KINDS):
            self.read_errors.labels(source, kind)
        for kind in ("stream", "service", "registry"):
            self.live.labels(kind)
        for condition in Condition:
            self.groups.labels(condition.value)
        for action, ended in product(_verbs(Action), WriteResult):
            self.actions.labels(action, ended)
        for guard in Guard:
            self.guard.labels(guard)
            self.blocked.labels(guard)
        for reason in BlockReason:
            self.blocked.labels(reason)
        for target in ("ksqldb", "platform"):
            self.request_seconds.labels(target)

    def request(self, target: str, method: str, code: str, seconds: float) -> None:
        """Count one request of an adapter."""
        self.requests.labels(target, method, code).inc()
        self.request_seconds.labels(target).observe(seconds)

    def count_failed_read(self, error: ReconcilerError) -> None:
        """Count a read that ended a cycle."""
        source = "ksqldb" if isinstance(error, KsqlError) else "platform"
        self.read_errors.labels(source, _KIND_OF.get(type(error).__name__, "other")).inc()

    def record_survey(self, survey: Survey, plan: Plan) -> None:
        """Show what was observed and planned."""
        self.desired.set(len(survey.observed.membership.groups))
        self.assets.set(survey.observed.membership.assets)
        owned = survey.owned.values()
        self.live.labels("stream").set(sum(item.stream is not None for item in owned))
        self.live.labels("service").set(sum(item.service is not None for item in owned))
        self.live.labels("registry").set(sum(item.url is not None for item in owned))
        tally = Tally(item.condition for item in plan.items if item.group is not None)
        for condition in Condition:
            self.groups.labels(condition.value).set(tally[condition])
        active: set[Guard | BlockReason] = {refusal.guard for refusal in plan.refusals}
        for guard in Guard:
            self.guard.labels(guard).set(guard in active)
        if survey.missing:
            for reason in active or {BlockReason.GRACE}:
                self.blocked.labels(reason).inc()

    def registry(self, revision: str, size: int) -> None:
        """Show which registry document is current."""
        self.registry_info.clear()
        self.registry_info.labels(revision).set(1)
        self.registry_bytes.set(size)

    def lease(self, holder: str, *, leads: bool) -> None:
        """Show who holds the lease, as this operator sees it."""
        self.lease_info.clear()
        self.lease_info.labels(holder).set(1)
        self.leader.set(leads)

    def applied(self, result: Result) -> None:
        """Count one write."""
        self.actions.labels(result.action.verb, result.outcome).inc()
        if isinstance(result.action, UpdateService):
            for difference in result.action.drift:
                self.drift.labels(difference.field.split(" ")[0]).inc()
        if isinstance(result.action, PublishRegistry) and result.outcome is WriteResult.OK:
            self.wakes.inc(result.action.woken)
        if result.error is not None and type(result.error).__name__.endswith("Conflict"):
            self.conflicts.inc()


def _verbs(kind: type[Action]) -> list[str]:
    own = [kind.verb] if "verb" in vars(kind) else []
    return own + [verb for sub in kind.__subclasses__() for verb in _verbs(sub)]


__all__ = ["KINDS", "Metrics"]

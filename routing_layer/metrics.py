"""The proxy's metrics, with every label value present from the start (a missing series hides a first failure)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, disable_created_metrics, generate_latest
from prometheus_client.registry import Collector

from openfactory_common import __version__
from openfactory_common.connections import Ending
from routing_layer.access.refusals import Refusal
from routing_layer.limits import StreamRefusal

disable_created_metrics()  # type: ignore[no-untyped-call]  # a needless series for each counter

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class EndReason(StrEnum):
    """Why a stream ended."""

    MOVED = "moved"
    GROUP_REMOVED = "group_removed"
    DRAINED = "drained"
    CLIENT_LEFT = "client_left"
    CLIENT_STALLED = "client_stalled"
    UPSTREAM_ENDED = "upstream_ended"
    UPSTREAM_BROKE = "upstream_broke"
    UPSTREAM_SILENT = "upstream_silent"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a label


class Rejection(StrEnum):
    """Why a registry document is not used."""

    CORRUPT = "corrupt"
    IDENTITY = "identity"
    UNREACHABLE = "unreachable"
    UNAUTHORIZED = "unauthorized"
    BUG = "bug"


ROUTES = ("asset_stream", "group_stream", "asset_state", "healthz", "ready", "readyz", "metrics", "demand", "other")
_CODES = (200, 204, 307, 400, 401, 403, 404, 405, 429, 500, 502, 503, 504, 505)
#: The label of every status that HTTP does not define: services can invent 500 of them, each would stay as a series.
_UNKNOWN_CODE = "other"
_KNOWN_CODES = frozenset(map(int, HTTPStatus))
TASKS = ("registry", "membership", "connections", "certificate", "keys", "expiry")
#: Merges the values of several workers into one.
Merge = Callable[[Iterable[float]], float]
#: Name, labels and value of a sample, as JSON can carry it to another worker.
Sample = tuple[str, dict[str, str], float]


class Metrics:
    """The metrics of one worker."""

    def __init__(self) -> None:
        """Create every series at 0."""
        self._registry = CollectorRegistry()
        self.stream_ends = self._counters("streams_ended", "Streams that ended, by reason.", "reason", EndReason)
        self._requests = self._counter("requests", "Answered requests; a stream counts at its head.", "route", "code")
        self._requests_by_label = {(r, c): self._requests.labels(r, str(c)) for r in ROUTES for c in _CODES}
        self.lookup_misses = self._counter("lookup_misses", "Requests for assets that are not in memory.")
        self.relists = self._counter("membership_relists", "Complete lists of the membership.")
        self.membership_errors = self._counter("membership_errors", "Failed or doubtful reads of the membership.")
        self.registry_refused = self._counters(
            "registry_refused",
            "Registry documents not used, and nudges without effect, by reason.",
            "reason",
            Rejection,
        )
        self.task_ends = self._counters(
            "background_task_ends", "Background tasks that ended unexpectedly and were restarted.", "task", TASKS
        )
        self.connections_ended = self._counters(
            "connections_ended", "Connections that were closed to keep room for others.", "reason", Ending
        )
        self.streams_refused = self._counters(
            "streams_refused", "Streams that were refused because of a limit, by which.", "reason", StreamRefusal
        )
        self.access_refused = self._counters(
            "access_refused", "Requests that were not let in, by the check that failed.", "reason", Refusal
        )
        self.nudges = self._counter("nudges", "Requests to the operator to reconcile, for a group without a service.")
        self.group_mismatches = self._counter(
            "group_mismatches", "Streams that another group's service answered; they were not passed on."
        )
        self._info = Gauge("routing_layer_registry_info", "Registry in use.", ["revision"], registry=self._registry)
        self._revision: str | None = None
        build = Gauge("routing_layer_build_info", "Version of the software.", ["version"], registry=self._registry)
        build.labels(__version__).set(1)
        self._merges: dict[str, Merge] = {"routing_layer_registry_info": max, "routing_layer_build_info": max}

    def count_request(self, route: str, code: int) -> None:
        """Count one answered request."""
        child = self._requests_by_label.get((route, code))
        if child is None:
            label = str(code) if code in _KNOWN_CODES else _UNKNOWN_CODE
            child = self._requests.labels(route, label)
            if label != _UNKNOWN_CODE:
                self._requests_by_label[route, code] = child
        child.inc()

    def show_revision(self, revision: str) -> None:
        """Show which revision of the registry is in use."""
        if self._revision is not None:
            self._info.remove(self._revision)
        self._revision = revision
        self._info.labels(revision).set(1)

    def add_gauge(self, name: str, documentation: str, read: Callable[[], float], merge: Merge = max) -> None:
        """Add a gauge that is read at each scrape; ``merge`` makes one value of those of all workers."""
        Gauge(f"routing_layer_{name}", documentation, registry=self._registry).set_function(read)
        self._merges[f"routing_layer_{name}"] = merge

    def exposition(self, others: Iterable[list[Sample]] = ()) -> bytes:
        """Return everything in Prometheus' text format, merged with the `snapshot` of each other worker."""
        registry = CollectorRegistry()
        registry.register(_MergedCollector(self._registry, [*others], self._merges))
        return generate_latest(registry)

    def snapshot(self) -> list[Sample]:
        """Return every value."""
        metrics = self._registry.collect()
        return [(sample.name, sample.labels, sample.value) for metric in metrics for sample in metric.samples]

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"routing_layer_{name}", documentation, labels, registry=self._registry)

    def _counters(self, name: str, documentation: str, label: str, values: Iterable[str]) -> dict[str, Counter]:
        counter = self._counter(name, documentation, label)
        return {value: counter.labels(str(value)) for value in values}


class CachedExposition:
    """A response that is rendered at most once in `INTERVAL_SECONDS` and shared by all clients meanwhile.

    A scrape takes some milliseconds of the event loop, in which no stream moves: with 100 clients that scraped without
    a pause, the median latency of the streams rose from 0.5 to 295 ms.
    """

    INTERVAL_SECONDS = 1.0

    def __init__(self, render: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        """Call ``render`` for the response, not before the first request."""
        self._render = render
        self._task: asyncio.Task[bytes] | None = None
        self._next = 0.0

    async def get(self) -> bytes:
        """Return the response."""
        now = asyncio.get_running_loop().time()
        if self._task is None or (self._task.done() and now >= self._next):
            self._next = now + self.INTERVAL_SECONDS
            self._task = asyncio.create_task(self._render())
        return await asyncio.shield(self._task)


@dataclass(eq=False)
class _MergedCollector(Collector):
    """The values of several workers as one; what has no rule of its own is added up."""

    own: CollectorRegistry
    others: list[list[Sample]]
    merges: dict[str, Merge]

    def collect(self) -> Iterable[Metric]:
        """Merge each of our metrics; label values that only other workers have are added."""
        values: dict[tuple[str, frozenset[tuple[str, str]]], list[float]] = {}
        for name, labels, value in (sample for other in self.others for sample in other):
            values.setdefault((name, frozenset(labels.items())), []).append(value)
        for metric in self.own.collect():
            merged = Metric(metric.name, metric.documentation, metric.type)
            for sample in metric.samples:
                theirs = values.pop((sample.name, frozenset(sample.labels.items())), [])
                merge = self.merges.get(sample.name, sum)
                merged.add_sample(sample.name, sample.labels, float(merge([sample.value, *theirs])))
            for key in [key for key in values if key[0] in (metric.name, f"{metric.name}_total")]:
                merge = self.merges.get(key[0], sum)
                merged.add_sample(key[0], dict(key[1]), float(merge(values.pop(key))))
            yield merged

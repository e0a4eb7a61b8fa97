"""What the proxy counts, with every label value present from the start (a missing series hides a first failure)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, disable_created_metrics, generate_latest
from prometheus_client.registry import Collector

from openfactory_common.connections import Ending

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series for each counter that nobody asked for

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Ended(StrEnum):
    """Why a stream ended."""

    MOVED = "moved"
    GROUP_REMOVED = "group_removed"
    DRAINED = "drained"
    CLIENT_LEFT = "client_left"
    CLIENT_STALLED = "client_stalled"
    UPSTREAM_ENDED = "upstream_ended"
    UPSTREAM_BROKE = "upstream_broke"
    UPSTREAM_SILENT = "upstream_silent"


ROUTES = ("asset_stream", "group_stream", "asset_state", "healthz", "readyz", "metrics", "other")
_CODES = (200, 307, 400, 404, 405, 500, 502, 503, 504, 505)
#: The label of every status that HTTP does not define: services can invent 500 of them, each would stay as a series.
_UNKNOWN_CODE = "other"
_KNOWN_CODES = frozenset(map(int, HTTPStatus))
TASKS = ("registry", "membership", "memory", "connections")
#: How the values of several processes become one.
Across = Callable[[Iterable[float]], float]
_REFUSALS = ("corrupt", "identity", "unreachable", "bug")


class Metrics:
    """The counters of one process."""

    def __init__(self) -> None:
        """Create every series at 0."""
        self._registry = CollectorRegistry()
        self._ended = self._counter("streams_ended", "Streams that ended, by reason.", "reason")
        self.ended = {reason: self._ended.labels(reason.value) for reason in Ended}
        self._requests = self._counter("requests", "Answered requests; a stream counts at its head.", "route", "code")
        self._children = {(r, c): self._requests.labels(r, str(c)) for r in ROUTES for c in _CODES}
        self.lookup_misses = self._counter("lookup_misses", "Assets that were asked for and not in memory.")
        self.relists = self._counter("membership_relists", "Times that the whole membership was listed again.")
        self.membership_errors = self._counter("membership_errors", "Failed or disbelieved reads of the membership.")
        refused = self._counter("registry_refused", "Registry documents not used, by reason.", "reason")
        self.registry_refused = {reason: refused.labels(reason) for reason in _REFUSALS}
        tasks = self._counter(
            "background_task_ends", "Background tasks that ended unasked, and were restarted.", "task"
        )
        self.task_ends = {name: tasks.labels(name) for name in TASKS}
        closed = self._counter("connections_ended", "Connections that were ended to keep room for others.", "reason")
        self.connections_ended = {reason: closed.labels(reason.value) for reason in Ending}
        self.nudges = self._counter("nudges", "Times that the operator was told of a group without a service.")
        self._info = self._gauge("registry_info", "The registry in use.", "revision")
        self._revision: str | None = None
        self._across: dict[str, Across] = {"routing_layer_registry_info": max}

    def request(self, route: str, code: int) -> None:
        """Count one answered request."""
        child = self._children.get((route, code))
        if child is None:
            label = str(code) if code in _KNOWN_CODES else _UNKNOWN_CODE
            child = self._requests.labels(route, label)
            if label != _UNKNOWN_CODE:
                self._children[route, code] = child
        child.inc()

    def registry_in_use(self, revision: str) -> None:
        """Show which revision of the registry is in use."""
        if self._revision is not None:
            self._info.remove(self._revision)
        self._revision = revision
        self._info.labels(revision).set(1)

    def observe(self, name: str, documentation: str, read: Callable[[], float], across: Across = max) -> None:
        """Add a gauge that is read when it is asked for; ``across`` makes one value of those of all processes."""
        self._gauge(name, documentation).set_function(read)
        self._across[f"routing_layer_{name}"] = across

    def exposition(self, others: Iterable[Any] = ()) -> bytes:
        """Return everything in Prometheus' text format, with what ``others`` (see `told`) have counted."""
        registry = CollectorRegistry()
        registry.register(_Together(self._registry, [*others], self._across))
        return generate_latest(registry)

    def told(self) -> list[Any]:
        """Return every value, as JSON can carry it to another process."""
        return [
            [sample.name, sample.labels, sample.value]
            for metric in self._registry.collect()
            for sample in metric.samples
        ]

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"routing_layer_{name}", documentation, labels, registry=self._registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(f"routing_layer_{name}", documentation, labels, registry=self._registry)


class Rendered:
    """An answer that is made at most once in `EVERY_SECONDS` and shared by all who ask meanwhile.

    A scrape takes some milliseconds of the event loop, in which no stream moves: with 100 clients that asked without a
    pause, the median latency of the streams rose from 0.5 to 295 ms.
    """

    EVERY_SECONDS = 1.0

    def __init__(self, make: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        """Make the answer with ``make``, not before it is asked for."""
        self._make = make
        self._task: asyncio.Task[bytes] | None = None
        self._next = 0.0

    async def get(self) -> bytes:
        """Return the answer."""
        now = asyncio.get_running_loop().time()
        if self._task is None or (self._task.done() and now >= self._next):
            self._next = now + self.EVERY_SECONDS
            self._task = asyncio.create_task(self._make())
        return await asyncio.shield(self._task)


class _Together(Collector):
    """The values of several processes as one: counters and what counts something are added up."""

    def __init__(self, own: CollectorRegistry, others: list[Any], across: dict[str, Across]) -> None:
        self._own, self._others, self._across = own, others, across

    def collect(self) -> Iterable[Metric]:
        """Make one metric of each of ours."""
        values: dict[tuple[str, frozenset[tuple[str, str]]], list[float]] = {}
        for name, labels, value in (sample for other in self._others for sample in other):
            values.setdefault((name, frozenset(labels.items())), []).append(value)
        for metric in self._own.collect():
            joined = Metric(metric.name, metric.documentation, metric.type)
            for sample in metric.samples:
                theirs = values.pop((sample.name, frozenset(sample.labels.items())), [])
                joined.add_sample(sample.name, sample.labels, self._join(sample.name, [sample.value, *theirs]))
            self._add_those_of_others(joined, values)
            yield joined

    def _add_those_of_others(
        self, joined: Metric, values: dict[tuple[str, frozenset[tuple[str, str]]], list[float]]
    ) -> None:
        """Add the label values that only other processes have seen."""
        for name, labels in [key for key in values if key[0].startswith(joined.name)]:
            suffix = name.removeprefix(joined.name)
            if suffix in ("", "_total"):
                joined.add_sample(name, dict(labels), self._join(name, values.pop((name, labels))))

    def _join(self, name: str, values: list[float]) -> float:
        return float(self._across.get(name, sum)(values))

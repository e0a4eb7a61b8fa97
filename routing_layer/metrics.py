"""What the proxy counts, with every label value present from the start (a missing series hides a first failure)."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

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
_CODES = (200, 307, 400, 404, 405, 500, 502, 503, 504)
_REFUSALS = ("corrupt", "identity", "unreachable")


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
        self.nudges = self._counter("nudges", "Times that the operator was told of a group without a service.")
        self._info = self._gauge("registry_info", "The registry in use.", "revision")
        self._revision: str | None = None

    def request(self, route: str, code: int) -> None:
        """Count one answered request."""
        child = self._children.get((route, code))
        if child is None:
            child = self._children[route, code] = self._requests.labels(route, str(code))
        child.inc()

    def registry_in_use(self, revision: str) -> None:
        """Show which revision of the registry is in use."""
        if self._revision is not None:
            self._info.remove(self._revision)
        self._revision = revision
        self._info.labels(revision).set(1)

    def observe(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Add a gauge that is read when it is asked for."""
        self._gauge(name, documentation).set_function(read)

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"routing_layer_{name}", documentation, labels, registry=self._registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(f"routing_layer_{name}", documentation, labels, registry=self._registry)

"""The group service's metrics; every series exists from the start."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics

from group_service.events import Reason

disable_created_metrics()  # type: ignore[no-untyped-call]  # a needless series for each counter


class Metrics:
    """The metrics of one process.

    Attributes:
        registry: all of them.
    """

    def __init__(self) -> None:
        """Create every series at 0."""
        self.registry = CollectorRegistry()
        self.events = self._counter("events", "Events read from the topic.")
        self.repeated = self._counter("repeated", "Events that the topic has a second time, not delivered again.")
        self.deliveries = self._counter("deliveries", "Events written to clients.")
        self.replays = self._counter("replays", "Portions that were read from Kafka for clients that resume.")
        self.cut = self._counter("clients_cut", "Clients that were cut because they read too slowly.")
        gaps = self._counter("gaps", "Gaps told to clients, by reason.", "reason")
        self.gaps = {reason: gaps.labels(reason.value) for reason in Reason}

    def add_gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Add a gauge that is read at each scrape."""
        Gauge(f"group_service_{name}", documentation, registry=self.registry).set_function(read)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"group_service_{name}", documentation, labels, registry=self.registry)

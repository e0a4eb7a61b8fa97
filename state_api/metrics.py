"""The state API's metrics, with every label value present from the start (a missing series hides a first failure)."""

from __future__ import annotations

from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Histogram

ANSWERS = (HTTPStatus.OK, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE)


class Metrics:
    """The metrics of one process.

    Attributes:
        registry: has them all.
        answers: answered questions by status.
        query_seconds: each pull query, also one that failed.
        failures: pull queries without a usable answer.
    """

    def __init__(self) -> None:
        """Create every series at 0."""
        self.registry = CollectorRegistry()
        requests = Counter(
            "state_api_requests", "Answered requests for a state, by status.", ["code"], registry=self.registry
        )
        self.answers = {status: requests.labels(str(int(status))) for status in ANSWERS}
        self.query_seconds = Histogram(
            "state_api_query_seconds",
            "Time of a pull query; equal questions at one time share one.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
            registry=self.registry,
        )
        self.failures = Counter(
            "state_api_query_failures", "Pull queries without a usable answer.", registry=self.registry
        )

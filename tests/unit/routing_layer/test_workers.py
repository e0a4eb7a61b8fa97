"""What the workers of a task tell each other."""

from __future__ import annotations

from itertools import count

import pytest

from routing_layer import workers
from routing_layer.workers import create_peers


async def test_the_demand_that_a_worker_tells_is_never_that_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group would be stopped under a stream that was opened since; metrics are made once for all who ask."""
    monkeypatch.setattr(workers, "_CACHE_SECONDS", 1000.0)
    one, other = create_peers(2)
    metrics, demand = count(), count()
    await one.listen(lambda: next(metrics), lambda: next(demand))
    try:
        assert [await other.collect() for _ in range(2)] == [
            [{"metrics": 0, "demand": 0}],
            [{"metrics": 0, "demand": 1}],
        ]
    finally:
        one.close()

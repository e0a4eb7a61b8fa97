"""Counting streams: which are refused, and that nothing is left when all have ended."""

from __future__ import annotations

import random

import pytest

from routing_layer.limits import StreamLimits, StreamRefusal

_TOTAL, _CLIENT = StreamRefusal.TOTAL, StreamRefusal.CLIENT


@pytest.mark.parametrize(
    ("most", "per_client", "steps", "refusals", "admitted"),
    [
        (0, 0, "+a +a +a +b", [None] * 4, 4),
        (2, 0, "+a +a +a +b", [None, None, _TOTAL, _TOTAL], 2),
        (2, 0, "+a +a +b -a +b +b", [None, None, _TOTAL, None, _TOTAL], 2),
        (0, 2, "+a +a +a +b +b +b", [None, None, _CLIENT, None, None, _CLIENT], 4),
        (0, 1, "+a +a -a +a +a", [None, _CLIENT, None, _CLIENT], 1),
        (2, 1, "+a +a +b +c", [None, _CLIENT, None, _TOTAL], 2),
        (1, 1, "+a +a +b", [None, _CLIENT, _TOTAL], 1),
        (2, 2, "-a -a +a", [None], 1),
        (1, 0, "+a -b +b", [None, _TOTAL], 1),
        (2, 1, "+a -a -a -a +a +b +c", [None, None, None, _TOTAL], 2),
        (0, 0, "+a -a", [None], 0),
    ],
)
def test_streams_are_counted(
    most: int, per_client: int, steps: str, refusals: list[StreamRefusal | None], admitted: int
) -> None:
    """``+a`` is a stream of client a, ``-a`` the end of one, also of one that there never was."""
    limits = StreamLimits(most, per_client)
    found = []
    for sign, client in steps.split():
        if sign == "+":
            found.append(limits.enter(client))
        else:
            limits.leave(client)
    assert found == refusals
    assert limits.admitted == admitted


def test_no_client_is_remembered_without_a_stream() -> None:
    """After any order of beginnings and ends the counts are those of the streams that are open, and then none."""
    limits, chance, streams = StreamLimits(50, 3), random.Random(7), []  # noqa: S311 - a test's order of steps
    for _ in range(20_000):
        client = f"10.0.0.{chance.randrange(40)}"
        if chance.random() < 0.5 and limits.enter(client) is None:
            streams.append(client)
        elif streams:
            limits.leave(streams.pop(chance.randrange(len(streams))))
        assert limits.admitted == len(streams) <= 50
        assert limits._by_client == {client: streams.count(client) for client in streams}
        assert max(limits._by_client.values(), default=0) <= 3
    for client in streams:
        limits.leave(client)
    assert (limits.admitted, limits._by_client) == (0, {})

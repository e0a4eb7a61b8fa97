"""Which streams end when."""

from __future__ import annotations

import math

from routing_layer.access.expiry import ExpiringStreams
from routing_layer.metrics import EndReason


class _Stream:
    def __init__(self) -> None:
        self.ends: list[EndReason] = []

    def end(self, reason: EndReason) -> None:
        self.ends.append(reason)


def test_streams_end_at_their_time_and_once() -> None:
    """Not before it, those of one token together; not one that is over, nor one without a time."""
    first, second, over, later, endless = streams = [_Stream() for _ in range(5)]
    expiring = ExpiringStreams()
    for stream, expires in zip(streams, (100.5, 100.5, 100.5, 200.0, math.inf), strict=True):
        expiring.add(expires, stream)
    expiring.remove(100.5, over)
    expiring.end_expired(100.4)
    assert not any(stream.ends for stream in streams)
    for now in (100.5, 101.0, 199.9):
        expiring.end_expired(now)
        assert [stream.ends for stream in streams] == [[EndReason.TOKEN_EXPIRED]] * 2 + [[]] * 3
    expiring.remove(100.5, first)
    expiring.remove(100.5, second)
    expiring.remove(math.inf, endless)
    expiring.end_expired(1e12)  # the clock was set
    assert later.ends == [EndReason.TOKEN_EXPIRED]
    assert not endless.ends


def test_nothing_is_kept_of_streams_that_are_over() -> None:
    """Clients come and go for as long as a token is valid."""
    expiring = ExpiringStreams()
    for _ in range(3):
        stream = _Stream()
        expiring.add(100.0, stream)
        expiring.remove(100.0, stream)
    assert not expiring._streams

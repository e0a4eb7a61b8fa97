"""The parser that these tests read event streams with."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tests.integration.routing_layer.sse_parser import EventParser

_CUTS = st.lists(st.integers(0, 400), max_size=12)


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(
    st.lists(st.sampled_from(["\n", "\r", "\r\n", "data: a", "data:b", ":c", "id: 1", "event: e", "\u2028", "x"])),
    _CUTS,
)
def test_the_tests_own_parser_does_not_depend_on_cuts(parts: list[str], cuts: list[int]) -> None:
    """Bytes one by one, or all at once: the same events."""
    data = "".join(parts).encode()
    whole, cut = EventParser(), EventParser()
    assert whole.feed(data) == [event for piece in _pieces(data, cuts) for event in cut.feed(piece)]

"""What a client sends as its position is understood, or refused; never half understood."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from group_service.ids import ResumePoint, format_position, parse_id, parse_since

NOW = 1_764_370_800_000


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("Weld/0/4711@1764370800000", ResumePoint("Weld", {0: 4711}, whole=False, ms=NOW, since=NOW)),
        ("Weld/0/4711", ResumePoint("Weld", {0: 4711}, whole=False, ms=None, since=None)),
        ("CNC-01_x/12/0", ResumePoint("CNC-01_x", {12: 0}, whole=False, ms=None, since=None)),
        ("Weld/0/-1", ResumePoint("Weld", {0: -1}, whole=False, ms=None, since=None)),
        ("Weld/0:12,1:7@5", ResumePoint("Weld", {0: 12, 1: 7}, whole=True, ms=5, since=5)),
        ("Weld/0:12", ResumePoint("Weld", {0: 12}, whole=True, ms=None, since=None)),
        ("Weld/0/12@9,5", ResumePoint("Weld", {0: 12}, whole=False, ms=9, since=5)),
        ("Weld/0:12@5", ResumePoint("Weld", {0: 12}, whole=True, ms=5, since=5)),
        ("Weld/0/7@-1,-1", ResumePoint("Weld", {0: 7}, whole=False, ms=-1, since=-1)),
        ("Weld/0/7@1764370800000000000", ResumePoint("Weld", {0: 7}, whole=False, ms=NOW * 10**6, since=NOW * 10**6)),
        ("@9999999999999999999", ResumePoint("", {}, whole=False, ms=2**63 - 2, since=2**63 - 2)),
        ("@1764370800000", ResumePoint("", {}, whole=False, ms=NOW, since=NOW)),
    ],
)
def test_an_id_is_parsed(text: str, point: ResumePoint) -> None:
    """Every form that the service itself sends, and a point in time."""
    assert parse_id(text) == point


@pytest.mark.parametrize(
    "text",
    ["", "x", "Weld", "Weld/0", "Weld/0/", "Weld/0/x", "/0/1", "a b/0/1", "../etc/0/1", "Wéld/0/1", "Weld/0/1@", "@",
     "@-5", "@" + "9" * 20, "Weld/0/-2", "Weld/0/1,1/2", "Weld/0:1,", "Weld/٣/1", "Weld/0/1@1 ", "Weld/0/1\n",
     "Weld/0/" + "9" * 30, "W" * 300 + "/0/1"],
)  # fmt: skip
def test_what_is_no_id_is_refused(text: str) -> None:
    """Nothing else is taken for an id: its slug becomes part of a topic's name."""
    with pytest.raises(ValueError, match="no event id"):
        parse_id(text)


_TIMES = st.none() | st.integers(-1, 2**63 - 2)


@given(st.dictionaries(st.integers(0, 500), st.integers(0, 10**17), min_size=1), _TIMES, _TIMES)
def test_what_is_formatted_is_parsed_again(position: dict[int, int], ms: int | None, since: int | None) -> None:
    """A position survives the way to a client and back; a time that is not the record's is never taken for it."""
    point = parse_id(format_position("Weld", position, ms, since))
    assert (point.slug, {p: o + 1 for p, o in point.last.items()}) == ("Weld", position)
    assert point.since == (ms if since is None else since)
    assert point.whole or point.ms == ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("15m", NOW - 900_000),
        ("90s", NOW - 90_000),
        ("90", NOW - 90_000),
        ("2h", NOW - 7_200_000),
        ("250ms", NOW - 250),
        ("9999999d", 0),
        ("2025-11-28T23:00:00Z", NOW),
        ("2025-11-29T00:00:00+01:00", NOW),
        ("2025-11-29T00:00:00 01:00", NOW),
    ],
)
def test_since_is_a_duration_or_a_time(text: str, ms: int) -> None:
    """Durations count back from now; a + that became a blank in the query is understood."""
    assert parse_since(text, NOW) == ResumePoint("", {}, whole=False, ms=ms, since=ms)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "-5m", "2025-11-28T23:00:00", "2025-13-01T00:00:00Z", "5 weeks", "9" * 400]
)
def test_since_is_refused(text: str) -> None:
    """Neither a duration nor a time with its zone."""
    with pytest.raises(ValueError, match=r".+"):
        parse_since(text, NOW)

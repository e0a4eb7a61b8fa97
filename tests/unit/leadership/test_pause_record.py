"""What a pause's record says: fields of this version, another one, or nonsense; a line a case."""

from __future__ import annotations

from datetime import timedelta

import pytest

from reconciler.domain.services import Record
from reconciler.leadership.pause import Pause, parse, read_pause, start_pause
from tests.unit.planning.tables import NOW

RECORDS: list[tuple[dict[str, object], bool]] = [
    ({"until": "2026-01-01T00:10:00Z", "by": "me", "reason": "x"}, True),
    ({"until": "2026-01-01T00:10:00Z", "scope": "group Weld", "v": "2"}, True),
    ({"until": "2026-01-01T00:10:00.5Z"}, True),
    ({"until": "2026-01-01T01:10:00+01:00"}, True),
    ({"until": "2026-01-01T00:10:00"}, True),
    ({"until": "2026-01-01T00:00:00Z"}, False),
    ({"until": "2025-12-31T23:59:59Z"}, False),
    ({"until": "2027-01-01T00:00:00Z"}, False),
    ({"until": "9999-12-31T23:59:59Z"}, False),
    ({"until": "9999-12-31T23:59:59-23:59"}, False),
    ({"until": "0001-01-01T00:00:00+23:59"}, False),
    ({"until": ""}, False),
    ({"until": "soon"}, False),
    ({"until": "\ud800\x00"}, False),
    ({"until": "9" * 5000}, False),
    ({"until": None, "by": 7, "reason": ["x"]}, False),
    ({"until": 1767226200}, False),
    ({}, False),
]


@pytest.mark.parametrize(("fields", "active"), RECORDS)
def test_any_record_is_read(fields: dict[str, object], active: bool) -> None:
    """Unknown fields are ignored, nonsense pauses nothing, and nothing is raised, in a sentence either."""
    pause = read_pause(None, {"pause": Record("1", 1, "pause", fields)})  # type: ignore[arg-type]
    assert pause is not None
    assert pause.active(NOW) == active
    assert isinstance(pause.text, str)
    assert parse(pause.fields).active(NOW) == active


@pytest.mark.parametrize(
    ("seconds", "lasts"), [(60.0, 60), (0.0, 1), (-5.0, 1), (1e9, 86400), (float("inf"), 86400), (float("nan"), 1)]
)
def test_a_pause_always_ends(seconds: float, lasts: int) -> None:
    """At least a second, at most a day, whatever number is given."""
    assert start_pause(NOW, seconds, "me") == Pause(NOW + timedelta(seconds=lasts), "me", "")

"""What `make audit` makes of a report: silence of the database is not a clean bill."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scripts.audit import verdict

SKIPPED = {"name": "rich", "skip_reason": "Dependency not found on PyPI"}
CLEAN: dict[str, Any] = {"name": "yarl", "version": "1.25.1", "vulns": []}
BAD = {"name": "urllib3", "version": "2.0.0", "vulns": [{"id": "CVE-1", "fix_versions": ["2.0.7"]}]}


@pytest.mark.parametrize(
    ("libraries", "said", "bad"),
    [
        ([SKIPPED, SKIPPED], "not audited: the database knows none of the 2 libraries", False),
        ([SKIPPED, CLEAN], "nothing known about 1 of 2 libraries", False),
        ([CLEAN, BAD], "urllib3 2.0.0: CVE-1, mended in 2.0.7", True),
    ],
)
def test_a_report_is_put_into_words(libraries: list[dict[str, Any]], said: str, *, bad: bool) -> None:
    """The number of libraries that were looked up is part of the answer."""
    assert verdict("x.lock", json.dumps({"dependencies": libraries})) == (f"x.lock: {said}", bad)


def test_no_report_is_no_verdict() -> None:
    """A network that is away fails nothing, and is not taken for good news."""
    text, bad = verdict("x.lock", "")
    assert "not audited" in text
    assert not bad

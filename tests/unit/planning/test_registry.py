"""Which document is kept where the next one cannot be published; a line a case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openfactory_common.registry import LIMIT_BYTES, Registry
from reconciler.domain.status import Guard
from reconciler.planning.registry import keep_within_limits
from reconciler.planning.survey import Published, Survey
from tests.unit.planning.tables import document, live_registry, observed, seen, source

FITS = document(["Weld"])
TOO_LARGE = FITS.model_copy(update={"groups": {"x" * LIMIT_BYTES: "http://x:8000/asset_stream"}})
BAD_ADDRESS = FITS.model_copy(update={"state_api": "ftp://x"})


def published(made: Registry | None) -> Survey:
    """A survey in which this document is the current one."""
    survey = seen(observed({}, source({})))
    return replace(survey, published=Published(live_registry(b"", 1), made) if made else None)


@pytest.mark.parametrize(
    ("planned", "current", "kept", "refused"),
    [
        (FITS, None, FITS, False),
        (None, None, None, False),
        (None, FITS, None, False),
        (TOO_LARGE, None, None, True),
        (TOO_LARGE, FITS, FITS, True),
        (BAD_ADDRESS, FITS, FITS, True),
        (TOO_LARGE, BAD_ADDRESS, None, True),
    ],
)
def test_a_document_that_no_proxy_would_accept_is_not_published(
    planned: Registry | None, current: Registry | None, kept: Registry | None, refused: bool
) -> None:
    """The current one stays, and the first problem is the one that is said."""
    found, refusals = keep_within_limits(planned, published(current))
    assert found == kept
    assert [refusal.guard for refusal in refusals] == ([Guard.SIZE] if refused else [])
    if planned is TOO_LARGE:
        assert "coarser grouping level" in refusals[0].text

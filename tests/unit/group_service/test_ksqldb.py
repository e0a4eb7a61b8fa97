"""The history is read when the query says no more, however long it takes to begin."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from group_service import ksqldb
from group_service.hub import Hub
from group_service.ksqldb import KsqldbReader
from group_service.metrics import Metrics
from openfactory_common.errors import KsqlTruncated

_SCHEMA = "`K` STRING KEY, `v` STRING, `ROWPARTITION` INTEGER, `ROWOFFSET` BIGINT, `ROWTIME` BIGINT"
_HEADER = b"[" + json.dumps({"header": {"queryId": "q", "schema": _SCHEMA}}).encode()
_NOW = int(time.time() * 1000)


def row(offset: int, ms: int = 1000) -> bytes:
    """Return a piece with one row."""
    return b"," + json.dumps({"row": {"columns": ["A", "x", 0, offset, ms]}}).encode()


async def follow(pieces: list[bytes | None], monkeypatch: pytest.MonkeyPatch) -> tuple[Hub, list[tuple[float, bool]]]:
    """Read pieces (None: none in time); return the hub, and for each one the patience and whether it was filled."""
    hub, asked = Hub("Weld", 10**6, 15, Metrics()), list[tuple[float, bool]]()

    async def next_piece(_body: Any, seconds: float) -> bytes | None:
        asked.append((seconds, hub.filled))
        if not pieces:
            raise KsqlTruncated("the push query has ended", status=200)
        return pieces.pop(0)

    @asynccontextmanager
    async def query(*_: Any) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(content=None)

    monkeypatch.setattr(ksqldb, "_next_piece", next_piece)
    with pytest.raises(KsqlTruncated):
        await KsqldbReader(hub, SimpleNamespace(query=query), "S")._follow()  # type: ignore[arg-type]
    return hub, asked


async def test_the_first_row_may_take_longer_than_the_next_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second without a row is an end only after the first."""
    _, asked = await follow([_HEADER, row(0), row(1), None, row(2)], monkeypatch)
    assert asked[:4] == [(5.0, False), (5.0, False), (0.5, False), (0.5, False)]
    assert [filled for _, filled in asked[4:]] == [True, True]


async def test_a_stream_without_rows_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read after the patience for the first row."""
    _, asked = await follow([_HEADER, None], monkeypatch)
    assert asked[2][1]


async def test_rows_of_the_past_are_history_however_long_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """After half a minute, the first row of the present is the end; until then nothing is live."""
    monkeypatch.setattr(ksqldb, "_FILL_SECONDS", -1.0)
    hub, asked = await follow([_HEADER, row(0), row(1), row(2, _NOW + 3_600_000), row(3)], monkeypatch)
    assert [filled for _, filled in asked] == [False, False, False, False, True, True]
    assert hub.history.next == {0: 4}

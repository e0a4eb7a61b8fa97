"""Any answer of ksqlDB to a typed value or an error: the product's parsers, and the formats that it never asks for.

The product asks for StreamedRow only. The delimited and the array format, PRINT and the acknowledgements are read
here, so that a whole recorded session can be walked without a blind spot.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from openfactory_common.errors import KsqlTruncated, KsqlWrongShape
from openfactory_common.ksqldb.failures import error_of, in_band, is_error_object, no_answer
from openfactory_common.ksqldb.wire import ROWS_ACCEPT, Header, Row, RowFeed
from reconciler.ksqldb.replies import parse_entities, parse_health, parse_info, parse_status
from tests.integration.ksqldb.corpus import Case

_READS = ("LIST", "SHOW", "DESCRIBE", "EXPLAIN", "SELECT", "PRINT", "ASSERT")
_DOCUMENTS = ("/chc/", "/v1/metadata", "/is_valid_property/", "/clusterStatus")


class UnknownAnswerError(Exception):
    """An answer that nothing here has a reading for."""


@dataclass(frozen=True)
class Table:
    """Rows with their columns; ``complete`` where the format has an end and it was there."""

    columns: tuple[str, ...]
    rows: int
    complete: bool


@dataclass(frozen=True)
class Printed:
    """The lines of a PRINT."""

    lines: int


@dataclass(frozen=True)
class Acknowledged:
    """An empty 200."""


@dataclass(frozen=True)
class Document:
    """A JSON value of an endpoint that the product does not ask."""

    value: object


def answer(case: Case) -> object:
    """Return the typed value of a case.

    Raises:
        KsqlError: of the class that the answer stands for.
        UnknownAnswerError: nothing fits.
    """
    if case.status is None:
        raise no_answer(case.cause, writes=_writes(case))
    if case.status != 200:
        raise error_of(case.status, case.body, case.content_type)
    path = case.path.partition("?")[0].rstrip("/")
    if path in _BY_PATH:
        return _BY_PATH[path](case)
    if path.startswith("/status/"):
        return parse_status(case.body)
    if path.startswith(_DOCUMENTS):
        return Document(json.loads(case.body))
    raise UnknownAnswerError(f"{case.method} {case.path}")


def _writes(case: Case) -> bool:
    return case.path == "/ksql" and not case.sql.lstrip().upper().startswith(_READS)


def _rows(case: Case) -> object:
    if case.content_type.startswith(ROWS_ACCEPT):
        return _streamed(case)
    if case.content_type.startswith("application/json"):
        return _array(case)
    if case.content_type.startswith("application/vnd.ksqlapi.delimited"):
        return _delimited(case)
    if case.content_type.startswith("application/vnd.ksql.v1+protobuf"):
        return Document(json.loads(case.body))
    if case.sql.lstrip().upper().startswith("PRINT"):
        return Printed(len(case.body.splitlines()))
    raise UnknownAnswerError(f"{case.path}: rows as {case.content_type or 'no content type'}")


def _streamed(case: Case) -> Table:
    feed = RowFeed()
    items = feed.feed(case.body)
    if not case.left_open:
        feed.close()
    if not items or not isinstance(items[0], Header):
        raise KsqlWrongShape("rows without a header", status=200)
    columns = tuple(column.name for column in items[0].columns)
    return Table(columns, sum(isinstance(item, Row) for item in items), feed.closed)


def _array(case: Case) -> Table:
    complete = True
    try:
        items = json.loads(case.body)
    except ValueError:
        complete = False
        if not case.left_open:
            raise KsqlTruncated("an array without its end", status=200) from None
        items = json.loads(case.body.rstrip().rstrip(b",") + b"]")
    return _table(items, complete=complete)


def _delimited(case: Case) -> Table:
    """Read one JSON value a line; this format has no end, which is why the product does not use it."""
    return _table([json.loads(line) for line in case.body.splitlines() if line.strip()], complete=False)


def _table(items: list[Any], *, complete: bool) -> Table:
    for item in items:
        if is_error_object(item):
            raise in_band(item)
    if not items or not isinstance(items[0], dict) or "columnNames" not in items[0]:
        raise KsqlWrongShape("rows without a header", status=200)
    return Table(tuple(items[0]["columnNames"]), sum(isinstance(item, list) for item in items), complete)


def _acknowledgements(case: Case) -> object:
    if not case.body.strip():
        return Acknowledged()
    items = [json.loads(line) for line in case.body.splitlines() if line.strip()]
    for item in items:
        if is_error_object(item):
            raise in_band(item)
    return Document(items)


_BY_PATH: dict[str, Callable[[Case], object]] = {
    "/info": lambda case: parse_info(case.body),
    "/healthcheck": lambda case: parse_health(case.body),
    "/status": lambda case: Document(json.loads(case.body)),
    "/ksql": lambda case: parse_entities(case.body),
    "/query": _rows,
    "/query-stream": _rows,
    "/close-query": _acknowledgements,
    "/inserts-stream": _acknowledgements,
}

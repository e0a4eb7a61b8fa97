"""The three forms of a query's answer, and which of them a request gets.

StreamedRow: an array of `{"header":…}` and `{"row":…}` objects, one a line. JSON array: `[{…},[…]]`. Delimited: JSON
values, one a line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from demo.ksqldb.values import Schema

DELIMITED = "application/vnd.ksqlapi.delimited.v1"
JSON = "application/json"
STREAMED = "application/vnd.ksql.v1+json"
PROTOBUF = "application/vnd.ksql.v1+protobuf"
_PRODUCED = (DELIMITED, JSON, STREAMED)

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _preferences(accept: str) -> list[str]:
    """The media types of an Accept header, best first (highest q, then first named)."""
    weighted = []
    for part in accept.split(","):
        name, *parameters = (each.strip() for each in part.split(";"))
        quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        weighted.append((float(quality) if quality.replace(".", "", 1).isdigit() else 1.0, name))
    return [name for _, name in sorted(weighted, key=lambda each: -each[0])]


def negotiate(accept: str | None, path: str) -> str | None:
    """The form for a query endpoint; None means 406.

    Measured: no Accept gives delimited on /query-stream and StreamedRow on /query; `*/*` gives delimited on both;
    application/json gives the JSON array on /query-stream, but StreamedRow on /query.
    """
    if accept is None:
        return DELIMITED if path == "/query-stream" else STREAMED
    for name in _preferences(accept):
        if name in {"*/*", "application/*"}:
            return DELIMITED
        if name in _PRODUCED:
            return STREAMED if name == JSON and path == "/query" else name
    return None


def accepts_json(accept: str | None) -> bool:
    """Whether a resource (everything but the query endpoints) can answer; else 406."""
    if accept is None:
        return True
    return any(each in {"*/*", "application/*", JSON, STREAMED} for each in _preferences(accept))


@dataclass(frozen=True)
class Writer:
    """Writes the parts of an answer in one form."""

    form: str

    def header(self, query_id: str, schema: Schema) -> str:
        """The first item; push queries pass a schema without KEY markers."""
        if self.form == STREAMED:
            return "[" + _encode({"header": {"queryId": query_id, "schema": str(schema)}})
        names = [each.name for each in schema.columns]
        head = {"queryId": query_id, "columnNames": names, "columnTypes": [str(each.type) for each in schema.columns]}
        return "[" + _encode(head) if self.form == JSON else _encode(head) + "\n"

    def row(self, cells: list[Any]) -> str:
        """One row, with what separates it from the item before."""
        if self.form == STREAMED:
            return ',\n{"row":{"columns":' + _encode(cells) + "}}"
        return "," + _encode(cells) if self.form == JSON else _encode(cells) + "\n"

    def tombstone(self, cells: list[Any]) -> str:
        """A deleted row: only StreamedRow can say it, the other forms drop it silently."""
        return ',\n{"row":{"columns":' + _encode(cells) + ',"tombstone":true}}' if self.form == STREAMED else ""

    def error(self, message: str) -> str:
        """A failure after the header: the status stays 200, the body carries it."""
        body = {"@type": "generic_error", "error_code": 50000, "message": message}
        if self.form == STREAMED:
            return ",\n" + _encode({"errorMessage": body})
        return "," + _encode(body) if self.form == JSON else _encode(body) + "\n"

    def final(self, message: str) -> str:
        """The message that ends a push query or a pull on a stream: in StreamedRow alone."""
        return ",\n" + _encode({"finalMessage": message}) if self.form == STREAMED else ""

    def end(self) -> str:
        """What closes the body."""
        return "" if self.form == DELIMITED else "]"


def push_piece(form: str, piece: str) -> str:
    """The form of an open stream: StreamedRow ends each line with its comma instead of beginning with it."""
    return piece.removeprefix(",\n") + ",\n" if piece and form == STREAMED else piece


def encoded(value: Any) -> str:
    """JSON as ksqlDB writes it: no white space, no escapes that are not needed."""
    return _encode(value)

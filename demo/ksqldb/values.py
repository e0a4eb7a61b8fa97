"""Values between JSON, SQL and answers.

A row is a tuple in schema order; that of a source begins with its pseudo columns. Inside, TIMESTAMP is milliseconds
since 1970 (as in Kafka's records); answers show it as `2023-11-14T22:13:20.000`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from demo.ksqldb.ast import SqlType
from demo.ksqldb.rendering import quoted

Row = tuple[Any, ...]
Key = Any

STRING = SqlType("STRING")
BIGINT = SqlType("BIGINT")
INTEGER = SqlType("INTEGER")
DOUBLE = SqlType("DOUBLE")
BOOLEAN = SqlType("BOOLEAN")
TIMESTAMP = SqlType("TIMESTAMP")
NUMBERS = frozenset({"INTEGER", "BIGINT", "DOUBLE", "DECIMAL"})
SUPPORTED = frozenset({"STRING", "INTEGER", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP", "MAP", "ARRAY", "DECIMAL"})


class BadValue(ValueError):
    """A JSON value that does not fit its column; ksqlDB skips such a record."""


@dataclass(frozen=True)
class SchemaColumn:
    """A column of a source or of a result."""

    name: str
    type: SqlType
    key: bool = False

    def __str__(self) -> str:
        """The column as ksqlDB prints it in schemas, with the KEY marker."""
        return f"{quoted(self.name)} {self.type}" + (" KEY" if self.key else "")


#: What every source has besides its columns; they stand at the front of its rows and not in ``SELECT *``.
PSEUDO_COLUMNS = (
    SchemaColumn("ROWTIME", BIGINT),
    SchemaColumn("ROWPARTITION", INTEGER),
    SchemaColumn("ROWOFFSET", BIGINT),
)
PSEUDO_NAMES = frozenset(each.name for each in PSEUDO_COLUMNS)


@dataclass(frozen=True)
class Schema:
    """Ordered columns."""

    columns: tuple[SchemaColumn, ...]

    def __str__(self) -> str:
        """The schema as ksqlDB prints it."""
        return ", ".join(str(each) for each in self.columns)

    def without_keys(self) -> Schema:
        """The same columns with no KEY marker, as push queries show them."""
        return Schema(tuple(SchemaColumn(each.name, each.type) for each in self.columns))

    def position(self, name: str) -> int | None:
        """The index of a column, or None."""
        return next((index for index, each in enumerate(self.columns) if each.name == name), None)

    @property
    def key_position(self) -> int | None:
        """The index of the key column, or None for a stream without a key."""
        return next((index for index, each in enumerate(self.columns) if each.key), None)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadValue(value)
    try:
        return int(value)
    except ValueError:
        raise BadValue(value) from None


def _fraction(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadValue(value)
    try:
        return float(value)
    except ValueError:
        raise BadValue(value) from None


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadValue(value)
    return value


_SIMPLE: dict[str, Callable[[Any], Any]] = {
    "STRING": _text,
    "INTEGER": _whole,
    "BIGINT": _whole,
    "TIMESTAMP": _whole,
    "DOUBLE": _fraction,
    "DECIMAL": _fraction,
    "BOOLEAN": _truth,
}


def decoder(type_: SqlType) -> Callable[[Any], Any]:
    """How a JSON value becomes a column value; the result raises BadValue. NULL stays None."""
    if type_.name == "MAP":
        member = decoder(type_.parameters[1])
        return lambda value: None if value is None else _decode_map(value, member)
    if type_.name == "ARRAY":
        member = decoder(type_.parameters[0])
        return lambda value: None if value is None else _decode_list(value, member)
    simple = _SIMPLE[type_.name]
    return lambda value: None if value is None else simple(value)


def _decode_map(value: Any, member: Callable[[Any], Any]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadValue(value)
    return {str(key): member(each) for key, each in value.items()}


def _decode_list(value: Any, member: Callable[[Any], Any]) -> list[Any]:
    if not isinstance(value, list):
        raise BadValue(value)
    return [member(each) for each in value]


def timestamp_text(milliseconds: int) -> str:
    """Milliseconds since 1970 as ksqlDB shows a TIMESTAMP (UTC, three digits of fraction)."""
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}"


def timestamp_value(text: str) -> int:
    """ISO text to milliseconds since 1970; no zone means UTC.

    Raises:
        BadValue: not an ISO date or time.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadValue(text) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def shown(schema: Schema) -> Callable[[Row], list[Any]]:
    """How a row of this schema is written into an answer."""
    stamps = [index for index, each in enumerate(schema.columns) if each.type.name == "TIMESTAMP"]

    def plain(row: Row) -> list[Any]:
        return list(row)

    def with_timestamps(row: Row) -> list[Any]:
        cells = list(row)
        for index in stamps:
            cells[index] = None if cells[index] is None else timestamp_text(cells[index])
        return cells

    return with_timestamps if stamps else plain


def type_json(type_: SqlType) -> dict[str, Any]:
    """The type as DESCRIBE lists it."""
    member = type_.parameters[-1] if type_.parameters else None
    return {"type": type_.name, "fields": None, "memberSchema": type_json(member) if member else None}

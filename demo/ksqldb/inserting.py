"""INSERT INTO … VALUES: literals to a record of the target's topic."""

from __future__ import annotations

from typing import Any

from demo.ksqldb import ast, rendering
from demo.ksqldb.catalog import Catalog, Source
from demo.ksqldb.errors import BAD_REQUEST, KsqlRefusal, PlanFault
from demo.ksqldb.expressions import NULL_TYPE, Compiled, compile_expression
from demo.ksqldb.values import NUMBERS, BadValue, Key, SchemaColumn, timestamp_value


class _NoColumns:
    """The scope of VALUES: constants only."""

    def resolve(self, column: ast.Column, clause: str) -> tuple[int, ast.SqlType]:
        """Refuse every column."""
        raise PlanFault(f"{clause} column '{column.name}' cannot be resolved.")


def insert(statement: ast.InsertValues, catalog: Catalog) -> tuple[Source, Key, dict[str, Any]]:
    """The record that an INSERT writes, and into what.

    Raises:
        KsqlRefusal: unknown target or column, wrong type, missing key of a table.
    """
    source = _target(statement, catalog)
    names = statement.columns or tuple(each.name for each in source.schema.columns)
    try:
        return source, *_record(source, names, statement)
    except PlanFault as fault:
        masked = rendering.masked_insert(source.name, statement.columns, len(statement.values))
        raise KsqlRefusal(f"Failed to insert values into '{source.name}'. {fault}", statement=masked) from None


def _target(statement: ast.InsertValues, catalog: Catalog) -> Source:
    name = rendering.quoted(statement.target)
    source = catalog.sources.get(statement.target)
    if source is None:
        raise KsqlRefusal(f"Cannot insert values into an unknown stream/table: {name}", code=BAD_REQUEST)
    if source.read_only:
        kind = source.kind.lower()
        raise KsqlRefusal(f"Cannot insert values into read-only {kind}: {source.name}", code=BAD_REQUEST)
    catalog.topic(source.topic.name)
    return source


def _record(source: Source, names: tuple[str, ...], statement: ast.InsertValues) -> tuple[Key, dict[str, Any]]:
    if len(names) != len(statement.values):
        raise PlanFault(f"Expected {len(names)} values but got {len(statement.values)}.")
    cells: dict[str, Any] = {}
    for name, node in zip(names, statement.values, strict=True):
        index = source.schema.position(name)
        if index is None:
            raise PlanFault(f"Column name {rendering.quoted(name)} does not exist.")
        column = source.schema.columns[index]
        cells[name] = _coerced(column, compile_expression(node, _NoColumns()))
    key_at = source.schema.key_position
    key_name = source.schema.columns[key_at].name if key_at is not None else None
    if source.is_table and cells.get(key_name or "") is None:
        raise PlanFault(f"Value for primary key column(s) {key_name} is required for tables")
    values = {each.name: cells.get(each.name) for each in source.schema.columns if not each.key}
    return cells.get(key_name or ""), values


def _coerced(column: SchemaColumn, compiled: Compiled) -> Any:
    value, wanted, given = compiled.function(()), column.type, compiled.type
    if given in (NULL_TYPE, wanted) or {wanted.name, given.name} <= NUMBERS:
        return value
    if wanted.name == "TIMESTAMP" and isinstance(value, (str, int)):
        return _timestamp(value, column)
    if wanted.name == "MAP" and isinstance(value, dict):
        return value
    name = rendering.quoted(column.name)
    shown = str(value).lower() if isinstance(value, bool) else value
    raise PlanFault(f"Expected type {wanted} for field {name} but got {given}({shown})")


def _timestamp(value: str | int, column: SchemaColumn) -> int:
    if isinstance(value, int):
        return value
    try:
        return timestamp_value(value)
    except BadValue:
        raise PlanFault(
            f"Expected type TIMESTAMP for field {rendering.quoted(column.name)} but got '{value}'"
        ) from None

"""Statements to text, as ksqlDB's formatter prints them (`statementText`, `queryString`, DESCRIBE's `statement`).

The layout was read off recorded answers: one projected column stays on the SELECT line, several stand on lines of
their own; WITH is alphabetical; every comparison carries parentheses; names are quoted only where they must be.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from demo.ksqldb import ast
from demo.ksqldb.words import RESERVED

_PLAIN = re.compile(r"[A-Z_][A-Z0-9_@]*")


def identifier(name: str) -> str:
    """The name, in backticks where ksqlDB would not read it back otherwise."""
    if _PLAIN.fullmatch(name) and name not in RESERVED:
        return name
    return quoted(name)


def quoted(name: str) -> str:
    """The name in backticks."""
    return "`" + name.replace("`", "``") + "`"


def literal(value: ast.PropertyValue) -> str:
    """A constant, with quotes doubled inside strings."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value)


def _column(node: ast.Column) -> str:
    return f"{identifier(node.source)}.{identifier(node.name)}" if node.source else identifier(node.name)


def _call(node: ast.Call) -> str:
    inside = "*" if node.star else ", ".join(expression(each) for each in node.arguments)
    return f"{node.name}({inside})"


def _map(node: ast.MapConstructor) -> str:
    return "MAP(" + ", ".join(f"{expression(key)}:={expression(value)}" for key, value in node.entries) + ")"


def _in(node: ast.InList) -> str:
    return f"({expression(node.value)} IN ({', '.join(expression(each) for each in node.items)}))"


def _between(node: ast.Between) -> str:
    return f"({expression(node.value)} BETWEEN {expression(node.lower)} AND {expression(node.upper)})"


def _binary(node: ast.Comparison | ast.Logical | ast.Arithmetic) -> str:
    return f"({expression(node.left)} {node.operator} {expression(node.right)})"


def _case(node: ast.Case) -> str:
    branches = [f"WHEN {expression(condition)} THEN {expression(value)}" for condition, value in node.branches]
    default = [] if node.default is None else [f"ELSE {expression(node.default)}"]
    return f"(CASE {' '.join([*branches, *default])} END)"


_PRINTERS: dict[type, Callable[[Any], str]] = {
    ast.Literal: lambda node: literal(node.value),
    ast.Column: _column,
    ast.Subscript: lambda node: f"{expression(node.base)}[{expression(node.index)}]",
    ast.Call: _call,
    ast.MapConstructor: _map,
    ast.Comparison: _binary,
    ast.Logical: _binary,
    ast.Arithmetic: _binary,
    ast.Negation: lambda node: f"(NOT {expression(node.operand)})",
    ast.InList: _in,
    ast.Like: lambda node: f"({expression(node.value)} LIKE {expression(node.pattern)})",
    ast.Between: _between,
    ast.IsNull: lambda node: f"({expression(node.value)} IS {'NOT ' if node.negated else ''}NULL)",
    ast.Case: _case,
    ast.Cast: lambda node: f"CAST({expression(node.value)} AS {node.type})",
}


def expression(node: ast.Expression) -> str:
    """One expression."""
    return _PRINTERS[type(node)](node)


def _item(item: ast.SelectItem) -> str:
    if isinstance(item, ast.AllColumns):
        return f"{identifier(item.source)}.*" if item.source else "*"
    alias = f" {identifier(item.alias)}" if item.alias else ""
    return expression(item.expression) + alias


def _relation(relation: ast.Relation) -> str:
    return f"{identifier(relation.name)} {identifier(relation.alias)}"


def query(node: ast.Query) -> str:
    """A SELECT that has been analysed (aliases filled in, columns qualified), without its semicolon."""
    items = [_item(each) for each in node.items]
    lines = [f"SELECT {items[0]}"] if len(items) == 1 else ["SELECT", ",\n".join(f"  {each}" for each in items)]
    lines.append(f"FROM {_relation(node.relation)}")
    lines += [f"{each.kind} JOIN {_relation(each.relation)} ON ({expression(each.criteria)})" for each in node.joins]
    if node.where is not None:
        lines.append(f"WHERE {expression(node.where)}")
    if node.group_by:
        lines.append("GROUP BY " + ", ".join(expression(each) for each in node.group_by))
    if node.partition_by:
        lines.append("PARTITION BY " + ", ".join(expression(each) for each in node.partition_by))
    if node.having is not None:
        lines.append(f"HAVING {expression(node.having)}")
    lines.append(f"EMIT {node.emit or 'CHANGES'}")
    return "\n".join(lines)


def _properties(properties: tuple[tuple[str, ast.PropertyValue], ...]) -> str:
    return ", ".join(f"{name}={literal(value)}" for name, value in sorted(properties))


def create(statement: ast.Create) -> str:
    """CREATE …, with its semicolon."""
    words = ["CREATE", *(["OR REPLACE"] if statement.or_replace else [])]
    words += ["SOURCE"] if statement.read_only else []
    words += [statement.kind, *(["IF NOT EXISTS"] if statement.if_not_exists else []), identifier(statement.name)]
    if statement.columns:
        words.append("(" + ", ".join(_definition(each) for each in statement.columns) + ")")
    words.append(f"WITH ({_properties(statement.properties)})")
    if statement.query is not None:
        words += ["AS", query(statement.query)]
    return " ".join(words) + ";"


def _definition(column: ast.ColumnDefinition) -> str:
    return f"{identifier(column.name)} {column.type}" + (f" {column.key}" if column.key else "")


def drop(statement: ast.Drop) -> str:
    """DROP without DELETE TOPIC: what is left once the topic has been deleted."""
    exists = "IF EXISTS " if statement.if_exists else ""
    return f"DROP {statement.kind} {exists}{identifier(statement.name)};"


def masked_insert(target: str, columns: tuple[str, ...], count: int) -> str:
    """INSERT with its values hidden, as ksqlDB echoes it in errors."""
    names = f" ({', '.join(quoted(each) for each in columns)})" if columns else ""
    hidden = ", ".join(["'[value]'"] * count)
    return f"INSERT INTO {quoted(target)}{names} VALUES ({hidden});"  # noqa: S608 - what an error echoes, never run

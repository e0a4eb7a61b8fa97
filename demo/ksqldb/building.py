"""Grammar rules of queries and statements to syntax tree nodes; lark calls them while it parses."""

from __future__ import annotations

from typing import Any

from lark import Token, v_args

from demo.ksqldb import ast
from demo.ksqldb.building_expressions import ExpressionBuilder, Identifier, unquoted

TYPE_NAMES = {"VARCHAR": "STRING", "INT": "INTEGER", "DEC": "DECIMAL", "NUMERIC": "DECIMAL"}


class QueryBuilder(ExpressionBuilder):
    """The rules of SELECT."""

    def all_columns(self, _: list[Any]) -> ast.AllColumns:
        """`*`."""
        return ast.AllColumns()

    @v_args(inline=True)
    def source_columns(self, source: Identifier) -> ast.AllColumns:
        """`S.*`."""
        return ast.AllColumns(source.text)

    @v_args(inline=True)
    def single_column(self, expression: ast.Expression, alias: Identifier | None) -> ast.SingleColumn:
        """An expression and its alias."""
        return ast.SingleColumn(expression, alias.text if alias else None)

    @v_args(inline=True)
    def alias(self, name: Identifier) -> Identifier:
        """An alias, with or without AS."""
        return name

    def select_items(self, items: list[ast.SelectItem]) -> tuple[ast.SelectItem, ...]:
        """The projection."""
        return tuple(items)

    @v_args(inline=True)
    def relation(self, name: Identifier, alias: Identifier | None) -> ast.Relation:
        """A source in FROM or JOIN."""
        return ast.Relation(name.text, alias.text if alias else name.text)

    @v_args(inline=True)
    def join_kind(self, word: Token, *_: Any) -> str:
        """LEFT [OUTER] and its like."""
        return "INNER" if word.type == "INNER" else f"{word.type} OUTER"

    def within(self, _: list[Any]) -> bool:
        """WITHIN, which makes a stream-stream join."""
        return True

    @v_args(inline=True)
    def join(self, kind: str | None, relation: ast.Relation, within: bool | None, criteria: ast.Expression) -> ast.Join:
        """One JOIN."""
        return ast.Join(kind or "INNER", relation, criteria, bool(within))

    @v_args(inline=True)
    def where(self, expression: ast.Expression) -> tuple[str, Any]:
        """WHERE."""
        return "where", expression

    def group_by(self, expressions: list[ast.Expression]) -> tuple[str, Any]:
        """GROUP BY."""
        return "group_by", tuple(expressions)

    def partition_by(self, expressions: list[ast.Expression]) -> tuple[str, Any]:
        """PARTITION BY."""
        return "partition_by", tuple(expressions)

    @v_args(inline=True)
    def having(self, expression: ast.Expression) -> tuple[str, Any]:
        """HAVING."""
        return "having", expression

    @v_args(inline=True)
    def emit(self, how: Token) -> tuple[str, Any]:
        """EMIT CHANGES, EMIT FINAL."""
        return "emit", how.type

    @v_args(inline=True)
    def limit(self, count: Token) -> tuple[str, Any]:
        """LIMIT."""
        return "limit", int(count)

    def query(self, parts: list[Any]) -> ast.Query:
        """SELECT with the clauses that were given."""
        items, relation, *rest = parts
        joins = tuple(each for each in rest if isinstance(each, ast.Join))
        clauses: dict[str, Any] = dict(each for each in rest if isinstance(each, tuple))
        return ast.Query(items, relation, joins, **clauses)


class Builder(QueryBuilder):
    """The rules of statements."""

    def start(self, parts: list[Any]) -> list[tuple[ast.Statement, int]]:
        """Each statement with the position right after its semicolon."""
        return parts

    @v_args(inline=True)
    def terminated(self, statement: ast.Statement, semicolon: Token) -> tuple[ast.Statement, int]:
        """A statement and where it ends."""
        return statement, int(semicolon.end_pos or 0)

    def _flag(self, _: list[Any]) -> bool:
        return True

    or_replace = source_marker = if_not_exists = if_exists = delete_topic = extended = all_marker = _flag
    from_beginning = assert_absent = assert_timeout = _flag

    @v_args(inline=True)
    def kind(self, token: Token) -> str:
        """STREAM or TABLE."""
        return str(token.type)

    @v_args(inline=True)
    def kinds(self, token: Token) -> str:
        """STREAMS or TABLES, as the singular."""
        return str(token.type[:-1])

    def primary_key(self, _: list[Any]) -> str:
        """PRIMARY KEY."""
        return "PRIMARY KEY"

    def stream_key(self, _: list[Any]) -> str:
        """KEY."""
        return "KEY"

    def type(self, parts: list[Any]) -> ast.SqlType:
        """A type; VARCHAR is STRING and INT is INTEGER in every answer."""
        name, *members = (each for each in parts if each is not None)
        types = tuple(each for each in members if isinstance(each, ast.SqlType))
        return ast.SqlType(TYPE_NAMES.get(name.text, name.text), types)

    def precision(self, parts: list[Any]) -> str:
        """(4, 2) of a decimal: accepted, not kept."""
        return ", ".join(str(each) for each in parts if each is not None)

    @v_args(inline=True)
    def column_def(self, name: Identifier, type_: ast.SqlType, key: str | None) -> ast.ColumnDefinition:
        """A declared column."""
        return ast.ColumnDefinition(name.text, type_, key or "")

    def elements(self, parts: list[Any]) -> tuple[ast.ColumnDefinition, ...]:
        """All declared columns."""
        return tuple(parts)

    @v_args(inline=True)
    def property(self, name: Identifier, value: ast.Literal) -> tuple[str, ast.PropertyValue]:
        """One entry of WITH."""
        return name.text, value.value

    def with_clause(self, parts: list[Any]) -> tuple[tuple[str, ast.PropertyValue], ...]:
        """WITH (…)."""
        return tuple(parts)

    @v_args(inline=True)
    def create(self, *parts: Any) -> ast.Create:
        """CREATE … (columns) WITH (…), or CREATE … AS SELECT."""
        replace, read_only, kind, absent, name, columns, properties, query = parts
        return ast.Create(
            kind, name.text, columns or (), properties or (), query, bool(replace), bool(absent), bool(read_only),
            name.position,
        )  # fmt: skip

    def column_names(self, parts: list[Identifier]) -> tuple[str, ...]:
        """The column list of INSERT."""
        return tuple(each.text for each in parts)

    @v_args(inline=True)
    def insert_values(
        self, name: Identifier, columns: tuple[str, ...] | None, *values: ast.Expression
    ) -> ast.InsertValues:
        """INSERT INTO … VALUES."""
        return ast.InsertValues(name.text, columns or (), values)

    @v_args(inline=True)
    def insert_select(self, name: Identifier, query: ast.Query) -> ast.InsertSelect:
        """INSERT INTO … SELECT."""
        return ast.InsertSelect(name.text, query)

    @v_args(inline=True)
    def drop(self, kind: str, if_exists: bool | None, name: Identifier, delete: bool | None) -> ast.Drop:
        """DROP."""
        return ast.Drop(kind, name.text, bool(if_exists), bool(delete))

    @v_args(inline=True)
    def alter(self, kind: str, name: Identifier, *columns: Any) -> ast.Alter:
        """ALTER … ADD COLUMN."""
        names, types = columns[0::2], columns[1::2]
        added = (ast.ColumnDefinition(each.text, type_) for each, type_ in zip(names, types, strict=True))
        return ast.Alter(kind, name.text, tuple(added))

    @v_args(inline=True)
    def assert_topic(self, absent: bool | None, topic: Token | Identifier, *_: Any) -> ast.AssertTopic:
        """ASSERT TOPIC."""
        return ast.AssertTopic(_topic(topic), not absent)

    @v_args(inline=True)
    def list_sources(self, kind: str, extended: bool | None) -> ast.ListSources:
        """LIST STREAMS, LIST TABLES."""
        return ast.ListSources(kind, bool(extended))

    @v_args(inline=True)
    def list_queries(self, extended: bool | None) -> ast.ListQueries:
        """LIST QUERIES."""
        return ast.ListQueries(bool(extended))

    @v_args(inline=True)
    def list_topics(self, everything: bool | None, extended: bool | None) -> ast.ListTopics:
        """LIST TOPICS."""
        return ast.ListTopics(bool(everything), bool(extended))

    @v_args(inline=True)
    def list_other(self, name: Identifier) -> ast.ListOther:
        """LIST of something else."""
        return ast.ListOther(name.text)

    @v_args(inline=True)
    def describe(self, name: Identifier, extended: bool | None) -> ast.Describe:
        """DESCRIBE one source."""
        return ast.Describe(name.text, bool(extended))

    @v_args(inline=True)
    def describe_sources(self, kind: str, extended: bool | None) -> ast.DescribeSources:
        """DESCRIBE STREAMS, DESCRIBE TABLES."""
        return ast.DescribeSources(kind, bool(extended))

    @v_args(inline=True)
    def explain(self, name: Identifier) -> ast.Explain:
        """EXPLAIN a query id."""
        return ast.Explain(name.text.upper())

    @v_args(inline=True)
    def query_id(self, name: Identifier) -> str:
        """A query id; ids are case-insensitive."""
        return name.text.upper()

    def every_query(self, _: list[Any]) -> None:
        """ALL."""

    @v_args(inline=True)
    def terminate(self, query_id: str | None) -> ast.QueryCommand:
        """TERMINATE."""
        return ast.QueryCommand("TERMINATE", query_id)

    @v_args(inline=True)
    def pause(self, query_id: str | None) -> ast.QueryCommand:
        """PAUSE."""
        return ast.QueryCommand("PAUSE", query_id)

    @v_args(inline=True)
    def resume(self, query_id: str | None) -> ast.QueryCommand:
        """RESUME."""
        return ast.QueryCommand("RESUME", query_id)

    @v_args(inline=True)
    def set_property(self, name: Token, value: Token) -> ast.SetProperty:
        """SET."""
        return ast.SetProperty(unquoted(name), unquoted(value))

    @v_args(inline=True)
    def unset_property(self, name: Token) -> ast.SetProperty:
        """UNSET."""
        return ast.SetProperty(unquoted(name), None)

    @v_args(inline=True)
    def define(self, name: Identifier, value: Token) -> ast.Define:
        """DEFINE."""
        return ast.Define(name.text, unquoted(value))

    @v_args(inline=True)
    def print_topic(self, topic: Token | Identifier, beginning: bool | None, limit: Token | None) -> ast.PrintTopic:
        """PRINT."""
        return ast.PrintTopic(_topic(topic), bool(beginning), int(limit) if limit else None)


def _topic(found: Token | Identifier) -> str:
    return found.text if isinstance(found, Identifier) else unquoted(found)

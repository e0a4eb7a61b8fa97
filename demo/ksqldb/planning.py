"""Queries to plans: names are resolved, types checked, expressions compiled.

Two steps, as in ksqlDB, because their errors differ: `prepare` resolves names (errors echo the original statement),
`plan` checks and compiles (errors echo the rendered statement and carry ksqlDB's planning prefix).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from demo.ksqldb import ast, rendering
from demo.ksqldb.catalog import Catalog, Source
from demo.ksqldb.errors import PlanFault, StatementFault
from demo.ksqldb.expressions import AGGREGATES, Compiled, compile_expression, condition
from demo.ksqldb.values import PSEUDO_NAMES, Row, Schema, SchemaColumn

NOT_HERE = "The development server does not support"


@dataclass(frozen=True)
class Member:
    """A relation of the FROM clause: its alias, its source, and where its columns begin in the joined row."""

    alias: str
    source: Source
    offset: int


@dataclass(frozen=True)
class Relations:
    """All relations of a query, as the scope of its expressions."""

    members: tuple[Member, ...]

    def resolve(self, column: ast.Column, clause: str) -> tuple[int, ast.SqlType]:
        """The index and type of a column in the joined row."""
        for member in self.members:
            if column.source in (None, member.alias):
                found = member.source.find(column.name)
                if found is not None:
                    return member.offset + found[0], found[1]
        where = f"Line: {column.position.line}, Col: {column.position.column}"
        shown = f"{column.source}.{column.name}" if column.source else column.name
        raise PlanFault(f"{where}: {clause} column '{shown}' cannot be resolved.")

    def owners(self, name: str) -> list[str]:
        """The aliases of all relations with such a column."""
        return [each.alias for each in self.members if each.source.find(name) is not None]


@dataclass(frozen=True)
class Output:
    """One column of the result: how it is computed, and the aggregate it is, if it is one."""

    column: SchemaColumn
    expression: ast.Expression
    compiled: Compiled | None
    aggregate: ast.Call | None = None


@dataclass(frozen=True)
class Plan:
    """A query that can run.

    Attributes:
        result: STREAM or TABLE.
        driving: the source whose records drive the query.
        lookup: the table of a stream-table join.
        join_key: the value of the driving row that finds the row of `lookup`.
        outer: keep rows without a match (LEFT JOIN).
        where: the filter over the joined row.
        outputs: the projection; for an aggregation, keys and aggregates.
        group: the GROUP BY value, for an aggregation.
    """

    query: ast.Query
    result: str
    driving: Source
    lookup: Source | None
    join_key: Callable[[Row], Any] | None
    outer: bool
    where: Callable[[Row], bool]
    outputs: tuple[Output, ...]
    group: Callable[[Row], Any] | None
    schema: Schema

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of all sources, the driving one first."""
        return tuple(dict.fromkeys(each.name for each in (self.driving, self.lookup) if each is not None))

    def project(self) -> Callable[[Row], Row]:
        """The function from a joined row to a result row (not for aggregations)."""
        functions = tuple(each.compiled.function for each in self.outputs if each.compiled is not None)
        return lambda row: tuple(function(row) for function in functions)


def relations(query: ast.Query, catalog: Catalog) -> Relations:
    """The relations of a query.

    Raises:
        StatementFault: an unknown source.
    """
    members: list[Member] = []
    offset = 0
    for relation in (query.relation, *(each.relation for each in query.joins)):
        source = catalog.source(relation.name)
        members.append(Member(relation.alias, source, offset))
        offset += source.width
    return Relations(tuple(members))


def prepare(query: ast.Query, catalog: Catalog) -> ast.Query:
    """Qualify every column and give every projected expression its alias.

    Raises:
        StatementFault: an unknown source or alias, an ambiguous column.
    """
    scope = relations(query, catalog)
    items: list[ast.SelectItem] = []
    numbered = 0
    for item in query.items:
        prepared, generated = _prepared_item(item, scope, numbered, joined=bool(query.joins))
        numbered += generated
        items.append(prepared)
    qualify = _qualifier(scope)
    return replace(
        query,
        items=tuple(items),
        joins=tuple(replace(each, criteria=qualify(each.criteria)) for each in query.joins),
        where=qualify(query.where) if query.where is not None else None,
        group_by=tuple(qualify(each) for each in query.group_by),
        partition_by=tuple(qualify(each) for each in query.partition_by),
        having=qualify(query.having) if query.having is not None else None,
    )


def _prepared_item(
    item: ast.SelectItem, scope: Relations, numbered: int, *, joined: bool
) -> tuple[ast.SelectItem, int]:
    if isinstance(item, ast.AllColumns):
        if item.source is not None:
            _check_alias(item.source, scope)
        return item, 0
    expression = _qualifier(scope)(item.expression)
    if item.alias is not None:
        return ast.SingleColumn(expression, item.alias), 0
    if not isinstance(expression, ast.Column):
        return ast.SingleColumn(expression, f"KSQL_COL_{numbered}"), 1
    twins = joined and len(scope.owners(expression.name)) > 1
    alias = f"{expression.source}_{expression.name}" if twins else expression.name
    return ast.SingleColumn(expression, alias), 0


def _check_alias(name: str, scope: Relations) -> None:
    if name not in {each.alias for each in scope.members}:
        raise StatementFault(f"Failed to prepare statement: '{name}' is not a valid stream/table name or alias.")


def _qualifier(scope: Relations) -> Callable[[Any], Any]:
    def column(node: ast.Column) -> ast.Column:
        if node.source is not None:
            _check_alias(node.source, scope)
            return node
        owners = scope.owners(node.name)
        if len(owners) > 1:
            options = " or ".join(f"{each}.{node.name}" for each in sorted(owners))
            where = f"Line: {node.position.line}, Col: {node.position.column}"
            raise StatementFault(
                f"Exception while preparing statement: {where}: Column '{node.name}' is ambiguous. Could be {options}."
            )
        return replace(node, source=owners[0]) if owners else node

    def qualify(node: Any) -> Any:
        if isinstance(node, ast.Column):
            return column(node)
        if isinstance(node, tuple):
            return tuple(qualify(each) for each in node)
        if type(node) in _BRANCHES:
            return replace(node, **{each: qualify(getattr(node, each)) for each in _BRANCHES[type(node)]})
        return node

    return qualify


_BRANCHES: dict[type, tuple[str, ...]] = {
    ast.Subscript: ("base", "index"),
    ast.Call: ("arguments",),
    ast.MapConstructor: ("entries",),
    ast.Comparison: ("left", "right"),
    ast.Logical: ("left", "right"),
    ast.Arithmetic: ("left", "right"),
    ast.Negation: ("operand",),
    ast.InList: ("value", "items"),
    ast.Like: ("value", "pattern"),
    ast.Between: ("value", "lower", "upper"),
    ast.IsNull: ("value",),
    ast.Cast: ("value",),
    ast.Case: ("branches", "default"),
}


def column_names(node: Any) -> Iterator[str]:
    """The names of the columns that an expression reads."""
    if isinstance(node, ast.Column):
        yield node.name
    for each in node if isinstance(node, tuple) else (getattr(node, name) for name in _BRANCHES.get(type(node), ())):
        yield from column_names(each)


def plan(query: ast.Query, catalog: Catalog) -> Plan:
    """Compile a prepared query.

    Raises:
        PlanFault: what ksqlDB refuses while planning, or what this server cannot do.
    """
    scope = relations(query, catalog)
    driving = scope.members[0].source
    outputs = _outputs(query, scope)
    aggregated = bool(query.group_by) or any(each.aggregate for each in outputs)
    _check_supported(query, scope, aggregated=aggregated)
    lookup, join_key = _join(query, scope)
    where = condition(query.where, scope) if query.where is not None else _always
    return Plan(
        query=query,
        result="TABLE" if driving.is_table or aggregated else "STREAM",
        driving=driving,
        lookup=lookup,
        join_key=join_key,
        outer=bool(query.joins) and query.joins[0].kind == "LEFT OUTER",
        where=where,
        outputs=outputs,
        group=compile_expression(query.group_by[0], scope, "GROUP BY").function if query.group_by else None,
        schema=Schema(_with_key(query, scope, outputs)),
    )


def _always(_: Row) -> bool:
    return True


def _check_supported(query: ast.Query, scope: Relations, *, aggregated: bool) -> None:
    if query.emit == "FINAL":
        raise PlanFault("EMIT FINAL is only supported for windowed aggregations.")
    if len(query.joins) > 1 or any(each.within for each in query.joins):
        raise PlanFault(f"{NOT_HERE} more than one join, or joins with WITHIN.")
    if query.joins and scope.members[0].source.is_table:
        raise PlanFault(f"{NOT_HERE} joins of a table with another source.")
    if query.joins and not scope.members[1].source.is_table:
        raise PlanFault(f"{NOT_HERE} joins of two streams.")
    if aggregated and (len(query.group_by) != 1 or query.having is not None or query.joins):
        raise PlanFault(f"{NOT_HERE} aggregations other than GROUP BY of one expression over one source.")


def _outputs(query: ast.Query, scope: Relations) -> tuple[Output, ...]:
    found: list[Output] = []
    for item in query.items:
        if isinstance(item, ast.AllColumns):
            found += _star(item, scope, prefixed=bool(query.joins))
        else:
            found.append(_output(item, scope))
    return tuple(found)


def _star(item: ast.AllColumns, scope: Relations, *, prefixed: bool) -> list[Output]:
    members = [each for each in scope.members if item.source in (None, each.alias)]
    return [
        _output(
            ast.SingleColumn(
                ast.Column(column.name, member.alias), f"{member.alias}_{column.name}" if prefixed else column.name
            ),
            scope,
        )
        for member in members
        for column in member.source.schema.columns
    ]


def _output(item: ast.SingleColumn, scope: Relations) -> Output:
    node, alias = item.expression, item.alias or ""
    if alias.upper() in PSEUDO_NAMES and not (isinstance(node, ast.Column) and node.name == alias.upper()):
        raise PlanFault(f"`{alias.upper()}` is a reserved column name. You cannot use it as an alias for a column.")
    if isinstance(node, ast.Call) and node.name in AGGREGATES:
        inner = compile_expression(node.arguments[0], scope) if node.arguments else None
        counted = node.name == "COUNT" or inner is None
        type_ = ast.SqlType("BIGINT") if counted or inner is None else inner.type
        return Output(SchemaColumn(alias, type_), node, inner, node)
    compiled = compile_expression(node, scope)
    return Output(SchemaColumn(alias, compiled.type), node, compiled)


def _join(query: ast.Query, scope: Relations) -> tuple[Source | None, Callable[[Row], Any] | None]:
    if not query.joins:
        return None, None
    join, left, right = query.joins[0], scope.members[0], scope.members[1]
    if join.kind not in {"INNER", "LEFT OUTER"}:
        raise PlanFault(f"{NOT_HERE} {join.kind} JOIN.")
    _check_partitions(left, right)
    first, second = _equality(join.criteria)
    if isinstance(first, ast.Column) and first.source == right.alias:
        first, second = second, first
    key = right.source.schema.key_position
    name = right.source.schema.columns[key].name if key is not None else ""
    if not isinstance(second, ast.Column) or second.source != right.alias or second.name != name:
        shown = f"{rendering.expression(first)} = {rendering.expression(second)}"
        raise PlanFault(
            f"Invalid join condition: stream-table joins require to join on the table's primary key. Got {shown}."
        )
    return right.source, compile_expression(first, scope, "JOIN ON").function


def _equality(criteria: ast.Expression) -> tuple[ast.Expression, ast.Expression]:
    if not isinstance(criteria, ast.Comparison) or criteria.operator != "=":
        raise PlanFault("Unsupported join expression: " + rendering.expression(criteria))
    return criteria.left, criteria.right


def _check_partitions(left: Member, right: Member) -> None:
    counts = left.source.topic.partitions, right.source.topic.partitions
    if counts[0] == counts[1]:
        return
    raise PlanFault(
        f"Can't join `{left.alias}` with `{right.alias}` since the number of partitions don't match. "
        f"`{left.alias}` partitions = {counts[0]}; `{right.alias}` partitions = {counts[1]}. "
        "Please repartition either one so that the number of partitions match."
    )


def key_expressions(query: ast.Query, scope: Relations) -> list[ast.Expression]:
    """The expressions that may be the key of the result, best first."""
    if query.group_by:
        return list(query.group_by)
    if query.partition_by:
        return list(query.partition_by)
    if query.joins:
        return list(_equality(query.joins[0].criteria))
    member = scope.members[0]
    key = member.source.schema.key_position
    return [] if key is None else [ast.Column(member.source.schema.columns[key].name, member.alias)]


def _with_key(query: ast.Query, scope: Relations, outputs: tuple[Output, ...]) -> tuple[SchemaColumn, ...]:
    keys = key_expressions(query, scope)
    chosen = next((each for key in keys for each in outputs if each.expression == key), None)
    return tuple(replace(each.column, key=True) if each is chosen else each.column for each in outputs)


def check_names(query: ast.Query) -> None:
    """Refuse a CREATE … AS SELECT that would write a pseudo column under its own name.

    Raises:
        PlanFault: in ksqlDB's words.
    """
    for item in query.items:
        if isinstance(item, ast.SingleColumn) and item.alias in PSEUDO_NAMES:
            raise PlanFault(f"Reserved column name in select: `{item.alias}`. Please remove or alias the column.")


def check_key(plan_: Plan, target: str, catalog: Catalog) -> None:
    """Refuse a CREATE … AS SELECT whose projection lacks the key.

    Raises:
        PlanFault: in ksqlDB's words.
    """
    if plan_.schema.key_position is not None:
        return
    scope = relations(plan_.query, catalog)
    keys = key_expressions(plan_.query, scope)
    if not keys:
        return
    shown = [
        rendering.identifier(each.name)
        if isinstance(each, ast.Column) and not plan_.query.joins
        else rendering.expression(each)
        for each in keys
    ]
    kind = "join expressions" if plan_.query.joins else "key column"
    if plan_.query.group_by:
        kind = "grouping expression"
    raise PlanFault(
        f"Key missing from projection (ie, SELECT). \nThe query used to build `{target}` must include the {kind} "
        f"{' or '.join(shown)} in its projection (eg, SELECT {shown[0]}...)."
    )

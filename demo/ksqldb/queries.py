"""Pull and push queries: what they refuse, and the rows they give."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from demo.ksqldb import ast, rendering
from demo.ksqldb.catalog import Catalog, Properties, Source
from demo.ksqldb.engine import operator_for, wants_earliest
from demo.ksqldb.errors import KsqlRefusal, PlanFault, ServerFault, StatementFault
from demo.ksqldb.expressions import AGGREGATES
from demo.ksqldb.formats import encoded
from demo.ksqldb.parser import BadSourceName, SyntaxFault, parse
from demo.ksqldb.planning import Plan, column_names, plan, prepare
from demo.ksqldb.topics import Record
from demo.ksqldb.values import BadValue, Key, Row, Schema, shown

MORE = "See https://cnfl.io/queries for more info.\nAdd EMIT CHANGES if you intended to issue a push query."
WHERE_RULES = (
    "\nPull queries require a WHERE clause that:\n"
    " - includes a key equality expression, e.g. `SELECT * FROM X WHERE <key-column> = Y;`.\n"
    " - in the case of a multi-column key, is a conjunction of equality expressions that cover all key columns.\n"
    " - to support range expressions, e.g.,  SELECT * FROM X WHERE <key-column> < Y;`, range scans need to be enabled "
    "by setting ksql.query.pull.range.scan.enabled=true\n"
    "If more flexible queries are needed, , table scans can be enabled by setting "
    "ksql.query.pull.table.scan.enabled=true."
)
Cells = list[Any]
_NOT_IN_PULL = ("ROWPARTITION", "ROWOFFSET")


def parsed_query(text: str) -> ast.Prepared:
    """The one SELECT (or PRINT) of a request to a query endpoint.

    Raises:
        KsqlRefusal: a syntax error, more than one statement, another statement.
    """
    try:
        statements = parse(text).statements
    except SyntaxFault as fault:
        raise KsqlRefusal(f"{fault}\nStatement: {text}", statement=text) from None
    except BadSourceName as fault:
        raise KsqlRefusal(fault.message, statement=fault.name) from None
    if len(statements) != 1:
        raise KsqlRefusal(
            f"Expected exactly one KSQL statement; found {len(statements)} instead\nStatement: {text}", statement=text
        )
    if not isinstance(statements[0].statement, (ast.Query, ast.PrintTopic)):
        raise KsqlRefusal(f"Neither a query nor a print statement\nStatement: {text}", statement=text)
    return statements[0]


@dataclass(frozen=True)
class Snapshot:
    """A complete answer: a pull query, or a pull over a stream (which ends with a message)."""

    query_id: str
    source: Source
    schema: Schema
    rows: list[Cells]
    final: str | None = None


def pull(query: ast.Query, text: str, catalog: Catalog, properties: Properties) -> Snapshot:
    """Answer a query without EMIT CHANGES.

    Raises:
        KsqlRefusal: with ksqlDB's text for everything that a pull query must not have.
    """
    try:
        return _pulled(query, catalog, properties)
    except ServerFault as fault:
        raise KsqlRefusal(str(fault), code=50000, statement=text) from None
    except StatementFault as fault:
        shown_text = f"\nStatement: {text}" if str(fault).startswith("Error in WHERE") else ""
        raise KsqlRefusal(str(fault) + shown_text, statement=text) from None


def _pulled(query: ast.Query, catalog: Catalog, properties: Properties) -> Snapshot:
    prepared = prepare(query, catalog)
    _check_pull(prepared)
    planned = plan(prepared, catalog)
    source = planned.driving
    if source.kind == "STREAM":
        return _pull_stream(planned)
    if not (source.derived or source.read_only):
        raise PlanFault(not_queryable(source.name))
    _check_where(prepared, properties)
    show = shown(planned.schema)
    project = planned.project()
    wanted = (row for row in _candidates(prepared, source) if planned.where(row))
    rows = [show(project(row)) for row in islice(wanted, query.limit)]
    return Snapshot(f"query_{int(time.time() * 1000)}", source, planned.schema, rows)


def not_queryable(name: str) -> str:
    """The refusal of a pull on a table that is not materialised (or whose server is shutting down)."""
    hint = f"To derive a queryable table, you can do 'CREATE TABLE QUERYABLE_{name} AS SELECT * FROM {name}'."  # noqa: S608 - a text
    return f"The `{name}` table isn't queryable. {hint} {MORE}"


def _check_pull(query: ast.Query) -> None:
    aggregates = any(
        isinstance(each, ast.SingleColumn)
        and isinstance(each.expression, ast.Call)
        and each.expression.name in AGGREGATES
        for each in query.items
    )
    clauses = {
        "JOIN": bool(query.joins),
        "GROUP BY": bool(query.group_by) or aggregates,
        "PARTITION BY": bool(query.partition_by),
        "HAVING": query.having is not None,
    }
    for clause, present in clauses.items():
        if present:
            raise PlanFault(f"Pull queries don't support {clause} clauses. {MORE}")
    selected = tuple(each.expression for each in query.items if isinstance(each, ast.SingleColumn))
    for clause, node in (("SELECT", selected), ("WHERE", query.where)):
        found = ", ".join(f"`{each}`" for each in column_names(node) if each in _NOT_IN_PULL)
        if found:
            raise PlanFault(f"Pull queries don't support the following columns in {clause} clauses: {found}\n {MORE}")


def _check_where(query: ast.Query, properties: Properties) -> None:
    scan = properties.get("ksql.query.pull.table.scan.enabled", True) not in (False, "false")
    if query.where is None:
        if not scan:
            raise PlanFault("Missing WHERE clause.  " + MORE + WHERE_RULES)
        return
    bad = _null_test(query.where)
    if bad is not None:
        where = rendering.expression(_bare(bad))
        raise PlanFault(f"Unsupported expression in WHERE clause: {where}.  {MORE}{WHERE_RULES}")


def _null_test(node: ast.Expression) -> ast.IsNull | None:
    """An IS [NOT] NULL somewhere in the condition: the real server refuses it in pull queries."""
    if isinstance(node, ast.IsNull):
        return node
    if isinstance(node, ast.Logical):
        return _null_test(node.left) or _null_test(node.right)
    return _null_test(node.operand) if isinstance(node, ast.Negation) else None


def _bare(node: Any) -> Any:
    """The expression without the qualifiers that were added to its columns."""
    if isinstance(node, ast.Column):
        return replace(node, source=None)
    if isinstance(node, ast.Subscript):
        return replace(node, base=_bare(node.base))
    return replace(node, value=_bare(node.value)) if isinstance(node, ast.IsNull) else node


def _candidates(query: ast.Query, source: Source) -> Iterator[Row]:
    """The rows that can match: by key where the condition names keys, in key order otherwise."""
    keys = _wanted_keys(query.where, source)
    if keys is None:
        yield from (source.state[key] for key in sorted(source.state, key=_sortable))
        return
    yield from (source.state[key] for key in keys if key in source.state)


def _sortable(key: Key) -> tuple[str, Any]:
    return type(key).__name__, key


def _wanted_keys(where: ast.Expression | None, source: Source) -> list[Key] | None:
    at = source.schema.key_position
    if where is None or at is None:
        return None
    name = source.schema.columns[at].name
    if isinstance(where, ast.Comparison) and where.operator == "=":
        sides = (where.left, where.right)
        column = next((each for each in sides if isinstance(each, ast.Column) and each.name == name), None)
        constant = next((each for each in sides if isinstance(each, ast.Literal)), None)
        return [constant.value] if column and constant else None
    if isinstance(where, ast.InList) and isinstance(where.value, ast.Column) and where.value.name == name:
        values = [each.value for each in where.items if isinstance(each, ast.Literal)]
        return list(dict.fromkeys(values)) if len(values) == len(where.items) else None
    return None


def _pull_stream(planned: Plan) -> Snapshot:
    rows: list[Cells] = []
    show = shown(planned.schema)
    operator = operator_for(planned, lambda _, row, __: rows.append(show(row)) if row is not None else None)
    _replay(planned.driving, operator.change)
    schema = planned.schema.without_keys()
    limit = planned.query.limit
    cut = rows if limit is None else rows[:limit]
    final = "Query Completed" if limit is None or len(rows) < limit else "Limit Reached"
    return Snapshot(_transient_id(planned), planned.driving, schema, cut, final)


def _transient_id(planned: Plan) -> str:
    return f"transient_{planned.query.relation.alias}_{secrets.randbelow(2**63)}"


def _replay(source: Source, change: Callable[[Key, Row | None, Record], None]) -> None:
    for record in source.topic.since(0):
        try:
            key, row = source.decode(record)
        except BadValue:
            continue
        change(key, row, record)


class Push:
    """An open push query: an operator that hands rows to a listener until it is closed.

    On a table the whole present content comes first, oldest change first, whatever auto.offset.reset says; with the
    cache switched off (as on the real server) the whole history of the topic, tombstones included.
    """

    def __init__(
        self, query: ast.Query, text: str, catalog: Catalog, properties: Properties, emit: Callable[[Cells, bool], None]
    ) -> None:
        """Plan the query; `emit` is called with each row and whether it is a tombstone.

        Raises:
            KsqlRefusal: as for any statement that cannot be planned.
        """
        try:
            self.plan = plan(prepare(query, catalog), catalog)
        except ServerFault as fault:
            raise KsqlRefusal(str(fault), code=50000, statement=text) from None
        except StatementFault as fault:
            raise KsqlRefusal(str(fault), statement=text) from None
        self.id = _transient_id(self.plan)
        self.text = text
        self.schema = self.plan.schema.without_keys()
        self._properties = properties
        self._emit = emit
        self._show = shown(self.schema)
        self._key = self.plan.schema.key_position
        self._operator = operator_for(self.plan, self._result)

    def open(self) -> None:
        """Emit what is there, then follow the source."""
        source = self.plan.driving
        if source.is_table and not self._uncached():
            marker = Record(None, None, int(time.time() * 1000), source.topic.end)
            for key, row in tuple(source.state.items()):
                self._operator.change(key, row, marker)
        elif source.is_table or wants_earliest(self._properties):
            _replay(source, self._operator.change)
        source.consumers.append(self)

    def _uncached(self) -> bool:
        names = ("ksql.streams.cache.max.bytes.buffering", "cache.max.bytes.buffering")
        return any(str(self._properties.get(name, "")) == "0" for name in names)

    def change(self, key: Key, row: Row | None, record: Record) -> None:
        """Take one change of the source."""
        self._operator.change(key, row, record)

    def _result(self, key: Key, row: Row | None, _: Record) -> None:
        if row is not None:
            self._emit(self._show(row), False)
            return
        cells: Cells = [None] * len(self.schema.columns)
        if self._key is not None:
            cells[self._key] = key
        self._emit(cells, True)

    def close(self) -> None:
        """Stop following."""
        if self in self.plan.driving.consumers:
            self.plan.driving.consumers.remove(self)


def print_lines(statement: ast.PrintTopic, catalog: Catalog) -> list[str]:
    """The lines of PRINT over what the topic holds.

    Raises:
        StatementFault: no such topic.
    """
    if statement.topic not in catalog.topics:
        raise StatementFault(f"Could not find topic '{statement.topic}', or the KSQL user does not have permissions.")
    records = catalog.topics[statement.topic].since(0) if statement.from_beginning else iter(())
    return [_printed(each) for each in islice(records, statement.limit)]


def _printed(record: Record) -> str:
    moment = time.strftime("%Y/%m/%d %H:%M:%S", time.gmtime(record.timestamp // 1000))
    value = "<null>" if record.value is None else encoded(record.value)
    return f"rowtime: {moment}.{record.timestamp % 1000:03d} Z, key: {record.key}, value: {value}, partition: 0\n"

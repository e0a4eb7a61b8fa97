"""The dataflow: records travel from topic to topic inside the call that inserted them.

insert -> topic -> source (decode, materialise) -> persistent query (join, filter, project or aggregate) -> topic ->
… -> push queries. Everything is synchronous, so a record is in every derived topic when its INSERT is answered.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from demo.ksqldb.catalog import Properties, Source
from demo.ksqldb.planning import Output, Plan
from demo.ksqldb.topics import Record, Topic
from demo.ksqldb.values import BadValue, Key, Row

# A row that an expression cannot work on is skipped, as in ksqlDB, which writes a line to its processing log.
ROW_FAILURES = (ArithmeticError, TypeError, ValueError, LookupError, AttributeError)
Emit = Callable[[Key, Row | None, Record], None]


class Projection:
    """Filter and project the rows of a stream, joined with a table where the plan says so."""

    def __init__(self, plan: Plan, emit: Emit) -> None:
        """Keep the compiled parts close: this runs for every record of every group."""
        self._where = plan.where
        self._project = plan.project()
        self._emit = emit
        self._join_key = plan.join_key
        self._lookup = plan.lookup.state if plan.lookup is not None else {}
        self._outer = (None,) * plan.lookup.width if plan.lookup is not None and plan.outer else None
        self._key = plan.schema.key_position
        self._width = plan.driving.width  # CREATE OR REPLACE may widen the source later

    def empty_table(self) -> TableSide:
        """Join with what the table becomes from now on, and with nothing that it was."""
        side = TableSide()
        self._lookup = side.rows
        return side

    def change(self, key: Key, row: Row | None, record: Record) -> None:
        """Take one row of the driving stream."""
        if row is None:
            return
        if self._join_key is not None:
            found = self._lookup.get(self._join_key(row), self._outer)
            if found is None:
                return
            row = (*row[: self._width], *found)
        if not self._where(row):
            return
        result = self._project(row)
        self._emit(key if self._key is None else result[self._key], result, record)


class TableSide:
    """The table side of a join that began at the table's end: it knows only what changed since."""

    def __init__(self) -> None:
        """Begin empty."""
        self.rows: dict[Key, Row] = {}

    def change(self, key: Key, row: Row | None, record: Record) -> None:  # noqa: ARG002 - the signature of every consumer
        """Take one change of the table."""
        self.rows.pop(key, None)
        if row is not None:
            self.rows[key] = row


class TableProjection:
    """Filter and project a table; a row that no longer passes is deleted downstream."""

    def __init__(self, plan: Plan, emit: Emit) -> None:
        """Remember which keys were passed on."""
        self._where = plan.where
        self._project = plan.project()
        self._emit = emit
        self._passed: set[Key] = set()

    def change(self, key: Key, row: Row | None, record: Record) -> None:
        """Take one change of the driving table."""
        if row is not None and self._where(row):
            self._passed.add(key)
            self._emit(key, self._project(row), record)
        elif key in self._passed:
            self._passed.discard(key)
            self._emit(key, None, record)


class Accumulator:
    """One aggregate of one group."""

    def __init__(self, output: Output) -> None:
        """Begin empty: 0 for COUNT, NULL for the others."""
        call = output.aggregate
        self._name = call.name if call is not None else ""
        self._value = output.compiled.function if output.compiled is not None else None
        self.result: Any = 0 if self._name == "COUNT" else None

    def add(self, row: Row) -> None:
        """Count a row in."""
        value: Any = self._value(row) if self._value is not None else row
        if value is None:
            return
        if self._name == "COUNT":
            self.result += 1
        elif self._name == "SUM":
            self.result = (self.result or 0) + value
        else:
            first = self.result is None or self._name == "LATEST_BY_OFFSET"
            self.result = value if first else self._better(value)

    def _better(self, value: Any) -> Any:
        choose = {"MIN": min, "MAX": max}.get(self._name)
        return choose(self.result, value) if choose else self.result  # EARLIEST_BY_OFFSET keeps the first

    def remove(self, row: Row) -> None:
        """Count a row of a table out again (ksqlDB allows only COUNT and SUM over tables)."""
        value = self._value(row) if self._value is not None else row
        if value is not None and self._name == "COUNT":
            self.result -= 1
        elif value is not None and self._name == "SUM":
            self.result -= value


class Aggregation:
    """GROUP BY of one expression. A group whose last row left stays with its count at 0, as in ksqlDB."""

    def __init__(self, plan: Plan, emit: Emit) -> None:
        """Keep the rows of a table source, to count them out when they move."""
        if plan.group is None:
            raise ValueError("an aggregation needs GROUP BY")
        self._plan, self._emit, self._group, self._where = plan, emit, plan.group, plan.where
        self._undo = plan.driving.is_table
        self._rows: dict[Key, Row] = {}
        self._groups: dict[Key, list[Accumulator | None]] = {}

    def change(self, key: Key, row: Row | None, record: Record) -> None:
        """Take one change of the driving source."""
        old = self._rows.pop(key, None) if self._undo else None
        new = row if row is not None and self._where(row) else None
        if new is not None and self._undo:
            self._rows[key] = new
        before = self._group(old) if old is not None else None
        after = self._group(new) if new is not None else None
        if old is not None and before is not None:
            self._apply(before, Accumulator.remove, old)
            if before != after:
                self._publish(before, record)
        if new is not None and after is not None:
            self._apply(after, Accumulator.add, new)
            self._publish(after, record)

    def _apply(self, group: Key, step: Callable[[Accumulator, Row], None], row: Row) -> None:
        cells = self._groups.get(group)
        if cells is None:
            outputs = self._plan.outputs
            cells = [Accumulator(each) if each.aggregate is not None else None for each in outputs]
            self._groups[group] = cells
        for cell in cells:
            if cell is not None:
                step(cell, row)

    def _publish(self, group: Key, record: Record) -> None:
        row = tuple(group if cell is None else cell.result for cell in self._groups[group])
        self._emit(group, row, record)


def operator_for(plan: Plan, emit: Emit) -> Projection | TableProjection | Aggregation:
    """The operator that runs a plan."""
    if plan.group is not None:
        return Aggregation(plan, emit)
    return TableProjection(plan, emit) if plan.driving.is_table else Projection(plan, emit)


class PersistentQuery:
    """A query that writes into a source until it is stopped."""

    def __init__(self, query_id: str, text: str, plan: Plan, sink: Source, properties: Properties) -> None:
        """Describe the query; `start` sets it going."""
        self.id, self.text, self.plan, self.sink, self.properties = query_id, text, plan, sink, properties
        self.source_names = plan.sources
        self.internal_topics = _internal_topics(plan)
        self.paused = False
        self.silent = ""
        self.written = 0
        self.position = self._began = 0
        self._cells = [(index, each.name) for index, each in enumerate(plan.schema.columns) if not each.key]
        self._operator = operator_for(plan, self._write)
        self._table_side: TableSide | None = None

    def start(self, position: int | None = None) -> None:
        """Read from an offset, or from where the query's properties say (tables always from the beginning).

        But an explicit ``latest`` of a join counts for its table side too, as in ksqlDB (facts, 14b).
        """
        lookup = self.plan.lookup
        if (
            lookup is not None
            and isinstance(self._operator, Projection)
            and explicit_offset(self.properties) == "latest"
        ):
            self._table_side = self._operator.empty_table()
            lookup.consumers.append(self._table_side)
        topic = self.plan.driving.topic
        earliest = self.plan.driving.is_table or wants_earliest(self.properties)
        self.position = position if position is not None else 0 if earliest else topic.end
        self._began = self.position if position is None else -1
        self._catch_up()
        self.plan.driving.consumers.append(self)

    def change(self, key: Key, row: Row | None, record: Record) -> None:
        """Take one change of the driving source, unless a fault keeps the query from it (``silent``)."""
        if self.silent == "stuck":
            return
        self.position = record.offset + 1
        if self.silent == "drops":
            return
        with suppress(*ROW_FAILURES):
            self._operator.change(key, row, record)

    def consumed(self) -> list[tuple[Topic, int]]:
        """The driving topic and how far it is read, 0 before the first record; a join's table is read to its end."""
        lookup, position = self.plan.lookup, 0 if self.position == self._began else self.position
        return [(self.plan.driving.topic, position), *([(lookup.topic, lookup.topic.end)] if lookup else [])]

    def hush(self, how: str) -> None:
        """Let the query run and write nothing (``drops``), or read nothing (``stuck``); ``""`` ends that."""
        was, self.silent = self.silent, how
        if was == "stuck" and how != "stuck" and not self.paused:
            self._catch_up()

    def stop(self) -> None:
        """End for good."""
        if self in self.plan.driving.consumers:
            self.plan.driving.consumers.remove(self)
        if self.plan.lookup is not None and self._table_side in self.plan.lookup.consumers and not self.paused:
            self.plan.lookup.consumers.remove(self._table_side)

    def pause(self) -> None:
        """Stop reading; the position stays."""
        if not self.paused:
            self.paused = True
            self.stop()

    def resume(self) -> None:
        """Read what came meanwhile, then follow again."""
        if self.paused:
            self.paused = False
            self._catch_up()
            self.plan.driving.consumers.append(self)

    def _catch_up(self) -> None:
        for record in self.plan.driving.topic.since(self.position):
            try:
                key, row = self.plan.driving.decode(record)
            except BadValue:
                continue
            self.change(key, row, record)

    def _write(self, key: Key, row: Row | None, record: Record) -> None:
        value = None if row is None else {name: row[index] for index, name in self._cells}
        self.written += 1
        self.sink.topic.append(key, value, record.timestamp)


class SourceTableQuery:
    """What LIST QUERIES shows of a source table: it has no sink and cannot be stopped on its own."""

    def __init__(self, query_id: str, source: Source) -> None:
        """Describe the query; the table keeps itself up to date."""
        self.id, self.text, self.sink = query_id, source.statement, source
        self.source_names: tuple[str, ...] = ()
        self.internal_topics: tuple[str, ...] = ("KsqlTopic-Reduce-changelog",)
        self.properties: Properties = {}
        self.paused = False
        self.silent = ""
        self.written = 0

    def consumed(self) -> list[tuple[Topic, int]]:
        """It is read to its end."""
        return [(self.sink.topic, self.sink.topic.end)]

    def hush(self, how: str) -> None:
        """Keep to what it is."""

    def stop(self) -> None:
        """Nothing to end: the table goes with it."""

    pause = resume = stop


def _internal_topics(plan: Plan) -> tuple[str, ...]:
    """The suffixes of the topics that Kafka Streams would make for this plan."""
    if plan.lookup is not None:
        return "Join-repartition", "KafkaTopic_Right-Reduce-changelog"
    if plan.group is None:
        return ("KsqlTopic-Reduce-changelog",) if plan.driving.is_table else ()
    own = ("Aggregate-Aggregate-Materialize-changelog",)
    return (*own, "Aggregate-GroupBy-repartition", "KsqlTopic-Reduce-changelog") if plan.driving.is_table else own


OFFSET_RESET = ("auto.offset.reset", "ksql.streams.auto.offset.reset")


def explicit_offset(properties: Properties) -> str:
    """Where a query begins by its properties; empty without one, as by one for ``consumer.`` alone (measured)."""
    return next((str(properties[name]).lower() for name in OFFSET_RESET if name in properties), "")


def wants_earliest(properties: Properties) -> bool:
    """Whether a request's properties ask for the beginning of the topic."""
    return explicit_offset(properties) == "earliest"

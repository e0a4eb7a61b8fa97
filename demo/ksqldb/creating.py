"""CREATE STREAM and CREATE TABLE: topics, checks in ksqlDB's order, and what then exists."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from demo.ksqldb import ast, rendering
from demo.ksqldb.catalog import Catalog, Properties, Source
from demo.ksqldb.engine import PersistentQuery, SourceTableQuery
from demo.ksqldb.errors import BAD_REQUEST, KsqlRefusal, PlanFault, ServerFault, StatementFault
from demo.ksqldb.planning import Plan, check_key, check_names, plan, prepare
from demo.ksqldb.topics import WEEK_MS, Topic
from demo.ksqldb.values import PSEUDO_NAMES, SUPPORTED, Schema, SchemaColumn

_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_SCHEMA_REGISTRY = frozenset({"AVRO", "PROTOBUF", "JSON_SR"})
PLANNING = "Could not determine output schema for query due to error: "


class AlreadyExists(Exception):
    """IF NOT EXISTS found the name taken; carries ksqlDB's warning."""


@dataclass(frozen=True)
class Created:
    """What a CREATE did: its rendered text, the message of its status, the id of its query."""

    text: str
    message: str
    query_id: str | None = None


@dataclass(frozen=True)
class TopicSettings:
    """What a statement wants of its topic; None takes what is there."""

    name: str
    partitions: int | None
    replicas: int | None
    retention_ms: int | None


class Creator:
    """Runs CREATE statements against a catalogue."""

    def __init__(self, catalog: Catalog, query_limit: int | None) -> None:
        """`query_limit` is ksql.query.persistent.active.limit; None means no limit."""
        self._catalog = catalog
        self._limit = query_limit

    def create(self, statement: ast.Create, text: str, properties: Properties) -> Created:
        """Run one CREATE.

        Raises:
            AlreadyExists: IF NOT EXISTS and the name is taken.
            KsqlRefusal: everything that ksqlDB refuses, with its text.
        """
        if statement.query is None:
            return self._declare(statement)
        return self._derive(statement, statement.query, text, properties)

    def _declare(self, statement: ast.Create) -> Created:
        given = dict(statement.properties)
        _check_formats(statement, given)
        settings = _settings(statement, given)
        existing = self._catalog.topics.get(settings.name)
        if existing is None and settings.partitions is None:
            raise KsqlRefusal(_missing_topic(statement, settings.name), code=BAD_REQUEST)
        self._refuse_existing(statement)
        made = None if existing is not None else self._make_topic(settings, compacted=statement.kind == "TABLE")
        rendered = replace(statement, properties=tuple(_declared_properties(statement, given).items()))
        shown = rendering.create(rendered)
        try:
            self._check_free(statement)
            source = _declared_source(statement, self._catalog.topics[settings.name], shown, given)
            self._put(statement, source)
        except StatementFault as fault:
            self._forget_topic(made)
            raise KsqlRefusal(str(fault), statement=shown) from None
        return self._materialised(source) if source.read_only else Created(shown, f"{source.kind.capitalize()} created")

    def _materialised(self, source: Source) -> Created:
        """CREATE SOURCE TABLE: listed as a query of its own, which lives as long as the table."""
        query = SourceTableQuery(f"CST_{source.name.upper()}_{self._catalog.peek_query_number()}", source)
        self._catalog.queries[query.id] = query
        return Created(source.statement, f"Created query with ID {query.id}", query.id)

    def _refuse_existing(self, statement: ast.Create) -> None:
        if statement.if_not_exists and statement.name in self._catalog.sources:
            kind = statement.kind.lower()
            name = rendering.quoted(statement.name)
            raise AlreadyExists(f"Cannot add {kind} {name}: A {kind} with the same name already exists.")

    def _check_free(self, statement: ast.Create) -> None:
        known = self._catalog.sources.get(statement.name)
        if known is None or (statement.or_replace and known.kind == statement.kind):
            return
        taken = f"A {known.kind.lower()} with the same name already exists"
        raise StatementFault(f"Cannot add {statement.kind.lower()} '{statement.name}': {taken}")

    def _put(self, statement: ast.Create, source: Source) -> Source:
        known = self._catalog.sources.get(statement.name)
        if known is not None:
            _check_upgrade(known, source)
            known.become(source)
            return known
        self._catalog.sources[statement.name] = source
        source.open()
        return source

    def _derive(self, statement: ast.Create, query: ast.Query, text: str, properties: Properties) -> Created:
        try:
            prepared = prepare(query, self._catalog)
        except StatementFault as fault:
            raise KsqlRefusal(str(fault), statement=text) from None
        self._check_limit(statement, text)
        settings = _settings(statement, dict(statement.properties))
        origin = self._catalog.topic(self._catalog.source(query.relation.name).topic.name)
        made = self._topic_for(settings, origin, compacted=statement.kind == "TABLE")
        shown = replace(statement, query=prepared, properties=_derived_properties(statement, settings, origin))
        rendered = rendering.create(shown)
        try:
            planned = self._planned(statement, prepared, rendered)
            self._refuse_existing(statement)
            return self._start(shown, planned, rendered, properties)
        except AlreadyExists:
            raise  # the topic of another KAFKA_TOPIC stays behind, as in ksqlDB
        except StatementFault as fault:
            self._forget_topic(made)
            raise KsqlRefusal(str(fault), statement=rendered) from None
        except KsqlRefusal:
            self._forget_topic(made)
            raise

    def _planned(self, statement: ast.Create, prepared: ast.Query, rendered: str) -> Plan:
        try:
            planned = plan(prepared, self._catalog)
            if planned.result != statement.kind:
                raise PlanFault(
                    f"Invalid result type. Your SELECT query produces a {planned.result}. "
                    f"Please use CREATE {planned.result} AS SELECT statement instead.\nStatement: {rendered}"
                )
            check_names(prepared)
            check_key(planned, statement.name, self._catalog)
            if not statement.if_not_exists:
                self._check_free(statement)
        except StatementFault as fault:
            raise StatementFault(PLANNING + str(fault)) from None
        return planned

    def _check_limit(self, statement: ast.Create, text: str) -> None:
        count = len(self._catalog.queries)
        if self._limit is None or statement.name in self._catalog.sources or count < self._limit:
            return
        raise KsqlRefusal(
            f"Not executing statement(s) '{text}' as it would cause the number of active, persistent queries to exceed "
            "the configured limit. Use the TERMINATE command to terminate existing queries, or increase the "
            "'ksql.query.persistent.active.limit' setting via the 'ksql-server.properties' file. "
            f"Current persistent query count: {count + 1}. Configured limit: {self._limit}.\nStatement: {text}",
            code=BAD_REQUEST,
        )

    def _start(self, statement: ast.Create, planned: Plan, text: str, properties: Properties) -> Created:
        given = dict(statement.properties)
        topic = self._catalog.topics[str(given["KAFKA_TOPIC"])]
        value_format = str(given.get("VALUE_FORMAT", planned.driving.value_format)).upper()
        source = Source(
            statement.name, statement.kind, _key_first(planned.schema), topic, text, value_format,
            planned.driving.key_format, derived=True, created_from=planned.sources,
        )  # fmt: skip
        old = self._replaced(statement, source, planned)
        prefix = "CTAS" if statement.kind == "TABLE" else "CSAS"
        query_id = old.id if old else f"{prefix}_{statement.name.upper()}_{self._catalog.peek_query_number()}"
        query = PersistentQuery(query_id, text, planned, self._put(statement, source), properties)
        self._catalog.queries[query_id] = query
        # A replaced query goes on where the old one stopped: no event lost, none twice (facts, section 4.7).
        query.start(old.position if old is not None and not planned.driving.is_table else None)
        return Created(text, f"Created query with ID {query_id}", query_id)

    def _replaced(self, statement: ast.Create, source: Source, planned: Plan) -> PersistentQuery | None:
        known = self._catalog.sources.get(statement.name)
        if known is None:
            return None
        _check_upgrade(known, source)
        kind = "StreamTableJoin" if planned.lookup else "TableAggregate" if planned.group else ""
        if kind:
            raise KsqlRefusal(f"Upgrades not yet supported for {kind}", code=BAD_REQUEST)
        old = next((each for each in self._catalog.writing(statement.name) if each.id.startswith("C")), None)
        if isinstance(old, PersistentQuery):
            old.stop()
            return old
        return None

    def _topic_for(self, settings: TopicSettings, origin: Topic, *, compacted: bool) -> Topic | None:
        if not _TOPIC_NAME.fullmatch(settings.name) or settings.name in {".", ".."}:
            reason = "The request attempted to perform an operation on an invalid topic."
            raise ServerFault(f"Failed to check if exists for topic: {settings.name}\nCaused by: {reason}")
        wanted = TopicSettings(
            settings.name,
            settings.partitions or origin.partitions,
            settings.replicas or origin.replicas,
            settings.retention_ms or origin.retention_ms,
        )
        existing = self._catalog.topics.get(settings.name)
        if existing is None:
            return self._make_topic(wanted, compacted=compacted)
        _check_same(existing, wanted)
        return None

    def _make_topic(self, wanted: TopicSettings, *, compacted: bool) -> Topic:
        folded = wanted.name.replace(".", "_")
        twin = next((each for each in self._catalog.topics if each.replace(".", "_") == folded), None)
        if twin is not None:
            reason = f"Topic '{wanted.name}' collides with existing topic: {twin}"
            raise ServerFault(f"Failed to guarantee existence of topic {wanted.name}\nCaused by: {reason}")
        topic = Topic(
            wanted.name, wanted.partitions or 1, wanted.replicas or 1, wanted.retention_ms or WEEK_MS, compacted
        )
        self._catalog.topics[wanted.name] = topic
        return topic

    def _forget_topic(self, made: Topic | None) -> None:
        if made is not None:
            self._catalog.topics.pop(made.name, None)


def _check_formats(statement: ast.Create, given: dict[str, Any]) -> None:
    value_format = given.get("VALUE_FORMAT", given.get("FORMAT"))
    if value_format is None:
        raise StatementFault(
            "Statement is missing the 'VALUE_FORMAT' property from the WITH clause. Either provide one or set a "
            "default via the 'ksql.persistence.default.format.value' config."
        )
    if str(value_format).upper() in _SCHEMA_REGISTRY:
        topic = given.get("KAFKA_TOPIC", statement.name)
        raise KsqlRefusal(
            f"Cannot create topic '{topic}' with format {str(value_format).upper()} without configuring "
            "'ksql.schema.registry.url'",
            code=42801,
        )
    for column in statement.columns:
        if column.name in PSEUDO_NAMES:
            raise StatementFault(
                f"'{column.name}' is a reserved column name. You cannot use it as a name for a column."
            )
        if column.type.name not in SUPPORTED:
            raise StatementFault(f"The development server does not support the type {column.type.name}.")


def _settings(statement: ast.Create, given: dict[str, Any]) -> TopicSettings:
    def number(name: str) -> int | None:
        return int(given[name]) if given.get(name) is not None else None

    if "CLEANUP_POLICY" in given:  # though the statement that DESCRIBE shows has one
        text = (
            "Invalid config variable in the WITH clause: CLEANUP_POLICY.\nThe CLEANUP_POLICY config is automatically "
            "inferred based on the type of source (STREAM or TABLE).\n"
            "Users can't set the CLEANUP_POLICY config manually."
        )
        raise KsqlRefusal(text, code=BAD_REQUEST)
    topic = str(given.get("KAFKA_TOPIC", statement.name))
    return TopicSettings(topic, number("PARTITIONS"), number("REPLICAS"), number("RETENTION_MS"))


def _missing_topic(statement: ast.Create, topic: str) -> str:
    given = {"KEY_FORMAT": "KAFKA", **dict(statement.properties), "PARTITIONS": 2}
    example = rendering.create(replace(statement, properties=tuple(given.items())))
    return (
        f"Topic '{topic}' does not exist. If you want to create a new topic for the stream/table please re-run the "
        "statement providing the required 'PARTITIONS' configuration in the WITH clause (and optionally 'REPLICAS'). "
        f"For example: {example}"
    )


def _declared_properties(statement: ast.Create, given: dict[str, Any]) -> dict[str, Any]:
    policy = "compact" if statement.kind == "TABLE" else "delete"
    return {"CLEANUP_POLICY": policy, "KAFKA_TOPIC": statement.name, "KEY_FORMAT": "KAFKA", **given}


def _derived_properties(
    statement: ast.Create, settings: TopicSettings, origin: Topic
) -> tuple[tuple[str, ast.PropertyValue], ...]:
    defaults: dict[str, ast.PropertyValue] = {
        "CLEANUP_POLICY": "compact" if statement.kind == "TABLE" else "delete",
        "KAFKA_TOPIC": settings.name,
        "PARTITIONS": origin.partitions,
        "REPLICAS": origin.replicas,
        "RETENTION_MS": origin.retention_ms,
    }
    return tuple({**defaults, **dict(statement.properties)}.items())


def _declared_source(statement: ast.Create, topic: Topic, text: str, given: dict[str, Any]) -> Source:
    columns = tuple(SchemaColumn(each.name, each.type, bool(each.key)) for each in statement.columns)
    return Source(
        statement.name, statement.kind, _key_first(Schema(columns)), topic, text,
        str(given.get("VALUE_FORMAT", "JSON")).upper(), str(given.get("KEY_FORMAT", "KAFKA")).upper(),
        read_only=statement.read_only,
    )  # fmt: skip


def _key_first(schema: Schema) -> Schema:
    """Key columns stand in front of value columns, wherever they were named."""
    return Schema(tuple(sorted(schema.columns, key=lambda each: not each.key)))


def _check_same(topic: Topic, wanted: TopicSettings) -> None:
    same = (topic.partitions, topic.retention_ms) == (wanted.partitions, wanted.retention_ms)
    if same and topic.replicas >= (wanted.replicas or 1):
        return
    raise ServerFault(
        f"A Kafka topic with the name '{topic.name}' already exists, with different partition/replica/retention "
        f"configuration than required. KSQL expects {wanted.partitions} partitions (topic has {topic.partitions}), "
        f"{wanted.replicas} replication factor (topic has {topic.replicas}), and {wanted.retention_ms} retention "
        f"(topic has {topic.retention_ms})."
    )


def _check_upgrade(known: Source, wanted: Source) -> None:
    name = rendering.quoted(known.name)
    old, new = _topic_text(known), _topic_text(wanted)
    if old != new:
        raise StatementFault(
            f"Cannot upgrade data source: DataSource '{name}' has topic = {old} which is not upgradeable to {new}"
        )
    kept = wanted.schema.columns[: len(known.schema.columns)]
    pairs = zip(known.schema.columns, (*kept, *[None] * len(known.schema.columns)), strict=False)
    changed = [str(before) for before, after in pairs if before != after]
    if changed:
        raise StatementFault(
            f"Cannot upgrade data source: DataSource '{name}' has schema = {known.schema} which is not upgradeable to "
            f"{wanted.schema}. (The following columns are changed, missing or reordered: [{', '.join(changed)}])"
        )


def _topic_text(source: Source) -> str:
    def format_text(name: str) -> str:
        return f"format=FormatInfo{{format={name}, properties={{}}}}, features=[]"

    return (
        f"KsqlTopic{{kafkaTopicName='{source.topic.name}', "
        f"keyFormat=KeyFormat{{{format_text(source.key_format)}, window=Optional.empty}}, "
        f"valueFormat=ValueFormat{{{format_text(source.value_format)}}}}}"
    )

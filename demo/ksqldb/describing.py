"""The entities of LIST, SHOW, DESCRIBE and EXPLAIN, in the shapes of ksqlDB 7.7."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from demo.ksqldb import ast
from demo.ksqldb.catalog import Catalog, Runnable, Source
from demo.ksqldb.errors import PlanFault, ServerFault, StatementFault
from demo.ksqldb.topics import Topic
from demo.ksqldb.values import Schema, type_json

Entity = dict[str, Any]
HOST = "127.0.0.1:8088"


@dataclass(frozen=True)
class PushQuery:
    """An open push query, as LIST QUERIES shows it."""

    id: str
    text: str


def query_entry(query: Runnable) -> Entity:
    """A persistent query. `state` says RUNNING even for a paused one: statusCount is what counts."""
    return {
        "queryString": query.text,
        "sinks": [] if query.sink.read_only else [query.sink.name],
        "sinkKafkaTopics": [] if query.sink.read_only else [query.sink.topic.name],
        "id": query.id,
        "statusCount": {status_of(query): 1},
        "queryType": "PERSISTENT",
        "state": "RUNNING",
    }


def status_of(query: Runnable) -> str:
    """RUNNING or PAUSED."""
    return "PAUSED" if query.paused else "RUNNING"


def _push_entry(push: PushQuery) -> Entity:
    return {
        "queryString": push.text,
        "sinks": [],
        "sinkKafkaTopics": [],
        "id": push.id,
        "statusCount": {"RUNNING": 1},
        "queryType": "PUSH",
        "state": "RUNNING",
    }


def fields(schema: Schema) -> list[Entity]:
    """The columns, with `type: KEY` on the key alone."""
    return [
        {"name": each.name, "schema": type_json(each.type), **({"type": "KEY"} if each.key else {})}
        for each in schema.columns
    ]


class Describer:
    """Answers questions about a catalogue."""

    def __init__(self, catalog: Catalog, service_id: str, settings: Mapping[str, str]) -> None:
        """The service id is part of every consumer group's name; the settings are what LIST PROPERTIES gives."""
        self._catalog = catalog
        self._service_id = service_id
        self._settings = settings

    def sources(self, statement: ast.ListSources | ast.DescribeSources, text: str) -> Entity:
        """LIST STREAMS, LIST TABLES, and their long forms."""
        found = [each for each in self._catalog.sources.values() if each.kind == statement.kind]
        if statement.extended or isinstance(statement, ast.DescribeSources):
            described = [self._description(each, extended=statement.extended) for each in found]
            return _entity("source_descriptions", text, sourceDescriptions=described)
        member = f"{statement.kind.lower()}s"
        return _entity(member, text, **{member: [_listed(each) for each in found]})

    def queries(
        self,
        text: str,
        pushes: list[PushQuery],
        *,
        extended: bool,
        hidden: int = 0,
        status: dict[str, int] | None = None,
    ) -> Entity:
        """LIST QUERIES; `hidden` leaves out that many, as a server that is shutting down does.

        `status` is the statusCount of every query where there are several servers, None for that of this one.
        """
        found = list(self._catalog.queries.values())
        found = found[: max(0, len(found) - hidden)]
        if extended:
            return _entity("query_descriptions", text, queryDescriptions=[self._query(each) for each in found])
        entries = [query_entry(each) for each in found] + [_push_entry(each) for each in pushes]
        if status is not None:
            entries = [{**each, "statusCount": dict(status)} for each in entries]
        return _entity("queries", text, queries=entries)

    def topics(self, statement: ast.ListTopics, text: str) -> Entity:
        """LIST [ALL] TOPICS."""
        names = dict(self._catalog.topics)
        if statement.everything:
            names |= {each: Topic(each) for each in self._internal_topics()}
        listed: list[Entity] = [
            {"name": name, "replicaInfo": [names[name].replicas] * names[name].partitions} for name in sorted(names)
        ]
        if statement.extended:
            listed = [{**each, "consumerCount": 0, "consumerGroupCount": 0} for each in listed]
        return _entity("kafka_topics_extended" if statement.extended else "kafka_topics", text, topics=listed)

    def _internal_topics(self) -> list[str]:
        prefix = f"_confluent-ksql-{self._service_id}"
        found = [f"{prefix}_command_topic"]
        for query in self._catalog.queries.values():
            found += [f"{prefix}query_{query.id}-{suffix}" for suffix in query.internal_topics]
        return found

    def describe(self, statement: ast.Describe, text: str) -> Entity:
        """DESCRIBE one source.

        Raises:
            StatementFault: no such source.
        """
        name = statement.name
        source = self._catalog.sources.get(name)
        if source is None:
            hint = self._catalog.case_hint(name)
            raise StatementFault(f"Could not find STREAM/TABLE '{name}' in the Metastore{hint}")
        described = self._description(source, extended=statement.extended)
        warnings = []
        if source.topic.name not in self._catalog.topics:
            warnings = [{"message": f"Error from Kafka: Failed to Describe Kafka Topic(s): [{source.topic.name}]"}]
        return {**_entity("sourceDescription", text, sourceDescription=described), "warnings": warnings}

    def _description(self, source: Source, *, extended: bool) -> Entity:
        name, topic = source.name, source.topic
        missing = topic.name not in self._catalog.topics
        writing = self._catalog.writing(name)
        offsets = [{"groupId": self._group(each), "topicSummaries": _consumed(each)} for each in writing]
        return {
            "name": name,
            "windowType": None,
            "readQueries": [query_entry(each) for each in self._catalog.reading(name)],
            "writeQueries": [query_entry(each) for each in writing],
            "fields": fields(source.schema),
            "type": source.kind,
            "timestamp": "",
            "statistics": "",
            "errorStats": "",
            "extended": extended,
            "keyFormat": source.key_format,
            "valueFormat": source.value_format,
            "topic": topic.name,
            "partitions": 0 if missing else topic.partitions,
            "replication": 0 if missing else topic.replicas,
            "statement": source.statement,
            "queryOffsetSummaries": offsets if extended else [],
            "sourceConstraints": [] if missing else self._catalog.readers(name),
            "clusterStatistics": [] if missing else _statistics(writing),
            "clusterErrorStats": [],
        }

    def _group(self, query: Runnable) -> str:
        return f"_confluent-ksql-{self._service_id}query_{query.id}"

    def explain(self, query_id: str, text: str) -> Entity:
        """EXPLAIN a query.

        Raises:
            StatementFault: no such query.
        """
        query = self._catalog.queries.get(query_id)
        if query is None:
            hint = "use SHOW QUERIES to view the full set of queries."
            raise StatementFault(f"Query with id:{query_id} does not exist, {hint}")
        return _entity("queryDescription", text, queryDescription=self._query(query))

    def _query(self, query: Runnable) -> Entity:
        return {
            "id": query.id,
            "statementText": query.text,
            "windowType": None,
            "fields": fields(query.sink.schema),
            "sources": list(query.source_names),
            "sinks": [query.sink.name],
            "topology": "",
            "executionPlan": "",
            "overriddenProperties": query.properties,
            "ksqlHostQueryStatus": {HOST: status_of(query)},
            "queryType": "PERSISTENT",
            "queryErrors": [],
            "tasksMetadata": [],
            "consumerGroupId": self._group(query),
            "state": "RUNNING",
        }

    def assert_topic(self, statement: ast.AssertTopic, text: str) -> Entity | None:
        """ASSERT TOPIC; None when it does not hold."""
        if (statement.topic in self._catalog.topics) is not statement.exists:
            return None
        return _entity("assert_topic", text, topicName=statement.topic, exists=statement.exists)

    def _properties(self) -> Entity:
        listed = [
            {"name": name, "scope": "KSQL", "value": value, "editable": False, "level": "SERVER"}
            for name, value in self._settings.items()
        ]
        return {"properties": listed, "overwrittenProperties": [], "defaultProperties": []}

    def other(self, what: str, text: str, variables: dict[str, str]) -> Entity:
        """LIST VARIABLES, LIST PROPERTIES; everything else is not there.

        Raises:
            ServerFault: LIST CONNECTORS, as without a Connect cluster.
            PlanFault: a list that this server does not keep.
        """
        if what == "VARIABLES":
            listed = [{"name": name, "value": value} for name, value in variables.items()]
            return _entity("variables", text, variables=listed)
        if what == "PROPERTIES":
            return _entity("properties", text, **self._properties())
        if what == "CONNECTORS":
            raise ServerFault(_NO_CONNECT)
        raise PlanFault(f"The development server does not support LIST {what}.")


_NO_CONNECT = (
    "io.confluent.ksql.util.KsqlServerException: org.apache.hc.client5.http.HttpHostConnectException: Connect to "
    "http://localhost:8083 [localhost/127.0.0.1] failed: Connection refused\n"
    "Caused by: Could not connect to the server. Please check the server details are\n"
    "\tcorrect and that the server is running."
)


def _consumed(query: Runnable) -> list[Entity]:
    """How far a query has read, once it has committed anything; measured: nothing before."""
    found = [(topic, position) for topic, position in query.consumed() if position]
    return [
        {
            "kafkaTopic": topic.name,
            "offsets": [
                {
                    "partition": 0,
                    "logStartOffset": topic.records[0].offset if topic.records else topic.end,
                    "logEndOffset": topic.end,
                    "consumerOffset": position,
                }
            ],
        }
        for topic, position in found
    ]


def _statistics(writing: list[Runnable]) -> list[Entity]:
    """Messages that this server's queries wrote into a source, once there were any; another server's are not in it."""
    written, now = sum(each.written for each in writing), int(time.time() * 1000)
    values = {"messages-per-sec": 0.0, "total-messages": float(written)} if written else {}
    return [{"name": name, "host": HOST, "value": value, "timestamp": now} for name, value in values.items()]


def _listed(source: Source) -> Entity:
    return {
        "type": source.kind,
        "name": source.name,
        "topic": source.topic.name,
        "keyFormat": source.key_format,
        "valueFormat": source.value_format,
        "isWindowed": False,
    }


def _entity(kind: str, text: str, **members: Any) -> Entity:
    return {"@type": kind, "statementText": text, **members, "warnings": []}

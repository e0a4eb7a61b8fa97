"""The server without HTTP: catalogue, commands, push queries, faults, counters and journal in one place."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.ksqldb import ast
from demo.ksqldb.catalog import Catalog, Properties, Source
from demo.ksqldb.commands import WRITES, Commands, Server, Session, parsed
from demo.ksqldb.describing import Entity, PushQuery
from demo.ksqldb.errors import StatementFault
from demo.ksqldb.faults import Faults
from demo.ksqldb.journal import Journal
from demo.ksqldb.queries import Cells, Push
from demo.ksqldb.runner import Runner
from demo.ksqldb.topics import Topic
from demo.ksqldb.values import Key

VERSION = "7.7.0"
BACKLOG = 50_000
OBJECTS = frozenset({"STREAM", "TABLE", "STREAMS", "TABLES", "QUERIES", "TOPICS", "INTO", "OR"})


@dataclass(frozen=True)
class Config:
    """Settings, each from an environment variable of the same meaning (see README.md).

    Attributes:
        query_limit: persistent queries at most; None means no limit.
        push_limit: open push queries at most.
        command_timeout: seconds that a request waits for an earlier command.
        offset_reset: where queries begin that do not say so themselves; empty leaves it to Kafka.
    """

    host: str = "0.0.0.0"  # noqa: S104 - a development server in a container of its own
    port: int = 8088
    cluster_id: str = ""
    service_id: str = "default_"
    data_file: Path | None = None
    query_limit: int | None = None
    push_limit: int = 1000
    command_timeout: float = 5.0
    offset_reset: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Config:
        """Read the environment.

        Raises:
            ValueError: a number that is none.
        """
        limit = environment.get("PERSISTENT_QUERY_LIMIT")
        data = environment.get("DATA_FILE")
        return cls(
            port=int(environment.get("PORT", "8088")),
            cluster_id=environment.get("KAFKA_CLUSTER_ID", ""),
            service_id=environment.get("KSQL_SERVICE_ID", "default_"),
            data_file=Path(data) if data else None,
            query_limit=int(limit) if limit else None,
            push_limit=int(environment.get("PUSH_QUERY_LIMIT", "1000")),
            offset_reset=environment.get("OFFSET_RESET", ""),
        )


class OpenPush:
    """The queue between a push query and the connection that reads it.

    A reader that falls more than BACKLOG rows behind is cut off: the memory of the server is worth more.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._rows: list[tuple[Cells, bool]] = []
        self._ready = asyncio.Event()
        self.ended = False

    def put(self, cells: Cells, tombstone: bool) -> None:
        """Add a row."""
        if len(self._rows) >= BACKLOG:
            self.ended = True
        else:
            self._rows.append((cells, tombstone))
        self._ready.set()

    def end(self) -> None:
        """No more rows will come."""
        self.ended = True
        self._ready.set()

    async def take(self) -> list[tuple[Cells, bool]]:
        """All rows that are there, waiting for the first; empty once ended."""
        if not self._rows and not self.ended:
            await self._ready.wait()
        self._ready.clear()
        rows, self._rows = self._rows, []
        return rows


class DevServer:
    """Everything but HTTP."""

    def __init__(self, config: Config) -> None:
        """Build an empty server and replay its journal, if it has one."""
        self.config = config
        self.cluster_id = config.cluster_id
        self.catalog = Catalog()
        self.faults = Faults()
        self.journal = Journal(config.data_file)
        self.requests: Counter[str] = Counter()
        self.statements: Counter[str] = Counter()
        self.writes = 0
        self.pushes: dict[str, tuple[Push, OpenPush]] = {}
        self._settings = Server(
            config.service_id, config.query_limit, self._listed_pushes, self.end_push, self._hidden_queries,
            self._status, self._written, self._executed, config.offset_reset,
        )  # fmt: skip
        self.commands = Commands(self.catalog, self._settings)
        self.runner = Runner(self.catalog, self.faults, self.commands)
        self._shrinking = 0
        self._replay()

    def _replay(self) -> None:
        journal, self.journal = self.journal, Journal(None)  # a replay is not written down again
        entries = journal.load()
        known = next((each["cluster"] for each in entries if "cluster" in each), None)
        self.cluster_id = self.cluster_id or known or secrets.token_urlsafe(16)
        if known is None:
            journal.append({"cluster": self.cluster_id})
        for entry in entries:
            if "ksql" in entry:
                session = Session(entry["ksql"], dict(entry.get("properties", {})))
                self.commands.run(parsed(entry["ksql"]), session)
            elif entry.get("topic") in self.catalog.topics:
                self.catalog.topics[entry["topic"]].append(entry["key"], entry["value"])
        self.journal = journal

    def _executed(self, prepared: ast.Prepared, session: Session) -> None:
        if isinstance(prepared.statement, WRITES):
            self.journal.append({"ksql": prepared.text, "properties": session.properties})

    def _written(self, source: Source, key: Key, value: dict[str, Any] | None) -> None:
        if source.is_table:
            self.journal.append({"topic": source.topic.name, "key": key, "value": value})

    def count(self, statements: list[ast.Prepared]) -> None:
        """Count the statements of a request by their verb, and what it is about where that is one of a few words."""
        for each in statements:
            words = each.text.upper().rstrip(";").split(None, 2)[:2]
            known = len(words) > 1 and words[1] in OBJECTS
            self.statements[" ".join(words) if known else words[0]] += 1
            self.writes += isinstance(each.statement, (*WRITES, ast.InsertValues))

    def identity(self) -> tuple[str, str]:
        """The Kafka cluster id and the ksqlDB service id that /info gives."""
        other = self.faults.use("identity") or {}
        return (
            str(other.get("kafkaClusterId", self.cluster_id)),
            str(other.get("ksqlServiceId", self.config.service_id)),
        )

    def produce(self, topic: str, key: Key, value: dict[str, Any] | None) -> None:
        """Append a record to a topic, as a Kafka producer would.

        Raises:
            StatementFault: no such topic.
        """
        if topic not in self.catalog.topics:
            raise StatementFault(f"no topic {topic}")
        found: Topic = self.catalog.topics[topic]
        if found.compacted:
            self.journal.append({"topic": topic, "key": key, "value": value})
        found.append(key, value)

    def open_push(self, query: ast.Query, text: str, properties: Properties) -> tuple[Push, OpenPush]:
        """Plan and register a push query; it follows its source from now on.

        Raises:
            KsqlRefusal: it cannot be planned.
        """
        queue = OpenPush()
        push = Push(query, text, self.catalog, self._settings.properties(properties), queue.put)
        self.pushes[push.id] = push, queue
        push.open()
        return push, queue

    def close_push(self, push: Push) -> None:
        """Forget a push query whose connection is gone."""
        push.close()
        self.pushes.pop(push.id, None)

    def end_push(self, query_id: str) -> bool:
        """End a push query by its id (in any case); False when there is none."""
        found = next((each for name, each in self.pushes.items() if name.upper() == query_id.upper()), None)
        if found is None:
            return False
        push, queue = found
        self.close_push(push)
        queue.end()
        return True

    def end_all_pushes(self) -> None:
        """End every push query."""
        for query_id in tuple(self.pushes):
            self.end_push(query_id)

    def _listed_pushes(self) -> list[PushQuery]:
        return [PushQuery(push.id, push.text) for push, _ in self.pushes.values()]

    def _hidden_queries(self) -> int:
        step = self.faults.use("shrinking_queries")
        if step is None:
            self._shrinking = 0
            return 0
        hidden = self._shrinking
        self._shrinking += int(step)
        return hidden

    def _status(self) -> dict[str, int] | None:
        lost = self.faults.use("lost_server")
        return None if lost is None else {str(state): int(number) for state, number in lost["status"].items()}

    def hush(self) -> None:
        """Let the queries that `silent_query` matches run and do nothing, and all others work."""
        switch = self.faults.active.get("silent_query")
        for query in self.catalog.queries.values():
            query.hush(str(switch.value) if switch is not None and switch.match in query.text else "")

    def run(self, sql: str, properties: Properties | None = None) -> list[Entity]:
        """Run statements directly, without HTTP and without faults."""
        return self.commands.run(parsed(sql), Session(sql, dict(properties or {})))

    async def stop(self) -> None:
        """End push queries and waiting commands, close the journal."""
        self.end_all_pushes()
        await self.runner.stop()
        self.journal.close()

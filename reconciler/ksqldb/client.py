"""The operator's client of ksqlDB: typed reads, one statement at a time.

A read counts only when it is complete (see ``wire``) and is retried briefly: enough for a connection that the server
closed at the same moment, not enough to hide a failing server. Statements are never repeated here: a statement whose
answer was lost may still be executed, so its status is read, and if that is unclear the caller observes again.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, TypeVar
from urllib.parse import quote

from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

from openfactory_common.errors import (
    KsqlBadStatement,
    KsqlConflict,
    KsqlError,
    KsqlInBandFailure,
    KsqlNotReady,
    KsqlTruncated,
    KsqlUnknownOutcome,
    KsqlWrongShape,
    Retry,
)
from openfactory_common.ksqldb.failures import NOT_QUERYABLE, is_missing_source
from openfactory_common.ksqldb.levels import Level, membership_sql
from openfactory_common.ksqldb.wire import (
    ROWS_ACCEPT,
    Column,
    PullReader,
    PushFold,
    PushRows,
    column,
    fold_name,
    identifier,
    literal,
)
from reconciler.ksqldb.entities import (
    OFFSET_RESET,
    Command,
    CommandStatus,
    Description,
    Entity,
    Health,
    QueryInfo,
    ServerInfo,
    Statement,
    StreamInfo,
)
from reconciler.ksqldb.replies import parse_entities, parse_health, parse_info, parse_status
from reconciler.ksqldb.transport import OnRequest, Request, Timeouts, Transport

T = TypeVar("T")

QUERY_LIMIT = "ksql.query.persistent.active.limit"
READ_ATTEMPTS = 3
READ_SECONDS = 2.0
#: The most records of a topic that are read for one answer: 20,000 assets that were each mapped 50 times.
MOST_RECORDS = 1_000_000
#: Without the cache a push query shows each record at once, deletions too; one thread reads all partitions without a
#: second assignment.
_DIRECT = {"ksql.streams.cache.max.bytes.buffering": 0, "ksql.streams.num.stream.threads": 1}
_POLL_FIRST, _POLL_LONGEST = 0.1, 1.0
_QUERYABLE = re.compile(r"\bCREATE (OR REPLACE )?(SOURCE )?TABLE\b.*\bAS\s+SELECT\b", re.IGNORECASE | re.DOTALL)
_NAMED_TABLE = re.compile(r"The `((?:[^`]|``)*)` table isn't queryable")
_NOT_FOUND = 40400
_DIGITS = 20


class KsqlClient:
    """A client of one ksqlDB server.

    May be used by several threads; statements are sent one at a time, because the server executes exactly one of
    several parallel statements and fails the others.

    Attributes:
        failures: reads that failed since the start, also those that a retry repaired: a caller that counts equal reads
            must start again when this changes.
    """

    def __init__(
        self,
        url: str,
        limits: Timeouts | None = None,
        *,
        ca: str | None = None,
        auth: tuple[str, str] | None = None,
        on_request: OnRequest | None = None,
    ) -> None:
        """Prepare a connection pool; nothing is sent yet.

        Args:
            url: where the server listens, e.g. ``http://ksqldb-server:8088``.
            limits: time limits in seconds.
            ca: file with the certificate authority of an https server, None for the system's.
            auth: user and password for basic authentication.
            on_request: called after every attempt with its label, status (or failure) and seconds.
        """
        self.failures = 0
        self._limits = limits or Timeouts()
        self._transport = Transport(url, self._limits, ca=ca, auth=auth, on_request=on_request)
        self._one_statement = threading.Lock()
        self._closing = threading.Event()

    def stop_waiting(self) -> None:
        """Stop waiting for a statement's outcome; safe in a signal handler."""
        self._closing.set()

    def close(self) -> None:
        """Stop waiting for any statement and close all connections."""
        self._closing.set()
        self._transport.close()

    def info(self) -> ServerInfo:
        """Return the server's identity (GET /info).

        Raises:
            KsqlWrongShape: the server is not ksqlDB; this is the first request to it.
        """
        try:
            return self._read(lambda: parse_info(self._transport.body(Request("info", "GET", "/info"))))
        except (KsqlBadStatement, KsqlWrongShape) as error:
            text = f"what answers is not ksqlDB, correct KSQLDB_URL: GET /info: {error}"
            raise KsqlWrongShape(text, code=error.code, status=error.status) from error

    def health(self) -> Health:
        """Return the server's health report (GET /healthcheck), which is up to 5 s old."""
        return self._read(lambda: parse_health(self._transport.body(Request("health", "GET", "/healthcheck"))))

    def streams(self) -> tuple[StreamInfo, ...]:
        """Return all streams: the safe source of what exists, complete even while the server stops."""
        return tuple(self._ask("list_streams", "LIST STREAMS;", "streams"))

    def tables(self) -> tuple[StreamInfo, ...]:
        """Return all tables, complete even while the server stops."""
        return tuple(self._ask("list_tables", "LIST TABLES;", "tables"))

    def queries(self) -> tuple[QueryInfo, ...]:
        """Return the queries; while the server stops the list shrinks with status 200, so absence proves nothing."""
        return tuple(self._ask("list_queries", "LIST QUERIES;", "queries"))

    def topics(self) -> Mapping[str, int]:
        """Return how many partitions each Kafka topic has (ksqlDB hides its internal ones); needs a running Kafka."""
        return dict(self._ask("list_topics", "LIST TOPICS;", "kafka_topics"))

    def query_limit(self) -> int | None:
        """Return how many persistent queries the server allows, None where it does not report it."""
        value = self._ask("list_properties", "LIST PROPERTIES;", "properties").get(QUERY_LIMIT, "")
        return int(value) if value.isdecimal() and len(value) < _DIGITS else None

    def offset_reset(self) -> str:
        """Return where the server begins a query without an offset of its own; ``""`` where that is Kafka's default.

        It has the effect of an explicit offset of the query, for the table side of a join too (measured). The server
        lists it under this name however it was written; one for ``consumer.`` alone is listed too, without effect.
        """
        return str(self._ask("list_properties", "LIST PROPERTIES;", "properties").get(OFFSET_RESET, ""))

    def describe(self, name: str) -> Description:
        """Return the definition of a source.

        Args:
            name: as stored, in its own case.

        Raises:
            KsqlBadStatement: there is no such source (code 40001).
        """
        found: Description = self._ask("describe", f"DESCRIBE {identifier(name)};", "sourceDescription")
        if found.name != name:
            raise KsqlWrongShape(f"DESCRIBE of {name} answered {found.name}", status=200)
        return found

    def describe_or_none(self, name: str) -> Description | None:
        """Return the definition of a source, None if it does not exist."""
        return _none_if_missing(lambda: self.describe(name))

    def describe_extended(self, name: str) -> Description | None:
        """Return a source with how far its queries have read; None if it does not exist."""
        sql = f"DESCRIBE {identifier(name)} EXTENDED;"
        return _none_if_missing(lambda: self._ask("describe_extended", sql, "sourceDescription"))

    def sample(self, sql: str, columns: Sequence[Column], seconds: float) -> list[tuple[Any, ...]]:
        """Return the rows that a push query with a LIMIT sends within ``seconds`` of its first answer.

        Raises:
            KsqlError: the query failed, or its columns are others.
        """
        payload = {"ksql": sql, "streamsProperties": {"ksql.streams.num.stream.threads": 1}}
        request = Request("sample", "POST", "/query", payload, ROWS_ACCEPT, seconds=seconds + self._limits.read)
        found = PushRows(tuple(columns))
        ends: list[float] = []

        def left() -> float:
            ends[:] = ends or [time.monotonic() + seconds]
            return ends[0] - time.monotonic()

        with closing(self._transport.until_quiet(request, left)) as chunks:
            for chunk in chunks:
                found.feed(chunk)
                if found.final:
                    break
        return found.rows

    def pull(self, sql: str, expected: Sequence[Column]) -> list[tuple[Any, ...]]:
        """Return the rows of a pull query, all of them or an error.

        An empty result of a complete answer may still be wrong: for 0.3 s after each restart of the server a table
        answers with no rows.

        Args:
            sql: one SELECT with its semicolon.
            expected: the columns as the server's header must show them.
        """
        try:
            return self._read(lambda: self._pull_once(sql, tuple(expected)))
        except KsqlBadStatement as error:
            raise self._explain(error) from error

    def members(self, table: str, key: str, level: Level) -> tuple[tuple[str, str | None], ...]:
        """Return every asset with its group at ``level``, None for one without.

        Args:
            table: the UNS map as in the settings (upper-case unless in backticks).
            key: its key column, likewise.
            level: the key in its ``uns_levels``, or several joined.

        Raises:
            KsqlWrongShape: an asset is there twice or without a key, so the answer is not the table's content.
        """
        rows = self.pull(
            f"{membership_sql(table, key, level)};",
            (Column(fold_name(key), "STRING", key=True), Column("UNS_GROUP", "STRING")),
        )
        if len({asset for asset, _ in rows}) != len(rows) or any(asset is None for asset, _ in rows):
            raise KsqlWrongShape(f"the keys of {table} are not unique in its answer", status=200)
        shared: dict[str | None, str | None] = {}  # one object per group name, not one per asset
        return tuple((asset, shared.setdefault(group, group)) for asset, group in rows)

    def level_names(self, table: str, key: str, assets: Sequence[str]) -> frozenset[str]:
        """Return the names of all UNS levels that these assets have; a few dozen assets at most.

        Args:
            table: the UNS map, as in the settings.
            key: its key column, likewise.
            assets: at least one.
        """
        named = ", ".join(map(literal, assets))
        sql = f"SELECT UNS_LEVELS FROM {identifier(fold_name(table))} WHERE {column(fold_name(key))} IN ({named});"  # noqa: S608 - quoted
        rows = self.pull(sql, (Column("UNS_LEVELS", "MAP<STRING, STRING>"),))
        return frozenset(name for (levels,) in rows for name in levels or ())

    def members_directly(self, table: str, key: str, level: Level, at_least: int) -> tuple[tuple[str, str | None], ...]:
        """Return every asset with its group, read from Kafka: the last check before a deletion.

        A pull query reads the parts of the table that the running servers hold; while one of several is away, the
        rest is missing, with status 200 (measured). A push query begins with the whole history of the table's topic,
        whichever server holds which part; it has no end, so it is read until no row comes for a while. It is complete
        when it has at least as many assets as the table had, deleted ones included.

        Args:
            table: the UNS map, as in the settings.
            key: its key column, likewise.
            level: by what assets are grouped.
            at_least: assets that the table has, or had recently.

        Raises:
            KsqlTruncated: it has fewer assets, or rows still come at the time limit.
        """
        found = PushFold((Column(fold_name(key), "STRING"), Column("UNS_GROUP", "STRING")))
        payload = {"ksql": f"{membership_sql(table, key, level)} EMIT CHANGES;", "streamsProperties": _DIRECT}
        request = Request("push", "POST", "/query", payload, ROWS_ACCEPT, seconds=self._limits.direct)
        last = time.monotonic()
        pauses = self._limits.quiet, self._limits.first_row
        patience = lambda: last + pauses[found.records == 0] - time.monotonic()  # noqa: E731
        with closing(self._transport.until_quiet(request, patience)) as chunks:
            for chunk in chunks:
                if found.feed(chunk):
                    last = time.monotonic()
                if found.final:
                    raise KsqlTruncated("the server ended the push query", status=200)
                if found.records > MOST_RECORDS:
                    raise KsqlTruncated(f"the topic of {table} has more than {MOST_RECORDS} records", status=200)
        if found.keys < at_least:
            raise KsqlTruncated(f"{found.keys} of {at_least} assets were read from the topic of {table}", status=200)
        return tuple((asset, group) for asset, (group,) in found.table.items())

    def execute(self, statement: Statement) -> None:
        """Execute one statement and return when it is final.

        Raises:
            KsqlUnknownOutcome: it may be executed, now, later or never: observe before repeating.
            KsqlConflict: another writer was first.
            KsqlInBandFailure: the server accepted it and failed to execute it.
            KsqlError: any other class: it was not executed.
        """
        with self._one_statement:
            try:
                entities = self._send(statement)
            except KsqlUnknownOutcome:
                entities = (Entity("currentStatus", self._find_begun_command(statement)),)
            self._await_success(statement, entities)

    def _send(self, statement: Statement) -> tuple[Entity, ...]:
        payload = {"ksql": statement.sql, "streamsProperties": dict(statement.properties)}
        body = self._transport.body(Request(statement.verb, "POST", "/ksql", payload, writes=True))
        try:
            return parse_entities(body)
        except (KsqlWrongShape, KsqlInBandFailure) as error:
            raise KsqlUnknownOutcome(f"{statement.summary}: {error}", code=error.code, status=200) from error

    def _find_begun_command(self, statement: Statement) -> Command:
        """Read the status of a statement whose answer was lost.

        Only a command in progress is surely ours: a final status under the same id may be that of an earlier
        statement about the same name.
        """
        try:
            begun = self._read_status(statement.command_id)
        except KsqlError as error:
            raise KsqlUnknownOutcome(f"{statement.summary}: no answer, no status ({error})") from error
        if begun.final:
            raise KsqlUnknownOutcome(f"{statement.summary}: no answer, and the status may be an earlier one's")
        return Command(statement.command_id, begun)

    def _await_success(self, statement: Statement, entities: tuple[Entity, ...]) -> None:
        entity = entities[0] if len(entities) == 1 else Entity("", None)
        if entity.kind == "warning_entity":
            raise KsqlConflict(f"{statement.summary}: {entity.value}", status=200)
        if entity.kind != "currentStatus":
            raise KsqlUnknownOutcome(f"{statement.summary}: the answer names no command", status=200)
        command: Command = entity.value
        status = command.status if command.status.final else self._poll_status(command.command_id, statement)
        if status.status != "SUCCESS":
            raise KsqlInBandFailure(f"{statement.summary}: {status.status}: {status.message[:400]}", status=200)

    def _poll_status(self, command_id: str, statement: Statement) -> CommandStatus:
        """Poll until the command is final.

        Raises:
            KsqlUnknownOutcome: the time limit is over (a dead command runner leaves statements QUEUED until the server
                is restarted, and executes them then), or the server does not know the command any more.
        """
        limit, pause = time.monotonic() + self._limits.outcome, _POLL_FIRST
        while time.monotonic() < limit and not self._closing.wait(pause):
            pause = min(pause * 1.5, _POLL_LONGEST)
            try:
                status = self._read_status(command_id)
            except KsqlError as error:
                if error.code == _NOT_FOUND:
                    break
                continue
            if status.final:
                return status
        raise KsqlUnknownOutcome(f"{statement.summary}: not final after {self._limits.outcome:g} s ({command_id})")

    def _read_status(self, command_id: str) -> CommandStatus:
        path = "/".join(quote(part, safe="") for part in command_id.split("/"))
        return parse_status(self._transport.body(Request("status", "GET", f"/status/{path}")))

    def _pull_once(self, sql: str, expected: tuple[Column, ...]) -> list[tuple[Any, ...]]:
        reader = PullReader(expected)
        rows: list[tuple[Any, ...]] = []
        with self._transport.chunks(Request("pull", "POST", "/query", {"ksql": sql}, accept=ROWS_ACCEPT)) as chunks:
            for chunk in chunks:
                rows.extend(reader.feed(chunk))
            reader.close()
        return rows

    def _explain(self, error: KsqlBadStatement) -> KsqlError:
        """Distinguish a table that cannot be queried from one whose query the stopping server ended: the same text."""
        named = _NAMED_TABLE.search(str(error))
        if named is None or NOT_QUERYABLE not in str(error):
            return error
        try:
            statement = self.describe(named[1]).statement
        except KsqlError:
            return error
        if _QUERYABLE.search(statement):
            return KsqlNotReady(f"the server is stopping or starting: {error}", code=error.code, status=error.status)
        return error

    def _ask(self, label: str, sql: str, kind: str) -> Any:
        """Return the value of a /ksql answer that is exactly one entity of this kind."""
        request = Request(label, "POST", "/ksql", {"ksql": sql})
        entities = self._read(lambda: parse_entities(self._transport.body(request)))
        if [entity.kind for entity in entities] != [kind]:
            raise KsqlWrongShape(f"{sql} was answered with {[entity.kind for entity in entities]}", status=200)
        return entities[0].value

    def _read(self, read: Callable[[], T]) -> T:
        """Retry a read: transient errors, full jitter, few attempts, two seconds in all."""
        policy = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, KsqlError) and error.retry is Retry.TRANSIENT),
            wait=wait_random_exponential(multiplier=0.1, max=0.8),
            stop=stop_after_attempt(READ_ATTEMPTS) | stop_after_delay(READ_SECONDS),
            reraise=True,
        )
        for attempt in policy:
            with attempt:
                try:
                    return read()
                except KsqlBadStatement:
                    raise  # an answer, not a failed read: the source does not exist
                except KsqlError:
                    self.failures += 1
                    raise
        raise AssertionError("the policy returns or re-raises")


def _none_if_missing(read: Callable[[], T]) -> T | None:
    """Return the answer, None if the source does not exist."""
    try:
        return read()
    except KsqlBadStatement as error:
        if is_missing_source(error):
            return None
        raise

"""The operator's client of ksqlDB: typed questions, one statement at a time.

Reads are believed only as a whole (see ``wire``) and retried briefly: enough for a connection that the server closed
in the same moment, not enough to hide a server that fails. Statements are never repeated here: a statement whose
answer was lost may still be executed, so its fate is looked up, and where it cannot be told the caller looks at the
world again.
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
from openfactory_common.ksqldb.failures import NOT_QUERYABLE, missing_source
from openfactory_common.ksqldb.levels import Level, membership_sql
from openfactory_common.ksqldb.wire import (
    PULL_ACCEPT,
    Column,
    PullReader,
    PushFold,
    PushRows,
    column,
    identifier,
    literal,
    stored,
)
from reconciler.ksqldb.entities import (
    Command,
    CommandStatus,
    Description,
    Entity,
    Health,
    Properties,
    Queries,
    QueryInfo,
    ServerInfo,
    Sources,
    StreamInfo,
    Topics,
    Warned,
)
from reconciler.ksqldb.replies import parse_entities, parse_health, parse_info, parse_status
from reconciler.ksqldb.statement import OFFSET_RESET, Statement
from reconciler.ksqldb.transport import OnRequest, Request, Timeouts, Transport

T = TypeVar("T")
E = TypeVar("E", bound=Entity)

QUERY_LIMIT = "ksql.query.persistent.active.limit"
READ_ATTEMPTS = 3
READ_SECONDS = 2.0
#: Records of a topic that are read for one answer at most: 20,000 assets that were each mapped 50 times.
MOST_RECORDS = 1_000_000
#: Without the cache a push query shows each record, deletions too, and shows them at once; one thread reads all
#: partitions without a second assignment.
_DIRECT = {"ksql.streams.cache.max.bytes.buffering": 0, "ksql.streams.num.stream.threads": 1}
_POLL_FIRST, _POLL_LONGEST = 0.1, 1.0
_QUERYABLE = re.compile(r"\bCREATE (OR REPLACE )?(SOURCE )?TABLE\b.*\bAS\s+SELECT\b", re.IGNORECASE | re.DOTALL)
_NAMED_TABLE = re.compile(r"The `((?:[^`]|``)*)` table isn't queryable")
_NOT_FOUND = 40400
_DIGITS = 20


class KsqlClient:
    """Speaks with one ksqlDB server.

    May be used by several threads; statements are sent one at a time, because of parallel ones the server executes
    exactly one and fails the others.

    Attributes:
        failures: reads that failed since the start, also those which a retry made good: who counts agreeing reads has
            to start again when this has moved.
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
        self._exchange = Transport(url, self._limits, ca=ca, auth=auth, on_request=on_request)
        self._one_statement = threading.Lock()
        self._closing = threading.Event()

    def stop_waiting(self) -> None:
        """End all waiting for a statement's outcome now; safe in a signal handler."""
        self._closing.set()

    def close(self) -> None:
        """Stop waiting for any statement and close all connections."""
        self._closing.set()
        self._exchange.close()

    def info(self) -> ServerInfo:
        """Return who answers (GET /info).

        Raises:
            KsqlWrongShape: it is not ksqlDB; this is the first question that it is asked.
        """
        try:
            return self._read(lambda: parse_info(self._exchange.body(Request("info", "GET", "/info"))))
        except (KsqlBadStatement, KsqlWrongShape) as error:
            text = f"what answers is not ksqlDB, correct KSQLDB_URL: GET /info: {error}"
            raise KsqlWrongShape(text, code=error.code, status=error.status) from error

    def health(self) -> Health:
        """Return how the server judges itself (GET /healthcheck); its judgement is up to 5 s old."""
        return self._read(lambda: parse_health(self._exchange.body(Request("health", "GET", "/healthcheck"))))

    def streams(self) -> tuple[StreamInfo, ...]:
        """Return all streams: the safe source of what exists, complete even while the server stops."""
        return self._sources("list_streams", "LIST STREAMS;", "STREAM")

    def tables(self) -> tuple[StreamInfo, ...]:
        """Return all tables, complete even while the server stops."""
        return self._sources("list_tables", "LIST TABLES;", "TABLE")

    def _sources(self, label: str, sql: str, kind: str) -> tuple[StreamInfo, ...]:
        """The list of one kind; the answer to the question for the other kind is not an empty list of this one."""
        answer = self._one(label, sql, Sources)
        if answer.kind != kind:
            raise KsqlWrongShape(f"{sql} was answered with a list of {answer.kind}", status=200)
        return answer.sources

    def queries(self) -> tuple[QueryInfo, ...]:
        """Return the queries; while the server stops the list shrinks with status 200, so absence proves nothing."""
        return self._one("list_queries", "LIST QUERIES;", Queries).queries

    def topics(self) -> Mapping[str, int]:
        """Return how many partitions each Kafka topic has; needs a living Kafka."""
        return self._one("list_topics", "LIST TOPICS;", Topics).partitions

    def query_limit(self) -> int | None:
        """Return how many persistent queries the server allows, None where it does not say."""
        value = self._one("list_properties", "LIST PROPERTIES;", Properties).values.get(QUERY_LIMIT, "")
        return int(value) if value.isdecimal() and len(value) < _DIGITS else None

    def offset_reset(self) -> str:
        """Return where the server begins a query that does not say so itself; ``""`` where it leaves that to Kafka.

        It counts like an explicit offset of the query, for the table side of a join too (measured). The server lists
        it under this name however it was written; one for ``consumer.`` alone is listed too, and counts for nothing.
        """
        return self._one("list_properties", "LIST PROPERTIES;", Properties).values.get(OFFSET_RESET, "")

    def describe(self, name: str) -> Description:
        """Return the definition of a source.

        Args:
            name: as stored, in its own case.

        Raises:
            KsqlBadStatement: there is no such source (code 40001).
        """
        found = self._one("describe", f"DESCRIBE {identifier(name)};", Description)
        if found.name != name:
            raise KsqlWrongShape(f"DESCRIBE of {name} answered {found.name}", status=200)
        return found

    def describe_or_none(self, name: str) -> Description | None:
        """Return the definition of a source, None when the server says that it does not exist."""
        return _unless_missing(lambda: self.describe(name))

    def describe_extended(self, name: str) -> Description | None:
        """Return a source with how far its queries have read; None when the server says that it does not exist."""
        sql = f"DESCRIBE {identifier(name)} EXTENDED;"
        return _unless_missing(lambda: self._one("describe_extended", sql, Description))

    def sample(self, sql: str, columns: Sequence[Column], seconds: float) -> list[tuple[Any, ...]]:
        """Return the rows that a push query with a LIMIT shows within ``seconds`` of its first answer.

        Raises:
            KsqlError: it was not answered, or not with these columns.
        """
        payload = {"ksql": sql, "streamsProperties": {"ksql.streams.num.stream.threads": 1}}
        ask = Request("sample", "POST", "/query", payload, PULL_ACCEPT, seconds=seconds + self._limits.read)
        found = PushRows(tuple(columns))
        ends: list[float] = []

        def left() -> float:
            ends[:] = ends or [time.monotonic() + seconds]
            return ends[0] - time.monotonic()

        with closing(self._exchange.until_quiet(ask, left)) as chunks:
            for chunk in chunks:
                found.feed(chunk)
                if found.final:
                    break
        return found.rows

    def pull(self, sql: str, expected: Sequence[Column]) -> list[tuple[Any, ...]]:
        """Return the rows of a pull query, all of them or an error.

        An empty result of a complete answer may still be a lie: for 0.3 s after each restart of the server a table
        answers with no rows at all.

        Args:
            sql: one SELECT with its semicolon.
            expected: the columns as the server's header must show them.
        """
        try:
            return self._read(lambda: self._pull_once(sql, tuple(expected)))
        except KsqlBadStatement as error:
            raise self._explained(error) from error

    def members(self, table: str, key: str, level: Level) -> tuple[tuple[str, str | None], ...]:
        """Return every asset with its group at ``level``, None for one without.

        Args:
            table: the UNS map, as a person writes it (upper-case unless in backticks).
            key: its key column, likewise.
            level: the key in its ``uns_levels``, or several joined.

        Raises:
            KsqlWrongShape: an asset came twice or without a key, so the answer is not the table's content.
        """
        rows = self.pull(
            f"{membership_sql(table, key, level)};",
            (Column(stored(key), "STRING", key=True), Column("UNS_GROUP", "STRING")),
        )
        if len({asset for asset, _ in rows}) != len(rows) or any(asset is None for asset, _ in rows):
            raise KsqlWrongShape(f"the keys of {table} are not unique in its answer", status=200)
        shared: dict[str | None, str | None] = {}  # one object per group name, not one per asset
        return tuple((asset, shared.setdefault(group, group)) for asset, group in rows)

    def level_names(self, table: str, key: str, assets: Sequence[str]) -> frozenset[str]:
        """Return the names of all UNS levels that these assets have; some dozens of assets at most.

        Args:
            table: the UNS map, as a person writes it.
            key: its key column, likewise.
            assets: at least one.
        """
        named = ", ".join(map(literal, assets))
        sql = f"SELECT UNS_LEVELS FROM {identifier(stored(table))} WHERE {column(stored(key))} IN ({named});"  # noqa: S608 - quoted
        rows = self.pull(sql, (Column("UNS_LEVELS", "MAP<STRING, STRING>"),))
        return frozenset(name for (levels,) in rows for name in levels or ())

    def members_directly(self, table: str, key: str, level: Level, at_least: int) -> tuple[tuple[str, str | None], ...]:
        """Return every asset with its group, read from Kafka: the last question before a deletion.

        A pull answers from what the asked servers hold of the table, and while one of several is away that is a part,
        with status 200 (measured). A push query begins with the whole history of the table's topic, whichever server
        holds what; it has no end, so it is read until no row came for a while. It is complete when it names at least
        as many assets as the table had, those counted that it says were deleted.

        Args:
            table: the UNS map, as a person writes it.
            key: its key column, likewise.
            level: by what assets are grouped.
            at_least: assets that the table has, or had lately.

        Raises:
            KsqlTruncated: it names fewer assets, or there was no end of rows within the limits.
        """
        found = PushFold((Column(stored(key), "STRING"), Column("UNS_GROUP", "STRING")))
        payload = {"ksql": f"{membership_sql(table, key, level)} EMIT CHANGES;", "streamsProperties": _DIRECT}
        ask = Request("push", "POST", "/query", payload, PULL_ACCEPT, seconds=self._limits.direct)
        last = time.monotonic()
        pauses = self._limits.quiet, self._limits.first_row
        patience = lambda: last + pauses[found.records == 0] - time.monotonic()  # noqa: E731
        with closing(self._exchange.until_quiet(ask, patience)) as chunks:
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
        """Have one statement executed and return when it is final.

        Raises:
            KsqlUnknownOutcome: it may have been executed, may be later, or never: look before repeating.
            KsqlConflict: another writer was first.
            KsqlInBandFailure: the server took it and failed to execute it.
            KsqlError: any other class; then it was not executed.
        """
        with self._one_statement:
            try:
                entities = self._statement(statement)
            except KsqlUnknownOutcome:
                self._overtaken(statement)
            else:
                self._concluded(statement, entities)

    def _statement(self, statement: Statement) -> tuple[Entity, ...]:
        payload = {"ksql": statement.sql, "streamsProperties": dict(statement.properties)}
        body = self._exchange.body(Request(statement.verb, "POST", "/ksql", payload, writes=True))
        try:
            return parse_entities(body)
        except (KsqlWrongShape, KsqlInBandFailure) as error:
            raise KsqlUnknownOutcome(f"{statement.summary}: {error}", code=error.code, status=200) from error

    def _concluded(self, statement: Statement, entities: tuple[Entity, ...]) -> None:
        if len(entities) == 1 and isinstance(entities[0], Warned):
            raise KsqlConflict(f"{statement.summary}: {entities[0].message}", status=200)
        if len(entities) != 1 or not isinstance(entities[0], Command):
            raise KsqlUnknownOutcome(f"{statement.summary}: the answer names no command", status=200)
        command = entities[0]
        status = command.status if command.status.final else self._awaited(command.command_id, statement)
        if status.status != "SUCCESS":
            raise KsqlInBandFailure(f"{statement.summary}: {status.status}: {status.message[:400]}", status=200)

    def _overtaken(self, statement: Statement) -> None:
        """Look what became of a statement whose answer was lost.

        Only a command seen in progress is ours for certain: a final status under the same id may be that of an
        earlier statement about the same name.
        """
        command_id = statement.command_id
        try:
            begun = self._status(command_id)
        except KsqlError as error:
            raise KsqlUnknownOutcome(f"{statement.summary}: no answer, no status ({error})") from error
        if begun.final:
            raise KsqlUnknownOutcome(f"{statement.summary}: no answer, and the status may be an earlier one's")
        self._concluded(statement, (Command(command_id, begun),))

    def _awaited(self, command_id: str, statement: Statement) -> CommandStatus:
        """Poll until the command is final.

        Raises:
            KsqlUnknownOutcome: the limit is over (a dead command runner leaves statements QUEUED until the server
                is restarted, and executes them then), or the server has forgotten the command.
        """
        limit, pause = time.monotonic() + self._limits.outcome, _POLL_FIRST
        while time.monotonic() < limit and not self._closing.wait(pause):
            pause = min(pause * 1.5, _POLL_LONGEST)
            try:
                status = self._status(command_id)
            except KsqlError as error:
                if error.code == _NOT_FOUND:
                    break
                continue
            if status.final:
                return status
        raise KsqlUnknownOutcome(f"{statement.summary}: not final after {self._limits.outcome:g} s ({command_id})")

    def _status(self, command_id: str) -> CommandStatus:
        path = "/".join(quote(part, safe="") for part in command_id.split("/"))
        return parse_status(self._exchange.body(Request("status", "GET", f"/status/{path}")))

    def _pull_once(self, sql: str, expected: tuple[Column, ...]) -> list[tuple[Any, ...]]:
        reader = PullReader(expected)
        rows: list[tuple[Any, ...]] = []
        with self._exchange.chunks(Request("pull", "POST", "/query", {"ksql": sql}, accept=PULL_ACCEPT)) as chunks:
            for chunk in chunks:
                rows.extend(reader.feed(chunk))
            reader.close()
        return rows

    def _explained(self, error: KsqlBadStatement) -> KsqlError:
        """Tell a table that cannot be queried from one whose query the stopping server has ended: the same text."""
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

    def _one(self, label: str, sql: str, kind: type[E]) -> E:
        """Ask a question of /ksql that has one entity of ``kind`` as its answer."""
        ask = Request(label, "POST", "/ksql", {"ksql": sql})
        entities = self._read(lambda: parse_entities(self._exchange.body(ask)))
        if len(entities) != 1 or not isinstance(entities[0], kind):
            raise KsqlWrongShape(f"{sql} answered {[type(entity).__name__ for entity in entities]}", status=200)
        return entities[0]

    def _read(self, ask: Callable[[], T]) -> T:
        """Run a read with the one retry policy: transient classes, full jitter, few attempts, two seconds in all."""
        for attempt in _read_policy():
            with attempt:
                try:
                    return ask()
                except KsqlBadStatement:
                    raise  # an answer too: asking for what does not exist is no failed read
                except KsqlError:
                    self.failures += 1
                    raise
        raise AssertionError("the policy returns or re-raises")


def _read_policy() -> Retrying:
    return Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, KsqlError) and error.retry is Retry.TRANSIENT),
        wait=wait_random_exponential(multiplier=0.1, max=0.8),
        stop=stop_after_attempt(READ_ATTEMPTS) | stop_after_delay(READ_SECONDS),
        reraise=True,
    )


def _unless_missing(ask: Callable[[], T]) -> T | None:
    """Return the answer, None where the server says that what was asked for does not exist."""
    try:
        return ask()
    except KsqlBadStatement as error:
        if missing_source(error):
            return None
        raise

"""The interface of a ksqlDB server; the client, the wrappers of `control` and the fake of the tests implement it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from openfactory_common.ksqldb.levels import Level
from openfactory_common.ksqldb.wire import Column
from reconciler.ksqldb.entities import Description, Health, QueryInfo, ServerInfo, Statement, StreamInfo


class Ksqldb(Protocol):
    """A ksqlDB server.

    Reads are complete or raise a `openfactory_common.errors.KsqlError`. Statements are sent one at a time and never
    repeated: the next observation shows the outcome of one that was not answered.

    Attributes:
        failures: attempts that failed since the start, also those that a retry repaired.
    """

    failures: int

    def info(self) -> ServerInfo:
        """The server's identity."""

    def health(self) -> Health:
        """The server's health report."""

    def streams(self) -> tuple[StreamInfo, ...]:
        """All streams; complete even while the server stops."""

    def tables(self) -> tuple[StreamInfo, ...]:
        """All tables, likewise."""

    def queries(self) -> tuple[QueryInfo, ...]:
        """All queries; shrinks while the server stops."""

    def query_limit(self) -> int | None:
        """How many persistent queries the server allows, None where it does not report it."""

    def offset_reset(self) -> str:
        """Where the server begins a query without an offset of its own; ``""`` where that is Kafka's default."""

    def describe_or_none(self, name: str) -> Description | None:
        """One source, None where it does not exist."""

    def describe_extended(self, name: str) -> Description | None:
        """One source with how far its queries have read, None where it does not exist."""

    def sample(self, sql: str, columns: Sequence[Column], seconds: float) -> list[tuple[Any, ...]]:
        """The rows that a push query with a LIMIT shows within ``seconds``."""

    def topics(self) -> Mapping[str, int]:
        """How many partitions each Kafka topic has, by name."""

    def execute(self, statement: Statement) -> None:
        """Execute one statement and wait until it is final."""

    def members(self, table: str, key: str, level: Level) -> tuple[tuple[str, str | None], ...]:
        """Every asset with its value at ``level``."""

    def pull(self, sql: str, expected: Sequence[Column]) -> list[tuple[Any, ...]]:
        """The rows of a pull query with exactly these columns."""

    def level_names(self, table: str, key: str, assets: Sequence[str]) -> frozenset[str]:
        """The names of all UNS levels that these assets have."""

    def members_directly(self, table: str, key: str, level: Level, at_least: int) -> tuple[tuple[str, str | None], ...]:
        """As ``members``, read from Kafka, whichever servers run; ``at_least`` assets, or an error."""

    def stop_waiting(self) -> None:
        """Stop waiting for a statement's outcome; safe in a signal handler."""

    def close(self) -> None:
        """Release connections."""

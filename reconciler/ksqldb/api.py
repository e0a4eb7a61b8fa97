"""What the core asks of ksqlDB, as a protocol: the client fulfils it, and so do the read-only wrapper and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from openfactory_common.ksqldb.levels import Level
from openfactory_common.ksqldb.wire import Column
from reconciler.ksqldb.entities import Description, Health, QueryInfo, ServerInfo, StreamInfo
from reconciler.ksqldb.statement import Statement


class Ksqldb(Protocol):
    """A ksqlDB server.

    Reads are complete or raise a `openfactory_common.errors.KsqlError`. Statements are sent one at a time and never
    repeated: what became of one that was not answered is for the next look to find out.

    Attributes:
        failures: attempts that failed since the start, those included that a brief retry made good.
    """

    failures: int

    def info(self) -> ServerInfo:
        """Who answers."""

    def health(self) -> Health:
        """How the server judges itself."""

    def streams(self) -> tuple[StreamInfo, ...]:
        """All streams; complete even while the server stops."""

    def tables(self) -> tuple[StreamInfo, ...]:
        """All tables, likewise."""

    def queries(self) -> tuple[QueryInfo, ...]:
        """All queries; shrinks while the server stops."""

    def query_limit(self) -> int | None:
        """How many persistent queries the server allows, None where it does not say."""

    def offset_reset(self) -> str:
        """Where the server begins a query that does not say so itself; ``""`` where it leaves that to Kafka."""

    def describe_or_none(self, name: str) -> Description | None:
        """One source, None where it does not exist."""

    def describe_extended(self, name: str) -> Description | None:
        """One source with how far its queries have read, None where it does not exist."""

    def sample(self, sql: str, columns: Sequence[Column], seconds: float) -> list[tuple[Any, ...]]:
        """The rows that a push query with a LIMIT shows within so many seconds."""

    def topics(self) -> Mapping[str, int]:
        """How many partitions each Kafka topic has, by name."""

    def execute(self, statement: Statement) -> object:
        """Send one statement and wait until its outcome is known."""

    def members(self, table: str, key: str, level: Level) -> tuple[tuple[str, str | None], ...]:
        """Every asset with its value at ``level``."""

    def pull(self, sql: str, expected: Sequence[Column]) -> list[tuple[Any, ...]]:
        """The rows of a pull query with exactly these columns."""

    def level_names(self, table: str, key: str, assets: Sequence[str]) -> frozenset[str]:
        """The names of all UNS levels that these assets have."""

    def members_directly(self, table: str, key: str, level: Level, at_least: int) -> tuple[tuple[str, str | None], ...]:
        """As ``members``, read from Kafka, whichever servers are there; at least so many assets, or an error."""

    def stop_waiting(self) -> None:
        """End all waiting for a statement's outcome now; safe in a signal handler."""

    def close(self) -> None:
        """Release connections."""

"""What the core asks of ksqlDB, as a protocol: the client fulfils it, and so do the read-only wrapper and tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from reconciler.ksqldb.entities import Description, Health, QueryInfo, ServerInfo, StreamInfo
from reconciler.ksqldb.levels import Level
from reconciler.ksqldb.statement import Statement
from reconciler.ksqldb.wire import Column


class Ksqldb(Protocol):
    """A ksqlDB server.

    Reads are complete or raise a `reconciler.errors.KsqlError`. Statements are sent one at a time and never
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

    def describe_or_none(self, name: str) -> Description | None:
        """One source, None where it does not exist."""

    def topics(self) -> frozenset[str]:
        """Names of all Kafka topics."""

    def execute(self, statement: Statement) -> object:
        """Send one statement and wait until its outcome is known."""

    def members(self, table: str, key: str, level: Level) -> tuple[tuple[str, str | None], ...]:
        """Every asset with its value at ``level``."""

    def pull(self, sql: str, expected: Sequence[Column]) -> list[tuple[Any, ...]]:
        """The rows of a pull query with exactly these columns."""

    def level_names(self, table: str, key: str, assets: Sequence[str]) -> frozenset[str]:
        """The names of all UNS levels that these assets have."""

    def group_has_members(self, table: str, key: str, level: Level, group: str) -> bool:
        """Whether any asset has the value ``group`` at ``level``."""

    def stop_waiting(self) -> None:
        """End all waiting for a statement's outcome now; safe in a signal handler."""

    def close(self) -> None:
        """Release connections."""

"""One statement for ksqlDB's command topic, with the properties that go with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Offset reset of a query as a property of a request; the same name, set server-wide, counts for every query.
OFFSET_RESET = "ksql.streams.auto.offset.reset"


@dataclass(frozen=True)
class Statement:
    """Exactly one statement.

    Attributes:
        sql: the text with its semicolon.
        properties: its ``streamsProperties``.
        verb: what it does, for logs and metrics: create, replace, drop, resume.
        target: the source (or query) that it is about, as stored.
        command_id: under which the server files it in /status.
    """

    sql: str
    properties: Mapping[str, str | int | bool] = field(default_factory=dict, hash=False)
    verb: str = "statement"
    target: str = ""
    command_id: str = ""

    @property
    def summary(self) -> str:
        """Return a few words for messages."""
        return f"{self.verb} {self.target}".strip()

"""What was observed: the state of ksqlDB, the platform and the UNS map. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from openfactory_common.registry import Identity
from reconciler.domain.services import PlatformState


@dataclass(frozen=True)
class MapSnapshot:
    """One complete read of the UNS map.

    Attributes:
        assets: how many assets the map has.
        groups: members by group; only groups with at least one.
        fresh: read in this cycle; False where the last scan is used again, which proves no absence.
        unknown_level: a message if no asset has the level that groups are made from, with the levels that exist;
            ``""`` where there are groups, or where it is not known.
        fallback: the group of assets without a value at the level, ``""`` for none.
        ambiguous: why each of these groups is not served: assets with other values could get the same name.
    """

    assets: int
    groups: Mapping[str, int]
    fresh: bool = True
    unknown_level: str = ""
    fallback: str = ""
    ambiguous: Mapping[str, str] = field(default_factory=dict)

    @property
    def ungrouped(self) -> int:
        """Assets that have no value at the grouping level."""
        return self.assets - sum(self.groups.values())


@dataclass(frozen=True)
class LiveStream:
    """A ksqlDB stream as LIST STREAMS shows it."""

    name: str
    topic: str


@dataclass(frozen=True)
class LiveQuery:
    """The persistent query that writes a stream, as LIST QUERIES shows it."""

    id: str
    text: str
    paused: bool = False
    failed: bool = False


@dataclass(frozen=True)
class SourceState:
    """Everything of ksqlDB that a plan depends on, from one set of full reads.

    Attributes:
        identity: the Kafka cluster and the ksqlDB service that answered.
        version: of the server.
        unhealthy_reason: why no DDL may be sent to the server now, and no absence believed; ``""`` when healthy.
        degraded: why no absence may be believed now, although statements may be sent: a query of ours or of the UNS
            map does not run on every server; ``""`` where all do.
        servers: on how many ksqlDB servers queries run; 0 where it is not known.
        streams: by exact name.
        queries: persistent queries by the name of the stream or table they write.
        topics: partitions of all Kafka topics, by name; None where they were not read in this cycle.
        partitions: the same as of the last cycle that read them; those of an earlier cycle prove no absence.
        orphans: the statements that made streams which no query writes, by the stream's name; ``""`` for one that
            ksqlDB does not show us.
        unknown_owners: such streams that no asset's group has and whose statement is not known yet, each with the error
            of the last request; ``""`` before the first.
        inserts: statements of INSERT INTO queries, by the query's id: they read and write what others made.
    """

    identity: Identity
    version: str
    unhealthy_reason: str
    streams: Mapping[str, LiveStream]
    queries: Mapping[str, LiveQuery]
    topics: Mapping[str, int] | None = None
    orphans: Mapping[str, str] = field(default_factory=dict)
    unknown_owners: Mapping[str, str] = field(default_factory=dict)
    inserts: Mapping[str, str] = field(default_factory=dict)
    degraded: str = ""
    servers: int = 0
    partitions: Mapping[str, int] = field(default_factory=dict)

    @property
    def statements(self) -> Mapping[str, str]:
        """Every statement that is known: by the source that it made, an INSERT INTO by its query's id."""
        made = {name: query.text for name, query in self.queries.items()}
        return {**self.orphans, **made, **self.inserts}

    def identify(self, stream: str) -> str:
        """Return what tells a stream from another of its name: its query's id, or the statement where it has none."""
        query = self.queries.get(stream)
        return query.id if query is not None else self.orphans.get(stream, "")

    @property
    def unhealthy(self) -> str:
        """Why no absence may be believed now; ``""`` when healthy."""
        return self.unhealthy_reason or self.degraded


@dataclass(frozen=True)
class Observed:
    """One full observation."""

    source: SourceState
    platform: PlatformState
    membership: MapSnapshot

"""One complete read of the platform and ksqlDB: a fixed number of requests, each of them complete or an error.

ksqlDB gets 5 reads a cycle, one more for a stream whose owner is unknown, and the list of topics every
`RESYNC_INTERVAL`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

from openfactory_common.errors import KsqlError, ReconcilerError, describe
from openfactory_common.ksqldb.wire import fold_name
from openfactory_common.registry import Identity
from reconciler.control.demand import DemandReader
from reconciler.control.groups_file import GroupsFile
from reconciler.control.orphans import OrphanStreams
from reconciler.control.readiness import Prober
from reconciler.domain.actions import Action, CreateSharedStream, CreateStream
from reconciler.domain.installation import Claim, Installation, claim, new_id, parse, sift
from reconciler.domain.observed import LiveQuery, LiveStream, MapSnapshot, Observed, SourceState
from reconciler.domain.services import PlatformState
from reconciler.domain.status import Part
from reconciler.grouping.base import GroupingStrategy
from reconciler.ksqldb.api import Ksqldb
from reconciler.ksqldb.entities import ERROR, RUNNING, Health, QueryInfo, ServerInfo, count_servers, find_not_running
from reconciler.ksqldb.ownership import Whose
from reconciler.ksqldb.statements import Topology
from reconciler.planning.inputs import PlanInputs
from reconciler.platforms.protocol import Platform
from reconciler.settings import Settings

T = TypeVar("T")

#: A scan of the UNS map costs time with every asset (20,000: 0.2 s, 100,000: 1 s, measured), so the next one is not
#: started before so many times the length of the last: scans take at most a twentieth of the time.
SCAN_SHARE = 20
#: Streams of this installation and of others: before the first cycle the two cannot be told apart.
_MADE_BY_OPERATORS = (Whose.SHARED, Whose.GROUP, Whose.OTHER)


@dataclass(frozen=True)
class Dependencies:
    """What the operator works with: ksqlDB, the platform, how assets are grouped, what streams and groups should be.

    Without a ``prober`` the engine's view of what is ready counts; without ``demand`` no group falls asleep.
    """

    settings: Settings
    ksqldb: Ksqldb
    platform: Platform
    strategy: GroupingStrategy
    topology: Topology
    prober: Prober | None = None
    groups_file: GroupsFile = field(default_factory=GroupsFile)
    demand: DemandReader | None = None


@dataclass
class Clocks:
    """Where time comes from: ``monotonic`` for grace times, ``wall`` to compare with the engine's time stamps."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], datetime] = lambda: datetime.now(UTC)


class MapScan:
    """Reads the UNS map in full, as often as its size allows."""

    def __init__(self, scan: Callable[[], MapSnapshot], monotonic: Callable[[], float]) -> None:
        """Read with ``scan``; nothing is known before the first."""
        self._scan = scan
        self._monotonic = monotonic
        self._last = MapSnapshot(0, {})
        self._due = -math.inf
        self._nudged = False

    def read(self) -> MapSnapshot:
        """Return a full scan, or the last one again (not ``fresh``) while the next is not due.

        Raises:
            openfactory_common.errors.KsqlError: the scan failed or was not complete; the next read scans again.
        """
        started = self._monotonic()
        if started < self._due and not self._nudged:
            return replace(self._last, fresh=False)
        self._due, self._nudged = -math.inf, False  # a nudge that comes during the scan is for the next one
        self._last = self._scan()
        ended = self._monotonic()
        self._due = ended + SCAN_SHARE * (ended - started)
        return self._last

    def nudge(self) -> None:
        """Let the next read scan: the map is known to have changed."""
        self._nudged = True


class Observer:
    """Reads ksqlDB for one operator, and remembers what is not read in every cycle.

    Attributes:
        claim: which installation this is, as of the last read.
        map_scan: reads the UNS map.
    """

    def __init__(
        self,
        deps: Dependencies,
        clocks: Clocks,
        on_unknown_owner: Callable[[str, Exception], None],
        on_bug: Callable[[Part, Exception], None],
        *,
        reads_once: bool,
    ) -> None:
        """Prepare to read; with ``reads_once``, nothing is left for a next read."""
        self.claim = Claim(deps.topology.installation)
        self.map_scan = MapScan(deps.strategy.read, clocks.monotonic)
        self._orphans = OrphanStreams(deps.ksqldb, deps.topology, on_unknown_owner, None if reads_once else 1)
        self._clocks = clocks
        self._on_bug = on_bug
        self._fresh_id = new_id()
        self._recorded: Installation | None = None
        self._resynced = clocks.monotonic()
        self._partitions: Mapping[str, int] = {}

    def observe(self, deps: Dependencies, platform: PlatformState, adopt: str) -> tuple[Dependencies, Observed]:
        """Read ksqlDB, and find what belongs to this installation.

        Args:
            deps: what to read.
            platform: what was read of the platform.
            adopt: id of the installation that ``--adopt`` declares to be this one; ``""`` for none.

        Returns:
            ``deps`` with the topology of this installation, and everything that was read.

        Raises:
            openfactory_common.errors.KsqlError: a read failed or was not complete; nothing may be concluded.
        """
        resync = self._clocks.monotonic() - self._resynced >= deps.settings.resync_interval
        source, membership = observe_source(
            deps.ksqldb, self.map_scan.read, topics=resync, find_degraded=lambda listed: _find_degraded(deps, listed)
        )
        owner = deps.settings.reconciler_owner
        self.claim = claim(platform, source.streams, owner, fresh=self._fresh_id, known=self._recorded, adopt=adopt)
        self._recorded = parse(self.claim.before) or self._recorded
        topology = replace(deps.topology, installation=self.claim.installation)
        made = {name: query.text if (query := source.queries.get(name)) else None for name in source.streams}
        self._orphans.topology = topology = topology.current(made)
        source = self._orphans.observe(source, membership)
        if resync:
            self._resynced = self._clocks.monotonic()
        self._partitions = source.topics or self._partitions
        source = replace(source, partitions=self._partitions)
        platform = sift(platform, owner, self.claim.installation)
        return replace(deps, topology=topology), Observed(source, platform, membership)

    def read_directly(self, deps: Dependencies, at_least: int) -> tuple[MapSnapshot | None, str]:
        """Read the UNS map from Kafka itself, the last check before removals; or return None and why it failed."""
        try:
            return deps.strategy.read_directly(at_least), ""
        except KsqlError as error:
            return None, str(error)
        except Exception as error:  # noqa: BLE001 - nothing is removed without an answer; the cycle continues
            self._on_bug(Part.QUESTION, error)
            return None, describe(error)

    def ask_before_creating(self, deps: Dependencies, actions: Iterable[Action], inputs: PlanInputs) -> PlanInputs:
        """Return ``inputs`` with what the server allows, read only where ``actions`` create streams.

        A group's stream names its offset, so the server's own concerns the shared stream alone.

        Raises:
            ReconcilerError: that could not be read.
        """
        kinds = {type(action) for action in actions}
        if kinds.isdisjoint((CreateSharedStream, CreateStream)):
            return inputs
        limit = self._ask(deps.ksqldb.query_limit)
        offset = self._ask(deps.ksqldb.offset_reset) if CreateSharedStream in kinds else None
        return replace(inputs, query_limit=limit, offset_reset=offset or "")

    def _ask(self, question: Callable[[], T]) -> T | None:
        """Return what the server says of its own settings; it checks them itself too, so a bug here stops no plan."""
        try:
            return question()
        except ReconcilerError:
            raise
        except Exception as error:  # noqa: BLE001 - a plan is made without it
            self._on_bug(Part.PLAN, error)
            return None


def observe_source(
    ksqldb: Ksqldb,
    read: Callable[[], MapSnapshot],
    *,
    topics: bool = False,
    find_degraded: Callable[[tuple[QueryInfo, ...]], str] = lambda _queries: "",
) -> tuple[SourceState, MapSnapshot]:
    """Read identity, health, streams, queries and the UNS map.

    The map is read before the streams: an asset that is mapped in between is found in the next cycle, while a stream
    that is found without its group would look like one to remove.

    Args:
        ksqldb: the server.
        read: reads the UNS map.
        topics: list the Kafka topics too, to find streams whose topic was deleted.
        find_degraded: returns from LIST QUERIES why no absence may be believed; ``""`` where one may.

    Raises:
        openfactory_common.errors.KsqlError: any read failed or was not complete.
    """
    info = ksqldb.info()
    health = ksqldb.health()
    membership = read()
    streams = {stream.name: LiveStream(stream.name, stream.topic) for stream in ksqldb.streams()}
    listed = ksqldb.queries()
    state = SourceState(
        identity=Identity(kafka=info.kafka_cluster_id, ksqldb=info.ksql_service_id),
        version=info.version,
        unhealthy_reason=find_unhealthy_reason(info, health),
        streams=streams,
        # What made each stream or table; another query that writes into it as well (INSERT INTO) did not.
        queries={
            sink: LiveQuery(query.id, query.text, query.paused, failed=query.status_count.get(ERROR, 0) > 0)
            for query in listed
            if query.verb == "CREATE"
            for sink in query.sinks
        },
        topics=ksqldb.topics() if topics else None,
        inserts={query.id: query.text for query in listed if query.verb == "INSERT"},
        degraded=find_degraded(listed),
        servers=count_servers(listed),
    )
    return state, membership


def find_unhealthy_reason(info: ServerInfo, health: Health) -> str:
    """Return why the server must not get statements now, nor be believed about absences; ``""`` when it is healthy."""
    if not health.command_runner:
        return "its command runner is dead or blocked; if this lasts, only a restart of the ksqlDB server cures it"
    if not health.kafka:
        return "it cannot reach Kafka"
    if not health.ready:
        return f"its health check fails (state {health.server_state or 'unknown'})"
    return "" if info.status == RUNNING else f"its status is {info.status}"


def _find_degraded(deps: Dependencies, listed: tuple[QueryInfo, ...]) -> str:
    """Return which query that groups depend on does not run on every ksqlDB server; ``""`` where all do."""
    topology = deps.topology
    return find_not_running(
        listed,
        {fold_name(deps.strategy.lookup().table), fold_name(topology.join_table)},
        lambda query: any(topology.ownership(sink, query.text).whose in _MADE_BY_OPERATORS for sink in query.sinks),
    )

"""One full look at ksqlDB: a fixed number of reads (5, and the topics now and then), each complete or an error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from openfactory_common.registry import Identity
from reconciler.domain.observed import LiveQuery, LiveStream, MapSnapshot, SourceState
from reconciler.ksqldb.api import Ksqldb
from reconciler.ksqldb.entities import ERROR, Health, QueryInfo, ServerInfo, count_servers

RUNNING = "RUNNING"
#: A scan of the UNS map costs time with every asset (20,000: 0.2 s, 100,000: 1 s, measured), so the next one is not
#: started before so many times the length of the last: scans take at most a twentieth of the time.
SCAN_SHARE = 20


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
        """Let the next read scan: something new is known to be in the map."""
        self._nudged = True


def observe_source(
    ksqldb: Ksqldb,
    read: Callable[[], MapSnapshot],
    *,
    topics: bool = False,
    degraded: Callable[[tuple[QueryInfo, ...]], str] = lambda _queries: "",
) -> tuple[SourceState, MapSnapshot]:
    """Read identity, health, streams, queries and the UNS map.

    The map is read before the streams: an asset that is mapped in between is found at the next look, while a stream
    that is found without its group would look like one to remove.

    Args:
        ksqldb: the server.
        read: reads the UNS map.
        topics: list the Kafka topics too, to find streams whose topic was deleted.
        degraded: says from LIST QUERIES why no absence may be believed; ``""`` where one may.

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
        queries=_writers(listed),
        topics=ksqldb.topics() if topics else None,
        inserts={query.id: query.text for query in listed if query.text.lstrip()[:6].upper() == "INSERT"},
        degraded=degraded(listed),
        servers=count_servers(listed),
    )
    return state, membership


def find_unhealthy_reason(info: ServerInfo, health: Health) -> str:
    """Return why the server must not be trusted with statements or absences now; ``""`` when it is well."""
    if not health.command_runner:
        return "its command runner is dead or blocked; if this lasts, only a restart of the ksqlDB server cures it"
    if not health.kafka:
        return "it cannot reach Kafka"
    if not health.ready:
        return f"its health check fails (state {health.server_state or 'unknown'})"
    if info.status != RUNNING:
        return f"its status is {info.status}"
    return ""


def _writers(listed: tuple[QueryInfo, ...]) -> dict[str, LiveQuery]:
    """The query that made each stream or table; another one that writes into it as well (INSERT INTO) is not it."""
    made = [query for query in listed if query.text.lstrip()[:6].upper() == "CREATE"]
    return {sink: _query(query) for query in made for sink in query.sinks}


def _query(query: QueryInfo) -> LiveQuery:
    return LiveQuery(query.id, query.text, paused=query.paused, failed=query.status_count.get(ERROR, 0) > 0)

"""Detects streams through which no events flow although they should.

A query can be RUNNING and write nothing: a join whose table side is empty to it drops every event (measured: 946 read,
0 written), a filter can be stuck. LIST QUERIES and DESCRIBE show no sign; what is read and what is written does:

- ``DESCRIBE ... EXTENDED`` says how far a query has read each of its topics, and how many messages that server
  wrote. It costs one request; suspicion starts with it. What one server wrote proves nothing where there are several.
- A short push query shows events. Only it proves that events of mapped assets, or of a group, were there to be written:
  a join drops what is not mapped, a filter what is another group's, and a machine that is off sends nothing.

A stream is *silent* after `STRIKES` checks at which events of its own went in (or waited, with none read) and none
came out. One event that comes out ends it. Nothing is stopped by what is found here, and nothing fails because of it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import Enum

import structlog

from openfactory_common.errors import KsqlError
from openfactory_common.ksqldb.wire import Column, fold_name, identifier, literal
from reconciler.grouping.base import GroupingStrategy
from reconciler.ksqldb.api import Ksqldb
from reconciler.ksqldb.entities import Description
from reconciler.ksqldb.ownership import GROUP_COLUMN, KEY_COLUMN
from reconciler.ksqldb.statements import Topology
from reconciler.planning.survey import StreamCheck, StreamVerdict, Survey

#: Checks in a row at which events went in and none came out.
STRIKES = 3
#: Groups that are read in one check, and of them those whose events are sampled.
AT_ONCE, SAMPLED = 10, 2
#: Events that are enough to see which assets or groups have any.
ENOUGH = 200
#: Seconds for which events are sampled, and how much longer at the stream that should show them.
SAMPLE_SECONDS, AFTER_SECONDS = 5.0, 2.0
#: The column of the assets' stream that names the asset (upstream's schema).
ASSET = "ASSET_UUID"

log = structlog.get_logger()


class Movement(Enum):
    """What became of a stream between two checks."""

    UNKNOWN = "unknown"
    IDLE = "idle"
    MOVES = "moves"
    SUSPECT = "suspect"
    STUCK = "stuck"


@dataclass(frozen=True)
class Reading:
    """How far a query is, in events.

    Attributes:
        end: in the topic that it reads.
        read: of them, read.
        written: in the stream that it writes; None where it is unknown.
    """

    end: int
    read: int
    written: int | None


@dataclass(frozen=True)
class Track:
    """One stream over its checks: by which query, its last reading, its strikes, and why the last one."""

    query: str = ""
    reading: Reading | None = None
    strikes: int = 0
    why: str = ""

    @property
    def silent(self) -> bool:
        """Whether events go in and none come out."""
        return self.strikes >= STRIKES


@dataclass(frozen=True)
class Sample:
    """What a sample of the events showed: those that went in, and whether any came out."""

    came_in: int
    came_out: bool = False


def compare_readings(before: Reading | None, now: Reading | None) -> Movement:
    """Compare two readings of one query. Pure."""
    if before is None or now is None:
        return Movement.UNKNOWN
    if now.written is not None and now.written != before.written:
        return Movement.MOVES  # also where the server counts from 0 again
    if now.read != before.read:
        return Movement.SUSPECT
    # Only where more came: with exactly-once a topic at rest ends one marker behind what is read.
    return Movement.STUCK if now.end > before.end > before.read else Movement.IDLE


def judge_check(track: Track, query: str, now: Reading | None, sample: Sample | None) -> Track:
    """Add one check to a stream's track. Pure.

    Args:
        track: of the checks before.
        query: that writes the stream now; another one starts from nothing.
        now: this check's reading; None where it is unknown, which neither strikes nor clears.
        sample: of a suspect; None where none was taken.
    """
    if track.query != query:
        track = Track(query)
    movement = compare_readings(track.reading, now)
    track = replace(track, reading=now or track.reading)
    if movement is Movement.MOVES or (sample is not None and sample.came_out):
        return replace(track, strikes=0, why="")
    if movement is Movement.STUCK and now is not None:
        return replace(track, strikes=track.strikes + 1, why=f"it reads nothing, {now.end - now.read} events wait")
    if movement is Movement.SUSPECT and sample is not None and sample.came_in:
        why = f"of {sample.came_in} events that were seen going in, none came out"
        return replace(track, strikes=track.strikes + 1, why=why)
    return track


def choose_groups(groups: Collection[str], tracks: Mapping[str, Track], after: str) -> tuple[str, ...]:
    """Return which groups to check: at most half of them have strikes, the rest go in turn. Pure."""
    accused = [group for group in sorted(groups) if group in tracks and tracks[group].strikes][: AT_ONCE // 2]
    order = sorted(groups, key=lambda group: (group <= after, group))
    return tuple(dict.fromkeys([*accused, *order]))[:AT_ONCE]


@dataclass(frozen=True)
class WatchedStreams:
    """The streams of one cycle: their names, topics and queries.

    Attributes:
        shared: the shared stream.
        shared_topic: its topic.
        assets: the assets' stream.
        assets_topic: its topic.
        groups: the streams of groups that are in order otherwise.
        queries: the id of the query that writes each stream.
    """

    shared: str
    shared_topic: str
    assets: str
    assets_topic: str
    groups: Mapping[str, str]
    queries: Mapping[str, str]


def find_watched(survey: Survey, topology: Topology) -> WatchedStreams | None:
    """Return what is to be checked; None where the shared stream or all groups are not in order. Pure."""

    def in_order(check: StreamCheck) -> bool:
        return check.verdict is StreamVerdict.IN_SYNC and not check.detail

    source = survey.observed.source
    shared = source.streams.get(topology.shared_name)
    assets = source.streams.get(fold_name(topology.assets_stream))
    groups = {group: survey.wanted[group].stream for group, check in survey.streams.items() if in_order(check)}
    if source.unhealthy or shared is None or assets is None or not groups or not in_order(survey.shared):
        return None
    queries = {name: query.id for name, query in source.queries.items()}
    return WatchedStreams(shared.name, shared.topic, assets.name, assets.topic, groups, queries)


def start_thread(check: Callable[[], None]) -> None:
    """Run a check beside the loop: it takes seconds where events have to be sampled."""
    threading.Thread(target=check, name="flow", daemon=True).start()


@dataclass
class FlowWatch:
    """Checks the streams every so often, beside the loop.

    Attributes:
        ksqldb: is read from.
        strategy: says which assets are mapped.
        interval: seconds between the starts of two checks.
        start: runs a check; tests run it at once.
        seconds: for which events are sampled.
        tracks: by group; that of the shared stream by "".
    """

    ksqldb: Ksqldb
    strategy: GroupingStrategy
    interval: float
    start: Callable[[Callable[[], None]], None] = start_thread
    seconds: float = SAMPLE_SECONDS
    tracks: Mapping[str, Track] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Nothing was checked yet."""
        self._due: float | None = None
        self._busy = threading.Event()
        self._after = ""
        self._unknown = ""

    def tick(self, survey: Survey, topology: Topology, now: float) -> None:
        """Start a check of what was observed if one is due; ``now`` in monotonic seconds."""
        watched = find_watched(survey, topology)
        if watched is None or self._busy.is_set() or (self._due is not None and now < self._due):
            return
        self._due = now + self.interval
        self._busy.set()
        try:
            self.start(lambda: self._run(watched))
        except BaseException:  # no thread is available: it has not begun
            self._busy.clear()
            raise

    def silent(self) -> Mapping[str, str]:
        """Return why streams are silent, by group; that of the shared stream by ""."""
        return {name: f"{track.why}, {track.strikes} times" for name, track in self.tracks.items() if track.silent}

    def _run(self, watched: WatchedStreams) -> None:
        try:
            self.tracks = self._check(watched)
            self._unknown = ""
        except KsqlError as error:
            self._warn_unknown(str(error))
        except Exception as error:
            log.exception("bug", error=str(error))
        finally:
            self._busy.clear()

    def _warn_unknown(self, reason: str) -> None:
        """Warn once that checks find out nothing."""
        if reason and not self._unknown:
            log.warning("whether events flow is unknown", reason=reason)
        self._unknown = reason

    def _check(self, watched: WatchedStreams) -> Mapping[str, Track]:
        names = {"": watched.shared, **watched.groups}
        queries = {name: watched.queries.get(stream, "") for name, stream in names.items()}
        found = self._read(watched)
        kept = {name: track for name, track in self.tracks.items() if name in names}
        suspects = [
            name
            for name, now in found.items()
            if (track := kept.get(name, Track())).query == queries[name]
            and compare_readings(track.reading, now) is Movement.SUSPECT
        ]
        samples = self._sample_suspects(suspects, watched)
        return kept | {
            name: judge_check(kept.get(name, Track()), queries[name], now, samples.get(name))
            for name, now in found.items()
        }

    def _read(self, watched: WatchedStreams) -> Mapping[str, Reading | None]:
        """Read how far the queries of the shared stream and of some groups are."""
        groups = choose_groups(watched.groups, self.tracks, self._after)
        self._after = groups[-1]
        described = {group: self.ksqldb.describe_extended(watched.groups[group]) for group in groups}
        readings = {group: _make_reading(one, watched.shared_topic) for group, one in described.items()}
        first = self.ksqldb.describe_extended(watched.shared)
        if not any(one is not None and one.tells for one in (first, *described.values())):
            self._warn_unknown("DESCRIBE ... EXTENDED does not say how far the queries have read")
        shared = _make_reading(first, watched.assets_topic)
        # What the shared stream writes is what the groups' streams can read. While none of them has read anything, the
        # server lists none of them (measured), and its count of what was written is all there is.
        ends = [reading.end for reading in readings.values() if reading is not None]
        end = max(ends, default=shared.written if shared is not None else None)
        for group, one in described.items():
            if readings[group] is None and one is not None and end is not None:
                readings[group] = Reading(end, 0, one.written)  # not listed, because it has read nothing
        return {"": replace(shared, written=end) if shared is not None else None, **readings}

    def _sample_suspects(self, suspects: Collection[str], watched: WatchedStreams) -> Mapping[str, Sample]:
        """Sample the shared stream if it is suspect, otherwise the suspect groups that have the most events in it."""
        if "" in suspects:
            return {"": self._sample(watched.shared, lambda: self._count_mapped(watched.assets))}
        samples = {group: Sample(0) for group in suspects}
        for group, _ in self._count_events(suspects, watched.shared).most_common(SAMPLED):

            def count(group: str = group) -> int:
                return self._count_events((group,), watched.shared).total()

            samples[group] = self._sample(watched.groups[group], count)
        return samples

    def _sample(self, stream: str, count: Callable[[], int]) -> Sample:
        """Count the events that go in, and see whether any comes out of ``stream``, for a little longer."""
        sql = f"SELECT {KEY_COLUMN} FROM {identifier(stream)} EMIT CHANGES LIMIT 1;"  # noqa: S608 - quoted
        with ThreadPoolExecutor(1) as beside:
            key = (Column(KEY_COLUMN, "STRING"),)
            came_out = beside.submit(self.ksqldb.sample, sql, key, self.seconds + AFTER_SECONDS)
            came_in = count()
            return Sample(came_in, came_out=bool(came_out.result()))

    def _count_mapped(self, stream: str) -> int:
        """Count the events of assets that have a group."""
        sql = f"SELECT {ASSET} FROM {identifier(stream)} EMIT CHANGES LIMIT {ENOUGH};"  # noqa: S608 - quoted
        assets = [asset for (asset,) in self.ksqldb.sample(sql, (Column(ASSET, "STRING"),), self.seconds)]
        if not assets:
            return 0
        lookup = self.strategy.lookup()
        groups = dict(self.ksqldb.members(lookup.table, lookup.key, self.strategy.level))
        return sum(groups.get(str(asset)) is not None for asset in assets)

    def _count_events(self, groups: Collection[str], shared: str) -> Counter[str]:
        """Count the events of each group in the shared stream."""
        if not groups:
            return Counter()
        where = " OR ".join(f"{GROUP_COLUMN} = {literal(group)}" for group in groups)
        sql = f"SELECT {GROUP_COLUMN} FROM {identifier(shared)} WHERE {where} EMIT CHANGES LIMIT {ENOUGH};"  # noqa: S608 - quoted
        rows = self.ksqldb.sample(sql, (Column(GROUP_COLUMN, "STRING"),), self.seconds)
        return Counter(str(group) for (group,) in rows)


def _make_reading(found: Description | None, topic: str) -> Reading | None:
    consumed = found.consumed.get(topic) if found is not None else None
    return Reading(consumed.end, consumed.read, found.written) if found is not None and consumed else None

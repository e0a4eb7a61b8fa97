"""Whether events that go into a stream come out of it.

A query can be RUNNING and write nothing: a join whose table side is empty to it drops every event (measured: 946 read,
0 written), a filter can be stuck. LIST QUERIES and DESCRIBE show no sign; what is read and what is written does:

- ``DESCRIBE ... EXTENDED`` says how far a query has read each of its topics, and how many messages the asked server
  wrote. It costs one request; suspicion starts with it. What one server wrote proves nothing where there are several.
- A short push query shows events. Only it proves that events of mapped assets, or of a group, were there to be written:
  a join drops what is not mapped, a filter what is another group's, and a machine that is off sends nothing.

A stream is *silent* after `STRIKES` checks at which events of its own went in (or waited, with none read) and none
came out. One event that comes out ends it. Nothing is stopped by what is found here, and nothing fails because of it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

import structlog

from openfactory_common.errors import KsqlError
from openfactory_common.ksqldb.levels import Level
from openfactory_common.ksqldb.wire import Column, identifier, literal, stored
from reconciler.grouping.base import GroupingStrategy
from reconciler.ksqldb.entities import Description
from reconciler.ksqldb.ownership import GROUP_COLUMN, KEY_COLUMN
from reconciler.ksqldb.statements import Topology
from reconciler.planning.survey import StreamCheck, StreamVerdict, Survey

#: Checks in a row at which events went in and none came out.
STRIKES = 3
#: Groups that are looked at in one check, and of them those whose events are sampled.
AT_ONCE, SAMPLED = 10, 2
#: Events that are enough to see which assets or groups have any.
ENOUGH = 200
#: Seconds for which events are looked at, and how much longer at the stream that should show them.
SAMPLE, AFTER = 5.0, 2.0
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
        written: in the stream that it writes; None where nothing tells.
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
    """What a short look at the events showed: those that went in, and whether any came out."""

    came_in: int
    came_out: bool = False


def movement(before: Reading | None, now: Reading | None) -> Movement:
    """Compare two readings of one query. Pure."""
    if before is None or now is None:
        return Movement.UNKNOWN
    if now.written is not None and now.written != before.written:
        return Movement.MOVES  # also where the server counts from 0 again
    if now.read != before.read:
        return Movement.SUSPECT
    # Only where more came: with exactly-once a topic at rest ends one marker behind what is read.
    return Movement.STUCK if now.end > before.end > before.read else Movement.IDLE


def judged(track: Track, query: str, now: Reading | None, sample: Sample | None) -> Track:
    """Add one check to a stream's track. Pure.

    Args:
        track: of the checks before.
        query: that writes the stream now; another one starts from nothing.
        now: this check's reading; None where nothing was told, which neither strikes nor clears.
        sample: of a suspect; None where none was taken.
    """
    if track.query != query:
        track = Track(query)
    move = movement(track.reading, now)
    track = replace(track, reading=now or track.reading)
    if move is Movement.MOVES or (sample is not None and sample.came_out):
        return replace(track, strikes=0, why="")
    if move is Movement.STUCK and now is not None:
        return replace(track, strikes=track.strikes + 1, why=f"it reads nothing, {now.end - now.read} events wait")
    if move is Movement.SUSPECT and sample is not None and sample.came_in:
        why = f"of {sample.came_in} events that were seen going in, none came out"
        return replace(track, strikes=track.strikes + 1, why=why)
    return track


def chosen(groups: Collection[str], tracks: Mapping[str, Track], after: str) -> tuple[str, ...]:
    """Return which groups to look at: at most half of them have strikes, the rest go in turn. Pure."""
    accused = [group for group in sorted(groups) if group in tracks and tracks[group].strikes][: AT_ONCE // 2]
    order = sorted(groups, key=lambda group: (group <= after, group))
    return tuple(dict.fromkeys([*accused, *order]))[:AT_ONCE]


def _reading(found: Description | None, topic: str) -> Reading | None:
    consumed = found.consumed.get(topic) if found is not None else None
    return Reading(consumed.end, consumed.read, found.written) if found is not None and consumed else None


def _unread(found: Description | None, end: int | None) -> Reading | None:
    """Return the reading of a query that is not listed because it has read nothing, where the end is known."""
    return None if found is None or end is None else Reading(end, 0, found.written)


class Events(Protocol):
    """What is asked of ksqlDB."""

    def describe_extended(self, name: str) -> Description | None:
        """One source with how far its queries have read, None where it does not exist."""

    def sample(self, sql: str, columns: tuple[Column, ...], seconds: float) -> list[tuple[object, ...]]:
        """The rows of a push query with a LIMIT, within so many seconds."""

    def members(self, table: str, key: str, level: Level) -> tuple[tuple[str, str | None], ...]:
        """Every asset with its group."""


@dataclass(frozen=True)
class Watched:
    """The streams of one look: their names, topics and queries.

    Attributes:
        shared: the shared stream.
        shared_topic: its topic.
        assets: the assets' stream.
        assets_topic: its topic.
        groups: the streams of groups that are in order otherwise.
        queries: the query that writes each stream.
    """

    shared: str
    shared_topic: str
    assets: str
    assets_topic: str
    groups: Mapping[str, str]
    queries: Mapping[str, str]


def watched(survey: Survey, topology: Topology) -> Watched | None:
    """Return what is to be looked at; None where the shared stream or all groups are not in order. Pure."""
    source = survey.observed.source
    shared = source.streams.get(topology.shared_name)
    assets = source.streams.get(stored(topology.assets_stream))
    groups = {group: survey.wanted[group].stream for group, check in survey.streams.items() if _in_order(check)}
    if source.unhealthy or shared is None or assets is None or not groups or not _in_order(survey.shared):
        return None
    queries = {name: query.id for name, query in source.queries.items()}
    return Watched(shared.name, shared.topic, assets.name, assets.topic, groups, queries)


def _in_order(check: StreamCheck) -> bool:
    return check.verdict is StreamVerdict.IN_SYNC and not check.detail


def in_thread(check: Callable[[], None]) -> None:
    """Run a check beside the loop: it takes seconds where events have to be looked at."""
    threading.Thread(target=check, name="flow", daemon=True).start()


@dataclass
class FlowWatch:
    """Checks the streams every so often, beside the loop.

    Attributes:
        events: is asked.
        strategy: says which assets are mapped.
        interval: seconds between the starts of two checks.
        start: runs a check; tests run it at once.
        seconds: for which events are looked at.
        tracks: by group; that of the shared stream by "".
    """

    events: Events
    strategy: GroupingStrategy
    interval: float
    start: Callable[[Callable[[], None]], None] = in_thread
    seconds: float = SAMPLE
    tracks: Mapping[str, Track] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Nothing was checked yet."""
        self._due: float | None = None
        self._busy = threading.Event()
        self._after = ""
        self._unknown = ""

    def tick(self, survey: Survey, topology: Topology, now: float) -> None:
        """Start a check of what was observed if one is due; ``now`` in monotonic seconds."""
        seen = watched(survey, topology)
        if seen is None or self._busy.is_set() or (self._due is not None and now < self._due):
            return
        self._due = now + self.interval
        self._busy.set()
        try:
            self.start(lambda: self._run(seen))
        except BaseException:  # no thread is to be had: it has not begun
            self._busy.clear()
            raise

    def silent(self) -> Mapping[str, str]:
        """Return why streams are silent, by group; that of the shared stream by ""."""
        return {name: f"{track.why}, {track.strikes} times" for name, track in self.tracks.items() if track.silent}

    def _run(self, seen: Watched) -> None:
        try:
            self.tracks = self._checked(seen)
            self._unknown = ""
        except KsqlError as error:
            self._say(str(error))
        except Exception as error:
            log.exception("bug", error=str(error))
        finally:
            self._busy.clear()

    def _say(self, unknown: str) -> None:
        if unknown and not self._unknown:
            log.warning("it is not known whether events flow", reason=unknown)
        self._unknown = unknown

    def _checked(self, seen: Watched) -> Mapping[str, Track]:
        groups = chosen(seen.groups, self.tracks, self._after)
        self._after = groups[-1]
        described = {group: self.events.describe_extended(seen.groups[group]) for group in groups}
        read = {group: _reading(one, seen.shared_topic) for group, one in described.items()}
        ends = [reading.end for reading in read.values() if reading is not None]
        first = self.events.describe_extended(seen.shared)
        shared = _reading(first, seen.assets_topic)
        if not any(one is not None and one.tells for one in (first, *described.values())):
            self._say("DESCRIBE ... EXTENDED does not say how far the queries have read")
        # What the shared stream writes is what the groups' streams can read. While none of them has read anything, the
        # server lists none of them (measured), and its count of what was written is all there is.
        end = max(ends, default=shared.written if shared is not None else None)
        shared = replace(shared, written=end) if shared is not None else None
        found = {"": shared, **{group: one or _unread(described[group], end) for group, one in read.items()}}
        suspects = [name for name, now in found.items() if self._suspect(name, now, seen)]
        samples = {"": self._joined(seen)} if "" in suspects else self._through(suspects, seen)
        names = {"": seen.shared, **seen.groups}
        kept = {name: track for name, track in self.tracks.items() if name in names}
        return kept | {
            name: judged(kept.get(name, Track()), seen.queries.get(names[name], ""), now, samples.get(name))
            for name, now in found.items()
        }

    def _suspect(self, name: str, now: Reading | None, seen: Watched) -> bool:
        track = self.tracks.get(name, Track())
        same = track.query == seen.queries.get(seen.groups[name] if name else seen.shared, "")
        return same and movement(track.reading, now) is Movement.SUSPECT

    def _joined(self, seen: Watched) -> Sample:
        """Look at the assets' events and at what comes of them."""
        with ThreadPoolExecutor(1) as beside:
            came_out = beside.submit(self._any_of, seen.shared)
            came_in = self._mapped(seen)
            return Sample(came_in, came_out=came_out.result())

    def _mapped(self, seen: Watched) -> int:
        """Look at the assets' events: how many are of assets that have a group."""
        sql = f"SELECT {ASSET} FROM {identifier(seen.assets)} EMIT CHANGES LIMIT {ENOUGH};"  # noqa: S608 - quoted
        assets = [asset for (asset,) in self.events.sample(sql, (Column(ASSET, "STRING"),), self.seconds)]
        if not assets:
            return 0
        lookup = self.strategy.lookup()
        groups = dict(self.events.members(lookup.table, lookup.key, self.strategy.level))
        return sum(groups.get(str(asset)) is not None for asset in assets)

    def _through(self, groups: Iterable[str], seen: Watched) -> Mapping[str, Sample]:
        """Look at the shared stream for events of these groups, and for those that have any, at what comes of them."""
        busy = self._events_of(tuple(groups), seen.shared)
        samples = {group: Sample(0) for group in groups}
        for group, _ in busy.most_common(SAMPLED):
            with ThreadPoolExecutor(1) as beside:
                came_out = beside.submit(self._any_of, seen.groups[group])
                came_in = self._events_of((group,), seen.shared)
                samples[group] = Sample(came_in.total(), came_out=came_out.result())
        return samples

    def _any_of(self, stream: str) -> bool:
        """Look whether anything comes out of a stream, a little longer than at what goes in."""
        sql = f"SELECT {KEY_COLUMN} FROM {identifier(stream)} EMIT CHANGES LIMIT 1;"  # noqa: S608 - quoted
        return bool(self.events.sample(sql, (Column(KEY_COLUMN, "STRING"),), self.seconds + AFTER))

    def _events_of(self, groups: Collection[str], shared: str) -> Counter[str]:
        if not groups:
            return Counter()
        where = " OR ".join(f"{GROUP_COLUMN} = {literal(group)}" for group in groups)
        sql = f"SELECT {GROUP_COLUMN} FROM {identifier(shared)} WHERE {where} EMIT CHANGES LIMIT {ENOUGH};"  # noqa: S608 - quoted
        return Counter(
            str(group) for (group,) in self.events.sample(sql, (Column(GROUP_COLUMN, "STRING"),), self.seconds)
        )

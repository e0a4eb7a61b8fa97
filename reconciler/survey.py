"""What the observation means: which objects are ours, which belong to which group, and in what state. Pure.

Ownership is by label and name for services and by *lineage* for streams: a stream is ours when its query reads from a
shared stream with our prefix. Nothing else is ever changed or removed, whatever its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache

from reconciler.desired import is_ours
from reconciler.errors import RegistryError
from reconciler.ksqldb.topology import Topology
from reconciler.model import Observed, SourceState
from reconciler.names import STREAM_PREFIX, GroupNames, assign, names_of
from reconciler.platforms.base import Kind, LiveRegistry, LiveService
from reconciler.registry import Identity, Registry, parse
from reconciler.settings import Settings


class StreamVerdict(Enum):
    """The state of a stream, with what follows from it."""

    ABSENT = "absent"
    IN_SYNC = "in sync"
    PAUSED = "paused"
    CHANGED = "changed"
    MOVED = "moved"
    SILENT = "silent"
    TOPICLESS = "topicless"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class StreamCheck:
    """A verdict on one stream, what it rests on, the query's id, and the retention that its topic was made with."""

    verdict: StreamVerdict
    detail: str = ""
    query_id: str = ""
    retention_ms: int | None = None


@dataclass(frozen=True)
class Owned:
    """What exists of one group: its stream's name, its service, its URL in the registry."""

    stream: str | None = None
    service: LiveService | None = None
    url: str | None = None


@dataclass(frozen=True)
class Published:
    """The registry document that is current, and where it is kept."""

    live: LiveRegistry
    document: Registry


@dataclass(frozen=True)
class Survey:
    """The observation, understood.

    Attributes:
        observed: what it is of.
        wanted: names of every group that should exist.
        losers: groups that should exist and cannot, with the reason: another group holds their names.
        owned: what exists of ours, by group.
        published: the current registry, None before the first.
        unreadable: registry documents that were passed over, with the reason.
        streams: what every wanted group's stream needs, by group.
        shared: what the shared stream needs.
    """

    observed: Observed
    wanted: Mapping[str, GroupNames]
    losers: Mapping[str, str]
    owned: Mapping[str, Owned]
    published: Published | None
    unreadable: Mapping[str, str]
    streams: Mapping[str, StreamCheck]
    shared: StreamCheck

    @property
    def identity(self) -> Identity:
        """The cluster that answered."""
        return self.observed.source.identity

    @cached_property
    def missing(self) -> frozenset[str]:
        """Groups of which something of ours exists and which no asset belongs to any more."""
        return frozenset(self.owned.keys() - self.wanted.keys() - self.losers.keys())


def survey(observed: Observed, topology: Topology, settings: Settings) -> Survey:
    """Understand an observation."""
    published, unreadable = current_registry(observed.platform.registries)
    services = _services(observed, settings)
    there = services.keys() | (published.document.groups.keys() if published else set())
    usable = {group for group in observed.membership.groups if _is_text(group)}
    wanted, held = assign(usable, settings.resource_prefix, there)
    losers = {group: f"its names are held by group {holder}" for group, holder in held.items()}
    losers |= dict.fromkeys(observed.membership.groups.keys() - usable, "its name is not valid text")
    return Survey(
        observed=observed,
        wanted=wanted,
        losers=losers,
        owned=_owned(observed, topology, services, published, wanted),
        published=published,
        unreadable=unreadable,
        streams={group: check_stream(names, observed.source, topology) for group, names in wanted.items()},
        shared=check_shared(observed.source, topology),
    )


def check_stream(names: GroupNames, source: SourceState, topology: Topology) -> StreamCheck:
    """Compare a group's stream with what it should be.

    A missing query is only *silent*: while a server stops, LIST QUERIES shrinks query by query although nothing
    was terminated (measured: for up to 70 s, with status RUNNING). LIST STREAMS stays complete to the end.
    """
    if names.stream not in source.streams:
        return StreamCheck(StreamVerdict.ABSENT)
    query = source.queries.get(names.stream)
    if query is None:
        return StreamCheck(StreamVerdict.SILENT, "no query writes it")
    definition = topology.definition_of(query.text)
    if definition is None or not topology.is_shared(definition.source):
        return StreamCheck(StreamVerdict.FOREIGN, f"stream {names.stream} does not read from our shared stream")
    differences = topology.group_differences(definition, names)
    retention = None if "topic" in differences else definition.retention_ms
    # Only another filter can be replaced in place: another source, topic or column list is refused (measured).
    if set(differences) - {"filter"}:
        return StreamCheck(StreamVerdict.MOVED, _list(differences), query.id, retention)
    if differences:
        return StreamCheck(StreamVerdict.CHANGED, _list(differences), query.id, retention)
    if source.topics is not None and source.streams[names.stream].topic not in source.topics:
        return StreamCheck(StreamVerdict.TOPICLESS, "its topic is gone", query.id, retention)
    if query.paused:
        return StreamCheck(StreamVerdict.PAUSED, "its query is paused", query.id)
    return StreamCheck(StreamVerdict.IN_SYNC, "its query failed" if query.failed else "", query.id)


def check_shared(source: SourceState, topology: Topology) -> StreamCheck:
    """Compare the shared stream with what it should be; its name carries the hash of its definition."""
    name = topology.shared_name
    if name not in source.streams:
        return StreamCheck(StreamVerdict.ABSENT)
    query = source.queries.get(name)
    if query is None:
        return StreamCheck(StreamVerdict.SILENT, "no query writes it")
    definition = topology.definition_of(query.text)
    if definition is None or not topology.shared_matches(definition):
        return StreamCheck(StreamVerdict.FOREIGN, f"stream {name} exists with another definition than ours")
    if query.paused:
        return StreamCheck(StreamVerdict.PAUSED, "its query is paused", query.id)
    return StreamCheck(StreamVerdict.IN_SYNC, "its query failed" if query.failed else "")


def _list(differences: tuple[str, ...]) -> str:
    return "its " + " and ".join(differences) + (" differs" if len(differences) == 1 else " differ")


def current_registry(registries: tuple[LiveRegistry, ...]) -> tuple[Published | None, Mapping[str, str]]:
    """Return the newest document that can be read, and those that were passed over."""
    unreadable: dict[str, str] = {}
    for live in newest_first(registries):
        try:
            document = _document(live.data)
        except RegistryError as error:
            unreadable[live.name] = str(error)
        else:
            return Published(live, document), unreadable
    return None, unreadable


@lru_cache(maxsize=16)  # every cycle reads the same few documents, which may have a megabyte each
def _document(data: bytes) -> Registry:
    return parse(data)


def newest_first(registries: Iterable[LiveRegistry]) -> list[LiveRegistry]:
    """Sort documents by their numbers; of equal numbers in the order of names, so that everybody takes the same."""
    return sorted(registries, key=lambda live: (-live.sequence, live.name))


def _services(observed: Observed, settings: Settings) -> Mapping[str, LiveService]:
    """Our group services, by group: by label and by name (see `desired.is_ours`), so there is one of each at most."""
    return {
        live.spec.group: live
        for live in observed.platform.services.values()
        if live.spec is not None
        and live.spec.kind is Kind.GROUP
        and live.spec.group is not None
        and is_ours(live, settings)
    }


def _is_text(group: str) -> bool:
    """Whether a group's value can be written at all; half of a surrogate pair cannot."""
    try:
        group.encode()
    except UnicodeEncodeError:
        return False
    return True


def _owned(
    observed: Observed,
    topology: Topology,
    services: Mapping[str, LiveService],
    published: Published | None,
    wanted: Mapping[str, GroupNames],
) -> Mapping[str, Owned]:
    urls = published.document.groups if published else {}
    known = {names_of(group).stream: group for group in (*wanted, *services, *urls)}
    streams = _owned_streams(observed.source, topology, known)
    groups = services.keys() | urls.keys() | streams.keys()
    return {group: Owned(streams.get(group), services.get(group), urls.get(group)) for group in sorted(groups)}


def _owned_streams(source: SourceState, topology: Topology, known: Mapping[str, str]) -> Mapping[str, str]:
    """Map groups to those of our streams that exist.

    Ours is what reads from a shared stream of ours, as its query says, or its own definition where it has lost that.
    While neither is known it is ours only if a group that we know has its name. The group comes from that name, or
    from the filter's literal.
    """
    found: dict[str, str] = {}
    for name in source.streams:
        if not name.startswith(STREAM_PREFIX):
            continue
        text = _made_by(name, source)
        definition = topology.definition_of(text) if text else None
        if definition is not None and topology.is_shared(definition.source):
            found.setdefault(known.get(name) or definition.filter_literal or name, name)
        elif text is None and name in known:
            found.setdefault(known[name], name)
    return found


def _made_by(name: str, source: SourceState) -> str | None:
    """Return the statement that made a stream, None where it is not known."""
    query = source.queries.get(name)
    return query.text if query else source.strays.get(name)

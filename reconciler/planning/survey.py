"""Interpret the observation: which objects are ours, to which group they belong, and in what state they are. Pure.

Ownership is by labels and name for services, and by form and lineage for streams (`reconciler.ksqldb.ownership`).
Nothing else is ever changed or removed, even if it has the name of one of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property, lru_cache

from openfactory_common.errors import RegistryError
from openfactory_common.ksqldb.wire import fold_name
from openfactory_common.registry import Identity, Registry, parse
from reconciler.domain.names import STREAM_PREFIX, GroupNames, assign, names_of
from reconciler.domain.observed import Observed, SourceState
from reconciler.domain.services import Kind, LiveRegistry, LiveService
from reconciler.ksqldb.definition import definition_of, sources_of, target_of, topic_of
from reconciler.ksqldb.ownership import Whose
from reconciler.ksqldb.statements import Topology
from reconciler.planning.specs import is_ours
from reconciler.settings import Settings

#: Half of a surrogate pair, which cannot be encoded.
_SURROGATE = re.compile("[\ud800-\udfff]")


#: Who writes each topic, in words, by the source that a query made, or by the id of a query that inserts.
Writers = Mapping[str, Mapping[str, str]]


class StreamVerdict(Enum):
    """The state of a stream, by which the planner decides."""

    ABSENT = "absent"
    IN_SYNC = "in sync"
    PAUSED = "paused"
    MOVED = "moved"
    SILENT = "silent"
    TOPICLESS = "topicless"
    FOREIGN = "foreign"
    REFUSED = "refused"


@dataclass(frozen=True)
class StreamCheck:
    """A verdict on one stream.

    Attributes:
        verdict: its state.
        detail: the evidence.
        query_id: of the query that writes it.
        retention_ms: that its topic was made with.
        of_user: it is foreign, no installation of an operator made it, and ours can take its place.
        paused: it is moved or has no topic, and its query is paused.
    """

    verdict: StreamVerdict
    detail: str = ""
    query_id: str = ""
    retention_ms: int | None = None
    of_user: bool = False
    paused: bool = False


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
    """The observation, interpreted.

    Attributes:
        observed: what it is of.
        wanted: names of every group that should exist.
        losers: groups that should exist and cannot, with the reason: another group holds their names.
        owned: what exists of ours, by group.
        published: the current registry, None before the first.
        unreadable: registry documents that were passed over, with the reason.
        streams: what every wanted group's stream needs, by group.
        shared: what the shared stream needs.
        readers: what others built on our streams, by name, each with those of ours that it reads or writes.
    """

    observed: Observed
    wanted: Mapping[str, GroupNames]
    losers: Mapping[str, str]
    owned: Mapping[str, Owned]
    published: Published | None
    unreadable: Mapping[str, str]
    streams: Mapping[str, StreamCheck]
    shared: StreamCheck
    readers: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def identity(self) -> Identity:
        """The cluster that answered."""
        return self.observed.source.identity

    @cached_property
    def missing(self) -> frozenset[str]:
        """Groups of which something of ours exists and that have no asset any more."""
        return frozenset(self.owned.keys() - self.wanted.keys() - self.losers.keys())


def make_survey(observed: Observed, topology: Topology, settings: Settings) -> Survey:
    """Interpret an observation."""
    published, unreadable = current_registry(observed.platform.registries)
    services = _find_services(observed, settings)
    there = services.keys() | (published.document.groups.keys() if published else set())
    ambiguous = observed.membership.ambiguous
    usable = {group for group in observed.membership.groups if not _SURROGATE.search(group) and group not in ambiguous}
    wanted, held = assign(usable, settings.resource_prefix, there)
    losers = {group: f"its names are held by group {holder}" for group, holder in held.items()}
    writers = _find_writers(observed.source, topology)
    losers |= {**dict.fromkeys(observed.membership.groups.keys() - usable, "its name is not valid text"), **ambiguous}
    return Survey(
        observed=observed,
        wanted=wanted,
        losers=losers,
        owned=_find_owned(observed, topology, services, published, wanted),
        published=published,
        unreadable=unreadable,
        streams={
            # A topic of a group that is served is ours already: its stream may have been dropped to be created again.
            group: check_stream(names, observed.source, topology, writers, served=group in there)
            for group, names in wanted.items()
        },
        shared=check_shared(observed.source, topology),
        readers=_find_readers(observed.source, topology),
    )


def check_stream(
    names: GroupNames, source: SourceState, topology: Topology, writers: Writers, *, served: bool
) -> StreamCheck:
    """Compare a group's stream with what it should be.

    A topic that another owner's query writes is theirs: our events are not mixed into it.

    A missing query is only *silent*: while a server stops, LIST QUERIES shrinks query by query although nothing
    was terminated (measured: for up to 70 s, with status RUNNING). LIST STREAMS stays complete to the end. But one
    whose own definition is not ours is a user's, who made it over a topic, and never had a query of ours.
    """
    writing = writers.get(names.topic, {})
    taken = "" if served else _find_taken(names, writing)
    if names.stream not in source.streams:
        return StreamCheck(StreamVerdict.FOREIGN if taken else StreamVerdict.ABSENT, taken)
    query = source.queries.get(names.stream)
    text = query.text if query is not None else source.orphans.get(names.stream, "")
    whose, definition = topology.ownership(names.stream, text), definition_of(text)
    if text and (whose.whose is not Whose.GROUP or definition is None):
        detail = f"stream {names.stream} {whose.text}"
        if not whose.is_users:
            return StreamCheck(StreamVerdict.FOREIGN, detail)
        # Its own query goes with it, any other one would go on; and it is dropped only if ours can follow.
        others = {writer: text for writer, text in writing.items() if writer != names.stream}
        problem = _find_taken(names, others) or _find_other_partitions(names, source, topology)
        if query is None and definition is None and source.streams[names.stream].topic == names.topic:
            problem = (
                f"stream {names.stream} {whose.text}, and no query writes its topic {names.topic}, the group's own: "
                "what does would go on beside ours; let that write to another topic, then `DROP STREAM "
                f"`{names.stream}`;` in ksqlDB lets the operator create ours"
            )
        return StreamCheck(StreamVerdict.FOREIGN, problem or detail, of_user=not problem)
    if query is None or definition is None:
        return StreamCheck(StreamVerdict.SILENT, "no query writes it")
    differences = topology.group_differences(definition, names)
    if taken and "topic" in differences:
        return StreamCheck(StreamVerdict.FOREIGN, taken)
    if differences:  # neither source nor topic can be replaced in place
        retention = None if "topic" in differences else definition.retention_ms
        detail = f"its {' and '.join(differences)} differ{'s' if len(differences) == 1 else ''}"
        return StreamCheck(StreamVerdict.MOVED, detail, query.id, retention, paused=query.paused)
    retention = definition.retention_ms
    if source.topics is not None and source.streams[names.stream].topic not in source.topics:
        return StreamCheck(StreamVerdict.TOPICLESS, "its topic is gone", query.id, retention, paused=query.paused)
    if query.paused:
        return StreamCheck(StreamVerdict.PAUSED, "its query is paused", query.id)
    detail = "its query failed" if query.failed else _check_partitions(names, source, topology)
    return StreamCheck(StreamVerdict.IN_SYNC, detail, query.id)


def _find_taken(names: GroupNames, writing: Mapping[str, str]) -> str:
    return f"topic {names.topic} is written by {list(writing.values())[-1]}" if writing else ""


def _find_other_partitions(names: GroupNames, source: SourceState, topology: Topology) -> str:
    shared = source.streams.get(topology.shared_name)
    found, wanted = source.partitions.get(names.topic), source.partitions.get(shared.topic if shared else "")
    if found is None or wanted is None or found == wanted:
        return ""
    return f"topic {names.topic} has {found} partitions, and ksqlDB creates ours only over one of {wanted}"


def _check_partitions(names: GroupNames, source: SourceState, topology: Topology) -> str:
    """Say that a topic was deleted and then created by Kafka, which uses its own number of partitions.

    Events pass, but the stream could not be created again over it: ksqlDB refuses other partitions than those of its
    source. What the topic contained is lost already; still only a person deletes a topic.
    """
    shared, there = source.streams.get(topology.shared_name), source.streams[names.stream].topic
    found, wanted = source.partitions.get(there), source.partitions.get(shared.topic if shared else "")
    if found is None or wanted is None or found == wanted:
        return ""
    return (
        f"its topic {there} has {found} of {wanted} partitions: it was deleted, and Kafka created it again; "
        f"`DROP STREAM `{names.stream}` DELETE TOPIC;` in ksqlDB lets the operator create both again"
    )


def _find_writers(source: SourceState, topology: Topology) -> Writers:
    """Return who writes each topic, as far as queries show it; the topic of assets has its producers."""
    found: dict[str, dict[str, str]] = {}
    for name, query in source.queries.items():
        found.setdefault(topic_of(query.text), {})[name] = f"the query of {name}"
    for query_id, text in source.inserts.items():
        if (target := source.streams.get(target_of(text))) is not None:
            found.setdefault(target.topic, {})[query_id] = f"query {query_id}"
    assets = source.streams.get(fold_name(topology.assets_stream))
    if assets is not None:
        found.setdefault(assets.topic, {})[""] = f"what feeds stream {assets.name}"
    return found


def check_shared(source: SourceState, topology: Topology) -> StreamCheck:
    """Check the shared stream that the groups are to read (`Topology.current`)."""
    name = topology.shared_name
    if name not in source.streams:
        return StreamCheck(StreamVerdict.ABSENT)
    query = source.queries.get(name)
    if query is None:
        return StreamCheck(StreamVerdict.SILENT, "no query writes it")
    if query.paused:
        return StreamCheck(StreamVerdict.PAUSED, "its query is paused", query.id)
    return StreamCheck(StreamVerdict.IN_SYNC, "its query failed" if query.failed else "")


def _find_readers(source: SourceState, topology: Topology) -> Mapping[str, frozenset[str]]:
    """Find what others built on streams of ours: sources made from them, queries that insert from or into them."""
    statements = source.statements
    whose = {name: topology.ownership(name, text).whose for name, text in statements.items()}
    ours = {name for name, one in whose.items() if one in (Whose.SHARED, Whose.GROUP)}
    ours |= {name for name in source.streams if name not in statements and topology.is_shared(name)}
    found = {}
    for name, text in statements.items():
        touched = sources_of(text) | ({target_of(text)} if name in source.inserts else set())
        if name not in ours and (touched & ours or whose[name] is Whose.READER):
            found[name] = frozenset(one for one in touched if one in ours or topology.is_shared(one))
    return found


def current_registry(registries: tuple[LiveRegistry, ...]) -> tuple[Published | None, Mapping[str, str]]:
    """Return the newest document that can be read, and why newer ones cannot."""
    unreadable: dict[str, str] = {}
    for live in sort_newest_first(registries):
        try:
            document = _parse_cached(live.data)
        except RegistryError as error:
            unreadable[live.name] = str(error)
        else:
            return Published(live, document), unreadable
    return None, unreadable


@lru_cache(maxsize=16)  # every cycle reads the same few documents, which may have a megabyte each
def _parse_cached(data: bytes) -> Registry:
    return parse(data)


def sort_newest_first(registries: Iterable[LiveRegistry]) -> list[LiveRegistry]:
    """Sort documents by their numbers; of equal numbers in the order of names, so that all readers choose the same."""
    return sorted(registries, key=lambda live: (-live.sequence, live.name))


def _find_services(observed: Observed, settings: Settings) -> Mapping[str, LiveService]:
    """Our group services, by group: by label and by name (see `specs.is_ours`), so there is at most one of each."""
    return {
        live.spec.group: live
        for live in observed.platform.services.values()
        if live.spec is not None
        and live.spec.kind is Kind.GROUP
        and live.spec.group is not None
        and is_ours(live, settings)
    }


def _find_owned(
    observed: Observed,
    topology: Topology,
    services: Mapping[str, LiveService],
    published: Published | None,
    wanted: Mapping[str, GroupNames],
) -> Mapping[str, Owned]:
    urls = published.document.groups if published else {}
    known = {names_of(group).stream: group for group in (*wanted, *services, *urls)}
    streams = _find_owned_streams(observed.source, topology, known)
    groups = services.keys() | urls.keys() | streams.keys()
    return {group: Owned(streams.get(group), services.get(group), urls.get(group)) for group in sorted(groups)}


def _find_owned_streams(source: SourceState, topology: Topology, known: Mapping[str, str]) -> Mapping[str, str]:
    """Map groups to those of our streams that exist.

    The query of a stream identifies it, or its own definition where it has lost that. While neither is known it is ours
    only if a known group has its name.
    """
    found: dict[str, str] = {}
    for name in source.streams:
        if not name.startswith(STREAM_PREFIX):
            continue
        query = source.queries.get(name)
        text = query.text if query else source.orphans.get(name)
        group = topology.ownership(name, text).group if text else None
        if group is not None:
            # A group whose name differs in case may have left it; it belongs to the group that has the name now.
            found.setdefault(known.get(name, group), name)
        elif text is None and name in known:
            found.setdefault(known[name], name)
    return found

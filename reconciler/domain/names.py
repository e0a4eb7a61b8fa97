"""The names of everything that belongs to a group: pure, deterministic, within the limits of both sides.

A Swarm service name has at most 63 characters, letters, digits, ``_`` and ``-``, and is unique without regard
to case; a ksqlDB source name has letters, digits, ``_`` and ``-``. A group value is any text from the UNS, so it is
mapped to a *slug* first, and a label keeps the original value.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

SLUG_LIMIT = 40
_CUT = 30
_PLAIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?")
_OTHER = re.compile(r"[^A-Za-z0-9_-]")

STREAM_PREFIX = "ASSET_STREAM_"
#: In place of the id of an installation whose objects were created before there were ids.
LEGACY = "legacy"
_SHARED = re.compile(
    r"(?P<owner>[A-Z0-9_]+)_ASSETS_WITH_UNS_"
    r"((?P<installation>[0-9A-F]{8})_(?P<digest>[0-9A-F]{8})_(?P<generation>[1-9][0-9]{0,17})|(?P<old>[0-9A-F]{8}))"
)


def fold(owner: str) -> str:
    """Return an owner id as it begins the names of ksqlDB sources."""
    return re.sub(r"[^A-Z0-9_]", "_", owner.upper())


@dataclass(frozen=True)
class SharedName:
    """The parts of a shared stream's name: ``OFA_ASSETS_WITH_UNS_1A2B3C4D_0F0F0F0F_1``.

    Attributes:
        owner: its owner id, folded.
        installation: id of the installation that made it, in lower case; `LEGACY` for a name that has none.
        digest: hash of its definition.
        generation: increases with each one of the same definition; 0 for a name that has none.
    """

    owner: str
    installation: str
    digest: str
    generation: int

    @property
    def text(self) -> str:
        """The name as ksqlDB stores it."""
        parts = (self.owner, "ASSETS_WITH_UNS", self.installation.upper(), self.digest, str(self.generation))
        return "_".join(parts if self.installation != LEGACY else (*parts[:2], self.digest))

    @staticmethod
    @lru_cache(maxsize=4096)
    def parse(name: str) -> SharedName | None:
        """Parse a name; None where it is not a shared stream's."""
        found = _SHARED.fullmatch(name)
        if found is None:
            return None
        if found["old"]:
            return SharedName(found["owner"], LEGACY, found["old"], 0)
        return SharedName(found["owner"], found["installation"].lower(), found["digest"], int(found["generation"]))


def slug(group: str) -> str:
    """Return the part of every name that stands for ``group``.

    A value that is a legal name of at most 40 characters stays itself (``CNC-01``). Any other keeps its first
    30 characters, with ``_`` for what is not allowed, and ends in 8 hex digits of the value's SHA-256.
    """
    if len(group) <= SLUG_LIMIT and _PLAIN.fullmatch(group):
        return group
    digest = hashlib.sha256(group.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    kept = _OTHER.sub("_", group)[:_CUT].lstrip("_-")
    return f"{kept or 'group'}_{digest}"


@dataclass(frozen=True, order=True)
class GroupNames:
    """All names derived from one group value.

    Attributes:
        group: the value of the UNS level as it is.
        slug: its part in names.
        stream: the ksqlDB source name as stored (upper-case), always sent in backticks.
        topic: the Kafka topic behind the stream.
        consumer_group: the Kafka consumer group id for consumers of the topic.
        service: the Swarm service, which is also its DNS name.
    """

    group: str
    slug: str
    stream: str
    topic: str
    consumer_group: str
    service: str

    def url(self, port: int) -> str:
        """Return where the group's service serves its events inside the network."""
        return f"http://{self.service}:{port}/asset_stream"


@lru_cache(maxsize=4096)  # every cycle needs every group's names again
def names_of(group: str, prefix: str = "ofa") -> GroupNames:
    """Derive all names of ``group``; ``prefix`` starts the names of Swarm objects."""
    part = slug(group)
    topic = f"asset_stream_{part}"
    return GroupNames(
        group=group,
        slug=part,
        stream=topic.upper(),
        topic=topic,
        consumer_group=f"{topic}_consumer_group",
        service=f"{prefix}_group_{part}",
    )


def assign(
    groups: Iterable[str], prefix: str = "ofa", there: Collection[str] = ()
) -> tuple[Mapping[str, GroupNames], Mapping[str, str]]:
    """Name all groups and find those whose names collide.

    Both ksqlDB's unquoted names and Swarm's names ignore case, so two groups that differ only in case, or whose
    slugs do, cannot both exist: one that is served already wins, then the first in sorted order.

    Args:
        groups: all group values.
        prefix: start of the names of Swarm objects.
        there: groups that exist already; a newcomer never takes their names.

    Returns:
        The names by group, and by losing group the group that holds its names.
    """
    named: dict[str, GroupNames] = {}
    taken: dict[str, str] = {}
    losers: dict[str, str] = {}
    for group in sorted(set(groups), key=lambda value: (value not in there, value)):
        names = names_of(group, prefix)
        holder = taken.setdefault(names.slug.casefold(), group)
        if holder == group:
            named[group] = names
        else:
            losers[group] = holder
    return named, losers

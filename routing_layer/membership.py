"""Which group each asset is in, in memory.

One ``dict`` from asset to group, the group's string shared by all its assets, so that a million assets fit (see
``bench/routing``). Nothing here does I/O: ``watch`` feeds it, requests read it.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass

_LONGEST_NAME = 256
#: Told after an asset's group changed: asset, new group (None: the asset is gone or has no level any more).
OnMove = Callable[[str, str | None], None]


class _Unknown:
    """The type of ``UNKNOWN``."""

    def __repr__(self) -> str:
        """Name the one instance."""
        return "UNKNOWN"


UNKNOWN = _Unknown()
"""Not None: None is the group of an asset that is mapped without the level."""


@dataclass
class _Note:
    """How often an asset was put or removed while it is being asked for, by how many."""

    users: int = 0
    changes: int = 0


@dataclass(frozen=True)
class Difference:
    """What a full list has that the map in use has not, and the other way round."""

    changed: Mapping[str, str | None]
    missing: frozenset[str]

    def __bool__(self) -> bool:
        """Whether there is any difference."""
        return bool(self.changed or self.missing)


class Membership:
    """The map that requests are routed by.

    Attributes:
        complete: whether a complete list has been read once; before, an asset that is not here is not unknown.
    """

    def __init__(self, on_move: OnMove) -> None:
        """Start empty and incomplete; ``on_move`` is called for each asset whose group changes."""
        self._groups: dict[str, str | None] = {}
        self._members: dict[str, int] = {}
        self._noted: dict[str, _Note] = {}
        self._on_move = on_move
        self.complete = False

    def __len__(self) -> int:
        """How many assets are known."""
        return len(self._groups)

    def group_of(self, asset: str) -> str | _Unknown | None:
        """Return the asset's group, None if it has no level, ``UNKNOWN`` if it is not known."""
        return self._groups.get(asset, UNKNOWN)

    def assets(self) -> AbstractSet[str]:
        """Return a live view of the known assets."""
        return self._groups.keys()

    def has_group(self, group: str) -> bool:
        """Whether any asset is in the group."""
        return group in self._members

    @contextmanager
    def noting(self, asset: str) -> Iterator[Callable[[], bool]]:
        """Give a function that tells whether the asset was put or removed since."""
        note = self._noted.setdefault(asset, _Note())
        note.users += 1
        before = note.changes
        try:
            yield lambda: note.changes != before
        finally:
            note.users -= 1
            if not note.users:
                self._noted.pop(asset, None)

    def put(self, asset: str, group: str | None) -> None:
        """Set the asset's group."""
        if asset in self._noted:
            self._noted[asset].changes += 1
        if group is not None:
            group = sys.intern(group)  # one object for each group, so that the comparison below is one of pointers
        before = self._groups.get(asset, UNKNOWN)
        if before is group:
            return
        self._groups[asset] = group
        self._count(before, group)
        if before is not UNKNOWN:
            self._on_move(asset, group)

    def remove(self, asset: str) -> None:
        """Forget the asset: its row is gone."""
        if asset in self._noted:
            self._noted[asset].changes += 1
        before = self._groups.pop(asset, UNKNOWN)
        if before is not UNKNOWN:
            self._count(before, None)
            self._on_move(asset, None)

    def _count(self, before: str | _Unknown | None, now: str | None) -> None:
        """Keep the number of assets in each group; a group without any is forgotten."""
        if now is not None:
            self._members[now] = self._members.get(now, 0) + 1
        if isinstance(before, str):
            left = self._members[before] - 1
            if left:
                self._members[before] = left
            else:
                del self._members[before]

    def difference(self, listed: Mapping[str, str | None]) -> Difference:
        """Compare with a full list."""
        mine = self._groups
        changed = {asset: group for asset, group in listed.items() if mine.get(asset, UNKNOWN) != group}
        return Difference(changed, frozenset(mine.keys() - listed.keys()))


class NegativeCache:
    """Assets that ksqlDB did not know a moment ago, at most ``size`` of them, each for ``seconds``.

    Asset names come from clients: without the bound, a scan of invented names would fill the memory. A name of more
    than ``_LONGEST_NAME`` characters is not remembered: 10,000 request heads of 8 KiB would be 80 MiB.
    """

    def __init__(self, size: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start empty."""
        self._until: OrderedDict[str, float] = OrderedDict()
        self._size = size
        self._seconds = seconds
        self._clock = clock

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._until)

    def __contains__(self, asset: str) -> bool:
        """Whether the asset was unknown within the last ``seconds``."""
        until = self._until.get(asset)
        if until is None:
            return False
        if until > self._clock():
            return True
        del self._until[asset]
        return False

    def add(self, asset: str) -> None:
        """Remember the asset; what has expired goes, and the oldest when there are too many."""
        if len(asset) > _LONGEST_NAME:
            return
        now = self._clock()
        self._until[asset] = now + self._seconds
        self._until.move_to_end(asset)
        while self._until and (len(self._until) > self._size or next(iter(self._until.values())) <= now):
            self._until.popitem(last=False)

    def discard(self, asset: str) -> None:
        """The asset exists after all."""
        self._until.pop(asset, None)

"""Which group each asset is in, in memory.

One ``dict`` from asset to group, the group's string shared by all its assets, so that a million assets fit (see
``bench/routing``). Nothing here does I/O: ``watch`` writes it, requests read it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Final, Literal

#: Called after an asset's group changed: asset, new group (None: the asset is gone or has no level any more).
OnMove = Callable[[str, str | None], None]
#: Called with a group that has got its first asset.
OnNewGroup = Callable[[str], None]


class Absence(Enum):
    """The type of ``UNKNOWN``."""

    UNKNOWN = "unknown"


UNKNOWN: Final[Literal[Absence.UNKNOWN]] = Absence.UNKNOWN
"""The group of an asset that does not exist; None is the group of an asset that is mapped without the level."""

Group = str | Literal[Absence.UNKNOWN] | None


class MembershipStore:
    """The map that requests are routed by.

    Attributes:
        groups: the group of each known asset; read only.
        complete: whether a complete list has been read once; before, an asset that is not here is not unknown.
    """

    def __init__(self, on_move: OnMove, on_new_group: OnNewGroup = lambda _: None) -> None:
        """Start empty and incomplete; ``on_move`` is called for each asset whose group changes."""
        self.groups: dict[str, str | None] = {}
        self.complete = False
        self._sizes: dict[str, int] = {}
        self._trackers: dict[str, set[asyncio.Event]] = {}
        self._on_move = on_move
        self._on_new_group = on_new_group

    def group_of(self, asset: str) -> Group:
        """Return the asset's group, None if it has no level, ``UNKNOWN`` if it is not known."""
        return self.groups.get(asset, UNKNOWN)

    def has_group(self, group: str) -> bool:
        """Whether any asset is in the group."""
        return group in self._sizes

    @contextmanager
    def track(self, asset: str) -> Iterator[asyncio.Event]:
        """Yield an event that is set when the asset's group is written."""
        written = asyncio.Event()
        trackers = self._trackers.setdefault(asset, set())
        trackers.add(written)
        try:
            yield written
        finally:
            trackers.discard(written)
            if not trackers:
                self._trackers.pop(asset, None)

    def put(self, asset: str, group: Group) -> None:
        """Set the asset's group; ``UNKNOWN`` removes the asset."""
        for written in self._trackers.get(asset, ()):
            written.set()
        if isinstance(group, str):
            group = sys.intern(group)  # one object for each group, so that the comparison below is one of pointers
        before = self.groups.get(asset, UNKNOWN)
        if before is group:
            return
        if isinstance(group, Absence):
            del self.groups[asset]
        else:
            self.groups[asset] = group
        if isinstance(group, str):
            size = self._sizes[group] = self._sizes.get(group, 0) + 1
            if size == 1:
                self._on_new_group(group)
        if isinstance(before, str):
            self._sizes[before] -= 1
            if not self._sizes[before]:
                del self._sizes[before]
        if before is not UNKNOWN:
            self._on_move(asset, None if isinstance(group, Absence) else group)

    def differences(self, listed: Mapping[str, str | None]) -> set[tuple[str, Group]]:
        """Return each asset whose group differs from a full list, with its group in the list."""
        changed = {(name, group) for name, group in listed.items() if self.groups.get(name, UNKNOWN) != group}
        return changed | {(name, UNKNOWN) for name in self.groups.keys() - listed.keys()}

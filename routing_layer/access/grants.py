"""What a token grants: the assets and groups that its claim names. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_ANY = "*"


@dataclass(frozen=True, slots=True)
class Names:
    """Names and patterns; in a pattern ``*`` stands for any characters, also none. Case matters."""

    exact: frozenset[str] = frozenset()
    patterns: tuple[str, ...] = ()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Names:
        """Sort the entries of a list."""
        every = frozenset(entries)
        patterns = frozenset(entry for entry in every if _ANY in entry)
        return cls(every - patterns, tuple(sorted(patterns)))

    def __contains__(self, name: str) -> bool:
        """Whether an entry covers the name."""
        return name in self.exact or any(_matches(pattern, name) for pattern in self.patterns)

    def __bool__(self) -> bool:
        """Whether there is any entry."""
        return bool(self.exact or self.patterns)

    @property
    def everything(self) -> bool:
        """Whether one entry is ``*``."""
        return _ANY in self.patterns


@dataclass(frozen=True, slots=True)
class Grants:
    """What may be read.

    Attributes:
        assets: assets that are granted by name.
        groups: groups; one that is granted grants each asset that is in it at the moment.
    """

    assets: Names = Names()
    groups: Names = Names()

    def __bool__(self) -> bool:
        """Whether anything is granted."""
        return bool(self.assets or self.groups)

    def covers(self, asset: str, group: str | None) -> bool:
        """Whether the asset may be read while it is in ``group``; None: in none, or that is not known."""
        return asset in self.assets or (group is not None and group in self.groups)


ALL = Grants(Names.parse(_ANY), Names.parse(_ANY))


def parse_grants(claim: Any) -> Grants:
    """Return what a claim grants: ``{"assets": [...], "groups": [...]}``. What has another form grants nothing."""
    lists = claim if isinstance(claim, dict) else {}
    return Grants(_parse_names(lists.get("assets")), _parse_names(lists.get("groups")))


def _parse_names(entries: Any) -> Names:
    return Names.parse(entry for entry in entries if isinstance(entry, str)) if isinstance(entries, list) else Names()


def _matches(pattern: str, name: str) -> bool:
    """Compare part by part. A regular expression may try for minutes: ``*a*a*a*a*b`` against 32 KiB of ``a``."""
    first, *middle, last = pattern.split(_ANY)
    at, end = len(first), len(name) - len(last)
    if at > end or not (name.startswith(first) and name.endswith(last)):
        return False
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True

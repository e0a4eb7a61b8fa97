"""Reading groups from a table of counts, between full scans that keep it honest.

A full scan of the map costs time with every asset (0.2 s at 20,000); a table with one row a group answers in 4 ms. But
such a table lost a row for good once, after a Kafka outage (measured), so it is only ever believed about presence: a
group that it lacks counts as there until the next cycle's full scan has looked, and every full scan is compared with
the count of the cycle before. No cycle reads both, so a look costs the same number of requests always.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from reconciler.errors import KsqlError
from reconciler.grouping.base import CountingStrategy, GroupingStrategy
from reconciler.model import Membership
from reconciler.settings import GroupsTable, Settings

#: Assets from which on `GROUPS_TABLE=auto` uses the table: below, a full scan takes less than a tenth of a second.
WORTH_IT = 10_000
#: Comparisons in a row that must differ before a table is taken for a liar: it lags up to 4 s behind (measured).
PATIENCE = 3


@dataclass
class FastPath:
    """Chooses how each cycle reads the groups.

    Attributes:
        strategy: reads.
        settings: `GROUPS_TABLE` and `RESYNC_INTERVAL`.
        select: the pull query on the table.
        monotonic: seconds.
        known: groups that exist; one that the table lacks makes the next cycle scan.
        present: the table was listed at the last look.
        lying: the table has to be made anew.
    """

    strategy: GroupingStrategy
    settings: Settings
    select: str
    monotonic: Callable[[], float]
    known: frozenset[str] = frozenset()
    present: bool = False
    lying: bool = False
    _scanned: float | None = None
    _last: Membership = field(default_factory=lambda: Membership(0, {}))
    _counted: Membership | None = None
    _doubt: bool = False
    _difference: frozenset[str] = frozenset()
    _differed: int = 0

    @property
    def wanted(self) -> bool:
        """Whether the table should exist."""
        if self.settings.groups_table is GroupsTable.AUTO:
            return self._last.assets >= WORTH_IT and hasattr(self.strategy, "read_counts")
        return self.settings.groups_table is GroupsTable.ON and hasattr(self.strategy, "read_counts")

    def read(self) -> Membership:
        """Read the groups: from the table where that is enough, else all assets.

        Raises:
            reconciler.errors.KsqlError: the full scan failed or was not complete.
        """
        counted = self._count() if self._may_count() else None
        if counted is not None:
            self._counted = counted
            return self._completed(counted)
        membership = self.strategy.read()
        self._compare(membership)
        self._scanned, self._last, self._doubt = self.monotonic(), membership, False
        return membership

    def _completed(self, counted: Membership) -> Membership:
        """Add the groups that the last full scan saw and the table lacks: its silence proves nothing."""
        lacking = self.known - counted.groups.keys()
        self._doubt = bool(lacking)
        kept = {group: self._last.groups[group] for group in sorted(lacking) if group in self._last.groups}
        return replace(counted, groups={**counted.groups, **kept})

    def rebuilt(self) -> None:
        """The table was dropped: nothing is known of the next one."""
        self.lying, self.present, self._counted, self._differed = False, False, None, 0

    def _may_count(self) -> bool:
        if not (self.wanted and self.present) or self.lying or self._scanned is None:
            return False
        due = self._differed > 0 or self._doubt or self.monotonic() - self._scanned >= self.settings.resync_interval
        return not due or self._counted is None

    def _count(self) -> Membership | None:
        """Read the table; one that cannot be read is no reason to stop, only to scan."""
        strategy: CountingStrategy = self.strategy  # type: ignore[assignment]  # `wanted` has looked
        try:
            return strategy.read_counts(self.select)
        except KsqlError:
            return None

    def _compare(self, scanned: Membership) -> None:
        """Compare a full scan with the count of the cycle before it; several in a row that differ are a lie."""
        if self._counted is None:
            return
        # Groups, not numbers: those change between two cycles with every asset that moves.
        difference = frozenset(self._counted.groups.keys() ^ scanned.groups.keys())
        same = bool(difference) and (difference == self._difference or not self._difference)
        self._differed = self._differed + 1 if same else int(bool(difference))
        self._difference = difference
        self._counted = None
        self.lying = self._differed >= PATIENCE

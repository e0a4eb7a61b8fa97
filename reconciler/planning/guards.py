"""The safety rules: what may not be done, even after a complete read. Pure.

A read that looks complete can be wrong: after a restart ksqlDB answers a complete, empty result for 0.3 s; while it
stops, its list of queries shrinks; an aggregate can lose a row permanently. So absence is believed only after several
agreeing reads of a healthy server, spread over time, and never for many groups at once.

Where several ksqlDB servers share the work, each has a part of the UNS map: while one is away or joins, the others
answer with their parts only (measured: up to 64 s, all of them healthy). So the last question before a removal does
not go to a server's state: `find_due` says for which groups it is asked, `confirm` what follows from the answer.

`GuardMemory` is all that is kept between cycles: counters, whose loss at a restart only makes the operator wait longer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from openfactory_common.registry import Identity
from openfactory_common.text import list_some
from reconciler.domain.observed import MapSnapshot
from reconciler.domain.status import Guard, Refusal
from reconciler.ksqldb.statements import Topology
from reconciler.planning.inputs import Adoption
from reconciler.planning.survey import Published, StreamVerdict, Survey
from reconciler.settings import Policy, Settings

#: Seconds over which the UNS map is compared with its largest read: several times as long as partial answers lasted.
WINDOW = 300.0


@dataclass(frozen=True)
class Absence:
    """For how many reads, and since when (monotonic seconds), something has been missing."""

    reads: int
    since: float


@dataclass(frozen=True)
class GuardMemory:
    """What is kept between cycles.

    Attributes:
        missing: groups that exist and have no asset.
        silent: streams whose query was not listed.
        unregistered: when each missing group was first observed out of the registry (monotonic seconds).
        counts: when (monotonic seconds) which numbers of assets were read within `WINDOW`; of them, those that no later
            read reached, so the first is the largest.
        servers: on how many ksqlDB servers queries ran at the last observation; 0 before the first.
        queries: queries that were listed at the last observation; while a server stops, there are fewer each time.
        approved: the missing groups of an approved plan.
        doubt: why the last direct read of the map proved nothing; ``""`` where it did, or there was none.
    """

    missing: Mapping[str, Absence] = field(default_factory=dict)
    silent: Mapping[str, Absence] = field(default_factory=dict)
    unregistered: Mapping[str, float] = field(default_factory=dict)
    counts: tuple[tuple[float, int], ...] = ()
    servers: int = 0
    queries: int = 0
    approved: frozenset[str] = frozenset()
    doubt: str = ""

    @property
    def largest(self) -> int | None:
        """The largest number of assets that was read within `WINDOW`; None before the first read."""
        return self.counts[0][1] if self.counts else None

    def distrust(self) -> GuardMemory:
        """Start all counts again: a read failed, or the server is unhealthy."""
        return replace(self, missing={}, silent={})

    def forget(self, groups: Collection[str]) -> GuardMemory:
        """Start the counts of these groups again."""
        return replace(self, missing={name: absence for name, absence in self.missing.items() if name not in groups})


@dataclass(frozen=True)
class Overrides:
    """What the command line allows, for this run; ``delete`` are groups whose removal a person has asked for."""

    allow_empty: bool = False
    accept_identity: bool = False
    approve: str = ""
    adopt: str = ""
    delete: frozenset[str] = frozenset()
    adoption: Adoption | None = None


@dataclass(frozen=True)
class Verdict:
    """What the guards allow.

    Attributes:
        refusals: of every guard that refuses.
        retire: missing groups that may be removed, if a direct read confirms it.
        drained: those of them that have been out of the registry for long enough.
        silent: streams whose missing query may be believed.
        ddl: statements may be sent.
        waiting: for every missing group that may not be removed yet, why.
        held: missing groups wait for an approval, not for time.
        kept: missing groups that are never removed.
        approval: id that approves the refused removals; ``""`` where none are refused.
    """

    refusals: tuple[Refusal, ...] = ()
    retire: frozenset[str] = frozenset()
    drained: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    ddl: bool = True
    waiting: Mapping[str, str] = field(default_factory=dict)
    held: bool = False
    approval: str = ""
    kept: frozenset[str] = frozenset()

    @property
    def stopped(self) -> bool:
        """Nothing at all may be written."""
        return any(refusal.stops for refusal in self.refusals)


def remember(memory: GuardMemory, survey: Survey, topology: Topology, settings: Settings, now: float) -> GuardMemory:
    """Count one more complete read.

    Args:
        memory: before the read.
        survey: of the read.
        topology: names and definitions of streams.
        settings: `PRUNE_MAX_FRACTION` says which loss of rows is a collapse.
        now: monotonic seconds, so that a change of the wall clock ends no grace time.
    """
    source, membership = survey.observed.source, survey.observed.membership
    silent = _count_silent(memory, survey, topology, now)
    moved = memory.servers not in (0, source.servers)  # one joined or left: the parts of the map move
    before, memory = memory, replace(memory, queries=len(source.queries), servers=source.servers)
    if not membership.fresh and not source.unhealthy and not moved:
        # A scan that is used again proves no absence: it only removes groups that are back.
        missing = {group: absence for group, absence in memory.missing.items() if group in survey.missing}
        return replace(memory, missing=missing, silent=silent)
    if membership.fresh:
        memory = replace(memory, counts=_add_count(before.counts, membership.assets, now, settings))
    if source.unhealthy or moved or has_collapsed(before.largest, membership.assets, settings):
        return memory.distrust()
    out = {group for group in survey.missing if survey.owned[group].url is None}
    return replace(
        memory,
        missing=_count_absences(memory.missing, survey.missing, now),
        silent=silent,
        unregistered={group: memory.unregistered.get(group, now) for group in sorted(out)},
        approved=memory.approved & survey.missing,
        doubt=memory.doubt if survey.missing else "",
    )


def _count_silent(memory: GuardMemory, survey: Survey, topology: Topology, now: float) -> Mapping[str, Absence]:
    silent = {
        survey.wanted[group].stream for group, check in survey.streams.items() if check.verdict is StreamVerdict.SILENT
    }
    if survey.shared.verdict is StreamVerdict.SILENT:
        silent.add(topology.shared_name)
    shrinks = len(survey.observed.source.queries) < memory.queries
    return _count_absences({} if shrinks else memory.silent, silent, now)


def _add_count(
    before: tuple[tuple[float, int], ...], assets: int, now: float, settings: Settings
) -> tuple[tuple[float, int], ...]:
    """Add a number of assets; the last one stays at any age, for reads may be further apart than the window."""
    oldest, last = now - max(WINDOW, 2 * settings.prune_grace), before[-1:]
    kept = [one for one in before if one[1] > assets and (one[0] >= oldest or one in last)]
    return (*kept, (now, assets))


def judge(
    memory: GuardMemory,
    survey: Survey,
    settings: Settings,
    overrides: Overrides,
    now: float,
    kept: Mapping[str, str] | None = None,
) -> Verdict:
    """Decide what may be done about what `remember` has counted; ``kept`` says why some groups are never removed."""
    kept = {group: reason for group, reason in (kept or {}).items() if group in survey.missing}
    stops = _find_stops(survey, settings, overrides)
    source = survey.observed.source
    refusals = [*stops]
    if source.unhealthy_reason:
        text = f"ksqlDB is unhealthy: {source.unhealthy_reason}; no statements, no removals until it is healthy"
        refusals.append(Refusal(Guard.HEALTH, text))
    elif source.degraded:
        text = f"ksqlDB is degraded: {source.degraded}; no removals until it runs on every server"
        refusals.append(Refusal(Guard.HEALTH, text))
    # Behind a wrong address, or at a level that is misspelt, nothing is missing that should be approved.
    elsewhere = any(stop.guard in (Guard.IDENTITY, Guard.LEVEL) for stop in stops)
    over = "" if elsewhere else _check_budget(memory, survey, settings, kept)
    approval = approval_id(survey) if over else ""
    if over:
        refusals.append(Refusal(Guard.BUDGET, f"{over}; approve exactly this with --approve {approval}"))
    # One that a person wants removed needs no more than one read that counts: neither their number nor their time.
    ripe = frozenset(
        group
        for group in survey.missing - kept.keys()
        if _is_ripe(memory.missing.get(group), settings, now) or (group in overrides.delete and group in memory.missing)
    )
    sync = settings.reconcile_policy is Policy.SYNC
    # A stream whose owner is not known yet may be one more group that is missing.
    complete = survey.observed.membership.fresh and not source.unknown_owners
    retire = ripe if complete and sync and not (over or source.unhealthy or stops) else frozenset()
    return Verdict(
        refusals=tuple(refusals),
        retire=retire,
        drained=frozenset(group for group in retire if _is_drained(memory, group, settings, now)),
        silent=frozenset(name for name, absence in memory.silent.items() if _is_ripe(absence, settings, now)),
        ddl=not source.unhealthy_reason,
        waiting={
            group: kept.get(group) or _explain_waiting(memory, group, settings, now, over)
            for group in survey.missing - retire
        },
        held=bool(over) or not sync,
        approval=approval,
        kept=frozenset(kept),
    )


def find_due(survey: Survey, verdict: Verdict) -> frozenset[str]:
    """Return the groups of which something is removed next; while a group is being drained, nothing is."""
    owned = survey.owned
    return frozenset(
        group
        for group in verdict.retire
        if owned[group].url is not None or owned[group].service is None or group in verdict.drained
    )


def confirm(
    memory: GuardMemory, survey: Survey, groups: Collection[str], direct: MapSnapshot | None, doubt: str
) -> GuardMemory:
    """Apply the direct read: groups that have members, or may have, are counted from the start again.

    Args:
        memory: of this cycle.
        survey: of this cycle; a group that it found must be in a complete answer too.
        groups: that the read was for, see `find_due`.
        direct: the whole map, read from Kafka; None where the read was not complete.
        doubt: why not.
    """
    lost = survey.observed.membership.groups.keys() - direct.groups.keys() if direct is not None else set()
    if lost:
        doubt = f"it does not have group {min(lost)}, which ksqlDB has"
    kept = groups if direct is None or lost else [group for group in groups if group in direct.groups]
    return replace(memory.forget(kept), doubt=doubt)


def approve(memory: GuardMemory, survey: Survey, overrides: Overrides) -> GuardMemory:
    """Keep the groups that ``--approve`` named, if it named exactly what is missing now."""
    if overrides.approve and overrides.approve == approval_id(survey):
        return replace(memory, approved=survey.missing)
    return memory


def approval_id(survey: Survey) -> str:
    """Return the id of the set of removals that is pending: it changes with the set and with the cluster."""
    parts = [survey.identity.kafka, survey.identity.ksqldb, *sorted(survey.missing)]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:8]


def allowed_removals(owned: int, fraction: float) -> int:
    """Return how many of ``owned`` groups may be missing at once: one always may."""
    return max(1, int(fraction * owned))


def another_cluster(published: Published | None, now: Identity) -> str:
    """Return a message if another cluster answers than the registry's; ``""`` otherwise."""
    if published is None or published.document.identity == now:
        return ""
    was = published.document.identity
    return f"another cluster answers: kafka {now.kafka}, ksqlDB {now.ksqldb} instead of {was.kafka}, {was.ksqldb}"


def may_lack_level(survey: Survey) -> bool:
    """Whether no asset need have the grouping level: only the fallback group has anything here, or nothing at all.

    In a new plant no asset may have it yet. Where other groups are served it is misspelt, and every asset would move.
    """
    fallback, unknown = survey.observed.membership.fallback, survey.observed.source.unknown_owners
    return bool(fallback) and survey.owned.keys() <= {fallback} and not unknown


def _explain_lost_level(survey: Survey) -> str:
    """Return why all that is served would move into the fallback group; ``""`` where nothing would.

    The sample of assets may have no levels at all. Where the shared stream has this level already, it is not misspelt:
    the other groups have lost their assets, and are removed like any.
    """
    membership = survey.observed.membership
    if may_lack_level(survey):
        return ""
    alone = membership.groups.keys() == {membership.fallback} and survey.shared.verdict is StreamVerdict.ABSENT
    if membership.unknown_level or not alone:
        return membership.unknown_level
    served = list_some(sorted(survey.owned.keys() - {membership.fallback})) or "streams of unknown owners"
    return (
        f"no asset has a value at the level, and all would move from {served} to {membership.fallback} "
        "(UNS_FALLBACK_GROUP): correct the level, or give an asset a value at it first"
    )


def _find_stops(survey: Survey, settings: Settings, overrides: Overrides) -> tuple[Refusal, ...]:
    refusals = []
    other = another_cluster(survey.published, survey.identity)
    if other and not overrides.accept_identity:
        text = f"{other}; correct KSQLDB_URL, or if this is intended, run once with --accept-identity"
        refusals.append(Refusal(Guard.IDENTITY, text, stops=True))
    membership = survey.observed.membership
    if lost := _explain_lost_level(survey):
        # A misspelt name, which no option may turn into the removal of all groups.
        refusals.append(Refusal(Guard.LEVEL, f"{lost}: nothing is changed", stops=True))
    elif not membership.groups and not overrides.allow_empty:
        empty = f"{membership.assets} assets" if membership.assets else "0 assets: it is empty, or not loaded yet"
        refusals.append(
            Refusal(
                Guard.EMPTY,
                f"the UNS map names no group ({empty}): nothing is changed; correct KSQLDB_UNS_MAP="
                f"{settings.ksqldb_uns_map}, or if no group is wanted any more, run --once --allow-empty",
                stops=True,
            )
        )
    return tuple(refusals)


def _check_budget(memory: GuardMemory, survey: Survey, settings: Settings, kept: Collection[str]) -> str:
    """Return both numbers for a message when too many groups are missing at once.

    Those that are kept count in neither: with them the others would have to be fewer than the fraction says.
    """
    missing = survey.missing - memory.approved - set(kept)
    owned = len(survey.owned.keys() - set(kept))
    allowed = allowed_removals(owned, settings.prune_max_fraction)
    if len(missing) <= allowed:
        return ""
    return (
        f"{len(missing)} of {owned} groups are missing, at most {allowed} may go at once "
        f"(PRUNE_MAX_FRACTION={settings.prune_max_fraction}): none is removed"
    )


def has_collapsed(before: int | None, now: int, settings: Settings) -> bool:
    """Whether so many assets went between two good reads that no absence may be counted."""
    return before is not None and now < before * (1 - settings.prune_max_fraction)


def _count_absences(before: Mapping[str, Absence], names: Collection[str], now: float) -> Mapping[str, Absence]:
    earlier = {name: before.get(name, Absence(0, now)) for name in sorted(names)}
    return {name: replace(absence, reads=absence.reads + 1) for name, absence in earlier.items()}


def _is_ripe(absence: Absence | None, settings: Settings, now: float) -> bool:
    return absence is not None and absence.reads >= settings.prune_reads and now - absence.since >= settings.prune_grace


def _is_drained(memory: GuardMemory, group: str, settings: Settings, now: float) -> bool:
    since = memory.unregistered.get(group)
    return since is not None and now - since >= settings.drain_seconds


def _explain_waiting(memory: GuardMemory, group: str, settings: Settings, now: float, over: str) -> str:
    if settings.reconcile_policy is not Policy.SYNC:
        return f"no assets; kept because RECONCILE_POLICY={settings.reconcile_policy}"
    absence = memory.missing.get(group)
    doubt = f"; the last direct read of the UNS map proved nothing: {memory.doubt}" if memory.doubt else ""
    last = memory.counts[-1][1] if memory.counts else 0
    if absence is None and has_collapsed(memory.largest, last, settings):
        return f"no assets, but the map fell from {memory.largest} to {last} assets: counting starts when that lasts"
    if absence is None:
        return f"no assets; counting starts when ksqlDB is healthy{doubt}"
    waited = min(now - absence.since, settings.prune_grace)
    text = f"missing {min(absence.reads, settings.prune_reads)}/{settings.prune_reads} reads, "
    text += f"{waited:.0f} s of {settings.prune_grace:.0f} s{doubt}"
    return f"{text}; held by the budget" if over else text

"""The safety rules: what may not be done, however well it was read. Pure.

A read that looks perfect can be wrong: after a restart ksqlDB answers a complete, empty result for 0.3 s; while it
stops, its list of queries shrinks; an aggregate can lose a row for good. So absence is believed only after several
agreeing reads of a healthy server, spread over time, and never for many groups at once.

`Memory` is all that is kept between cycles: counters, whose loss at a restart only makes the operator wait longer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from reconciler.ksqldb.topology import Topology
from reconciler.model import Guard, Refusal
from reconciler.registry import Identity
from reconciler.settings import Policy, Settings
from reconciler.survey import Published, StreamVerdict, Survey


@dataclass(frozen=True)
class Absence:
    """For how many reads, and since when (monotonic seconds), something has been missing."""

    reads: int
    since: float


@dataclass(frozen=True)
class Memory:
    """What is remembered between cycles.

    Attributes:
        missing: groups that exist and that no asset belongs to.
        silent: streams whose query was not listed.
        unregistered: when each missing group was first seen out of the registry (monotonic seconds).
        assets: rows of the last good read, None before the first.
        queries: queries that were listed at the last look; while a server stops, there are fewer each time.
        approved: the missing groups of an approved plan.
    """

    missing: Mapping[str, Absence] = field(default_factory=dict)
    silent: Mapping[str, Absence] = field(default_factory=dict)
    unregistered: Mapping[str, float] = field(default_factory=dict)
    assets: int | None = None
    queries: int = 0
    approved: frozenset[str] = frozenset()

    def distrust(self) -> Memory:
        """Start all counts again: a read failed, or the server is not well."""
        return replace(self, missing={}, silent={})

    def forget(self, group: str) -> Memory:
        """Start the count of one group again: a direct question found a member."""
        return replace(self, missing={name: seen for name, seen in self.missing.items() if name != group})


@dataclass(frozen=True)
class Overrides:
    """What a person allowed on the command line, for this run."""

    allow_empty: bool = False
    accept_identity: bool = False
    approve: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the guards allow.

    Attributes:
        refusals: every no, in words.
        retire: missing groups that may be removed, if a direct question agrees.
        drained: those of them that have been out of the registry for long enough.
        silent: streams whose missing query may be believed.
        ddl: statements may be sent.
        waiting: for every missing group that may not be removed yet, why.
        held: missing groups wait for a person, not for time.
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

    @property
    def stopped(self) -> bool:
        """Nothing at all may be written."""
        return any(refusal.stops for refusal in self.refusals)


def remember(memory: Memory, survey: Survey, topology: Topology, settings: Settings, now: float) -> Memory:
    """Count one more complete read.

    Args:
        memory: before the read.
        survey: of the read.
        topology: names and definitions of streams.
        settings: `PRUNE_MAX_FRACTION` says which loss of rows is a collapse.
        now: monotonic seconds, so that a change of the wall clock ends no grace time.
    """
    assets, queries = survey.observed.membership.assets, len(survey.observed.source.queries)
    silent = _silent(memory, survey, topology, now)
    if not survey.observed.membership.fresh and not survey.observed.source.trouble:
        return replace(memory, missing=_still(memory.missing, survey.missing), silent=silent, queries=queries)
    if survey.observed.source.trouble or has_collapsed(memory.assets, assets, settings):
        return replace(memory.distrust(), assets=assets, queries=queries)
    out = {group for group in survey.missing if survey.owned[group].url is None}
    return replace(
        memory,
        missing=_counted(memory.missing, survey.missing, now),
        silent=silent,
        unregistered={group: memory.unregistered.get(group, now) for group in sorted(out)},
        assets=assets,
        queries=queries,
        approved=memory.approved & survey.missing,
    )


def _silent(memory: Memory, survey: Survey, topology: Topology, now: float) -> Mapping[str, Absence]:
    silent = {
        survey.wanted[group].stream for group, check in survey.streams.items() if check.verdict is StreamVerdict.SILENT
    }
    if survey.shared.verdict is StreamVerdict.SILENT:
        silent.add(topology.shared_name)
    shrinks = len(survey.observed.source.queries) < memory.queries
    return _counted({} if shrinks else memory.silent, silent, now)


def _still(before: Mapping[str, Absence], missing: Collection[str]) -> Mapping[str, Absence]:
    """Forget groups that are back; a scan that is used again proves no absence, so it adds nothing."""
    return {group: seen for group, seen in before.items() if group in missing}


def judge(memory: Memory, survey: Survey, settings: Settings, overrides: Overrides, now: float) -> Verdict:
    """Decide what may be done about what `remember` has counted."""
    stops = _stops(survey, overrides)
    trouble = survey.observed.source.trouble
    refusals = [*stops]
    if trouble:
        refusals.append(Refusal(Guard.HEALTH, f"ksqlDB is not well: {trouble}; no statements, no removals until it is"))
    over = "" if survey.observed.membership.unknown_level else _over_budget(memory, survey, settings)
    approval = approval_id(survey) if over else ""
    if over:
        refusals.append(Refusal(Guard.BUDGET, f"{over}; approve exactly this with --approve {approval}"))
    ripe = frozenset(group for group in survey.missing if _ripe(memory.missing.get(group), settings, now))
    # A stream that has not been asked whose it is may be one more group that is missing.
    complete = survey.observed.membership.fresh and not survey.observed.source.unasked
    free = complete and not (over or trouble or stops or settings.reconcile_policy is not Policy.SYNC)
    retire = ripe if free else frozenset()
    return Verdict(
        refusals=tuple(refusals),
        retire=retire,
        drained=frozenset(group for group in retire if _drained(memory, group, settings, now)),
        silent=frozenset(name for name, seen in memory.silent.items() if _ripe(seen, settings, now)),
        ddl=not trouble,
        waiting={group: _why_waiting(memory, group, settings, now, over) for group in survey.missing - retire},
        held=bool(over) or settings.reconcile_policy is not Policy.SYNC,
        approval=approval,
    )


def approve(memory: Memory, survey: Survey, overrides: Overrides) -> Memory:
    """Remember the groups that ``--approve`` named, if it named exactly what is missing now."""
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
    """Say that another cluster answers than the registry's; ``""`` where it does not, or where there is no registry."""
    if published is None or published.document.identity == now:
        return ""
    was = published.document.identity
    return f"another cluster answers: kafka {now.kafka}, ksqlDB {now.ksqldb} instead of {was.kafka}, {was.ksqldb}"


def _stops(survey: Survey, overrides: Overrides) -> tuple[Refusal, ...]:
    refusals = []
    other = another_cluster(survey.published, survey.identity)
    if other and not overrides.accept_identity:
        text = f"{other}; if that is meant, run once with --accept-identity"
        refusals.append(Refusal(Guard.IDENTITY, text, stops=True))
    membership = survey.observed.membership
    if membership.unknown_level:  # a misspelt name, which no option may turn into the removal of all groups
        refusals.append(Refusal(Guard.LEVEL, f"{membership.unknown_level}: nothing is changed", stops=True))
    elif not membership.groups and not overrides.allow_empty:
        empty = f"{membership.assets} assets" if membership.assets else "0 assets: it is empty, or not loaded yet"
        refusals.append(
            Refusal(
                Guard.EMPTY,
                f"the UNS map names no group ({empty}): nothing is changed; if no group is wanted any more, run "
                "--once --allow-empty",
                stops=True,
            )
        )
    return tuple(refusals)


def _over_budget(memory: Memory, survey: Survey, settings: Settings) -> str:
    """Return both numbers in words when too many groups are missing at once."""
    missing = survey.missing - memory.approved
    allowed = allowed_removals(len(survey.owned), settings.prune_max_fraction)
    if len(missing) <= allowed:
        return ""
    return (
        f"{len(missing)} of {len(survey.owned)} groups are missing, at most {allowed} may go at once "
        f"(PRUNE_MAX_FRACTION={settings.prune_max_fraction}): none is removed"
    )


def has_collapsed(before: int | None, now: int, settings: Settings) -> bool:
    """Whether so many assets went between two good reads that no absence may be counted."""
    return before is not None and now < before * (1 - settings.prune_max_fraction)


def _counted(before: Mapping[str, Absence], names: Collection[str], now: float) -> Mapping[str, Absence]:
    counted = {}
    for name in sorted(names):
        seen = before.get(name, Absence(0, now))
        counted[name] = replace(seen, reads=seen.reads + 1)
    return counted


def _ripe(absence: Absence | None, settings: Settings, now: float) -> bool:
    return absence is not None and absence.reads >= settings.prune_reads and now - absence.since >= settings.prune_grace


def _drained(memory: Memory, group: str, settings: Settings, now: float) -> bool:
    since = memory.unregistered.get(group)
    return since is not None and now - since >= settings.drain_seconds


def _why_waiting(memory: Memory, group: str, settings: Settings, now: float, over: str) -> str:
    if settings.reconcile_policy is not Policy.SYNC:
        return f"no assets; kept because RECONCILE_POLICY={settings.reconcile_policy}"
    seen = memory.missing.get(group)
    if seen is None:
        return "no assets; counting starts when ksqlDB answers well"
    waited = min(now - seen.since, settings.prune_grace)
    text = f"missing {min(seen.reads, settings.prune_reads)}/{settings.prune_reads} reads, "
    text += f"{waited:.0f} s of {settings.prune_grace:.0f} s"
    return f"{text}; held by the budget" if over else text

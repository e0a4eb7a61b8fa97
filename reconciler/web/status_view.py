"""What the status page shows, decided from what the operator last saw. Pure; the page only lays it out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from openfactory_common.text import told_apart
from reconciler.domain.status import Condition, Plan
from reconciler.report.documents import BackoffDocument, ObjectDocument, OperatorDocument, StatusDocument, plan_document
from reconciler.report.text import spoken, summary
from reconciler.settings import Policy, Settings

#: Rows that are shown at once unless all are asked for; what needs attention comes first.
MOST_ROWS = 200
#: Writes that are listed of the last plan.
MOST_ACTIONS = 20


@dataclass(frozen=True)
class Sign:
    """A state as a word, a symbol and a tone: never by colour alone."""

    word: str
    symbol: str
    tone: str


SIGNS = {
    Condition.CONFLICT: Sign("Conflict", "\N{MULTIPLICATION X}", "bad"),
    Condition.DEGRADED: Sign("Degraded", "!", "bad"),
    Condition.LEAVING: Sign("Leaving", "\N{DOWNWARDS ARROW}", "warn"),
    Condition.HELD: Sign("Held", "\N{DOUBLE VERTICAL LINE}", "warn"),
    Condition.PROGRESSING: Sign("Progressing", "\N{RIGHTWARDS ARROW}", "busy"),
    Condition.READY: Sign("Ready", "\N{CHECK MARK}", "good"),
}
"""By condition, what needs attention first."""
_FAILED = ("read_error", "bug")
_ORDER = {condition: at for at, condition in enumerate(SIGNS)}


@dataclass(frozen=True)
class Filter:
    """What the reader asked for: text to look for, one condition, all rows."""

    query: str = ""
    condition: Condition | None = None
    everything: bool = False

    def href(self, *, condition: Condition | None = None, everything: bool = False) -> str:
        """Return the address of the same question with another condition."""
        pairs = {"q": self.query, "condition": condition or "", "all": "1" if everything else ""}
        asked = urlencode({name: value for name, value in pairs.items() if value}, errors="replace")
        return f"/?{asked}" if asked else "/"


@dataclass(frozen=True)
class GroupRow:
    """One line of the table."""

    item: ObjectDocument
    name: str
    members: str
    served: str
    symbol: str
    tone: str


@dataclass(frozen=True)
class Chip:
    """A link that shows one condition only, with how many there are."""

    word: str
    symbol: str
    tone: str
    count: int
    href: str
    current: bool


@dataclass(frozen=True)
class Write:
    """One write of the last plan: what is done, and to what."""

    verb: str
    object_: str


@dataclass(frozen=True)
class Notice:
    """Something that needs attention."""

    title: str
    text: str
    tone: str = "warn"


@dataclass(frozen=True)
class Fact:
    """Something worth knowing about the operator, as text or as a time."""

    name: str
    text: str = ""
    at: datetime | None = None


@dataclass(frozen=True)
class View:
    """Everything on the page.

    Attributes:
        owner: whose groups these are.
        state: of the whole.
        sentence: what the last cycle did.
        warnings: what needs attention, the worst first.
        document: the last full read, None before the first.
        chips: counts by condition.
        query: what was looked for.
        condition: the one condition that is shown, ``""`` for all.
        rows: those that are shown.
        matching: how many would be.
        caption: of the table.
        all_href: address at which all are shown.
        plan_summary: the last plan's totals.
        actions: the first writes of the last plan.
        more_actions: how many more there are.
        backoff: what waits after a failed write.
        facts: what is worth knowing about it.
    """

    owner: str
    state: Sign
    sentence: str
    warnings: tuple[Notice, ...]
    document: StatusDocument | None
    chips: tuple[Chip, ...]
    query: str
    condition: str
    rows: tuple[GroupRow, ...]
    matching: int
    caption: str
    all_href: str
    plan_summary: str
    actions: tuple[Write, ...]
    more_actions: int
    backoff: tuple[BackoffDocument, ...]
    facts: tuple[Fact, ...]

    @property
    def more(self) -> bool:
        """Some rows that match are not shown."""
        return len(self.rows) < self.matching


def view(
    settings: Settings,
    operator: OperatorDocument | None,
    document: StatusDocument | None,
    plan: Plan | None,
    asked: Filter,
) -> View:
    """Decide what the page shows.

    Args:
        settings: of the operator.
        operator: how it fares, None before its first cycle has ended.
        document: of the last full read, None before the first.
        plan: of the same cycle.
        asked: what the reader wants to see.
    """
    items = _matching(document.items if document else (), asked)
    shown = items if asked.everything else items[:MOST_ROWS]
    names = told_apart(item.group for item in items if item.group is not None)
    actions = plan_document(plan).actions if plan else ()
    return View(
        owner=settings.reconciler_owner,
        state=_state(operator, document),
        sentence=operator.last_sentence if operator else "the first cycle has not ended",
        warnings=tuple(_warnings(settings, operator, document)),
        document=document,
        chips=tuple(_chips(document, asked)) if document else (),
        query=asked.query,
        condition=asked.condition or "",
        rows=tuple(_row(item, names) for item in shown),
        matching=len(items),
        caption=_caption(len(shown), len(items), len(document.items) if document else 0),
        all_href=asked.href(condition=asked.condition, everything=True),
        plan_summary=summary(plan) if plan else "",
        actions=tuple(Write(spoken(a.action, a.object_), a.object_) for a in actions[:MOST_ACTIONS]),
        more_actions=max(0, len(actions) - MOST_ACTIONS),
        backoff=operator.backoff if operator else (),
        facts=tuple(_facts(settings, operator, document)),
    )


def _matching(items: Iterable[ObjectDocument], asked: Filter) -> list[ObjectDocument]:
    text = asked.query.casefold()
    found = [
        item
        for item in items
        if (asked.condition is None or item.condition is asked.condition)
        and text in f"{item.title}\n{item.service}\n{item.stream}\n{item.detail}".casefold()
    ]
    return sorted(found, key=lambda item: _ORDER[item.condition])


def _caption(shown: int, matching: int, there: int) -> str:
    if shown < matching:
        return f"{shown} of {matching:,}, what needs attention first"
    return f"All {there:,}" if matching == there else f"{matching:,} of {there:,}"


def _row(item: ObjectDocument, names: Mapping[str, str]) -> GroupRow:
    sign = SIGNS[item.condition]
    counted = item.group is not None and item.condition is not Condition.CONFLICT
    name = item.title.partition(" ")[2] if item.group is None else names[item.group]
    members = str(item.members) if counted else "\N{EN DASH}"
    # Every group's address ends alike, which only makes it too long for its column; the JSON has all of it.
    served = (item.url or item.service or item.stream or "\N{EN DASH}").removesuffix("/asset_stream")
    return GroupRow(item, name, members, served, sign.symbol, sign.tone)


def _chips(document: StatusDocument, asked: Filter) -> Iterable[Chip]:
    yield Chip("All", "", "plain", len(document.items), asked.href(), asked.condition is None)
    for condition, sign in SIGNS.items():
        if document.counts[condition] or asked.condition is condition:
            count, href = document.counts[condition], asked.href(condition=condition)
            yield Chip(sign.word, sign.symbol, sign.tone, count, href, asked.condition is condition)


def _state(operator: OperatorDocument | None, document: StatusDocument | None) -> Sign:
    if operator is not None and operator.last_result in _FAILED:
        return Sign("Not reading", "!", "bad")
    if document is None:
        return Sign("Starting", "\N{RIGHTWARDS ARROW}", "busy")
    if document.refusals:
        return Sign("Refused by a safety rule", "!", "bad")
    if operator is not None and operator.paused:
        return Sign("Paused", "\N{DOUBLE VERTICAL LINE}", "warn")
    if document.counts[Condition.DEGRADED] or document.counts[Condition.CONFLICT]:
        return Sign("Needs attention", "!", "bad")
    if document.in_sync:
        return Sign("In sync", "\N{CHECK MARK}", "good")
    if operator is not None and operator.last_result == "standby":
        return Sign("Standing by", "\N{DOUBLE VERTICAL LINE}", "busy")
    return Sign("At work", "\N{RIGHTWARDS ARROW}", "busy")


def _warnings(
    settings: Settings, operator: OperatorDocument | None, document: StatusDocument | None
) -> Iterable[Notice]:
    if operator is not None and operator.last_result in _FAILED:
        old = "" if document is None else " What is shown is from the last full read."
        yield Notice(
            "The last read failed.", f"{operator.last_sentence}.{old} Nothing is written until it is well.", "bad"
        )
    for refusal in document.refusals if document else ():
        all_of_it = " Nothing at all is written until then." if refusal.stops else ""
        yield Notice(
            f"The rule \N{LEFT DOUBLE QUOTATION MARK}{refusal.guard}\N{RIGHT DOUBLE QUOTATION MARK} says no:",
            f"{refusal.text}.{all_of_it}",
            "bad",
        )
    for note in document.notes if document else ():
        if not note.startswith("paused until "):  # of the last plan; what holds now is said below
            yield Notice("Note:", f"{note}.")
    if operator is not None and operator.paused:
        yield Notice("Writes are held back:", f"{operator.paused}. `reconciler resume` ends it.")
    if settings.reconcile_policy is not Policy.SYNC:
        yield Notice(f"RECONCILE_POLICY={settings.reconcile_policy}.", "Not everything that differs is put right.")


def _facts(settings: Settings, operator: OperatorDocument | None, document: StatusDocument | None) -> Iterable[Fact]:
    if operator:
        yield Fact("Last cycle", at=operator.last_cycle)
        yield Fact("Last full read", "none yet", operator.last_read)
        yield Fact("Last write", "none since it started", operator.last_write)
    if operator and operator.role:
        yield Fact("Role", operator.role)
    yield Fact("Policy", f"{settings.reconcile_policy}, every {settings.reconcile_interval:g} s")
    yield Fact("Platform", f"{settings.deployment_platform}, {settings.environment}")
    yield Fact("Grouping", f"{settings.grouping_strategy}, level {settings.uns_fastapi_group_grouping_level}")
    if document:
        yield Fact("Assets", f"{document.assets:,}, {document.ungrouped:,} without a group")
        yield Fact("Registry", document.registry or "none published yet")
        yield Fact("ksqlDB", f"{document.ksqldb.version}: {document.ksqldb.unhealthy_reason or 'well'}")
        yield Fact("Identity", f"kafka {document.ksqldb.kafka}, ksqlDB {document.ksqldb.ksqldb}")

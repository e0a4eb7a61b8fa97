"""What the status page shows, made from the last full read. Pure; the template only lays it out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from openfactory_common import __version__
from openfactory_common.text import distinguish
from reconciler.domain.status import Condition, Plan
from reconciler.report.documents import EventDocument, ObjectDocument, OperatorDocument, StatusDocument
from reconciler.report.text import event_words, shorten_verb, summarize
from reconciler.settings import Policy, Settings

#: Rows that are shown unless all are requested; what needs attention comes first.
MOST_ROWS = 200
#: Writes of the last plan that are listed.
MOST_ACTIONS = 20
#: Entries of the history that are listed, the newest first; with a text to search for, those that have it.
MOST_EVENTS = 20


@dataclass(frozen=True)
class Sign:
    """A state as a word, a symbol and a tone: never only as a colour."""

    word: str
    symbol: str
    tone: str


SIGNS = {
    Condition.CONFLICT: Sign("Conflict", "\N{MULTIPLICATION X}", "bad"),
    Condition.DEGRADED: Sign("Degraded", "!", "bad"),
    Condition.LEAVING: Sign("Leaving", "\N{DOWNWARDS ARROW}", "warn"),
    Condition.HELD: Sign("Held", "\N{DOUBLE VERTICAL LINE}", "warn"),
    Condition.PROGRESSING: Sign("Progressing", "\N{RIGHTWARDS ARROW}", "busy"),
    Condition.ASLEEP: Sign("Asleep", "\N{FIRST QUARTER MOON}", "good"),
    Condition.READY: Sign("Ready", "\N{CHECK MARK}", "good"),
}
"""By condition, what needs attention first."""
_FAILED = ("read_error", "bug")
_ORDER = {condition: at for at, condition in enumerate(SIGNS)}


@dataclass(frozen=True)
class Filter:
    """The request: a text to search for, one condition, all rows."""

    query: str = ""
    condition: Condition | None = None
    everything: bool = False

    def href(self, *, condition: Condition | None = None, everything: bool = False) -> str:
        """Return the address of the same request with another condition; relative, as a proxy may add a prefix."""
        pairs = {"q": self.query, "condition": condition or "", "all": "1" if everything else ""}
        query = urlencode({name: value for name, value in pairs.items() if value}, errors="replace")
        return f"?{query}" if query else "./"


@dataclass(frozen=True)
class GroupRow:
    """One line of the table."""

    item: ObjectDocument
    name: str
    members: str
    served: str
    sign: Sign


@dataclass(frozen=True)
class Chip:
    """A link to the objects of one condition, with their number."""

    sign: Sign
    count: int
    href: str
    current: bool


@dataclass(frozen=True)
class Notice:
    """Something that needs attention."""

    title: str
    text: str
    tone: str = "warn"


@dataclass(frozen=True)
class Fact:
    """A fact about the operator, as a text or as a time."""

    name: str
    text: str = ""
    at: datetime | None = None


@dataclass(frozen=True)
class EventRow:
    """An entry of the history: when, how bad, in words."""

    at: datetime
    sign: Sign
    text: str


_LEVELS = {
    "info": Sign("Information", "", "plain"),
    "warning": Sign("Warning", "!", "warn"),
    "error": Sign("Error", "!", "bad"),
}


@dataclass(frozen=True)
class View:
    """What the page shows, besides the documents.

    Attributes:
        state: of the whole.
        warnings: what needs attention, the worst first.
        chips: counts by condition.
        rows: the shown objects.
        matching: how many objects match the filter.
        caption: of the table.
        plan_summary: totals of the last plan.
        actions: the first writes of the last plan: what is done, and to what.
        more_actions: how many more there are.
        facts: about the operator.
        events: of the history, the newest first.
    """

    state: Sign
    warnings: tuple[Notice, ...]
    chips: tuple[Chip, ...]
    rows: tuple[GroupRow, ...]
    matching: int
    caption: str
    plan_summary: str
    actions: tuple[tuple[str, str], ...]
    more_actions: int
    facts: tuple[Fact, ...]
    events: tuple[EventRow, ...]


def make_view(
    settings: Settings,
    operator: OperatorDocument | None,
    document: StatusDocument | None,
    plan: Plan | None,
    filter_: Filter,
    events: Sequence[EventDocument] = (),
) -> View:
    """Decide what the page shows.

    Args:
        settings: of the operator.
        operator: its last cycle, None before the first has ended.
        document: of the last full read, None before the first.
        plan: of the same cycle.
        filter_: what the reader requested.
        events: the history, oldest first.
    """
    items = _find_matching(document.items if document else (), filter_)
    shown = items if filter_.everything else items[:MOST_ROWS]
    total = len(document.items) if document else 0
    caption = f"All {total:,}" if len(items) == total else f"{len(items):,} of {total:,}"
    if len(shown) < len(items):
        caption = f"{len(shown)} of {len(items):,}, what needs attention first"
    names = distinguish(item.group for item in items if item.group is not None)
    actions = plan.actions if plan else ()
    return View(
        state=_choose_state(operator, document),
        warnings=tuple(_list_warnings(settings, operator, document)),
        chips=tuple(_list_chips(document, filter_)) if document else (),
        rows=tuple(_make_row(item, names) for item in shown),
        matching=len(items),
        caption=caption,
        plan_summary=summarize(plan) if plan else "",
        actions=tuple((shorten_verb(a.verb, a.key), a.key) for a in actions[:MOST_ACTIONS]),
        more_actions=max(0, len(actions) - MOST_ACTIONS),
        facts=tuple(_list_facts(settings, operator, document)),
        events=tuple(_list_events(events, filter_))[:MOST_EVENTS],
    )


def _list_events(events: Sequence[EventDocument], filter_: Filter) -> Iterable[EventRow]:
    text = filter_.query.casefold()
    for event in reversed(events):
        words = event_words(event)
        if text in f"{event.group}\n{words}".casefold():
            yield EventRow(event.at, _LEVELS[event.level], words)


def _find_matching(items: Iterable[ObjectDocument], filter_: Filter) -> list[ObjectDocument]:
    text = filter_.query.casefold()
    matching = [
        item
        for item in items
        if (filter_.condition is None or item.condition is filter_.condition)
        and text in f"{item.title}\n{item.service}\n{item.stream}\n{item.detail}".casefold()
    ]
    return sorted(matching, key=lambda item: _ORDER[item.condition])


def _make_row(item: ObjectDocument, names: Mapping[str, str]) -> GroupRow:
    counted = item.group is not None and item.condition is not Condition.CONFLICT
    name = item.title.partition(" ")[2] if item.group is None else names[item.group]
    members = str(item.members) if counted else "\N{EN DASH}"
    # Every group's URL ends like this, which makes it too long for its column; the JSON has the whole URL.
    served = (item.url or item.service or item.stream or "\N{EN DASH}").removesuffix("/asset_stream")
    return GroupRow(item, name, members, served, SIGNS[item.condition])


def _list_chips(document: StatusDocument, filter_: Filter) -> Iterable[Chip]:
    yield Chip(Sign("All", "", "plain"), len(document.items), filter_.href(), filter_.condition is None)
    for condition, sign in SIGNS.items():
        if document.counts[condition] or filter_.condition is condition:
            count, href = document.counts[condition], filter_.href(condition=condition)
            yield Chip(sign, count, href, filter_.condition is condition)


def _choose_state(operator: OperatorDocument | None, document: StatusDocument | None) -> Sign:
    if operator is not None and operator.last_result in _FAILED:
        return Sign("Read failed", "!", "bad")
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
        return Sign("Standby", "\N{DOUBLE VERTICAL LINE}", "busy")
    return Sign("Reconciling", "\N{RIGHTWARDS ARROW}", "busy")


def _list_warnings(
    settings: Settings, operator: OperatorDocument | None, document: StatusDocument | None
) -> Iterable[Notice]:
    if operator is not None and operator.last_result in _FAILED:
        old = "" if document is None else " The page shows the last full read."
        text = f"{operator.last_sentence}.{old} Nothing is written until a read succeeds."
        yield Notice("The last read failed.", text, "bad")
    for refusal in document.refusals if document else ():
        stops = " Nothing is written until this is resolved." if refusal.stops else ""
        yield Notice(f"Refused by the rule {refusal.guard}:", f"{refusal.text}.{stops}", "bad")
    for note in document.notes if document else ():
        if not note.startswith("paused until "):  # of the last plan; the present pause is shown below
            yield Notice("Note:", f"{note}.")
    if operator is not None and operator.paused:
        yield Notice("Writes are suspended:", f"{operator.paused}. `reconciler resume` ends the pause.")
    if settings.reconcile_policy is not Policy.SYNC:
        yield Notice(f"RECONCILE_POLICY={settings.reconcile_policy}.", "Not every difference is corrected.")


def _list_facts(
    settings: Settings, operator: OperatorDocument | None, document: StatusDocument | None
) -> Iterable[Fact]:
    if operator:
        yield Fact("Last cycle", at=operator.last_cycle)
        yield Fact("Last full read", "none yet", operator.last_read)
        yield Fact("Last write", "none since the start", operator.last_write)
    if operator and operator.role:
        yield Fact("Role", operator.role)
    yield Fact("Version", __version__)
    yield Fact("Policy", f"{settings.reconcile_policy}, every {settings.reconcile_interval:g} s")
    yield Fact("Platform", f"{settings.deployment_platform}, {settings.environment}")
    fallback = f", else group {settings.uns_fallback_group}" if settings.uns_fallback_group else ""
    yield Fact("Grouping", f"{settings.grouping_strategy}, level {settings.uns_fastapi_group_grouping_level}{fallback}")
    if document:
        yield Fact("Assets", f"{document.assets:,}, {document.ungrouped:,} without a group")
        yield Fact("Registry", document.registry or "none published yet")
        yield Fact("ksqlDB", f"{document.ksqldb.version}: {document.ksqldb.unhealthy_reason or 'healthy'}")
        yield Fact("Identity", f"kafka {document.ksqldb.kafka}, ksqlDB {document.ksqldb.ksqldb}")

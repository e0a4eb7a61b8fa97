"""Plans and states as text, JSON and Markdown. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich.cells import cell_len

from openfactory_common.text import printable, printable_json, told_apart
from reconciler.domain.actions import Action, Effect, PublishRegistry
from reconciler.domain.status import Condition, ObjectStatus, Plan
from reconciler.planning.survey import Survey
from reconciler.report.documents import plan_document, status_document

_COUNTED = {"+": "create", "~": "update", "!": "repair", "-": "delete", "?": "waiting", "x": "conflict"}
_ALWAYS = ("create", "update", "repair", "delete")
_WORDS = (*_COUNTED.values(), "degraded", "starting")
_MARKS = {Effect.CREATE: "+", Effect.UPDATE: "~", Effect.PUBLISH: "~", Effect.REMOVE: "-"}

#: Cells of a plan's titles: as many at least, and no more because of one long name.
_TITLE, _WIDEST_TITLE = 20, 32

#: By this a job finds its comment again, to replace it.
COMMENT_MARK = "<!-- reconciler plan -->"
#: More rows make a comment longer than it may be, and nobody reads them there.
MOST_ROWS = 100


def plan_text(plan: Plan) -> str:
    """Render a plan for a terminal: one line an object that is not as it should be, then the totals."""
    titles = shown_titles(plan.items)
    rows = [(item.change, titles[item.title], printable(item.detail)) for item in _noteworthy(plan)]
    rows += [(_MARKS[a.effect], printable(a.key), a.verb.replace("_", " ")) for a in _of_no_item(plan)]
    width = max((cell_len(title) for _, title, _ in rows if cell_len(title) <= _WIDEST_TITLE), default=0)
    lines = [f"{mark} {_padded(title, max(width, _TITLE))} {detail}".rstrip() for mark, title, detail in rows]
    lines += [f"registry  {_registry_change(plan)}"] if _registry_changes(plan) else []
    lines += [f"refused   {printable(refusal.guard)}: {printable(refusal.text)}" for refusal in plan.refusals]
    lines += [f"note      {printable(note)}" for note in plan.notes]
    return "\n".join(map(printable, [*lines, summary(plan)]))


def summary(plan: Plan) -> str:
    """Render the totals of a plan in one sentence: how many groups and services, then how many writes."""
    if plan.in_sync:
        return "Plan: nothing to do, in sync."
    written = _written(plan)
    tally = Counter(_word(item, written) for item in plan.items)
    parts = [f"{tally[word]} {word}" for word in _WORDS if tally[word] or word in _ALWAYS]
    return f"Plan: {', '.join(parts)}; {_writes_of(plan)}."


def _word(item: ObjectStatus, written: frozenset[str]) -> str | None:
    """Say as what an item counts: nothing is repaired where a person has to act, and no write is planned."""
    if item.condition is Condition.DEGRADED and item.change == "!" and item.title not in written:
        return "degraded"
    if item.condition is Condition.PROGRESSING and item.change == " ":
        return "starting"
    return _COUNTED.get(item.change)


def _written(plan: Plan) -> frozenset[str]:
    """Return the titles of the items that the plan has writes for."""
    return frozenset(_title(action) for action in plan.actions)


def _title(action: Action) -> str:
    return action.key if action.group is None else f"group {action.group}"


def _of_no_item(plan: Plan) -> list[Action]:
    """Return the writes that no line speaks of: those to what all groups share."""
    shown = {item.title for item in _noteworthy(plan)}
    return [
        action
        for action in plan.actions
        if _title(action) not in shown and not (isinstance(action, PublishRegistry) and _registry_changes(plan))
    ]


def _writes_of(plan: Plan) -> str:
    return "1 write" if len(plan.actions) == 1 else f"{len(plan.actions)} writes"


def spoken(verb: str, key: str) -> str:
    """Return an action's verb as it stands before its object, whose kind is not said twice: `create` `service X`."""
    words = verb.split("_")
    return " ".join(words[:-1] if words[-1] == key.partition(" ")[0] else words)


def plan_json(plan: Plan) -> str:
    """Render a plan as JSON; its schema is docs/schema/plan.schema.json."""
    return printable_json(plan_document(plan).model_dump_json(indent=2))


def plan_markdown(plan: Plan) -> str:
    """Render a plan for a comment on a change request, well below the 65,536 characters that one may have.

    The first line is a mark by which a job finds its own comment again.
    """
    titles = shown_titles(plan.items)
    rows = [
        (_code(item.change), _code(titles[item.title]), item.condition.value, _markdown(item.detail))
        for item in _noteworthy(plan)
    ]
    parts = [COMMENT_MARK, f"{_verdict(plan)} **{summary(plan)}**"]
    parts += [
        f"> **Refused by the rule `{printable(refusal.guard)}`:** {_markdown(refusal.text)}"
        for refusal in plan.refusals
    ]
    if rows:
        parts.append(_markdown_table(("", "object", "condition", "what"), rows[:MOST_ROWS]))
    if len(rows) > MOST_ROWS:
        parts.append(f"… and {len(rows) - MOST_ROWS} more.")
    if plan.actions:
        parts.append(_writes(plan))
    if _registry_changes(plan):
        parts.append(f"Registry `{_registry_change(plan)}`")
    parts += [f"Note: {_markdown(note)}" for note in plan.notes]
    return "\n\n".join(parts)


def _verdict(plan: Plan) -> str:
    if plan.refusals:
        return "\N{NO ENTRY}"
    if any(item.condition in (Condition.CONFLICT, Condition.DEGRADED) for item in plan.items):
        return "\N{WARNING SIGN}"
    return "\N{WHITE HEAVY CHECK MARK}" if plan.in_sync else "\N{MEMO}"


def _writes(plan: Plan) -> str:
    """List every write in its order, folded away."""
    lines = [f"{at}. {a.verb.replace('_', ' ')}: {_code(a.key)}" for at, a in enumerate(plan.actions[:MOST_ROWS], 1)]
    more = [f"\n… and {len(plan.actions) - MOST_ROWS} more."] if len(plan.actions) > MOST_ROWS else []
    listed = "\n".join([*lines, *more])
    return f"<details>\n<summary>{_writes_of(plan)}, in this order</summary>\n\n{listed}\n\n</details>"


def status_rows(plan: Plan) -> list[tuple[str, ...]]:
    """Return the status table: one row a group or service."""
    titles = shown_titles(plan.items)
    return [
        (
            titles[item.title].removeprefix("group ") if item.group is not None else titles[item.title],
            item.condition.value,
            str(item.members) if item.group is not None else "",
            printable(item.names.stream) if item.names else "",
            printable(item.names.service) if item.names else "",
            f"{item.running}/{item.wanted}",
            printable(item.url or ""),
            printable(item.detail),
        )
        for item in plan.items
    ]


_NAMES = ("group", "stream", "service", "URL")
STATUS_HEAD = ("group", "condition", "members", "stream", "service", "tasks", "URL", "detail")


def status_text(plan: Plan, survey: Survey) -> str:
    """Render the status for a pipe: aligned columns, no colour; empty columns are left out."""
    return "\n".join([*columns([STATUS_HEAD, *status_rows(plan)]), *status_notes(plan, survey)])


def status_notes(plan: Plan, survey: Survey) -> list[str]:
    """Return what the table has no column for."""
    membership, source = survey.observed.membership, survey.observed.source
    notes = [
        f"ksqlDB {source.version}, kafka {survey.identity.kafka}, service id {survey.identity.ksqldb}: "
        + (source.unhealthy or "well"),
        f"{membership.assets} assets, {membership.ungrouped} without a group",
        f"registry {plan.registry_before or 'none'}",
    ]
    notes += [f"refused by {printable(refusal.guard)}: {refusal.text}" for refusal in plan.refusals]
    return [*map(printable, [*notes, *plan.notes]), summary(plan)]


def status_json(plan: Plan, survey: Survey) -> str:
    """Render the status as JSON; its schema is docs/schema/status.schema.json."""
    return printable_json(status_document(plan, survey).model_dump_json(indent=2))


def status_markdown(plan: Plan, survey: Survey) -> str:
    """Render the status as a Markdown table."""
    notes = [_markdown(note) for note in status_notes(plan, survey)]
    rows = [
        tuple(_code(cell) if head in _NAMES else _markdown(cell) for head, cell in zip(STATUS_HEAD, row, strict=True))
        for row in status_rows(plan)
    ]
    return "\n\n".join([_markdown_table(STATUS_HEAD, rows), *notes])


def shown_titles(items: Iterable[ObjectStatus]) -> Mapping[str, str]:
    """Return how each item's title is shown, so that no two groups of a table look alike."""
    every = tuple(items)
    names = told_apart(item.group for item in every if item.group is not None)
    return {item.title: printable(item.title) if item.group is None else f"group {names[item.group]}" for item in every}


def _noteworthy(plan: Plan) -> list[ObjectStatus]:
    return [item for item in plan.items if item.change != " " or item.condition is not Condition.READY]


def _registry_changes(plan: Plan) -> bool:
    return plan.registry is not None and plan.registry.revision != plan.registry_before


def _registry_change(plan: Plan) -> str:
    after = plan.registry.revision[:6] if plan.registry else "none"
    before = printable(plan.registry_before)[:6] if plan.registry_before else "none"
    return f"{before} -> {after} (+{len(plan.added)} -{len(plan.removed)})"


def columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Align the cells under the first row's heads; a column that nothing stands in is left out."""
    used = [index for index in range(len(rows[0])) if any(row[index] for row in rows[1:])]
    width = {index: max(cell_len(row[index]) for row in rows) for index in used}
    return ["  ".join(_padded(row[index], width[index]) for index in used).rstrip() for row in rows]


def _padded(text: str, width: int) -> str:
    """Fill up with blanks; a sign of Chinese or Japanese takes two cells of a terminal."""
    return text + " " * (width - cell_len(text))


def _markdown_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    heads = tuple(head)
    return "\n".join([line(heads), "|" + " --- |" * len(heads), *(line(row) for row in rows)])


def _code(text: str) -> str:
    """Put a name into a code span, in which nothing is markup, a mention or a link."""
    text = printable(text).strip()
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    room = " " if "`" in text else ""
    return f"{fence}{room}{text}{room}{fence}".replace("|", "\\|") if text else ""


def _markdown(text: str) -> str:
    """Let text be nothing but text: no markup, no HTML, nobody mentioned, nothing linked."""
    plain = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    escaped = re.sub(r"([\\`*{}\[\]|~]|(?<![A-Za-z0-9_])_|_(?![A-Za-z0-9_]))", r"\\\1", plain)
    return re.sub(r"([@#]|:(?=//))", r"\1<!-- -->", escaped)

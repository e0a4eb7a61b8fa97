"""Plans and states as text, JSON and Markdown. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich.cells import cell_len

from openfactory_common.text import distinguish, printable, printable_json
from reconciler.domain.actions import Action, Effect, PublishRegistry
from reconciler.domain.status import Condition, ObjectStatus, Plan
from reconciler.planning.survey import Survey
from reconciler.report.documents import EventDocument, plan_document, status_document

_WORDS = {"+": "create", "~": "update", "!": "repair", "-": "delete", "?": "waiting", "x": "conflict"}
_ALWAYS_COUNTED = ("create", "update", "repair", "delete")
_SYMBOLS = {Effect.CREATE: "+", Effect.UPDATE: "~", Effect.PUBLISH: "~", Effect.REMOVE: "-"}
_ATTENTION = (Condition.CONFLICT, Condition.DEGRADED)

#: Cells of a plan's titles: at least as many, and no more because of one long name.
_TITLE, _WIDEST_TITLE = 20, 32

#: By this line a CI job finds its own comment again, to replace it.
COMMENT_MARK = "<!-- reconciler plan -->"
#: Rows of a comment: with more it exceeds its maximum length, and is not read.
MOST_ROWS = 100

STATUS_HEAD = ("group", "condition", "members", "stream", "service", "tasks", "URL", "detail")
_CODE_COLUMNS = ("group", "stream", "service", "URL")


def plan_text(plan: Plan) -> str:
    """Render a plan for a terminal: one line for each object that differs from its desired state, then the totals."""
    titles = show_titles(plan.items)
    rows = [(item.change, titles[item.title], printable(item.detail)) for item in _select_noteworthy(plan)]
    rows += [(_SYMBOLS[a.effect], printable(a.key), a.verb.replace("_", " ")) for a in _find_unlisted(plan)]
    width = max((cell_len(title) for _, title, _ in rows if cell_len(title) <= _WIDEST_TITLE), default=0)
    lines = [f"{symbol} {_pad(title, max(width, _TITLE))} {detail}".rstrip() for symbol, title, detail in rows]
    lines += [f"registry  {change}"] if (change := _describe_registry_change(plan)) else []
    lines += [f"refused   {printable(refusal.guard)}: {printable(refusal.text)}" for refusal in plan.refusals]
    lines += [f"note      {printable(note)}" for note in plan.notes]
    return "\n".join(map(printable, [*lines, summarize(plan)]))


def summarize(plan: Plan) -> str:
    """Render the totals of a plan in one sentence: how many groups and services, then how many writes."""
    if plan.in_sync:
        return "Plan: nothing to do, in sync."
    written = {_make_title(action) for action in plan.actions}

    def find_word(item: ObjectStatus) -> str | None:
        if item.condition is Condition.DEGRADED and item.change == "!" and item.title not in written:
            return "degraded"  # it needs manual intervention: no write is planned that repairs it
        if item.condition is Condition.PROGRESSING and item.change == " ":
            return "starting"
        return _WORDS.get(item.change)

    tally = Counter(map(find_word, plan.items))
    words = (*_WORDS.values(), "degraded", "starting")
    parts = [f"{tally[word]} {word}" for word in words if tally[word] or word in _ALWAYS_COUNTED]
    return f"Plan: {', '.join(parts)}; {_count_writes(plan)}."


def _make_title(action: Action) -> str:
    return action.key if action.group is None else f"group {action.group}"


def _find_unlisted(plan: Plan) -> list[Action]:
    """Return the writes of no listed object: those to what all groups share."""
    listed = {item.title for item in _select_noteworthy(plan)}
    registry_changes = bool(_describe_registry_change(plan))
    return [
        action
        for action in plan.actions
        if _make_title(action) not in listed and not (isinstance(action, PublishRegistry) and registry_changes)
    ]


def _count_writes(plan: Plan) -> str:
    return "1 write" if len(plan.actions) == 1 else f"{len(plan.actions)} writes"


def shorten_verb(verb: str, key: str) -> str:
    """Return an action's verb without the kind of its object, which follows it: `create` for `service X`."""
    words = verb.split("_")
    return " ".join(words[:-1] if words[-1] == key.partition(" ")[0] else words)


def plan_json(plan: Plan) -> str:
    """Render a plan as JSON; its schema is docs/schema/plan.schema.json."""
    return printable_json(plan_document(plan).model_dump_json(indent=2))


def plan_markdown(plan: Plan) -> str:
    """Render a plan for a comment on a change request, well below the 65,536 characters of GitHub's limit."""
    titles = show_titles(plan.items)
    rows = [
        (make_code_span(item.change), make_code_span(titles[item.title]), item.condition, escape_markdown(item.detail))
        for item in _select_noteworthy(plan)
    ]
    parts = [COMMENT_MARK, f"{_choose_icon(plan)} **{summarize(plan)}**"]
    parts += [
        f"> **Refused by the rule `{printable(refusal.guard)}`:** {escape_markdown(refusal.text)}"
        for refusal in plan.refusals
    ]
    if rows:
        parts.append(make_markdown_table(("", "object", "condition", "what"), rows[:MOST_ROWS]))
    if len(rows) > MOST_ROWS:
        parts.append(f"… and {len(rows) - MOST_ROWS} more.")
    if plan.actions:
        parts.append(_list_writes(plan))
    if change := _describe_registry_change(plan):
        parts.append(f"Registry `{change}`")
    parts += [f"Note: {escape_markdown(note)}" for note in plan.notes]
    return "\n\n".join(parts)


def _choose_icon(plan: Plan) -> str:
    if plan.refusals:
        return "\N{NO ENTRY}"
    if any(item.condition in _ATTENTION for item in plan.items):
        return "\N{WARNING SIGN}"
    return "\N{WHITE HEAVY CHECK MARK}" if plan.in_sync else "\N{MEMO}"


def _list_writes(plan: Plan) -> str:
    """List every write in its order, in a part that is closed at first."""
    lines = [
        f"{at}. {action.verb.replace('_', ' ')}: {make_code_span(action.key)}"
        for at, action in enumerate(plan.actions[:MOST_ROWS], 1)
    ]
    lines += [f"\n… and {len(plan.actions) - MOST_ROWS} more."] if len(plan.actions) > MOST_ROWS else []
    listed = "\n".join(lines)
    return f"<details>\n<summary>{_count_writes(plan)}, in this order</summary>\n\n{listed}\n\n</details>"


def status_rows(plan: Plan) -> list[tuple[str, ...]]:
    """Return the status table: one row for each group or service, in the columns of `STATUS_HEAD`."""
    titles = show_titles(plan.items)
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


def status_text(plan: Plan, survey: Survey) -> str:
    """Render the status for a pipe: aligned columns without colour; empty columns are left out."""
    return "\n".join([*align([STATUS_HEAD, *status_rows(plan)]), *status_notes(plan, survey)])


def event_text(event: EventDocument) -> str:
    """Render an entry of the history as one line: when, what, of which object, why."""
    level = "" if event.level == "info" else f"{event.level}: "
    return f"{event.at:%Y-%m-%d %H:%M:%S} UTC {printable(level + event_words(event))}"


def event_words(event: EventDocument) -> str:
    """Return what an entry of the history says, without its time; not escaped."""
    words = " ".join(filter(None, (str(event.fields.get("action", "")), event.object_)))
    rest = (
        f"{name} {', '.join(value) if isinstance(value, tuple) else value}"
        for name, value in event.fields.items()
        if name != "action"
    )
    why = "; ".join(filter(None, (event.reason, *rest)))
    return ": ".join(filter(None, (event.event, words, why)))


def status_notes(plan: Plan, survey: Survey) -> list[str]:
    """Return what the table has no column for."""
    membership, source = survey.observed.membership, survey.observed.source
    notes = [
        f"ksqlDB {source.version}, kafka {survey.identity.kafka}, service id {survey.identity.ksqldb}: "
        + (source.unhealthy or "healthy"),
        f"{membership.assets} assets, {membership.ungrouped} without a group"
        + (f"; without a value at the level: group {membership.fallback}" if membership.fallback else ""),
        f"registry {plan.registry_before or 'none'}",
    ]
    notes += [f"refused by {printable(refusal.guard)}: {refusal.text}" for refusal in plan.refusals]
    return [*map(printable, [*notes, *plan.notes]), summarize(plan)]


def status_json(plan: Plan, survey: Survey) -> str:
    """Render the status as JSON; its schema is docs/schema/status.schema.json."""
    return printable_json(status_document(plan, survey).model_dump_json(indent=2))


def status_markdown(plan: Plan, survey: Survey) -> str:
    """Render the status as a Markdown table."""
    renderers = [make_code_span if head in _CODE_COLUMNS else escape_markdown for head in STATUS_HEAD]
    rows = [[render(cell) for render, cell in zip(renderers, row, strict=True)] for row in status_rows(plan)]
    return "\n\n".join([make_markdown_table(STATUS_HEAD, rows), *map(escape_markdown, status_notes(plan, survey))])


def show_titles(items: Iterable[ObjectStatus]) -> Mapping[str, str]:
    """Return how each object's title is shown, so that no two groups of a table look alike."""
    every = tuple(items)
    names = distinguish(item.group for item in every if item.group is not None)
    return {item.title: printable(item.title) if item.group is None else f"group {names[item.group]}" for item in every}


def _select_noteworthy(plan: Plan) -> list[ObjectStatus]:
    return [item for item in plan.items if item.change != " " or item.condition is not Condition.READY]


def _describe_registry_change(plan: Plan) -> str:
    if plan.registry is None or plan.registry.revision == plan.registry_before:
        return ""
    before = printable(plan.registry_before)[:6] if plan.registry_before else "none"
    return f"{before} -> {plan.registry.revision[:6]} (+{len(plan.added)} -{len(plan.removed)})"


def align(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Align the cells under the heads in the first row; empty columns are left out."""
    used = [index for index in range(len(rows[0])) if any(row[index] for row in rows[1:])]
    width = {index: max(cell_len(row[index]) for row in rows) for index in used}
    return ["  ".join(_pad(row[index], width[index]) for index in used).rstrip() for row in rows]


def _pad(text: str, width: int) -> str:
    """Pad with blanks; a Chinese or Japanese character takes two cells of a terminal."""
    return text + " " * (width - cell_len(text))


def make_markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table of cells that are already escaped."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + " --- |" * len(head), *lines[1:]])


def make_code_span(text: str) -> str:
    """Put a name into a Markdown code span, in which nothing is markup, a mention or a link."""
    text = printable(text).strip()
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    room = " " if "`" in text else ""
    return f"{fence}{room}{text}{room}{fence}".replace("|", "\\|") if text else ""


def escape_markdown(text: str) -> str:
    """Escape a text so that it has no markup, HTML, mention or link."""
    plain = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    escaped = re.sub(r"([\\`*{}\[\]|~]|(?<![A-Za-z0-9_])_|_(?![A-Za-z0-9_]))", r"\\\1", plain)
    return re.sub(r"([@#]|:(?=//))", r"\1<!-- -->", escaped)

"""Plans and states as text, JSON and Markdown. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from reconciler.model import Condition, Item, Plan
from reconciler.survey import Survey

_COUNTED = {"+": "create", "~": "update", "!": "repair", "-": "delete", "?": "waiting", "x": "conflict"}


def plan_text(plan: Plan) -> str:
    """Render a plan for a terminal: one line an object that is not as it should be, then the totals."""
    lines = [f"{item.mark} {_safe(item.title):<20} {_safe(item.detail)}".rstrip() for item in _noteworthy(plan)]
    lines += [f"registry  {_registry_change(plan)}"] if _registry_changes(plan) else []
    lines += [f"refused   {refusal.guard}: {refusal.text}" for refusal in plan.refusals]
    lines += [f"note      {note}" for note in plan.notes]
    return "\n".join([*lines, summary(plan)])


def summary(plan: Plan) -> str:
    """Render the totals of a plan in one sentence."""
    tally = Counter(item.mark for item in plan.items)
    parts = [f"{tally[mark]} {word}" for mark, word in _COUNTED.items() if tally[mark] or mark in "+~!-"]
    if plan.in_sync:
        return "Plan: nothing to do, in sync."
    return f"Plan: {', '.join(parts)}; {len(plan.actions)} writes."


def plan_json(plan: Plan) -> str:
    """Render a plan as JSON."""
    document = {
        "in_sync": plan.in_sync,
        "actions": [{"action": a.verb, "object": a.key, "group": a.group} for a in plan.actions],
        "items": [_item(item) for item in plan.items],
        "registry": {
            "before": plan.registry_before,
            "after": plan.registry.revision if plan.registry else None,
            "added": plan.added,
            "removed": plan.removed,
        },
        "refusals": [{"guard": r.guard, "text": r.text} for r in plan.refusals],
        "approval": plan.approval or None,
        "notes": plan.notes,
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def plan_markdown(plan: Plan) -> str:
    """Render a plan for a comment on a change request."""
    rows = [(item.mark, item.title, item.condition.value, item.detail) for item in _noteworthy(plan)]
    parts = [f"**{summary(plan)}**"]
    if rows:
        parts.append(_markdown_table(("", "object", "condition", "what"), rows))
    if _registry_changes(plan):
        parts.append(f"Registry `{_registry_change(plan)}`")
    parts += [f"> refused by **{refusal.guard}**: {refusal.text}" for refusal in plan.refusals]
    return "\n\n".join(parts)


def status_rows(plan: Plan) -> list[tuple[str, ...]]:
    """Return the status table: one row a group or service."""
    return [
        (
            _safe(item.title.removeprefix("group ")) if item.group is not None else item.title,
            item.condition.value,
            str(item.members) if item.group is not None else "",
            item.names.stream if item.names else "",
            item.names.service if item.names else "",
            f"{item.running}/{item.wanted}",
            item.url or "",
            _safe(item.detail),
        )
        for item in plan.items
    ]


STATUS_HEAD = ("group", "condition", "members", "stream", "service", "tasks", "URL", "detail")


def status_text(plan: Plan, survey: Survey) -> str:
    """Render the status for a pipe: aligned columns, no colour; empty columns are left out."""
    return "\n".join([*_columns([STATUS_HEAD, *status_rows(plan)]), *status_notes(plan, survey)])


def status_notes(plan: Plan, survey: Survey) -> list[str]:
    """Return what the table has no column for."""
    membership, source = survey.observed.membership, survey.observed.source
    notes = [
        f"ksqlDB {source.version}, kafka {survey.identity.kafka}, service id {survey.identity.ksqldb}: "
        + (source.trouble or "well"),
        f"{membership.assets} assets, {membership.ungrouped} without a group",
        f"registry {plan.registry_before or 'none'}",
    ]
    notes += [f"refused by {refusal.guard}: {refusal.text}" for refusal in plan.refusals]
    return [*notes, summary(plan)]


def status_json(plan: Plan, survey: Survey) -> str:
    """Render the status as JSON."""
    source = survey.observed.source
    document = {
        "in_sync": plan.in_sync,
        "items": [_item(item) for item in plan.items],
        "assets": survey.observed.membership.assets,
        "ungrouped": survey.observed.membership.ungrouped,
        "registry": plan.registry_before,
        "ksqldb": {"version": source.version, "trouble": source.trouble or None, **survey.identity.model_dump()},
        "refusals": [{"guard": r.guard, "text": r.text} for r in plan.refusals],
        "approval": plan.approval or None,
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def status_markdown(plan: Plan, survey: Survey) -> str:
    """Render the status as a Markdown table."""
    return "\n\n".join([_markdown_table(STATUS_HEAD, status_rows(plan)), *status_notes(plan, survey)])


def _noteworthy(plan: Plan) -> list[Item]:
    return [item for item in plan.items if item.mark != " " or item.condition is not Condition.READY]


def _registry_changes(plan: Plan) -> bool:
    return plan.registry is not None and plan.registry.revision != plan.registry_before


def _registry_change(plan: Plan) -> str:
    after = plan.registry.revision[:6] if plan.registry else "none"
    before = plan.registry_before[:6] if plan.registry_before else "none"
    return f"{before} -> {after} (+{len(plan.added)} -{len(plan.removed)})"


def _item(item: Item) -> dict[str, Any]:
    return {
        "group": item.group,
        "title": item.title,
        "condition": item.condition.value,
        "mark": item.mark.strip() or None,
        "detail": item.detail or None,
        "members": item.members,
        "stream": item.names.stream if item.names else None,
        "topic": item.names.topic if item.names else None,
        "service": item.names.service if item.names else item.title.removeprefix("service "),
        "running": item.running,
        "wanted": item.wanted,
        "url": item.url,
    }


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    used = [index for index in range(len(rows[0])) if any(row[index] for row in rows[1:])]
    width = {index: max(len(row[index]) for row in rows) for index in used}
    return ["  ".join(row[index].ljust(width[index]) for index in used).rstrip() for row in rows]


def _markdown_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(_safe(cell).replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |"

    heads = tuple(head)
    return "\n".join([line(heads), "|" + " --- |" * len(heads), *(line(row) for row in rows)])


def _safe(text: str) -> str:
    """Keep whatever a person typed into the UNS from writing to the terminal more than text."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)

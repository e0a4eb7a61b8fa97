"""The status as a terminal shows it: a name that somebody may want to copy is never broken. Pure.

What there is no room for is left out, first what follows from the group's name. A pipe has everything
(`render.status_text`), and so has ``-o json``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text

from reconciler.domain.status import Condition, Plan
from reconciler.report.text import STATUS_HEAD, columns, status_rows

_COLOUR = {
    Condition.READY: "green",
    Condition.PROGRESSING: "cyan",
    Condition.DEGRADED: "red",
    Condition.CONFLICT: "magenta",
    Condition.LEAVING: "yellow",
    Condition.HELD: "yellow",
}
#: What is left out where there is no room, in this order.
_DERIVED = ("stream", "service", "URL")
#: What else is left out before a line is longer than the terminal is wide.
_AT_LAST = ("members",)
#: Cells that details need beside the rows, unless all are shorter; where there are fewer, they stand below.
_ROOM = 30
_GAP, _INDENT = 2, 4
_HINT = "(no room for {}: status -o json)"

Rows = Sequence[tuple[str, ...]]
Head = tuple[str, ...]


def status_table(plan: Plan, width: int) -> Text:
    """Return the status for a terminal of ``width`` cells: one line a group, its detail beside or below it."""
    rows = [STATUS_HEAD, *status_rows(plan)]
    lines, left_out = _fitting(rows, width)
    head, *shown = [Text(line) for line in lines]
    head.stylize("bold")
    for text, row, item in zip(shown, rows[1:], plan.items, strict=True):
        at = text.plain.index(item.condition.value, len(row[0]))
        text.stylize(_COLOUR[item.condition], at, at + len(item.condition.value))
    hint = [Text(_HINT.format(", ".join(left_out)), style="dim")] if left_out else []
    return Text("\n").join([head, *shown, *hint])


def _fitting(rows: Rows, width: int) -> tuple[list[str], Head]:
    """Return the rows as text with their details, and the columns that were left out.

    The detail is why somebody looks, so columns make room for it; where that does not help, they may stay.
    """
    details = [row[-1] for row in rows]
    room = _GAP + _room(details[1:]) if any(details[1:]) else 0
    for left_out in _first(_DERIVED, rows):
        lines = _without(rows, left_out)
        if _widest(lines) + room <= width:
            return (_beside(lines, details, width) if room else lines), left_out
    for left_out in _first(_DERIVED + _AT_LAST, rows):
        lines = _without(rows, left_out)
        if _widest(lines) <= width:
            break
    return [lines[0], *(_below(*pair, width) for pair in zip(lines[1:], details[1:], strict=True))], left_out


def _room(details: Sequence[str]) -> int:
    """Return how narrow details can be without a word of theirs being broken."""
    longest_word = max((cell_len(word) for detail in details for word in detail.split()), default=0)
    return max(longest_word, min(_ROOM, max(map(cell_len, details))))


def _first(heads: Head, rows: Rows) -> Iterator[Head]:
    """Return none of these columns, the first, the first two, ...; those that are empty do not count."""
    used = tuple(head for head in heads if any(row[STATUS_HEAD.index(head)] for row in rows[1:]))
    return (used[:count] for count in range(len(used) + 1))


def _without(rows: Rows, left_out: Head) -> list[str]:
    kept = [at for at, head in enumerate(STATUS_HEAD[:-1]) if head not in left_out]
    return columns([tuple(row[at] for at in kept) for row in rows])


def _widest(lines: Sequence[str]) -> int:
    return max(map(cell_len, lines))


def _beside(lines: Sequence[str], details: Sequence[str], width: int) -> list[str]:
    indent = _widest(lines) + _GAP
    between = "\n" + " " * indent
    return [
        line + " " * (indent - cell_len(line)) * bool(detail) + between.join(_wrapped(detail, width - indent))
        for line, detail in zip(lines, details, strict=True)
    ]


def _below(line: str, detail: str, width: int) -> str:
    return "\n".join([line, *(" " * _INDENT + part for part in _wrapped(detail, width - _INDENT))])


def _wrapped(detail: str, width: int) -> list[str]:
    """Break between words only: the rest of a name would not be found by whoever searches for it."""
    return textwrap.wrap(detail, max(width, 1), break_long_words=False, break_on_hyphens=False)

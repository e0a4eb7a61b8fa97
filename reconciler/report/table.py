"""The status on a terminal: no name is broken, so that each can be copied. Pure.

Columns that do not fit are left out, first those that follow from the group's name. A pipe
(`reconciler.report.text.status_text`) and ``-o json`` have everything.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text

from reconciler.domain.status import Condition, Plan
from reconciler.report.text import STATUS_HEAD, align, status_rows

_COLOUR = {
    Condition.READY: "green",
    Condition.ASLEEP: "blue",
    Condition.PROGRESSING: "cyan",
    Condition.DEGRADED: "red",
    Condition.CONFLICT: "magenta",
    Condition.LEAVING: "yellow",
    Condition.HELD: "yellow",
}
#: Columns that are left out first, in this order.
_DERIVED = ("stream", "service", "URL")
#: Columns that are left out next, before a line exceeds the terminal's width.
_LEFT_OUT_LAST = ("members",)
#: Cells that details need beside the rows, unless all are shorter; with fewer cells, they stand below.
_DETAIL_WIDTH = 30
_GAP, _INDENT = 2, 4
_HINT = "(no room for {}: status -o json)"

Rows = Sequence[tuple[str, ...]]
Head = tuple[str, ...]


def status_table(plan: Plan, width: int) -> Text:
    """Return the status for a terminal of ``width`` cells: one line a group, its detail beside or below it."""
    rows = [STATUS_HEAD, *status_rows(plan)]
    lines, left_out = _fit_columns(rows, width)
    head, *shown = [Text(line) for line in lines]
    head.stylize("bold")
    for text, row, item in zip(shown, rows[1:], plan.items, strict=True):
        at = text.plain.index(item.condition.value, len(row[0]))
        text.stylize(_COLOUR[item.condition], at, at + len(item.condition.value))
    hint = [Text(_HINT.format(", ".join(left_out)), style="dim")] if left_out else []
    return Text("\n").join([head, *shown, *hint])


def _fit_columns(rows: Rows, width: int) -> tuple[list[str], Head]:
    """Return the rows as text with their details, and the columns that were left out.

    The detail is the most important column, so others are left out for it, unless that does not help.
    """
    details = [row[-1] for row in rows]
    room = _GAP + _find_min_width(details[1:]) if any(details[1:]) else 0
    for left_out in _list_prefixes(_DERIVED, rows):
        lines = _drop_columns(rows, left_out)
        if _measure(lines) + room <= width:
            return (_put_beside(lines, details, width) if room else lines), left_out
    for left_out in _list_prefixes(_DERIVED + _LEFT_OUT_LAST, rows):
        lines = _drop_columns(rows, left_out)
        if _measure(lines) <= width:
            break
    return [lines[0], *(_put_below(*pair, width) for pair in zip(lines[1:], details[1:], strict=True))], left_out


def _find_min_width(details: Sequence[str]) -> int:
    """Return the least width of details in which no word is broken."""
    longest_word = max((cell_len(word) for detail in details for word in detail.split()), default=0)
    return max(longest_word, min(_DETAIL_WIDTH, max(map(cell_len, details))))


def _list_prefixes(heads: Head, rows: Rows) -> Iterator[Head]:
    """Return none of these columns, the first, the first two, ...; empty ones do not count."""
    used = tuple(head for head in heads if any(row[STATUS_HEAD.index(head)] for row in rows[1:]))
    return (used[:count] for count in range(len(used) + 1))


def _drop_columns(rows: Rows, left_out: Head) -> list[str]:
    kept = [at for at, head in enumerate(STATUS_HEAD[:-1]) if head not in left_out]
    return align([tuple(row[at] for at in kept) for row in rows])


def _measure(lines: Sequence[str]) -> int:
    return max(map(cell_len, lines))


def _put_beside(lines: Sequence[str], details: Sequence[str], width: int) -> list[str]:
    indent = _measure(lines) + _GAP
    between = "\n" + " " * indent
    return [
        line + " " * (indent - cell_len(line)) * bool(detail) + between.join(_wrap(detail, width - indent))
        for line, detail in zip(lines, details, strict=True)
    ]


def _put_below(line: str, detail: str, width: int) -> str:
    return "\n".join([line, *(" " * _INDENT + part for part in _wrap(detail, width - _INDENT))])


def _wrap(detail: str, width: int) -> list[str]:
    """Break only between words, so that a search finds every name."""
    return textwrap.wrap(detail, max(width, 1), break_long_words=False, break_on_hyphens=False)

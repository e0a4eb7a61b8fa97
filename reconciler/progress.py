"""What a person at a terminal sees while waiting, and the coloured status table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from reconciler.controller import Outcome
from reconciler.model import Condition, Plan
from reconciler.render import STATUS_HEAD, status_rows

_COLOUR = {
    Condition.READY: "green",
    Condition.PROGRESSING: "cyan",
    Condition.DEGRADED: "red",
    Condition.CONFLICT: "magenta",
    Condition.LEAVING: "yellow",
    Condition.HELD: "yellow",
}


def status_table(plan: Plan) -> Table:
    """Return the status as a table for a terminal."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    rows = status_rows(plan)
    shown = [index for index in range(len(STATUS_HEAD)) if any(row[index] for row in rows)]
    for index in shown:
        table.add_column(STATUS_HEAD[index], overflow="fold")
    for item, row in zip(plan.items, rows, strict=True):
        cells = [Text(row[index]) for index in shown]
        cells[shown.index(1)].stylize(_COLOUR[item.condition])
        table.add_row(*cells)
    return table


@contextmanager
def progress() -> Iterator[Callable[[Outcome], None]]:
    """Show the table on a terminal's standard error while waiting; elsewhere show nothing (the log says it)."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _outcome: None
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda outcome: live.update(
            Group(*([status_table(outcome.plan)] if outcome.plan else []), Text(outcome.sentence, style="dim"))
        )

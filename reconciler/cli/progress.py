"""What a person sees while a command waits: a table on a terminal, elsewhere what is waited for, when it changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from openfactory_common.text import printable
from reconciler.control.outcome import CycleOutcome
from reconciler.domain.status import Condition, ObjectStatus
from reconciler.report.table import status_table
from reconciler.report.text import shown_titles

#: Objects that are named at a time.
_NAMED = 5
_SETTLED = (Condition.READY, Condition.HELD)


@contextmanager
def progress(say: Callable[[str], None]) -> Iterator[Callable[[CycleOutcome], None]]:
    """Show the table on a terminal's standard error while waiting; elsewhere say what is waited for, when it changes.

    Args:
        say: takes a line for standard error.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield ProgressLines(say).show
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda outcome: live.update(
            Group(
                *([status_table(outcome.plan, console.width)] if outcome.plan else []),
                Text(printable(outcome.sentence), style="dim"),
            )
        )


class ProgressLines:
    """Says what is waited for, when it is something else than before: a count that goes on is nothing else."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Say it with ``say``."""
        self._say = say
        self._before = ""

    def show(self, outcome: CycleOutcome) -> None:
        """Look at one more cycle."""
        text = waits(outcome)
        kind = re.sub(r"\b\d+(\.\d+)?\b", "0", text)
        if text and kind != self._before:
            self._say(text)
        self._before = kind


def waits(outcome: CycleOutcome) -> str:
    """Return what a cycle leaves to be waited for, with the reasons; ``""`` for nothing."""
    if outcome.plan is None:
        return f"waiting: {printable(outcome.sentence)}"
    titles = shown_titles(outcome.plan.items)
    waiting = [item for item in outcome.plan.items if item.condition not in _SETTLED]
    refused = [f"refused by {refusal.guard}: {printable(refusal.text)}" for refusal in outcome.plan.refusals]
    named = [*refused, *(f"{titles[item.title]}: {_reason(item)}" for item in waiting[:_NAMED])]
    if outcome.result in ("paused", "standby"):
        named.insert(0, printable(outcome.sentence))
    more = len(waiting) - _NAMED
    return f"waiting: {'; '.join(named)}{f'; and {more} more' if more > 0 else ''}" if named else ""


def _reason(item: ObjectStatus) -> str:
    return printable(item.detail) or f"{item.running} of {item.wanted} tasks are running and healthy"

"""What a person at a terminal sees while waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from reconciler.outcome import Outcome
from reconciler.status_table import status_table


@contextmanager
def progress() -> Iterator[Callable[[Outcome], None]]:
    """Show the table on a terminal's standard error while waiting; elsewhere show nothing (the log says it)."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _outcome: None
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda outcome: live.update(
            Group(
                *([status_table(outcome.plan, console.width)] if outcome.plan else []),
                Text(outcome.sentence, style="dim"),
            )
        )

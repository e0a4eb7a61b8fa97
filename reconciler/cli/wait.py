"""``wait GROUP``: until a group is ready, or gone."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from openfactory_common.errors import ConfigurationError, ReconcilerError
from openfactory_common.text import printable
from reconciler.cli.output import (
    add_command,
    add_output_option,
    add_timeout_option,
    complete_groups,
    echo,
    echo_error,
    make_json,
)
from reconciler.cli.running_operator import NoResponse, ask, nudge
from reconciler.cli.show import make_reader
from reconciler.control.converge import Exit
from reconciler.domain.status import Condition
from reconciler.report.why import WhyDocument
from reconciler.settings import Settings

GONE = "Gone"
#: Seconds between two questions to the operator, and between two reads without one, which cost ksqlDB as much as us.
_ASK_SECONDS, _READ_SECONDS = 1.0, 5.0


def add(commands: Any) -> None:
    """Register ``wait``."""
    parser = add_command(commands, "wait", _wait)
    complete_groups(parser.add_argument("group", metavar="GROUP", help="the group's value in the UNS, spelled exactly"))
    goals = (Condition.READY.value, GONE)
    parser.add_argument(
        "--for", dest="goal", choices=goals, required=True, help="condition to wait for; Asleep counts as Ready"
    )
    add_timeout_option(parser)
    add_output_option(parser, "text", "json")


def _wait(options: argparse.Namespace, settings: Settings) -> int:
    """Wait until a group is ready or gone.

    The running operator is asked every second, on this host or at RECONCILER_URL; without one the command reads
    everything itself, every 5 seconds. What the operator knew when the command began does not count: it is asked to
    read again, and only a later read ends the wait (--timeout 0 takes what it knows). A group that sleeps is in order,
    so --for Ready ends with it, and the output says Asleep: a client wakes it. A group that does not exist yet is
    waited for. It writes nothing.
    """
    group, goal, deadline = options.group, options.goal, time.monotonic() + options.timeout
    if not group.strip():
        raise ConfigurationError(f"{group!r} is not a group: an empty value at the level names no group")
    wanted, known = {goal, Condition.ASLEEP.value} if goal == Condition.READY else {goal}, ""
    while True:
        seen = _look(group, settings)
        if seen.read_at and not known and options.timeout:
            known = seen.read_at
            nudge(settings, seen.url)
        fresh, left = not known or seen.read_at != known, deadline - time.monotonic()
        met = fresh and seen.condition in wanted
        if met or left <= 0:
            break
        time.sleep(min(seen.pause, left))
    condition = seen.condition
    reason = seen.reason if fresh else f"{seen.url} has read nothing since this command began"
    text = f"group {printable(group)}: {condition or 'unknown'}{f': {printable(reason)}' if reason else ''}"
    if options.output == "json":
        echo(make_json(group=group, goal=goal, met=met, condition=condition or None, reason=reason or None))
    elif met:
        echo(text)
    if not met:
        echo_error(f"not {goal} within {options.timeout:g} s: {text} (exit {Exit.NOT_CONVERGED})")
    return Exit.OK if met else Exit.NOT_CONVERGED


@dataclass(frozen=True)
class _Look:
    """A group's condition, ``Gone`` or ``""`` for unknown, the reason, and how many seconds that may be believed.

    ``url`` and ``read_at`` are of the operator that has read it; ``""`` where none has.
    """

    condition: str
    reason: str
    pause: float = _ASK_SECONDS
    url: str = ""
    read_at: str = ""


def _look(group: str, settings: Settings) -> _Look:
    answer = ask(settings, f"/groups/{quote(group, safe='', errors='surrogatepass')}")
    if isinstance(answer, NoResponse):
        return _Look(*_read_directly(group, settings), _READ_SECONDS)
    if "close" in answer.document:
        return _Look(GONE, "", url=answer.url, read_at=str(answer.document.get("read_at") or ""))
    try:
        document = WhyDocument.model_validate({**answer.document, "source": answer.url})
    except ValidationError:
        return _Look("", str(answer.document.get("detail") or f"{answer.url} has another version"))
    read_at = document.read.at.isoformat()
    return _Look(document.condition.value, document.plan or "", url=answer.url, read_at=read_at)


def _read_directly(group: str, settings: Settings) -> tuple[str, str]:
    controller = make_reader(settings)
    try:
        plan = controller.plan(*controller.observe())
    except ConfigurationError:
        raise
    except ReconcilerError as error:
        return "", str(error)
    item = next((one for one in plan.items if one.group == group), None)
    return (GONE, "") if item is None else (item.condition.value, item.detail)

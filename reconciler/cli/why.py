"""``why GROUP``: everything that is known about one group.

A running operator is asked first: only it knows how far the guards have counted and what waits after a failure.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from openfactory_common.errors import ConfigurationError
from openfactory_common.text import printable_json
from reconciler.app import build_dependencies
from reconciler.cli.operator import NoResponse, ask
from reconciler.cli.output import command, complain, out
from reconciler.control.controller import Controller
from reconciler.control.converge import Exit
from reconciler.control.guarded import DryRunLog
from reconciler.metrics import Metrics
from reconciler.report.why import WhyContext, WhyDocument, known_groups, similar, why, why_text
from reconciler.settings import Settings

#: Groups that are named where nothing is like the one that was asked for.
_NAMED = 10
DIRECT = "a direct read: counters start with it, because no operator told its own"


class _Unknown(Exception):
    """There is no such group.

    Attributes:
        close: names of similar ones.
        known: names of all.
    """

    def __init__(self, close: Sequence[str], known: Sequence[str]) -> None:
        """Keep what may have been meant."""
        super().__init__()
        self.close, self.known = close, known

    @property
    def hint(self) -> str:
        """What may have been meant, and what comes next."""
        if self.close:
            return f"close names: {_quoted(self.close)}; `reconciler status` shows all"
        if not self.known:
            return "there is none at all; `reconciler plan` says why"
        more = len(self.known) - _NAMED
        rest = f" and {more} more; `reconciler status` shows all" if more > 0 else ""
        return f"there are {_quoted(self.known[:_NAMED])}{rest}"


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def add(commands: Any) -> None:
    """Register ``why``."""
    parser = command(commands, "why", "show all that is known about one group, and what to do", _why)
    parser.add_argument("group", metavar="GROUP", help="the group's value in the UNS, in its own spelling")
    parser.add_argument("-o", "--output", choices=("text", "json"), help="format (text)")


def _why(options: argparse.Namespace, settings: Settings) -> int:
    if not options.group.strip():
        raise ConfigurationError(f"{options.group!r} is no group: an empty value at the level is none")
    try:
        answer = _answer(options.group, settings)
    except _Unknown as unknown:
        complain(f"no group {options.group!r}; {unknown.hint}")
        return Exit.USAGE
    out(printable_json(answer.model_dump_json(indent=2)) if options.output == "json" else why_text(answer))
    return Exit.OK


def _answer(group: str, settings: Settings) -> WhyDocument:
    """Ask the operator that runs; where none of this owner has an answer, look here and say why."""
    said = ask(settings, f"/groups/{quote(group, safe='', errors='surrogatepass')}")
    if isinstance(said, NoResponse):
        return _looked(group, settings, said.why)
    if "close" in said.document:
        raise _Unknown(said.document["close"], said.document.get("known", ()))
    try:
        return WhyDocument.model_validate({**said.document, "source": f"the operator at {said.url}"})
    except ValidationError:
        reason = said.document.get("detail") or "it is of another version"
        return _looked(group, settings, f"{said.url} has no answer: {reason}")


def _looked(group: str, settings: Settings, because: str) -> WhyDocument:
    """Look and plan here, with nothing that could write."""
    metrics = Metrics(CollectorRegistry())
    controller = Controller(build_dependencies(settings, metrics, DryRunLog()), metrics, reads_once=True)
    survey, verdict = controller.observe()
    plan = controller.plan(survey, verdict)
    pause = controller.memory.pause
    known = WhyContext(
        settings=settings,
        survey=survey,
        plan=plan,
        read_at=datetime.now(UTC),
        memory=controller.memory.guards,
        backoff=controller.memory.backoff,
        now=controller.clocks.monotonic(),
        paused=pause.text if pause is not None and pause.active(datetime.now(UTC)) else "",
    )
    answer = why(group, known, f"{DIRECT} ({because})")
    if answer is None:
        raise _Unknown(similar(group, survey), sorted(known_groups(survey)))
    return answer

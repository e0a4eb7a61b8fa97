"""``why GROUP``: everything that is known about one group.

A running operator is asked first: only it knows how far the guards have counted and what waits after a failure.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from reconciler.commands.output import command, out
from reconciler.controller import Controller
from reconciler.converge import Exit
from reconciler.metrics import Metrics
from reconciler.readonly import Withheld
from reconciler.settings import Settings, without_user
from reconciler.why import Known, WhyDocument, known_groups, similar, why, why_text
from reconciler.wiring import build_world

#: Seconds to wait for a running operator's answer; it comes from memory.
_PATIENCE = 3.0
#: Groups that are named where nothing is like the one that was asked for.
_NAMED = 10
OWN_LOOK = "a look of this command's own: counters start with it"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect as the answer that it is."""

    def redirect_request(self, *_args: Any) -> None:
        """Follow nothing."""


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
    try:
        answer = _asked(options.group, settings) or _looked(options.group, settings)
    except _Unknown as unknown:
        print(f"reconciler: no group {options.group!r}; {unknown.hint}", file=sys.stderr)  # noqa: T201 - the summary
        return Exit.USAGE
    out(answer.model_dump_json(indent=2) if options.output == "json" else why_text(answer))
    return Exit.OK


def _asked(group: str, settings: Settings) -> WhyDocument | None:
    """Ask the operator that runs here, or where `RECONCILER_URL` says; None where none of this owner answers."""
    told = [settings.reconciler_url] if "reconciler_url" in settings.model_fields_set else []
    for url in (f"http://127.0.0.1:{settings.reconciler_port}", *told):
        answer = _ask(url, group)
        if answer is not None and answer.get("owner") == settings.reconciler_owner:
            if "close" in answer:
                raise _Unknown(answer["close"], answer.get("known", ()))
            try:
                return WhyDocument.model_validate({**answer, "source": f"the operator at {without_user(url)}"})
            except ValidationError:
                continue
    return None


def _ask(url: str, group: str) -> dict[str, Any] | None:
    # Without the user and password that may be in the URL: http.client takes them for a part of the host.
    address = f"{without_user(url)}/groups/{quote(group, safe='')}"
    request = urllib.request.Request(address)  # noqa: S310 - http(s) by the settings
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        with opener.open(request, timeout=_PATIENCE) as response:
            body = response.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    except (OSError, ValueError, HTTPException):
        return None
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _looked(group: str, settings: Settings) -> WhyDocument:
    """Look and plan here, with nothing that could write."""
    metrics = Metrics(CollectorRegistry())
    controller = Controller(build_world(settings, metrics, Withheld()), metrics, looks_once=True)
    survey, verdict = controller.look()
    plan = controller.plan(survey, verdict)
    pause = controller.pause
    known = Known(
        settings=settings,
        survey=survey,
        plan=plan,
        read_at=datetime.now(UTC),
        memory=controller.memory,
        backoff=controller.backoff,
        now=controller.clocks.monotonic(),
        paused=pause.text if pause is not None and pause.active(datetime.now(UTC)) else "",
    )
    answer = why(group, known, OWN_LOOK)
    if answer is None:
        raise _Unknown(similar(group, survey), sorted(known_groups(survey)))
    return answer

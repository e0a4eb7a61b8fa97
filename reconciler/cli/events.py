"""``events``: what the running operator decided and what changed, with the causes."""

from __future__ import annotations

import argparse
import http.client
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from pydantic import TypeAdapter, ValidationError

from openfactory_common.errors import ConfigurationError, ReconcilerError
from openfactory_common.settings_types import Seconds
from openfactory_common.text import printable_json
from reconciler.cli.output import add_command, add_output_option, complete_groups, echo, echo_error
from reconciler.cli.running_operator import NoResponse, ask, follow
from reconciler.control.converge import Exit
from reconciler.report.documents import EventDocument, EventsDocument
from reconciler.report.text import event_text
from reconciler.settings import Settings

#: Seconds between two tries to reach an operator that has stopped to answer.
_RETRY_SECONDS = 1.0


def add(commands: Any) -> None:
    """Register ``events``."""
    parser = add_command(commands, "events", _events)
    complete_groups(parser.add_argument("group", metavar="GROUP", nargs="?", help="only of this group"))
    parser.add_argument("-w", "--watch", action="store_true", help="go on with each new event, until Ctrl-C")
    parser.add_argument("--since", metavar="TIME", help="of the last 90s, 30m, 8h")
    add_output_option(parser, "text", "json")


def _events(options: argparse.Namespace, settings: Settings) -> int:
    """Show what the operator decided, what changed, and why.

    The running operator has the last 1,000 events since its start: writes, conditions of groups and services, tasks
    that ended, refusals, pauses, its lease. It is asked on this host or at RECONCILER_URL. With -w -o json, each line
    is one event.
    """
    group, since = getattr(options, "group", None), _find_start(getattr(options, "since", ""))
    watch, as_json = getattr(options, "watch", False), options.output == "json"
    answer = _ask(settings, group, since)
    while True:
        url, document = answer
        if as_json and not watch:
            echo(printable_json(document.model_dump_json(indent=2)))
            return Exit.OK
        if document.missed:
            echo_error(f"{url} has no events of before {_show_first(document)}")
        since = document.last
        for event in document.events:
            _show(event, as_json=as_json)
        if not watch:
            return Exit.OK
        try:
            for line in follow(settings, f"{url}{_path(group)}", since):
                if line.startswith(": gap"):
                    echo_error("some events are gone: they came faster than they were read")
                elif line.startswith("data:"):
                    event = EventDocument.model_validate_json(line.removeprefix("data:"))
                    since = event.id
                    _show(event, as_json=as_json)
        except (OSError, http.client.HTTPException) as error:
            echo_error(f"{url} does not answer any more ({error}), trying again")
        answer = _wait_for_answer(settings, group, since)


def _find_start(since: str) -> int:
    """Return the id from which on events are shown: ids are near the time in milliseconds."""
    if not since:
        return 0
    try:
        age = timedelta(seconds=TypeAdapter(Seconds).validate_python(since))
        return max(0, int((datetime.now(UTC) - age).timestamp() * 1000))
    except (ValidationError, OverflowError) as error:
        raise ConfigurationError(f"--since {since!r} is not a duration: use 90s, 30m or 8h") from error


def _path(group: str | None, **query: int) -> str:
    named = {} if group is None else {"group": group}
    return f"/events?{urlencode({**query, **named}, errors='replace')}"


def _ask(settings: Settings, group: str | None, since: int) -> tuple[str, EventsDocument]:
    """Return the address of the running operator, and its events.

    Raises:
        ReconcilerError: none answers: only a running operator has a history.
    """
    answer = ask(settings, _path(group, since=since))
    if isinstance(answer, NoResponse):
        raise ReconcilerError(f"only a running operator has a history, and none has answered: {answer.why}")
    try:
        document = EventsDocument.model_validate(answer.document)
    except ValidationError as error:
        raise ReconcilerError(f"{answer.url} has another version: it has no history") from error
    if document.role == "standby":
        echo_error(f"{answer.url} is on standby: the leader's history has the writes; run this on the leader's host")
    return answer.url, document


def _wait_for_answer(settings: Settings, group: str | None, since: int) -> tuple[str, EventsDocument]:
    """Ask until an operator answers: one that is restarted or replaced is waited for."""
    while True:
        time.sleep(_RETRY_SECONDS)
        try:
            return _ask(settings, group, since)
        except ConfigurationError:
            raise
        except ReconcilerError:
            continue


def _show(event: EventDocument, *, as_json: bool) -> None:
    echo(printable_json(event.model_dump_json()) if as_json else event_text(event))


def _show_first(document: EventsDocument) -> str:
    first = document.last if document.first is None else document.first
    return f"{datetime.fromtimestamp(first / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"

"""``delete GROUP``: remove a group without assets now, instead of after the grace time."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry

from openfactory_common.errors import ReconcilerError
from openfactory_common.signals import SIGNALS
from openfactory_common.text import printable
from reconciler.app import build_platform
from reconciler.cli.output import add_command, add_timeout_option, ask_to_go_on, complete_groups, echo, echo_error
from reconciler.cli.pause import own_identity
from reconciler.cli.why import DIRECT, UnknownGroup, find_group
from reconciler.control.converge import Exit
from reconciler.domain.status import Condition, Reason
from reconciler.leadership.pause import DELETION_SECONDS, DELETIONS_RECORD, Pause, start_pause, write_mark
from reconciler.metrics import Metrics
from reconciler.platforms.protocol import Records
from reconciler.report.why import WhyDocument
from reconciler.settings import Settings

#: Seconds between two looks at what has become of the group.
_POLL_SECONDS = 2.0


def add(commands: Any) -> None:
    """Register ``delete``."""
    parser = add_command(commands, "delete", _delete)
    complete_groups(parser.add_argument("group", metavar="GROUP", help="the group's value in the UNS, spelled exactly"))
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    add_timeout_option(parser)


def find_refusal(document: WhyDocument) -> str:
    """Return why a group may not be removed now, with what to do; ``""`` where it may.

    That ksqlDB is not healthy is no refusal: the operator waits until it is.
    """
    refusals = [text for text in document.guards if not text.startswith("health:")]
    if document.desired:
        assets = "1 asset" if document.members == 1 else f"{document.members} assets"
        return f"it has {assets}: move its assets first"
    if document.missing is None:  # nothing of ours is left, or its names are another group's
        return f"nothing of it is here that could be removed: {document.plan}"
    if document.reason is Reason.PAUSED:
        return f"{document.plan}; `reconciler resume GROUP` comes first"
    if document.paused:
        return f"writes are {document.paused}; `reconciler resume` comes first"
    if refusals:
        return "; ".join(refusals)
    return document.plan or "it is kept" if document.condition is Condition.HELD else ""  # RECONCILE_POLICY


def _delete(options: argparse.Namespace, settings: Settings) -> int:
    """Remove a group without assets now, not after the grace time.

    It asks the running operator to do so, by a request that is valid for an hour, and waits until the group is gone.
    Only the number of reads and the grace time are left out: the UNS map is still read from Kafka itself before each
    step, the group leaves the registry and is drained before its service and its stream are removed, and every safety
    rule still holds. A group that has assets is refused.
    """
    document = find_group(options.group, settings)
    if refusal := find_refusal(document):
        return _refuse(refusal)
    owned = [document.service.name] if document.service.exists else []
    owned += [f"stream {document.stream.name}"] if document.stream.exists else []
    what = f"group {printable(document.group)} ({printable(', '.join(filter(None, owned)) or 'only in the registry')})"
    if not ask_to_go_on(f"Remove {what}?", yes=options.yes):
        return Exit.OK
    if document.source.startswith(DIRECT):
        echo_error(f"{document.source}: without a running operator nothing is removed; `reconciler --once` does it too")
    platform, now = build_platform(settings, Metrics(CollectorRegistry())), datetime.now(UTC)
    mark = start_pause(now, DELETION_SECONDS, own_identity())
    write_mark(platform, DELETIONS_RECORD, document.group, mark, now)
    code = _wait(document.group, mark, platform, settings, options.timeout)
    platform.close()
    return code


def _refuse(refusal: str) -> Exit:
    echo_error(f"nothing is removed: {printable(refusal)}")
    return Exit.REFUSED


def _wait(group: str, mark: Pause, platform: Records, settings: Settings, timeout: float) -> Exit:
    """Show what becomes of the group until it is gone; a refusal takes the request back."""
    deadline, shown = time.monotonic() + timeout, ""
    while True:
        try:
            document = find_group(group, settings)
        except UnknownGroup:
            write_mark(platform, DELETIONS_RECORD, group, None, datetime.now(UTC))
            echo(f"group {printable(group)} is removed")
            return Exit.OK
        except ReconcilerError as error:
            text = str(error)
        else:
            if refusal := find_refusal(document):
                write_mark(platform, DELETIONS_RECORD, group, None, datetime.now(UTC))
                return _refuse(refusal)
            text = document.plan or "waiting"
        if text != shown:
            echo_error(f"waiting: {printable(text)}")
        shown = text
        if time.monotonic() >= deadline:
            echo_error(f"not removed within {timeout:g} s; the request is valid until {mark.until:%H:%M:%S} UTC")
            return Exit.NOT_CONVERGED
        SIGNALS.sleep(_POLL_SECONDS)

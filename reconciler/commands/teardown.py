"""``teardown``: remove everything of this owner."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry

from reconciler.commands.output import command, out
from reconciler.commands.pause import who
from reconciler.converge import Exit
from reconciler.errors import ReconcilerError
from reconciler.fence import fenced
from reconciler.leadership import Leadership, own_name
from reconciler.lease import BEATS, Candidate
from reconciler.metrics import Metrics
from reconciler.pause import beginning, put
from reconciler.settings import Settings
from reconciler.teardown import remove_records, teardown
from reconciler.wiring import build_platform, build_world

#: Seconds for which operators that run stay paused, so that they do not make anew what is removed.
_PAUSE = 600.0
#: Seconds beyond the lease's duration to wait for one that is in the middle of a write.
_PATIENCE = 30.0


def add(commands: Any) -> None:
    """Register ``teardown``."""
    down = command(commands, "teardown", "remove all services, streams and configs of this owner", _teardown)
    down.add_argument("--keep-streams", action="store_true", help="leave the ksqlDB streams")
    down.add_argument("--yes", action="store_true", help="do not ask, also on a terminal")


def _teardown(options: argparse.Namespace, settings: Settings) -> int:
    question = f"Remove all services, streams and configs of owner {settings.reconciler_owner!r}? [y/N] "
    if sys.stdin.isatty() and not options.yes and input(question).strip().lower() not in ("y", "yes"):
        return Exit.OK
    metrics = Metrics(CollectorRegistry())
    leadership = Leadership(
        build_platform(settings, metrics),
        Candidate(own_name(), settings.lease_seconds, insists=True),
        heeds_pause=False,
    )
    world = fenced(build_world(settings, metrics), leadership.writing)
    put(world.platform, beginning(datetime.now(UTC), _PAUSE, who(), "teardown"))
    leadership.start()
    try:
        if not _leads(leadership, settings):
            _complain(f"nothing was removed: {leadership.lease.holder} holds the lease and does not give it up")
            return Exit.REFUSED
        leadership.begin()
        failed = 0
        for result in teardown(world, keep_streams=options.keep_streams):
            failed += result.outcome != "ok"
            out(f"{'removed' if result.outcome == 'ok' else 'kept'} {result.action.key}" + _reason(result.error))
        leadership.stop(release=False)
        remove_records(world.platform)
    finally:
        leadership.stop()
    return Exit.ERROR if failed else Exit.OK


def _leads(leadership: Leadership, settings: Settings) -> bool:
    """Wait for the lease, and until every operator that waits for it too has seen the pause."""
    if leadership.leads:
        return True
    deadline = time.monotonic() + settings.lease_seconds + _PATIENCE
    while not leadership.leads and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2 * settings.lease_seconds / BEATS)
    return leadership.leads


def _complain(text: str) -> None:
    print(f"reconciler: {text}", file=sys.stderr)  # noqa: T201 - the one-line summary


def _reason(error: ReconcilerError | None) -> str:
    return f": {error}" if error else ""

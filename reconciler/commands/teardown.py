"""``teardown``: remove everything of this owner."""

from __future__ import annotations

import argparse
import sys
import urllib.error
import urllib.request
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from reconciler.commands.output import command, out
from reconciler.converge import Exit
from reconciler.errors import ReconcilerError
from reconciler.metrics import Metrics
from reconciler.settings import Settings
from reconciler.teardown import teardown
from reconciler.wiring import build_world

log = structlog.get_logger()


def add(commands: Any) -> None:
    """Register ``teardown``."""
    down = command(commands, "teardown", "remove all services, streams and configs of this owner", _teardown)
    down.add_argument("--keep-streams", action="store_true", help="leave the ksqlDB streams")
    down.add_argument("--yes", action="store_true", help="do not ask, also on a terminal")


def _teardown(options: argparse.Namespace, settings: Settings) -> int:
    question = f"Remove all services, streams and configs of owner {settings.reconciler_owner!r}? [y/N] "
    if sys.stdin.isatty() and not options.yes and input(question).strip().lower() not in ("y", "yes"):
        return Exit.OK
    _pause_running_operator(settings)
    failed = 0
    for result in teardown(build_world(settings, Metrics(CollectorRegistry())), keep_streams=options.keep_streams):
        failed += result.outcome != "ok"
        out(f"{'removed' if result.outcome == 'ok' else 'kept'} {result.action.key}" + _reason(result.error))
    return Exit.ERROR if failed else Exit.OK


def _reason(error: ReconcilerError | None) -> str:
    return f": {error}" if error else ""


def _pause_running_operator(settings: Settings) -> None:
    """Ask a loop that runs on this host, or in this container, to write nothing while everything is removed."""
    url = f"http://127.0.0.1:{settings.reconciler_port}/pause?seconds=600"
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=60).close()
        log.info("the running operator is paused for 10 minutes")
    except (urllib.error.URLError, OSError):
        log.debug("no operator runs here")

"""``pause`` and ``resume``: hold all writes back for a while, whichever operator would do them."""

from __future__ import annotations

import argparse
import getpass
import os
import socket
import time
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry
from pydantic import TypeAdapter, ValidationError

from openfactory_common.errors import ConfigurationError
from openfactory_common.settings_types import Seconds
from reconciler.app import build_platform
from reconciler.cli.operator import NoResponse, counters
from reconciler.cli.output import command, out
from reconciler.control.converge import Exit
from reconciler.leadership import lease
from reconciler.leadership.pause import LONGEST_PAUSE, end_pause, parse, read_pause, start_pause, write_pause
from reconciler.metrics import Metrics
from reconciler.platforms.protocol import Records
from reconciler.settings import Settings

#: Seconds between two looks at the lease.
_EVERY = 0.5
#: Seconds beyond the lease's duration that an operator may need to end the write that it is in.
_IN_FLIGHT = 20.0


def add(commands: Any) -> None:
    """Register ``pause`` and ``resume``."""
    pause = command(commands, "pause", "hold all writes back for a while, on every replica and over restarts", _pause)
    pause.add_argument(
        "--for", dest="pause_for", required=True, metavar="TIME", help="how long: 90s, 30m, 2h; at most 24h"
    )
    pause.add_argument("--reason", metavar="TEXT", help="why, for whoever looks at the status")
    command(commands, "resume", "end a pause", _resume)


def who() -> str:
    """Return who gives this command, as ``user@host``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _pause(options: argparse.Namespace, settings: Settings) -> int:
    seconds = _duration(options.pause_for)
    platform = build_platform(settings, Metrics(CollectorRegistry()))
    pause = start_pause(datetime.now(UTC), seconds, who(), options.reason)
    write_pause(platform, pause)
    out(pause.text)
    holder = writer_after(platform, settings.lease_seconds + _IN_FLIGHT)
    platform.close()
    if holder:
        out(f"operator {holder} has not confirmed it yet: it may be in the middle of a write, which it ends first")
        return Exit.NOT_CONVERGED
    out("no operator writes now; `reconciler resume` ends the pause")
    return Exit.OK


def _resume(_: argparse.Namespace, settings: Settings) -> int:
    platform = build_platform(settings, Metrics(CollectorRegistry()))
    now, before = datetime.now(UTC), read_pause(None, platform.records())
    # A teardown removes the record, and an operator that runs keeps to the pause all the same.
    told = counters(settings) if before is None else None
    write_pause(platform, end_pause(who()))
    platform.close()
    if isinstance(told, NoResponse):
        out("no pause is written down; an operator that keeps to one all the same, after a teardown, goes on now")
        return Exit.OK
    if told is not None and told[1].pause:
        before = parse(told[1].pause)
    out(f"resumed; it was {before.text}" if before and before.active(now) else "nothing was paused")
    return Exit.OK


def _duration(text: str) -> float:
    try:
        seconds = TypeAdapter(Seconds).validate_python(text)
    except ValidationError as error:
        raise ConfigurationError(f"--for {text!r} is no duration: use 90s, 30m or 2h") from error
    if not 0 < seconds <= LONGEST_PAUSE:
        raise ConfigurationError(f"--for {text!r}: a pause lasts more than nothing and at most 24h")
    return seconds


def writer_after(records: Records, patience: float) -> str:
    """Wait until no operator holds the lease; return who still does after ``patience`` seconds, ``""`` if nobody.

    A paused operator gives the lease up once its last write has been answered, and one that has died does not renew it.
    """
    sight, deadline = lease.ObservedLease(), time.monotonic() + patience
    while True:
        record = records.records().get(lease.LEASE_RECORD)
        now = time.monotonic()
        sight = sight.observe(lease.parse(record.fields) if record else None, now)
        if sight.lease is None or not sight.lease.holder or sight.is_stale(now):
            return ""
        if now >= deadline:
            return sight.lease.holder
        time.sleep(_EVERY)

"""``pause`` and ``resume``: suspend writes for a while, of every operator of this owner, all or to one group."""

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
from openfactory_common.text import list_some, printable
from reconciler.app import build_platform
from reconciler.cli.output import add_command, add_output_option, complete_groups, echo, make_json
from reconciler.cli.running_operator import NoResponse, ask_counters
from reconciler.cli.why import find_group
from reconciler.control.converge import Exit
from reconciler.leadership import lease
from reconciler.leadership.pause import (
    GROUP_PAUSES_RECORD,
    LONGEST_GROUP_PAUSE,
    LONGEST_PAUSE,
    end_pause,
    parse,
    read_marks,
    read_pause,
    start_pause,
    write_mark,
    write_pause,
)
from reconciler.metrics import Metrics
from reconciler.platforms.protocol import Records
from reconciler.settings import Settings

#: Seconds between two reads of the lease.
_POLL_SECONDS = 0.5
#: Seconds beyond the lease's duration that an operator may need to end its current write.
_WRITE_SECONDS = 20.0


def add(commands: Any) -> None:
    """Register ``pause`` and ``resume``."""
    pause = add_command(commands, "pause", _pause)
    text = "90s, 30m, 2h; at most 24h, of one group at most 31d"
    pause.add_argument("--for", dest="pause_for", required=True, metavar="TIME", help=text)
    pause.add_argument("--reason", metavar="TEXT", help="reason, shown in the status")
    resume = add_command(commands, "resume", _resume)
    for parser in (pause, resume):
        argument = parser.add_argument(
            "group", nargs="?", default=None, metavar="GROUP", help="only this group; spelled exactly"
        )
        complete_groups(argument)
        add_output_option(parser, "text", "json")


def own_identity() -> str:
    """Return who runs this command, as ``user@host``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _pause(options: argparse.Namespace, settings: Settings) -> int:
    """Suspend writes for a while; survives restarts.

    It suspends the writes of every operator of this owner, or with GROUP those to this group alone: nothing of it is
    created, updated or removed, and its entry in the registry stays as it is. Operators continue to read and to show
    what they would do. A pause ends by itself, or with `reconciler resume`.
    """
    if options.group is not None:
        return _pause_group(options, settings)
    seconds = _parse_duration(options.pause_for, LONGEST_PAUSE, "24h")
    platform = build_platform(settings, Metrics(CollectorRegistry()))
    pause = start_pause(datetime.now(UTC), seconds, own_identity(), options.reason)
    write_pause(platform, pause)
    as_json = options.output == "json"
    if not as_json:
        echo(pause.text)
    holder = wait_for_release(platform, settings.lease_seconds + _WRITE_SECONDS)
    platform.close()
    if as_json:
        echo(make_json(pause=pause.fields, unconfirmed=holder or None))
        return Exit.NOT_CONVERGED if holder else Exit.OK
    if holder:
        echo(f"operator {holder} has not confirmed the pause yet; it may still complete its current write")
        return Exit.NOT_CONVERGED
    echo("no operator writes now; `reconciler resume` ends the pause")
    return Exit.OK


def _pause_group(options: argparse.Namespace, settings: Settings) -> int:
    """Record the pause of one group that exists."""
    seconds = _parse_duration(options.pause_for, LONGEST_GROUP_PAUSE, "31d")
    group, now = find_group(options.group, settings).group, datetime.now(UTC)
    pause = start_pause(now, seconds, own_identity(), options.reason, LONGEST_GROUP_PAUSE)
    platform = build_platform(settings, Metrics(CollectorRegistry()))
    write_mark(platform, GROUP_PAUSES_RECORD, group, pause, now)
    platform.close()
    if options.output == "json":
        echo(make_json(group=group, pause=pause.fields))
        return Exit.OK
    echo(f"group {printable(group)} is {pause.text}")
    echo("a cycle that runs now may still complete its write; `reconciler resume GROUP` ends the pause")
    return Exit.OK


def _resume(options: argparse.Namespace, settings: Settings) -> int:
    """End a pause.

    The pause ends for every operator of this owner; with GROUP, that of this group. A pause of one group and one of all
    are independent: neither ends the other.
    """
    if options.group is not None:
        return _resume_group(options, settings)
    platform = build_platform(settings, Metrics(CollectorRegistry()))
    now, before = datetime.now(UTC), read_pause(None, platform.records())
    # A teardown removes the record, but a running operator still respects the pause.
    response = ask_counters(settings) if before is None else None
    write_pause(platform, end_pause(own_identity()))
    platform.close()
    if response is not None and not isinstance(response, NoResponse) and response[1].pause:
        before = parse(response[1].pause)
    was = before if before is not None and before.active(now) else None
    if options.output == "json":
        echo(make_json(was=was.fields if was else None, known=not isinstance(response, NoResponse)))
    elif isinstance(response, NoResponse):
        echo("no pause is recorded; an operator that is still paused after a teardown resumes now")
    else:
        echo(f"resumed; it was {was.text}" if was else "nothing was paused")
    return Exit.OK


def _resume_group(options: argparse.Namespace, settings: Settings) -> int:
    """End the pause of one group, also of one that does not exist any more."""
    group: str = options.group
    platform, now = build_platform(settings, Metrics(CollectorRegistry())), datetime.now(UTC)
    paused = read_marks(GROUP_PAUSES_RECORD, platform.records(), now)
    if group in paused:
        write_mark(platform, GROUP_PAUSES_RECORD, group, None, now)
    platform.close()
    if options.output == "json":
        echo(make_json(group=group, was=paused[group].fields if group in paused else None))
    elif group in paused:
        echo(f"group {printable(group)} resumed; it was {paused[group].text}")
    else:
        there = f"; paused are {list_some(sorted(paused))}" if paused else ""
        echo(f"group {printable(group)} is not paused{printable(there)}")
    return Exit.OK


def _parse_duration(text: str, longest: float, most: str) -> float:
    try:
        seconds = TypeAdapter(Seconds).validate_python(text)
    except ValidationError as error:
        raise ConfigurationError(f"--for {text!r} is not a duration: use 90s, 30m or 2h") from error
    if not 0 < seconds <= longest:
        of_group = "" if most == "24h" else " of one group"
        raise ConfigurationError(f"--for {text!r}: a pause{of_group} must be longer than 0 and at most {most}")
    return seconds


def wait_for_release(records: Records, timeout: float) -> str:
    """Wait until no operator holds the lease; return its holder after ``timeout`` seconds, ``""`` if there is none.

    A paused operator releases the lease once its last write has been answered; a dead one does not renew it.
    """
    observed, deadline = lease.ObservedLease(), time.monotonic() + timeout
    while True:
        record = records.records().get(lease.LEASE_RECORD)
        now = time.monotonic()
        observed = observed.observe(lease.parse(record.fields) if record else None, now)
        if observed.lease is None or not observed.lease.holder or observed.is_stale(now):
            return ""
        if now >= deadline:
            return observed.lease.holder
        time.sleep(_POLL_SECONDS)

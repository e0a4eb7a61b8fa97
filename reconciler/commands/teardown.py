"""``teardown``: remove everything of this owner."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry

from reconciler.apply import Result
from reconciler.commands.output import adopt_option, command, out
from reconciler.commands.pause import who
from reconciler.controller import World
from reconciler.converge import Exit
from reconciler.errors import GuardRefusal, KsqlError, KsqlInUse
from reconciler.fence import fenced
from reconciler.leadership import Leadership, own_name
from reconciler.lease import BEATS, Candidate
from reconciler.metrics import Metrics
from reconciler.model import DropStream, RemoveRegistry
from reconciler.pause import NAME, Pause, beginning, ended, latest, put
from reconciler.platforms.base import Platform
from reconciler.settings import Settings, without_user
from reconciler.teardown import claimed, prove, remove_records, teardown
from reconciler.wiring import build_platform, build_world

#: Seconds for which operators that run stay paused, so that they do not make anew what is removed.
_PAUSE = 600.0
#: Seconds beyond the lease's duration to wait for one that is in the middle of a write.
_PATIENCE = 30.0


def add(commands: Any) -> None:
    """Register ``teardown``."""
    down = command(commands, "teardown", "remove all services, streams and configs of this owner", _teardown)
    down.add_argument("--keep-streams", action="store_true", help="leave the streams; ksqlDB is not asked")
    down.add_argument("--accept-identity", action="store_true", help="another Kafka or ksqlDB is meant")
    adopt_option(down)
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
    refused = _refusal(world, options)
    if refused is not None:
        return refused
    before = latest(None, world.platform.records())
    put(world.platform, _longer(before))
    results: list[Result] = []
    leadership.start()
    try:
        if not _leads(leadership, settings):
            _complain(f"nothing was removed: {leadership.lease.holder} holds the lease and does not give it up")
            return Exit.REFUSED
        leadership.begin()
        for result in teardown(
            world,
            keep_streams=options.keep_streams,
            accept_identity=options.accept_identity,
            adopt=options.adopt,
        ):
            results.append(result)
            out(f"{'removed' if result.outcome == 'ok' else 'kept'} {result.action.key}" + _reason(result.error))
        left = options.keep_streams or any(
            isinstance(result.action, DropStream) and result.outcome != "ok" for result in results
        )
        kept_to = _forget(world.platform, leadership, settings, streams_left=left)
    finally:
        leadership.stop()
        if not any(result.outcome == "ok" for result in results) and NAME in world.platform.records():
            put(world.platform, before or ended(who()))  # nothing was begun, so nothing has to be held back for it
    if kept_to is not None:
        _complain(
            f"an operator that still runs is paused until {kept_to:%H:%M:%S} UTC and then makes all of this anew: "
            "stop it before, e.g. docker stack rm ofa"
        )
    if any(isinstance(result.action, DropStream) and isinstance(result.error, GuardRefusal) for result in results):
        return Exit.REFUSED
    failed = [result for result in results if result.outcome != "ok" and not isinstance(result.action, RemoveRegistry)]
    if failed and all(isinstance(result.error, KsqlInUse) for result in failed):
        _complain(
            "what others built on streams of ours stays, and with it those streams: drop theirs, and run it again"
        )
        return Exit.NOT_CONVERGED
    return Exit.OK if all(result.outcome == "ok" for result in results) else Exit.ERROR


def _refusal(world: World, options: argparse.Namespace) -> Exit | None:
    """Say why nothing may be removed, and return how that ends; None where it may."""
    try:
        claimed(world, options.adopt, keep_streams=options.keep_streams)
        if not options.keep_streams:
            prove(world, accept_identity=options.accept_identity)
    except GuardRefusal as error:
        _complain(f"nothing was removed: {error}")
        return Exit.REFUSED
    except KsqlError as error:
        url = without_user(world.settings.ksqldb_url)
        _complain(
            f"nothing was removed: {error} (KSQLDB_URL is {url}); --keep-streams removes services and configs alone"
        )
        return Exit.ERROR
    return None


def _longer(before: Pause | None) -> Pause:
    """Return the pause that operators which run keep to, so that they do not make anew what is removed."""
    now = datetime.now(UTC)
    pause = beginning(now, _PAUSE, who(), "teardown")
    if before is None or not before.active(now):
        return pause
    return max(pause, before, key=lambda one: one.until or now)


def _leads(leadership: Leadership, settings: Settings) -> bool:
    """Wait for the lease."""
    deadline = time.monotonic() + settings.lease_seconds + _PATIENCE
    while not leadership.leads and time.monotonic() < deadline:
        time.sleep(0.1)
    return leadership.leads


def _forget(platform: Platform, leadership: Leadership, settings: Settings, *, streams_left: bool) -> datetime | None:
    """Remove the records, once every operator that still runs has seen a pause with time enough to end it.

    Returns the pause's end; None where the lease was lost, and the records stay.

    They keep to a pause that they have seen also when its record is gone; one that had not seen it would make
    everything anew. All look at least once in a beat.
    """
    pause = _longer(latest(None, platform.records()))
    put(platform, pause)
    time.sleep(2 * max(settings.lease_seconds, leadership.lease.seconds) / BEATS)
    if not leadership.leads:
        _complain("the lease was lost on the way: run teardown again")
        return None
    leadership.stop(release=False)
    remove_records(platform, streams_left=streams_left)
    return pause.until


def _complain(text: str) -> None:
    print(f"reconciler: {text}", file=sys.stderr)  # noqa: T201 - the one-line summary


def _reason(error: Exception | None) -> str:
    return f": {error}" if error else ""

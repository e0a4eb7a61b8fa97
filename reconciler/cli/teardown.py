"""``teardown``: remove everything of this owner."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry

from openfactory_common.errors import GuardRefusal, KsqlError, KsqlInUse, PlatformError
from openfactory_common.settings_types import without_user
from openfactory_common.signals import SIGNALS
from openfactory_common.text import printable
from reconciler.app import build_dependencies, build_platform
from reconciler.cli.output import adopt_option, command, complain, out, telling
from reconciler.cli.pause import who
from reconciler.control.controller import Dependencies
from reconciler.control.converge import Exit
from reconciler.control.guarded import guard_by_lease
from reconciler.control.teardown import claim_objects, prove, remove_records, teardown
from reconciler.domain.actions import DropStream, RemoveRegistry, Result, WriteResult
from reconciler.leadership.elector import Elector, own_name
from reconciler.leadership.lease import RENEWALS, Candidate
from reconciler.leadership.pause import Pause, end_pause, read_pause, start_pause, write_pause
from reconciler.metrics import Metrics
from reconciler.platforms.protocol import Records
from reconciler.settings import Settings

#: Seconds for which operators that run stay paused, so that they do not make again what is removed.
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
    if not options.yes and sys.stdin.isatty() and not _confirmed(settings):
        return Exit.OK
    metrics = Metrics(CollectorRegistry())
    leadership = Elector(
        build_platform(settings, metrics),
        Candidate(own_name(), settings.lease_seconds, preempts=True),
        heeds_pause=False,
    )
    world = guard_by_lease(build_dependencies(settings, metrics), leadership.writing)
    refused = _refusal(world, options)
    if refused is not None:
        return refused
    run = _Run(world, leadership, read_pause(None, world.platform.records()), build_platform(settings, metrics))
    with telling() as say:
        return _removed(run, options, settings, say)


def _removed(run: _Run, options: argparse.Namespace, settings: Settings, say: Callable[[str], None]) -> int:
    """Remove everything with the lease held, and say how it ended."""
    world, leadership = run.world, run.leadership
    with SIGNALS.orderly(run.give_back, on_ask=world.ksqldb.stop_waiting):
        run.pause()
        leadership.start()
        if not _leads(leadership, settings):
            complain(f"nothing was removed: {leadership.lease.holder} holds the lease and does not give it up")
            return Exit.REFUSED
        leadership.begin()
        for result in teardown(
            world,
            keep_streams=options.keep_streams,
            accept_identity=options.accept_identity,
            adopt=options.adopt,
        ):
            run.results.append(result)
            done = "removed" if result.outcome is WriteResult.OK else "kept"
            say(f"{done} {printable(result.action.key)}{_reason(result.error)}")
            SIGNALS.check()
        results = run.results
        left = options.keep_streams or any(
            isinstance(result.action, DropStream) and result.outcome is not WriteResult.OK for result in results
        )
        kept_to = run.forget(settings, streams_left=left)
    if kept_to is not None:
        complain(
            f"an operator that still runs is paused until {kept_to:%H:%M:%S} UTC and then makes all of this again: "
            f"end it by then, if there is one with RECONCILER_OWNER={settings.reconciler_owner}"
        )
    if any(isinstance(result.action, DropStream) and isinstance(result.error, GuardRefusal) for result in results):
        return Exit.REFUSED
    failed = [
        result
        for result in results
        if result.outcome is not WriteResult.OK and not isinstance(result.action, RemoveRegistry)
    ]
    if failed and all(isinstance(result.error, KsqlInUse) for result in failed):
        complain("what others built on streams of ours stays, and with it those streams: drop theirs, and run it again")
        return Exit.NOT_CONVERGED
    return Exit.OK if all(result.outcome is WriteResult.OK for result in results) else Exit.ERROR


def _confirmed(settings: Settings) -> bool:
    """Ask; an end of the input (Ctrl-D) is no yes."""
    try:
        answer = input(f"Remove all services, streams and configs of owner {settings.reconciler_owner!r}? [y/N] ")
    except EOFError:
        out("")
        return False
    return answer.strip().lower() in ("y", "yes")


class _Run:
    """What a teardown holds while it runs: the lease, and a pause for operators that still run.

    Attributes:
        world: what is removed from.
        leadership: holds the lease.
        results: of what was removed so far.
    """

    def __init__(self, world: Dependencies, leadership: Elector, before: Pause | None, records: Records) -> None:
        """Nothing is held yet; ``records`` is a connection that nothing else uses, for a process that has to end."""
        self.results: list[Result] = []
        self.world = world
        self.leadership = leadership
        self._before = before
        self._records = records
        self._paused = False

    def pause(self) -> None:
        """Let operators that run keep still for so long."""
        self._paused = True
        write_pause(self.world.platform, _longer(self._before))

    def give_back(self) -> None:
        """Give up the lease; end the pause if nothing was removed, or if a signal ended this in the middle.

        After a teardown that was ended in the middle, an operator that runs makes all of it again at once: so long as
        the pause lasted, what is half removed would stay so.
        """
        self.leadership.stop()
        removed = sum(result.outcome is WriteResult.OK for result in self.results)
        if not self._paused or (removed and not SIGNALS.asked):
            return
        try:
            write_pause(self._records, self._before or end_pause(who()))
        except PlatformError as error:
            complain(f"the pause could not be ended: {error}; `reconciler resume` ends it")
        if removed:
            complain(f"ended by a signal after {removed} removals; an operator that still runs makes all of it again")

    def forget(self, settings: Settings, *, streams_left: bool) -> datetime | None:
        """Remove the records, once every operator that still runs has seen a pause with time enough to end it.

        Returns the pause's end; None where the lease was lost, and the records stay.

        They keep to a pause that they have seen also when its record is gone; one that had not seen it would make
        everything again. All look at least once in a beat.
        """
        pause = _longer(read_pause(None, self.world.platform.records()))
        write_pause(self.world.platform, pause)
        SIGNALS.sleep(2 * max(settings.lease_seconds, self.leadership.lease.seconds) / RENEWALS)
        if not self.leadership.leads:
            complain("the lease was lost on the way: run teardown again")
            return None
        self.leadership.stop(release=False)
        self._paused = False  # all of it is done: the records go, and nothing is given back
        remove_records(self.world.platform, streams_left=streams_left)
        return pause.until


def _refusal(world: Dependencies, options: argparse.Namespace) -> Exit | None:
    """Say why nothing may be removed, and return how that ends; None where it may."""
    try:
        claim_objects(world, options.adopt, keep_streams=options.keep_streams)
        if not options.keep_streams:
            prove(world, accept_identity=options.accept_identity)
    except GuardRefusal as error:
        complain(f"nothing was removed: {error}")
        return Exit.REFUSED
    except KsqlError as error:
        url = without_user(world.settings.ksqldb_url)
        complain(
            f"nothing was removed: {error} (KSQLDB_URL is {url}); --keep-streams removes services and configs alone"
        )
        return Exit.ERROR
    return None


def _longer(before: Pause | None) -> Pause:
    """Return the pause that operators which run keep to, so that they do not make again what is removed."""
    now = datetime.now(UTC)
    pause = start_pause(now, _PAUSE, who(), "teardown")
    if before is None or not before.active(now):
        return pause
    return max(pause, before, key=lambda one: one.until or now)


def _leads(leadership: Elector, settings: Settings) -> bool:
    """Wait for the lease."""
    deadline = time.monotonic() + settings.lease_seconds + _PATIENCE
    while not leadership.leads and time.monotonic() < deadline:
        SIGNALS.sleep(0.1)
    return leadership.leads


def _reason(error: Exception | None) -> str:
    return f": {error}" if error else ""

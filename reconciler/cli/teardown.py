"""``teardown``: remove everything of this owner."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry

from openfactory_common.errors import GuardRefusal, KsqlError, KsqlInUse, PlatformError
from openfactory_common.settings_types import strip_user
from openfactory_common.signals import SIGNALS
from openfactory_common.text import printable
from reconciler.app import build_dependencies, build_platform
from reconciler.cli.output import (
    add_adopt_option,
    add_command,
    add_output_option,
    echo,
    echo_error,
    make_json,
    tolerant_echo,
)
from reconciler.cli.pause import own_identity
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

#: Seconds for which running operators stay paused, so that they do not recreate what is removed.
_PAUSE_SECONDS = 600.0
#: Seconds beyond the lease's duration to wait for its holder to end a write.
_WRITE_SECONDS = 30.0


def add(commands: Any) -> None:
    """Register ``teardown``."""
    parser = add_command(commands, "teardown", _teardown)
    parser.add_argument("--keep-streams", action="store_true", help="keep the streams; ksqlDB is not needed")
    parser.add_argument("--accept-identity", action="store_true", help="accept another Kafka or ksqlDB cluster")
    add_adopt_option(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    add_output_option(parser, "text", "json")


def _teardown(options: argparse.Namespace, settings: Settings) -> int:
    """Remove all services, streams and configs of this owner.

    It removes nothing else, in this order: services, streams, the registry. On a terminal it asks for confirmation. It
    can be run again after any interruption. Topics are kept unless DELETE_TOPICS=true.

    A running operator is paused for ten minutes and then recreates everything: stop it after the teardown and within
    that time; the last line says until when. If a signal ends the command before it is complete, the pause ends too.

    It removes nothing if another cluster answers than the one in the registry, or if ksqlDB does not answer or is not
    healthy.
    """
    if not options.yes and sys.stdin.isatty() and not _confirm(settings):
        return Exit.OK
    metrics = Metrics(CollectorRegistry())
    candidate = Candidate(own_name("teardown"), settings.lease_seconds, preempts=True)
    elector = Elector(build_platform(settings, metrics), candidate, heeds_pause=False)
    deps = guard_by_lease(build_dependencies(settings, metrics), elector.writing)
    refused = _check_preconditions(deps, options)
    if refused is not None:
        return refused
    before = read_pause(None, deps.platform.records())
    run = _TeardownRun(deps, elector, before, build_platform(settings, metrics))
    with tolerant_echo() as report:
        with SIGNALS.orderly(run.release, on_ask=deps.ksqldb.stop_waiting):
            run.pause()
            elector.start()
            if not _wait_for_lease(elector, settings):
                echo_error(f"nothing was removed: {elector.lease.holder} holds the lease and does not release it")
                return Exit.REFUSED
            elector.begin()
            for result in teardown(
                deps, keep_streams=options.keep_streams, accept_identity=options.accept_identity, adopt=options.adopt
            ):
                run.results.append(result)
                report(_describe(result, options.output))
                SIGNALS.check()
            failed = [result for result in run.results if result.outcome is not WriteResult.OK]
            streams_left = options.keep_streams or any(isinstance(result.action, DropStream) for result in failed)
            paused_until = run.remove_records(settings, streams_left=streams_left)
        if paused_until is not None:
            echo_error(
                f"a running operator with RECONCILER_OWNER={settings.reconciler_owner} is paused until "
                f"{paused_until:%H:%M:%S} UTC and then recreates everything: stop it by then"
            )
        return _choose_exit(failed)


def _describe(result: Result, output: str) -> str:
    """Return what became of an object, as a line of text or JSON."""
    done, why = "removed" if result.outcome is WriteResult.OK else "kept", str(result.error) if result.error else None
    if output == "json":
        return make_json(object=result.action.key, result=done, error=why)
    return f"{done} {printable(result.action.key)}{f': {why}' if why else ''}"


def _confirm(settings: Settings) -> bool:
    """Ask; an end of the input (Ctrl-D) is a no."""
    try:
        answer = input(f"Remove all services, streams and configs of owner {settings.reconciler_owner!r}? [y/N] ")
    except EOFError:
        echo("")
        return False
    return answer.strip().lower() in ("y", "yes")


def _check_preconditions(deps: Dependencies, options: argparse.Namespace) -> Exit | None:
    """Report why nothing may be removed, and return the exit code; None if it may."""
    try:
        claim_objects(deps, options.adopt, keep_streams=options.keep_streams)
        if not options.keep_streams:
            prove(deps, accept_identity=options.accept_identity)
    except GuardRefusal as error:
        echo_error(f"nothing was removed: {error}")
        return Exit.REFUSED
    except KsqlError as error:
        url = strip_user(deps.settings.ksqldb_url)
        echo_error(
            f"nothing was removed: {error} (KSQLDB_URL is {url}); --keep-streams removes only services and configs"
        )
        return Exit.ERROR
    return None


def _wait_for_lease(elector: Elector, settings: Settings) -> bool:
    deadline = time.monotonic() + settings.lease_seconds + _WRITE_SECONDS
    while not elector.leads and time.monotonic() < deadline:
        SIGNALS.sleep(0.1)
    return elector.leads


def _choose_exit(failed: list[Result]) -> Exit:
    if any(isinstance(result.action, DropStream) and isinstance(result.error, GuardRefusal) for result in failed):
        return Exit.REFUSED
    blocking = [result for result in failed if not isinstance(result.action, RemoveRegistry)]
    if blocking and all(isinstance(result.error, KsqlInUse) for result in blocking):
        echo_error("objects of others depend on streams of this installation: drop those objects, then run it again")
        return Exit.NOT_CONVERGED
    return Exit.ERROR if failed else Exit.OK


@dataclass
class _TeardownRun:
    """What a teardown holds while it runs: the lease, and a pause for running operators.

    Attributes:
        deps: what is removed from.
        elector: holds the lease.
        before: the pause before the teardown.
        records: a connection of its own, for `release` in another thread.
        results: of the removals so far.
        paused: whether the teardown's pause is recorded.
    """

    deps: Dependencies
    elector: Elector
    before: Pause | None
    records: Records
    results: list[Result] = field(default_factory=list)
    paused: bool = False

    def pause(self) -> None:
        """Pause running operators."""
        self.paused = True
        write_pause(self.deps.platform, _extend(self.before))

    def release(self) -> None:
        """Release the lease; end the pause if nothing was removed, or if a signal interrupted the teardown.

        After an interrupted teardown, a running operator recreates everything at once: during the pause, what is half
        removed would stay so.
        """
        self.elector.stop()
        removed = sum(result.outcome is WriteResult.OK for result in self.results)
        if not self.paused or (removed and not SIGNALS.asked):
            return
        try:
            write_pause(self.records, self.before or end_pause(own_identity()))
        except PlatformError as error:
            echo_error(f"the pause could not be ended: {error}; `reconciler resume` ends it")
        if removed:
            echo_error(f"ended by a signal after {removed} removals; a running operator recreates everything")

    def remove_records(self, settings: Settings, *, streams_left: bool) -> datetime | None:
        """Remove the records once every running operator has seen a pause that is long enough to stop it.

        Returns the pause's end; None if the lease was lost, and the records stay.

        An operator that has seen a pause respects it even if its record is gone; one that has not would recreate
        everything. Each reads the records at least once between two renewals of the lease.
        """
        pause = _extend(read_pause(None, self.deps.platform.records()))
        write_pause(self.deps.platform, pause)
        SIGNALS.sleep(2 * max(settings.lease_seconds, self.elector.lease.seconds) / RENEWALS)
        if not self.elector.leads:
            echo_error("the lease was lost during the teardown: run it again")
            return None
        self.elector.stop(release=False)
        self.paused = False  # the teardown is complete: the records go, and nothing is released
        remove_records(self.deps.platform, streams_left=streams_left)
        return pause.until


def _extend(before: Pause | None) -> Pause:
    """Return the pause for running operators: the teardown's, or the one before if that ends later."""
    now = datetime.now(UTC)
    pause = start_pause(now, _PAUSE_SECONDS, own_identity(), "teardown")
    if before is None or not before.active(now):
        return pause
    return max(pause, before, key=lambda one: one.until or now)

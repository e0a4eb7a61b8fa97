"""The loop, ``--once``, ``deploy`` and ``--dry-run``."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from openfactory_common import logs
from openfactory_common.errors import ConfigurationError
from openfactory_common.settings_types import without_user
from openfactory_common.signals import SIGNALS
from openfactory_common.text import printable, printable_json
from reconciler.app import build_dependencies, build_platform
from reconciler.cli.output import (
    adopt_option,
    command,
    complain,
    out,
    output_option,
    show_status,
    summary,
    timeout_option,
)
from reconciler.cli.progress import progress
from reconciler.cli.settings import in_force, misspelt
from reconciler.control.controller import Controller, Dependencies
from reconciler.control.converge import Exit, converge
from reconciler.control.flow import FlowWatch
from reconciler.control.guarded import DryRunLog, guard_by_lease
from reconciler.control.loop import Loop
from reconciler.control.outcome import CycleOutcome
from reconciler.domain.installation import is_id
from reconciler.leadership.elector import Elector, own_name
from reconciler.leadership.lease import Candidate
from reconciler.metrics import Metrics
from reconciler.planning.guards import Overrides, approval_id
from reconciler.planning.survey import Survey
from reconciler.settings import Settings
from reconciler.web.server import RegistryCache, Server

log = structlog.get_logger()

#: Seconds within which the loop ends: its cycle's reads and the write that is under way; the stack file gives it 30.
_GRACE = 20.0
_APPROVAL = re.compile("[0-9a-f]{8}")


def add(commands: Any) -> None:
    """Register ``deploy``."""
    once_options(command(commands, "deploy", "the same as --once", _once))


def once_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser what goes with ``--once``."""
    timeout_option(parser)
    parser.add_argument("--no-prune", action="store_true", help="leave groups without assets alone")
    parser.add_argument("--allow-empty", action="store_true", help="with --once: a map without groups is meant")
    parser.add_argument("--accept-identity", action="store_true", help="with --once: another Kafka or ksqlDB is meant")
    parser.add_argument(
        "--approve", metavar="ID", help="with --once: let exactly the refused removals with this id through"
    )
    adopt_option(parser)
    output_option(parser)


def check(options: argparse.Namespace) -> None:
    """Refuse options that make no sense, or none together.

    Raises:
        ConfigurationError: with what goes with what.
    """
    if options.adopt and not is_id(options.adopt):
        raise ConfigurationError(f"--adopt {options.adopt}: an installation's id has 8 hex digits, or is 'legacy'")
    if options.dry_run and options.run not in (run, _once):
        raise ConfigurationError("--dry-run goes with --once, deploy, or no command; plan shows what would be done")
    loops = options.run is run and not options.once and not options.dry_run
    if options.approve and not _APPROVAL.fullmatch(options.approve):
        raise ConfigurationError(
            f"--approve {options.approve!r} is no id of removals: 8 hex digits, as `plan` shows it"
        )
    if loops and (options.allow_empty or options.accept_identity or options.approve):
        raise ConfigurationError(
            "--allow-empty, --accept-identity and --approve go with --once: a loop would say yes to everything that "
            "comes later, too"
        )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Run the loop, or what ``--once`` or ``--dry-run`` make of it."""
    return _once(options, settings) if options.once or options.dry_run else _loop(options, settings)


def _overrides(options: argparse.Namespace) -> Overrides:
    return Overrides(options.allow_empty, options.accept_identity, options.approve, options.adopt)


def prepared(settings: Settings, overrides: Overrides, metrics: Metrics) -> tuple[Dependencies, Loop, Server, Elector]:
    """Put a loop, its server and its part in the lease together; nothing runs yet."""
    board = RegistryCache()

    def changed() -> None:
        metrics.lease(leadership.lease.holder, leads=leadership.leads)
        loop.nudge()

    leadership = Elector(
        build_platform(settings, metrics),
        Candidate(own_name(), settings.lease_seconds),
        alive=lambda: loop.alive,
        on_change=changed,
    )
    world = guard_by_lease(build_dependencies(settings, metrics), leadership.writing)
    controller = Controller(world, metrics, overrides, on_registry=board.put, write_gate=leadership)
    if settings.flow_interval > 0:
        controller.memory.flow = FlowWatch(world.ksqldb, world.strategy, settings.flow_interval)
    loop = Loop(controller, settings.reconcile_interval)
    return world, loop, Server(loop, board, settings.reconciler_port), leadership


def _loop(options: argparse.Namespace, settings: Settings) -> int:
    world, loop, server, leadership = prepared(settings, _overrides(options), Metrics())
    server.start()
    log.info(
        "operator started",
        owner=settings.reconciler_owner,
        ksqldb=without_user(settings.ksqldb_url),
        port=server.port,
        name=leadership.me.name,
    )
    for stray in in_force().unknown:
        log.warning("a variable is not read", variable=stray.name, origin=stray.origin, hint=stray.hint)
    with SIGNALS.orderly(leadership.stop, on_ask=lambda: _stop(loop, world), grace=_GRACE):
        leadership.start()
        loop.run()
    server.stop()
    world.platform.close()
    world.ksqldb.close()
    log.info("operator stopped")
    return Exit.OK


def _stop(loop: Loop, world: Dependencies) -> None:
    loop.stop()
    world.ksqldb.stop_waiting()


def _once(options: argparse.Namespace, settings: Settings) -> int:
    if options.dry_run:
        return _dry_run(options, settings)
    metrics = Metrics(CollectorRegistry())
    me = Candidate(own_name(), settings.lease_seconds, preempts=True)
    lease = Elector(build_platform(settings, metrics), me, lazy=True)
    world = guard_by_lease(build_dependencies(settings, metrics), lease.writing)
    controller = Controller(world, metrics, _overrides(options), write_gate=lease, stopping=lambda: SIGNALS.asked)
    logs.only_once()
    for text in misspelt():
        complain(text)
    outcomes: list[CycleOutcome] = []
    with SIGNALS.orderly(lease.stop, on_ask=world.ksqldb.stop_waiting), progress(complain) as show:

        def seen(one: CycleOutcome) -> None:
            outcomes[1:] = [one]
            show(one)

        code, outcome = converge(controller, options.timeout, prune=not options.no_prune, show=seen)
    show_status(options.output, outcome)
    for key, failure in controller.memory.backoff.failures.items():
        complain(f"{key}: failed {failure.times} times, last: {failure.text}")
    _note_approval(options.approve, outcomes[0].survey)
    summary(code, outcome)
    return code


def _note_approval(given: str, survey: Survey | None) -> None:
    """Say that ``--approve`` named nothing that was pending when the command began."""
    if not given or survey is None:
        return
    if not survey.missing:
        complain(f"--approve {given} had no effect: no removal is pending")
    elif given != approval_id(survey):
        complain(f"--approve {given} had no effect: the removals that are pending have the id {approval_id(survey)}")


def _dry_run(options: argparse.Namespace, settings: Settings) -> int:
    metrics, withheld = Metrics(CollectorRegistry()), DryRunLog()
    world = build_dependencies(settings, metrics, withheld)
    controller = Controller(world, metrics, _overrides(options), dry_run=True, reads_once=True)
    outcome = controller.cycle()
    _note_approval(options.approve, outcome.survey)
    if options.output == "json":
        out(printable_json(json.dumps({"would": withheld.writes}, indent=2, ensure_ascii=False)))
    else:
        out("\n".join(f"would {printable(write)}" for write in withheld.writes) or "would write nothing")
    code = Exit.ERROR if outcome.plan is None else Exit.REFUSED if outcome.plan.refusals else Exit.OK
    summary(code, outcome)
    return code

"""The loop, ``--once``, ``deploy`` and ``--dry-run``."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import CollectorRegistry

from openfactory_common import logs
from openfactory_common.errors import ConfigurationError
from openfactory_common.settings_types import strip_user
from openfactory_common.signals import SIGNALS
from openfactory_common.text import printable, printable_json
from reconciler.app import build_dependencies, build_platform, build_prober
from reconciler.cli.output import (
    add_adopt_option,
    add_command,
    add_output_option,
    add_timeout_option,
    echo,
    echo_error,
    echo_status,
    echo_summary,
    show_progress,
)
from reconciler.cli.settings import describe_unknown, make_report
from reconciler.control.controller import Controller, Dependencies
from reconciler.control.converge import Exit, converge
from reconciler.control.demand import DemandReader
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
from reconciler.settings import Environment, Protect, Settings

if TYPE_CHECKING:
    from reconciler.web.server import Server

log = structlog.get_logger()

#: Seconds within which the loop ends: the reads of its cycle and its current write; the stack file allows 30.
_GRACE_SECONDS = 20.0
_APPROVAL = re.compile("[0-9a-f]{8}")


def add(commands: Any) -> None:
    """Register ``deploy``."""
    add_once_options(add_command(commands, "deploy", deploy))


def add_once_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``--once`` to a parser."""
    add_timeout_option(parser)
    parser.add_argument("--no-prune", action="store_true", help="with --once or deploy: keep groups without assets")
    parser.add_argument("--allow-empty", action="store_true", help="with --once or deploy: accept an empty UNS map")
    parser.add_argument(
        "--accept-identity", action="store_true", help="with --once or deploy: accept another Kafka or ksqlDB cluster"
    )
    parser.add_argument(
        "--approve", metavar="ID", help="with --once or deploy: approve exactly the refused removals with this id"
    )
    add_adopt_option(parser)
    add_output_option(parser)


def check(options: argparse.Namespace) -> None:
    """Refuse invalid options and combinations of options.

    Raises:
        ConfigurationError: names the option and what it goes with.
    """
    if options.adopt and not is_id(options.adopt):
        raise ConfigurationError(f"--adopt {options.adopt}: an installation id is 8 hex digits, or 'legacy'")
    if options.dry_run and options.run not in (run, deploy):
        raise ConfigurationError("--dry-run goes with --once, deploy, or no command; `plan` shows what would be done")
    if options.approve and not _APPROVAL.fullmatch(options.approve):
        raise ConfigurationError(
            f"--approve {options.approve!r} is not an id of removals: 8 hex digits, as shown by `plan`"
        )
    is_loop = options.run is run and not options.once and not options.dry_run
    if is_loop and (options.allow_empty or options.accept_identity or options.approve):
        raise ConfigurationError(
            "--allow-empty, --accept-identity and --approve go with --once: a loop would also accept everything that "
            "happens later"
        )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Run the loop, or ``--once`` or ``--dry-run``."""
    return deploy(options, settings) if options.once or options.dry_run else _run_loop(options, settings)


def _make_overrides(options: argparse.Namespace) -> Overrides:
    allowed = (options.allow_empty, options.accept_identity, options.approve, options.adopt)
    return Overrides(*allowed, adoption=options.adoption)


def make_loop(settings: Settings, overrides: Overrides, metrics: Metrics) -> tuple[Dependencies, Loop, Server, Elector]:
    """Make a loop, its server and its leader election; nothing runs yet."""
    from reconciler.web.server import RegistryCache, Server  # noqa: PLC0415 - 400 ms, which only the loop needs

    cache = RegistryCache()

    def on_change() -> None:
        metrics.lease(elector.lease.holder, leads=elector.leads)
        loop.nudge()

    elector = Elector(
        build_platform(settings, metrics),
        Candidate(own_name(), settings.lease_seconds),
        alive=lambda: loop.alive,
        on_change=on_change,
    )
    deps = guard_by_lease(build_dependencies(settings, metrics), elector.writing)
    deps = replace(deps, prober=build_prober(settings, metrics), demand=DemandReader(settings))
    controller = Controller(deps, metrics, overrides, on_registry=cache.put, write_gate=elector)
    elector.events = controller.reporter.journal
    if settings.flow_interval > 0:
        controller.memory.flow = FlowWatch(deps.ksqldb, deps.strategy, settings.flow_interval)
    loop = Loop(controller, settings.reconcile_interval)
    return deps, loop, Server(loop, cache, settings.reconciler_port), elector


def _run_loop(options: argparse.Namespace, settings: Settings) -> int:
    deps, loop, server, elector = make_loop(settings, _make_overrides(options), Metrics())

    def stop() -> None:
        loop.stop()
        deps.ksqldb.stop_waiting()

    server.start()
    loop.controller.reporter.journal.info(
        "operator started",
        owner=settings.reconciler_owner,
        ksqldb=strip_user(settings.ksqldb_url),
        port=server.port,
        name=elector.me.name,
    )
    _log_access(settings)
    for variable in make_report().unknown:
        log.warning("unknown variable", variable=variable.name, origin=variable.origin, hint=variable.hint)
    with SIGNALS.orderly(elector.stop, on_ask=stop, grace=_GRACE_SECONDS):
        elector.start()
        loop.run()
    server.stop()
    deps.platform.close()
    deps.ksqldb.close()
    log.info("operator stopped")
    return Exit.OK


def _log_access(settings: Settings) -> None:
    """Say what protects the port, where that is less than it looks like."""
    if settings.reconciler_token_file is None:
        log.warning(
            "everyone who reaches the port may pause the operator",
            port=settings.reconciler_port,
            hint="RECONCILER_TOKEN_FILE makes writes need a token",
        )
    elif (
        settings.followed_url and not settings.reconciler_token_secret and settings.environment is not Environment.LOCAL
    ):
        log.warning(
            "the routing layer has no token for the operator",
            effect="it cannot read the registry"
            if settings.reconciler_protect is Protect.ALL
            else "new groups wait for RECONCILE_INTERVAL",
            hint="RECONCILER_TOKEN_SECRET names a secret with it",
        )


def deploy(options: argparse.Namespace, settings: Settings) -> int:
    """Apply, wait until ready, exit; the same as --once.

    It runs cycles until everything is in sync or cannot become so, and waits for the grace time of due removals.
    """
    if options.dry_run:
        return _dry_run(options, settings)
    command = "adopt" if options.adoption or options.adopt else "once"
    controller, elector = make_preempting_controller(settings, _make_overrides(options), command)
    logs.only_once()
    for line in describe_unknown():
        echo_error(line)
    first: list[CycleOutcome] = []
    with SIGNALS.orderly(elector.stop, on_ask=controller.deps.ksqldb.stop_waiting), show_progress() as show_cycle:

        def show(outcome: CycleOutcome) -> None:
            first.extend([outcome] if not first else [])
            show_cycle(outcome)

        code, outcome = converge(controller, options.timeout, prune=not options.no_prune, show=show)
    echo_status(options.output, outcome.plan, outcome.survey)
    for key, failure in controller.memory.backoff.failures.items():
        echo_error(f"{key}: failed {failure.times} times, last: {failure.text}")
    _check_approval(options.approve, first[0].survey)
    echo_summary(code, outcome)
    return code


def make_preempting_controller(settings: Settings, overrides: Overrides, command: str) -> tuple[Controller, Elector]:
    """Make a controller that takes the lease from a running operator for its first write, and its election."""
    metrics = Metrics(CollectorRegistry())
    candidate = Candidate(own_name(command), settings.lease_seconds, preempts=True)
    elector = Elector(build_platform(settings, metrics), candidate, lazy=True)
    deps = guard_by_lease(build_dependencies(settings, metrics), elector.writing)
    deps = replace(deps, prober=build_prober(settings, metrics))
    return Controller(deps, metrics, overrides, write_gate=elector, stopping=lambda: SIGNALS.asked), elector


def _check_approval(given: str, survey: Survey | None) -> None:
    """Report an ``--approve`` that named no removal that was pending at the start of the command."""
    if not given or survey is None:
        return
    if not survey.missing:
        echo_error(f"--approve {given} had no effect: no removal is pending")
    elif given != approval_id(survey):
        echo_error(f"--approve {given} had no effect: the pending removals have the id {approval_id(survey)}")


def _dry_run(options: argparse.Namespace, settings: Settings) -> int:
    metrics, dry_run_log = Metrics(CollectorRegistry()), DryRunLog()
    deps = build_dependencies(settings, metrics, dry_run_log)
    outcome = Controller(deps, metrics, _make_overrides(options), dry_run=True, reads_once=True).cycle()
    _check_approval(options.approve, outcome.survey)
    if options.output == "json":
        echo(printable_json(json.dumps({"would": dry_run_log.writes}, indent=2, ensure_ascii=False)))
    else:
        echo("\n".join(f"would {printable(write)}" for write in dry_run_log.writes) or "would write nothing")
    code = Exit.ERROR if outcome.plan is None else Exit.REFUSED if outcome.plan.refusals else Exit.OK
    echo_summary(code, outcome)
    return code

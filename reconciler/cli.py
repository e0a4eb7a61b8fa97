"""The command line. Machine output goes to standard output, logs and the one-line summary to standard error."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry
from rich.console import Console

from reconciler import logs, render
from reconciler.controller import Controller, Outcome, World, explained, without_user
from reconciler.converge import Exit, converge
from reconciler.errors import ConfigurationError, PlatformError, ReconcilerError
from reconciler.guards import Overrides
from reconciler.loop import Loop
from reconciler.metrics import Metrics
from reconciler.model import Plan
from reconciler.progress import progress, status_table
from reconciler.readonly import Withheld
from reconciler.server import Board, Server
from reconciler.settings import Policy, Settings, load
from reconciler.survey import Survey
from reconciler.teardown import teardown
from reconciler.wiring import build_world

log = structlog.get_logger()

_EPILOG = """\
exit codes:
  0  in sync, or applied and converged
  1  runtime error (a side did not answer, a read was not complete)
  2  usage or configuration
  3  changes are pending (plan --detailed-exitcode)
  4  refused by a safety rule; the message says how to go on
  5  applied, but not converged in time

examples:
  reconciler                          run the loop (what the service in the Swarm does)
  reconciler --once                   converge, then exit: for CI
  reconciler plan --detailed-exitcode show what would be done; 3 if there is something
  reconciler status -o json           what is, for machines

Settings are environment variables (or a .env file). The two that must be set are KAFKA_BROKER and KSQLDB_URL; the
README lists all.
"""


_DEFAULTS = {
    "timeout": 300.0,
    "approve": "",
    "output": "text",
    "detailed_exitcode": False,
    "keep_streams": False,
    "yes": False,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parser().parse_args(arguments)
    settings: Settings
    try:
        settings = load()
        if options.no_prune and settings.reconcile_policy is Policy.SYNC:
            settings = load(reconcile_policy=Policy.UPSERT_ONLY)
        logs.configure(settings.log_level)
        _check(options)
        return int(options.run(options, settings))
    except ConfigurationError as error:
        print(f"reconciler: {error}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        return Exit.USAGE
    except ReconcilerError as error:
        print(f"reconciler: {explained(error, settings)}", file=sys.stderr)  # noqa: T201 - the one-line summary
        return Exit.ERROR
    except KeyboardInterrupt:
        return Exit.ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reconciler",
        description="Keeps ksqlDB streams and Swarm services equal to the groups of the UNS map. Without a command it "
        "runs as a loop.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run, **_DEFAULTS)
    parser.add_argument("--once", action="store_true", help="converge, then exit")
    parser.add_argument("--dry-run", action="store_true", help="with --once or alone: one cycle that writes nothing")
    _once_options(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    plan = _command(commands, "plan", "show what would be done, and do nothing", _plan)
    plan.add_argument("--detailed-exitcode", action="store_true", help="exit with 3 if changes are pending")
    _output_option(plan)
    _output_option(_command(commands, "status", "show every group: condition, members, stream, service, URL", _status))
    deploy = _command(commands, "deploy", "the same as --once", _once)
    _once_options(deploy)
    down = _command(commands, "teardown", "remove all services, streams and configs of this owner", _teardown)
    down.add_argument("--keep-streams", action="store_true", help="leave the ksqlDB streams")
    down.add_argument("--yes", action="store_true", help="do not ask, also on a terminal")
    _command(commands, "runserver", "run the routing layer here, on ROUTING_LAYER_PORT", _runserver)
    return parser


def _command(commands: Any, name: str, text: str, run: Callable[..., int]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        # Without defaults of its own: an option that stands before the command must not be undone by it.
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        argument_default=argparse.SUPPRESS,
    )
    parser.set_defaults(run=run)
    return parser


def _output_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", choices=("text", "json", "markdown"), help="format (text)")


def _once_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds to converge in (300)")
    parser.add_argument("--no-prune", action="store_true", help="leave groups without assets alone")
    parser.add_argument("--allow-empty", action="store_true", help="with --once: a map without groups is meant")
    parser.add_argument("--accept-identity", action="store_true", help="with --once: another Kafka or ksqlDB is meant")
    parser.add_argument(
        "--approve", metavar="ID", help="with --once: let exactly the refused removals with this id through"
    )
    _output_option(parser)


def _check(options: argparse.Namespace) -> None:
    """Refuse options that make no sense together.

    Raises:
        ConfigurationError: with what goes with what.
    """
    if options.dry_run and options.run not in (_run, _once):
        raise ConfigurationError("--dry-run goes with --once, deploy, or no command; plan shows what would be done")
    loops = options.run is _run and not options.once and not options.dry_run
    if loops and (options.allow_empty or options.accept_identity or options.approve):
        raise ConfigurationError(
            "--allow-empty, --accept-identity and --approve go with --once: a loop would say yes to everything that "
            "comes later, too"
        )


def _run(options: argparse.Namespace, settings: Settings) -> int:
    return _once(options, settings) if options.once or options.dry_run else _loop(options, settings)


def _overrides(options: argparse.Namespace) -> Overrides:
    return Overrides(options.allow_empty, options.accept_identity, options.approve)


def _loop(options: argparse.Namespace, settings: Settings) -> int:
    metrics, board = Metrics(), Board()
    world = build_world(settings, metrics)
    loop = Loop(Controller(world, metrics, _overrides(options), on_registry=board.put), settings.reconcile_interval)
    server = Server(loop, board, settings.reconciler_port)
    server.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _stop(loop, world))
    log.info(
        "operator started", owner=settings.reconciler_owner, ksqldb=without_user(settings.ksqldb_url), port=server.port
    )
    loop.run()
    server.stop()
    world.platform.close()
    world.ksqldb.close()
    log.info("operator stopped")
    return Exit.OK


def _stop(loop: Loop, world: World) -> None:
    loop.stop()
    world.ksqldb.stop_waiting()


def _once(options: argparse.Namespace, settings: Settings) -> int:
    if options.dry_run:
        return _dry_run(options, settings)
    metrics = Metrics(CollectorRegistry())
    controller = Controller(build_world(settings, metrics), metrics, _overrides(options))
    with progress() as show:
        code, outcome = converge(controller, options.timeout, prune=not options.no_prune, show=show)
    _show_status(options.output, outcome)
    _summary(code, outcome)
    return code


def _dry_run(options: argparse.Namespace, settings: Settings) -> int:
    metrics, withheld = Metrics(CollectorRegistry()), Withheld()
    controller = Controller(build_world(settings, metrics, withheld), metrics, _overrides(options))
    outcome = controller.cycle()
    if options.output == "json":
        _out(json.dumps({"would": withheld.writes}, indent=2, ensure_ascii=False))
    else:
        _out("\n".join(f"would {write}" for write in withheld.writes) or "would write nothing")
    code = Exit.ERROR if outcome.plan is None else Exit.REFUSED if outcome.plan.refusals else Exit.OK
    _summary(code, outcome)
    return code


def _look(settings: Settings) -> tuple[Plan, Survey]:
    metrics = Metrics(CollectorRegistry())
    controller = Controller(build_world(settings, metrics, Withheld()), metrics)
    survey, verdict = controller.look()
    return controller.plan(survey, verdict), survey


def _plan(options: argparse.Namespace, settings: Settings) -> int:
    plan, _ = _look(settings)
    shown = {"text": render.plan_text, "json": render.plan_json, "markdown": render.plan_markdown}
    _out(shown[options.output](plan))
    if any(refusal.guard != "health" for refusal in plan.refusals):
        return Exit.REFUSED
    return Exit.CHANGES if options.detailed_exitcode and not plan.settled else Exit.OK


def _status(options: argparse.Namespace, settings: Settings) -> int:
    plan, survey = _look(settings)
    _show_status(options.output, Outcome("", "", plan, survey))
    return Exit.OK


def _show_status(output: str, outcome: Outcome) -> None:
    if outcome.plan is None or outcome.survey is None:
        return
    if output == "json":
        _out(render.status_json(outcome.plan, outcome.survey))
    elif output == "markdown":
        _out(render.status_markdown(outcome.plan, outcome.survey))
    elif sys.stdout.isatty():
        console = Console()
        console.print(status_table(outcome.plan))
        _out("\n".join(render.status_notes(outcome.plan, outcome.survey)))
    else:
        _out(render.status_text(outcome.plan, outcome.survey))


def _teardown(options: argparse.Namespace, settings: Settings) -> int:
    question = f"Remove all services, streams and configs of owner {settings.reconciler_owner!r}? [y/N] "
    if sys.stdin.isatty() and not options.yes and input(question).strip().lower() not in ("y", "yes"):
        return Exit.OK
    _pause_running_operator(settings)
    failed = 0
    for result in teardown(build_world(settings, Metrics(CollectorRegistry())), keep_streams=options.keep_streams):
        failed += result.outcome != "ok"
        _out(f"{'removed' if result.outcome == 'ok' else 'kept'} {result.action.key}" + _reason(result.error))
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


def _runserver(_: argparse.Namespace, settings: Settings) -> int:
    """Replace this process by the routing layer, with the published registry as its boot copy."""
    environment = {
        "KSQLDB_URL": settings.ksqldb_url,
        "ROUTING_LAYER_PORT": str(settings.routing_layer_port),
        "LOG_LEVEL": settings.log_level.value,
        "RECONCILER_URL": os.environ.get("RECONCILER_URL", f"http://127.0.0.1:{settings.reconciler_port}"),
        "REGISTRY_FILE": os.environ.get("REGISTRY_FILE") or _boot_copy(settings),
    }
    os.execve(sys.executable, [sys.executable, "-m", "routing_layer"], {**os.environ, **environment})  # noqa: S606 - no shell is meant


def _boot_copy(settings: Settings) -> str:
    path = Path(tempfile.mkdtemp(prefix="openfactory-")) / "registry.json"
    try:
        for live in build_world(settings, Metrics(CollectorRegistry())).platform.observe().registries[:1]:
            path.write_bytes(live.data)
    except PlatformError as error:
        log.warning("no boot copy of the registry", error=str(error))
    return str(path)


def _out(text: str) -> None:
    print(text)  # noqa: T201 - this is the output


def _summary(code: Exit, outcome: Outcome) -> None:
    print(f"reconciler: {outcome.sentence} (exit {code})", file=sys.stderr)  # noqa: T201 - the one-line summary

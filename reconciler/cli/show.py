"""``plan`` and ``status``: read and show, write nothing."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from typing import Any, NoReturn

from prometheus_client import CollectorRegistry

from openfactory_common.errors import ConfigurationError, ReconcilerError
from openfactory_common.text import printable
from reconciler.app import build_dependencies
from reconciler.cli.output import add_command, add_output_option, echo, echo_error, echo_status
from reconciler.cli.running_operator import NoResponse, ask, ask_counters
from reconciler.cli.settings import describe_unknown
from reconciler.control.controller import Controller
from reconciler.control.converge import Exit
from reconciler.control.guarded import DryRunLog
from reconciler.control.preflight import find_missing
from reconciler.domain.status import Condition, Plan
from reconciler.metrics import Metrics
from reconciler.planning.survey import Survey
from reconciler.report.counters import restore
from reconciler.report.text import plan_json, plan_markdown, plan_text, show_titles
from reconciler.settings import Settings

#: Seconds between two questions whether the running operator has news, and between two reads where none answers.
_ASK_SECONDS, _READ_SECONDS = 1.0, 5.0
#: Seconds after which everything is read again although the operator has no news: numbers change without an event.
_LONGEST_SECONDS = 30.0
_CLEAR = "\x1b[H\x1b[2J\x1b[3J"


def add(commands: Any) -> None:
    """Register ``plan`` and ``status``."""
    plan = add_command(commands, "plan", _plan)
    plan.add_argument(
        "--detailed-exitcode",
        action="store_true",
        help="exit with 3 if changes are pending or in progress, with 5 if manual intervention is needed",
    )
    add_output_option(plan)
    status = add_command(commands, "status", _status)
    status.add_argument("-w", "--watch", action="store_true", help="show it again when it changes, until Ctrl-C")
    add_output_option(status)


def make_reader(settings: Settings) -> Controller:
    """Return a controller that reads once and cannot write."""
    metrics = Metrics(CollectorRegistry())
    controller = Controller(build_dependencies(settings, metrics, DryRunLog()), metrics, reads_once=True)
    controller.reporter.journal.logs = False
    return controller


def observe(settings: Settings) -> tuple[Plan, Survey]:
    """Read everything and plan; add notes about where counters come from and what the writes would miss."""
    controller = make_reader(settings)
    response = ask_counters(settings)
    if isinstance(response, NoResponse):
        source = f"counters start with this command, because no running operator answered ({response.why})"
    else:
        source = f"counters are from the operator at {response[0]}"
        restore(controller, response[1])
    survey, verdict = controller.observe()
    plan = controller.plan(survey, verdict)
    notes = [source] if survey.missing or controller.memory.guards.silent else []
    notes += describe_unknown()
    if not plan.in_sync:  # in sync, nothing is created, and this command reads no more than a cycle of the loop
        deps = controller.deps
        notes += find_missing(survey, deps.ksqldb, deps.platform, settings, deps.groups_file.current)
    return replace(plan, notes=(*plan.notes, *notes)), survey


def _plan(options: argparse.Namespace, settings: Settings) -> int:
    """Show what would be done, and write nothing.

    It reads everything and shows what a cycle would do now. Each line is a group or service that differs from its
    desired state: to create (+), update (~), repair (!), remove (-), wait for (?), or in conflict (x). Counts of a
    removal's grace time come from the running operator, on this host or at RECONCILER_URL; without one they start at
    the first read. A note names what the writes would miss: a network, a secret, a stream or a table that the operator
    does not create.
    """
    plan, _ = observe(settings)
    render = {"text": plan_text, "json": plan_json, "markdown": plan_markdown}
    echo(render[options.output](plan))
    if any(refusal.guard != "health" for refusal in plan.refusals):
        return Exit.REFUSED
    return choose_exit(plan) if options.detailed_exitcode else Exit.OK


def choose_exit(plan: Plan) -> Exit:
    """Return the detailed exit code of a plan that no rule refuses."""
    if not plan.settled:
        return Exit.CHANGES
    wrong = (Condition.CONFLICT, Condition.DEGRADED)
    return Exit.NOT_CONVERGED if plan.halted or any(item.condition in wrong for item in plan.items) else Exit.OK


def _status(options: argparse.Namespace, settings: Settings) -> int:
    """Show every group: condition, members, stream, service, URL.

    It also shows running and wanted tasks, and the reason if a group is not Ready. It reads everything and writes
    nothing. A narrow terminal leaves out what follows from a group's name; a pipe and -o json have everything. The
    running operator shows the same at http://<manager>:RECONCILER_PORT/ for people and at /status for programs. With -w
    a terminal shows it again when it has changed, and a pipe gets a line for each object that has changed.
    """
    if getattr(options, "watch", False):
        _watch(options.output, settings)
    echo_status(options.output, *observe(settings))
    return Exit.OK


def _watch(output: str, settings: Settings) -> NoReturn:
    """Show the status whenever it has changed; a read that fails is said, and repeated."""
    shown: dict[str, str] = {}
    while True:
        news = _ask_last(settings)  # before the read, so that none is missed
        try:
            plan, survey = observe(settings)
        except ConfigurationError:
            raise
        except ReconcilerError as error:
            echo_error(str(error))
        else:
            titles, before = show_titles(plan.items), shown
            shown = {
                item.title: f"{titles[item.title]}: {item.condition.value} {item.running}/{item.wanted} tasks"
                + (f": {printable(item.detail)}" if item.detail else "")
                for item in plan.items
            }
            changed = [line for title, line in shown.items() if before.get(title) != line]
            changed += [f"{printable(title)}: gone" for title in before.keys() - shown.keys()]
            if changed and output == "text" and not sys.stdout.isatty():
                echo("\n".join(changed))
            elif changed:
                echo_status(output, plan, survey, first=_CLEAR if output == "text" else "")
        waited = 0.0
        while waited < _LONGEST_SECONDS:
            time.sleep(pause := _ASK_SECONDS if news else _READ_SECONDS)
            waited += pause
            if not news or _ask_last(settings) != news:
                break


def _ask_last(settings: Settings) -> int:
    """Return the id of the running operator's last event, 0 where none answers."""
    answer = ask(settings, "/events?limit=0")
    return 0 if isinstance(answer, NoResponse) else int(answer.document.get("last") or 0)

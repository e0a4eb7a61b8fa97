"""``plan`` and ``status``: look, and write nothing."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry

from reconciler.app import build_dependencies
from reconciler.cli.operator import NoResponse, counters
from reconciler.cli.output import command, out, output_option, show_status
from reconciler.cli.settings import misspelt
from reconciler.control.controller import Controller
from reconciler.control.converge import Exit
from reconciler.control.guarded import DryRunLog
from reconciler.control.outcome import CycleOutcome
from reconciler.control.preflight import find_missing
from reconciler.domain.status import Condition, CycleResult, Plan
from reconciler.metrics import Metrics
from reconciler.planning.survey import Survey
from reconciler.report import text as render
from reconciler.report.counters import count_on
from reconciler.settings import Settings


def add(commands: Any) -> None:
    """Register ``plan`` and ``status``."""
    plan = command(commands, "plan", "show what would be done, and do nothing", _plan)
    plan.add_argument(
        "--detailed-exitcode",
        action="store_true",
        help="exit with 3 if changes are pending or on their way, with 5 if only a person can help",
    )
    output_option(plan)
    output_option(command(commands, "status", "show every group: condition, members, stream, service, URL", _status))


def observe(settings: Settings) -> tuple[Plan, Survey]:
    """Read everything and plan, with nothing that could write; note what the writes would miss."""
    metrics = Metrics(CollectorRegistry())
    world = build_dependencies(settings, metrics, DryRunLog())
    controller = Controller(world, metrics, reads_once=True)
    source = count_on_from_operator(controller, settings)
    survey, verdict = controller.observe()
    plan = controller.plan(survey, verdict)
    counting = (source,) if survey.missing or controller.memory.guards.silent else ()
    plan = replace(plan, notes=(*plan.notes, *counting, *misspelt()))
    if plan.in_sync:  # nothing is to be made, and a look costs no more than in the loop
        return plan, survey
    return replace(plan, notes=(*plan.notes, *find_missing(survey, world.ksqldb, world.platform, settings))), survey


def count_on_from_operator(controller: Controller, settings: Settings) -> str:
    """Take over what the operator that runs has counted, and say so; or say that counters start with this process."""
    told = counters(settings)
    if isinstance(told, NoResponse):
        return f"counters start with this process, because no operator told its own ({told.why})"
    url, counted = told
    count_on(controller, counted)
    return f"counters are those of the operator at {url}"


def _plan(options: argparse.Namespace, settings: Settings) -> int:
    plan, _ = observe(settings)
    shown = {"text": render.plan_text, "json": render.plan_json, "markdown": render.plan_markdown}
    out(shown[options.output](plan))
    if any(refusal.guard != "health" for refusal in plan.refusals):
        return Exit.REFUSED
    return detailed(plan) if options.detailed_exitcode else Exit.OK


def detailed(plan: Plan) -> Exit:
    """Return what ``--detailed-exitcode`` says of a plan that no rule refuses."""
    if not plan.settled:
        return Exit.CHANGES
    wrong = (Condition.CONFLICT, Condition.DEGRADED)
    return Exit.NOT_CONVERGED if any(item.condition in wrong for item in plan.items) else Exit.OK


def _status(options: argparse.Namespace, settings: Settings) -> int:
    plan, survey = observe(settings)
    show_status(
        options.output, CycleOutcome(CycleResult.IN_SYNC if plan.in_sync else CycleResult.PROGRESSING, "", plan, survey)
    )
    return Exit.OK

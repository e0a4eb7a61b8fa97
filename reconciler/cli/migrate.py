"""``migrate``: from the system before this one to this one, step by step, and back."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

from prometheus_client import CollectorRegistry

from openfactory_common.errors import ConfigurationError, LeaseLost, ReconcilerError
from openfactory_common.signals import SIGNALS
from openfactory_common.text import printable, printable_json, printable_lines
from reconciler.app import build_dependencies
from reconciler.cli.output import (
    add_command,
    add_output_option,
    add_timeout_option,
    echo,
    echo_error,
    echo_status,
    echo_summary,
    show_progress,
    tolerant_echo,
)
from reconciler.cli.run import make_preempting_controller
from reconciler.control.controller import Controller, Dependencies
from reconciler.control.converge import Exit, converge
from reconciler.control.guarded import DryRunLog, Writing, guard_writes
from reconciler.control.teardown import remove_records
from reconciler.leadership.elector import WriteGate
from reconciler.leadership.pause import read_pause
from reconciler.metrics import Metrics
from reconciler.migration import migrate
from reconciler.migration.legacy import PORT, OldServices, OldStream
from reconciler.migration.migrate import MigrationState, PortState, StepRefused, observe, observe_port
from reconciler.planning.guards import Overrides
from reconciler.settings import Settings

_STEPS = ("start", "switch", "back", "remove_old")
#: Seconds before each try to give the port back: a service's version also changes while it is updated.
_PORT_RETRY_SECONDS = (0.0, 0.5, 1.0, 2.0)
#: Seconds beyond the lease's duration to wait for its holder to end a write.
_WRITE_SECONDS = 30.0
#: Seconds between two tries to do a step with the lease held.
_LEASE_RETRY_SECONDS = 1.0
#: Seconds within which a step ends after a signal: the reads of a cycle, and giving the port back.
_GRACE_SECONDS = 60.0


def add(commands: Any) -> None:
    """Register ``migrate``."""
    parser = add_command(commands, "migrate", _migrate)
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument("--start", action="store_true", help="free the names that new streams need, and converge")
    steps.add_argument("--switch", action="store_true", help=f"move port {PORT} to the new router, and converge")
    steps.add_argument("--back", action="store_true", help="move the port back or, after a teardown, the stream names")
    steps.add_argument("--remove-old", action="store_true", help="remove the old system's services and streams")
    add_timeout_option(parser)
    add_output_option(parser, "text", "json")


def _migrate(options: argparse.Namespace, settings: Settings) -> int:
    """Migrate from the system before this one, step by step.

    The old system has services stream-api-group-<name>, serving_layer_router and openfactory-state-api, and a join for
    each group. Without an option, the command shows the old and the new system, what blocks, and the next step, and
    writes nothing.

    Each step can be run again, is refused if it is not safe, and can be undone until --remove-old. Only objects that
    have exactly the old system's form are changed. docs/migrate.md describes the whole procedure.
    """
    if settings.deployment_platform != "swarm":
        raise ConfigurationError(
            f"DEPLOYMENT_PLATFORM={settings.deployment_platform}: migrate supports the old system only on a Swarm"
        )
    chosen = next((name for name in _STEPS if getattr(options, name, False)), "")
    from reconciler.migration.swarm import SwarmOldServices  # noqa: PLC0415 - the Docker SDK takes 200 ms

    old = SwarmOldServices()
    try:
        if chosen:
            return _run_with_lease(chosen, options, settings, old)
        metrics = Metrics(CollectorRegistry())
        scene = observe(Controller(build_dependencies(settings, metrics, DryRunLog()), metrics), old)
        echo(printable_json(render_json(scene)) if options.output == "json" else printable_lines(render_text(scene)))
    except StepRefused as refusal:
        echo_error(f"refused: {refusal} (exit {Exit.REFUSED})")
        return Exit.REFUSED
    finally:
        old.close()
    return Exit.OK


def _run_with_lease(chosen: str, options: argparse.Namespace, settings: Settings, old: OldServices) -> int:
    """Run one step; the same lease guards its writes and those of the operator's own cycles."""
    overrides = Overrides(options.allow_empty, options.accept_identity, options.approve)
    operator, elector = make_preempting_controller(settings, overrides, "migrate")
    deps = operator.deps

    def converge_operator() -> int:
        with show_progress() as show:
            code, outcome = converge(operator, options.timeout, prune=not options.no_prune, show=show)
        echo_status("text", outcome.plan, outcome.survey)
        echo_summary(code, outcome)
        return code

    def run() -> int:
        return run_step(
            chosen, Controller(deps, operator.reporter.metrics), old, converge_operator, writing=elector.writing
        )

    with SIGNALS.orderly(elector.stop, on_ask=deps.ksqldb.stop_waiting, grace=_GRACE_SECONDS):
        code = repeat_until_leader(run, elector, settings.lease_seconds + _WRITE_SECONDS)
    if chosen == "back" and elector.role is not None and observe_port(deps, old).is_torn_down:
        # As after the teardown: no lease of an owner that has nothing; the teardown recorded whether streams are left.
        remove_records(deps.platform, streams_left=True)
    return code


def repeat_until_leader(run: Callable[[], int], gate: WriteGate, timeout: float) -> int:
    """Run something repeatable, each time from its first read on, until the lease is held for its writes.

    Raises:
        StepRefused: the lease was not held within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        gate.begin()
        try:
            return run()
        except LeaseLost as lost:
            if time.monotonic() >= deadline:
                raise StepRefused(f"{lost}; run it again") from lost
        SIGNALS.sleep(_LEASE_RETRY_SECONDS)


def run_step(
    chosen: str,
    controller: Controller,
    old: OldServices,
    converge: Callable[[], int],
    *,
    writing: Writing = nullcontext,
) -> int:
    """Run one step and return the exit code.

    Args:
        chosen: the step.
        controller: reads; its dependencies must be guarded by the same lease.
        old: services, not guarded.
        converge: runs the operator's cycles; returns an exit code.
        writing: guards writes to the old services.

    Raises:
        StepRefused: writes are paused, or another step comes first.
        ReconcilerError: a read or a write failed; the step can be run again.
    """
    guarded_old: OldServices = guard_writes(old, ("publish", "remove"), writing)
    if chosen == "back":
        return _run_back(controller, guarded_old, converge)
    scene = observe(controller, old)
    _check_pause(scene, controller)
    if chosen == "switch":
        return _run_switch(scene, controller.deps, old, guarded_old, converge)
    if chosen == "start":
        _report(migrate.start(scene, controller.deps), can_stop=True)
        return converge()
    _report(migrate.remove_old(scene, controller.deps, guarded_old), can_stop=True)
    return Exit.OK


def _check_pause(front: PortState, controller: Controller) -> None:
    pause = read_pause(controller.memory.pause, front.platform.records)
    if pause is not None and pause.active(controller.clocks.wall()):
        raise StepRefused(pause.text)


def _run_switch(
    scene: MigrationState, deps: Dependencies, old: OldServices, guarded_old: OldServices, converge: Callable[[], int]
) -> int:
    """Move the port; if the new router does not take it, for whatever reason, give it back to the old one at once.

    This last write needs no lease: it reverts a write of this command, at the version that was read, and no operator
    ever writes to that service. A lost lease must not leave the port without a router.
    """
    moved = False
    try:
        _report(migrate.switch(scene, guarded_old))
        code = converge()
        moved = not scene.old_has_port or observe_port(deps, old).new_has_port
    finally:  # after Ctrl-C, too: no router may have the port now
        if not moved:
            _restore_port(scene, deps, old)
    return code if moved else code or Exit.NOT_CONVERGED


def _restore_port(before: PortState, deps: Dependencies, old: OldServices) -> None:
    """Give the old router the port that it had, unless the new one has it; ksqlDB is not needed."""
    if not before.old_has_port:
        return
    for seconds in _PORT_RETRY_SECONDS:
        time.sleep(seconds)
        try:
            front = observe_port(deps, old)
            if not front.new_has_port:
                _report(migrate.restore_port(front, old))
        except (ReconcilerError, StepRefused) as error:
            failure = error
        else:
            return
    echo_error(f"no router may have port {PORT} now ({failure}): run `reconciler migrate --back`")


def _run_back(controller: Controller, old: OldServices, converge: Callable[[], int]) -> int:
    """Give back the port, for which ksqlDB is not needed, and then the names."""
    deps = controller.deps
    front = observe_port(deps, old)
    _check_pause(front, controller)
    if front.new_has_port and not front.new_should_have_port:  # the new router has to leave it first
        converge()
        _report(migrate.release_port(observe_port(deps, old), deps))
    done = _report(migrate.restore_port(observe_port(deps, old), old))
    scene = observe(controller, old)
    done += _report(migrate.restore_names(scene, deps))
    if scene.stand_ins and not scene.is_torn_down:
        echo("the old services read from stand-ins; `reconciler teardown`, then `migrate --back`, gives the names back")
    elif not done:
        echo("nothing to take back")
    return Exit.OK


def _report(done: Iterator[str], *, can_stop: bool = False) -> int:
    """Report each part that is done, and return how many; ``can_stop`` between two if another run can complete them."""
    count = 0
    with tolerant_echo() as report:
        for line in done:
            report(printable(line))
            count += 1
            if can_stop:
                SIGNALS.check()
    return count


def render_text(scene: MigrationState) -> str:
    """Render both systems and the next step for people."""
    rows = []
    for service in scene.unmodified:
        port = f", port {', '.join(map(str, service.ports))}" if service.ports else ""
        group = "" if service.group is None else f" {service.group!r}"
        rows.append((service.name, f"{service.role}{group}, {service.running}/{service.wanted}{port}"))
    rows += [(stream.name, _describe_stream(stream, scene)) for stream in scene.streams]
    rows += [(one.name, f"left alone: {one.deviation}") for one in scene.services if one.deviation]
    rows += [(one.name, f"not ours: {why}") for one, why in scene.others]
    width = max((len(name) for name, _ in rows), default=0)
    lines = [f"{name:{width}}  {what}".rstrip() for name, what in rows]
    groups = [item for item in scene.plan.items if item.group is not None]
    ready = sum(item.condition == "Ready" for item in groups)
    lines = ["The old system:", *lines] if lines else ["There are no objects of the old system."]
    lines += ["", f"The new system: {ready} of {len(groups)} groups ready."]
    if scene.next_step:
        lines += [*(f"  {reason}" for reason in scene.unready_reasons[:10]), f"\nNext: {scene.next_step}"]
    return "\n".join(lines)


def _describe_stream(stream: OldStream, scene: MigrationState) -> str:
    if stream.stand_in:
        return f"stand-in for the old stream, writes {stream.topic}"
    needed = "; the new stream needs its name" if stream in scene.conflicting else ""
    return f"old stream, writes {stream.topic}{needed}"


def render_json(scene: MigrationState) -> str:
    """Render the same for programs."""
    services = [
        {
            "name": s.name,
            "role": s.role,
            "group": s.group,
            "ports": s.ports,
            "running": s.running,
            "odd": s.deviation or None,
        }
        for s in scene.services
    ]
    streams = [{"name": s.name, "group": s.group, "topic": s.topic, "stand_in": s.stand_in} for s in scene.streams]
    document = {
        "services": services,
        "not_ours": {one.name: why for one, why in scene.others},
        "streams": streams,
        "in_the_way": [stream.name for stream in scene.conflicting],
        "unready": scene.unready_reasons,
        "next": scene.next_step or None,
    }
    return json.dumps(document, indent=2, ensure_ascii=False)

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
from reconciler.app import build_dependencies, build_platform
from reconciler.cli.output import command, complain, out, show_status, summary, telling, timeout_option
from reconciler.cli.progress import progress
from reconciler.control.controller import Controller, Dependencies
from reconciler.control.converge import Exit, converge
from reconciler.control.fence import Writing, guard_by_lease
from reconciler.control.readonly import DryRunLog
from reconciler.control.teardown import remove_records
from reconciler.leadership.elector import Elector, LazyElector, WriteGate, own_name
from reconciler.leadership.lease import Candidate
from reconciler.leadership.pause import latest
from reconciler.metrics import Metrics
from reconciler.migration import migrate
from reconciler.migration.legacy import PORT, OldService, OldServices, OldStream
from reconciler.migration.migrate import MigrationState, PortState, StepRefused, observe, observe_port
from reconciler.migration.swarm import SwarmOldServices
from reconciler.planning.guards import Overrides
from reconciler.settings import Settings

_STEPS = ("start", "switch", "back", "remove_old")
#: Seconds to wait before each try to give the port back: a service's version also changes while it is being updated.
_WAITS = (0.0, 0.5, 1.0, 2.0)
#: Seconds beyond the lease's duration to wait for one that is in the middle of a write.
_PATIENCE = 30.0
#: Seconds between two tries to do a step with the lease held.
_PAUSE = 1.0
#: Seconds within which a step ends that was told to: a cycle's reads, and giving the port back.
_GRACE = 60.0


def add(commands: Any) -> None:
    """Register ``migrate``."""
    parser = command(commands, "migrate", "come from the system before this one, step by step", _migrate)
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument("--start", action="store_true", help="free the names that new streams need, and converge")
    steps.add_argument("--switch", action="store_true", help=f"give port {PORT} to the new router, and converge")
    steps.add_argument("--back", action="store_true", help="give the port back, or after a teardown the names")
    steps.add_argument("--remove-old", action="store_true", help="remove the old system's services and streams")
    timeout_option(parser)
    parser.add_argument("-o", "--output", choices=("text", "json"), help="format of what is shown (text)")


def _migrate(options: argparse.Namespace, settings: Settings) -> int:
    if settings.deployment_platform != "swarm":
        raise ConfigurationError(
            f"DEPLOYMENT_PLATFORM={settings.deployment_platform}: migrate knows the old system on a Swarm only"
        )
    chosen = next((step for step in _STEPS if getattr(options, step, False)), "")
    old = SwarmOldServices()
    try:
        return _write(chosen, options, settings, old) if chosen else _show(options, settings, old)
    except StepRefused as refusal:
        complain(f"refused: {refusal} (exit {Exit.REFUSED})")
        return Exit.REFUSED
    finally:
        old.close()


def _show(options: argparse.Namespace, settings: Settings, old: OldServices) -> int:
    metrics = Metrics(CollectorRegistry())
    scene = observe(Controller(build_dependencies(settings, metrics, DryRunLog()), metrics), old)
    out(printable_json(as_json(scene)) if options.output == "json" else printable_lines(as_text(scene)))
    return Exit.OK


def _write(chosen: str, options: argparse.Namespace, settings: Settings, old: OldServices) -> int:
    """Do one step behind the fence, and let one lease cover it and the operator's own cycles."""
    metrics = Metrics(CollectorRegistry())
    me = Candidate(own_name(), settings.lease_seconds, preempts=True)
    lease = LazyElector(Elector(build_platform(settings, metrics), me))
    world = guard_by_lease(build_dependencies(settings, metrics), lease.writing)
    overrides = Overrides(options.allow_empty, options.accept_identity, options.approve)
    operator = Controller(world, metrics, overrides, write_gate=lease, stopping=lambda: SIGNALS.asked)

    def act() -> int:
        looks = Controller(world, metrics)
        return step(chosen, looks, old, lambda: _converge(options, operator), writing=lease.writing)

    with SIGNALS.orderly(lease.stop, on_ask=world.ksqldb.stop_waiting, grace=_GRACE):
        code = preempting(act, lease, settings.lease_seconds + _PATIENCE)
    if chosen == "back" and lease.role is not None and observe_port(world, old).is_torn_down:
        # As the teardown left it: no lease of an owner that has nothing; it knew whether streams are left.
        remove_records(world.platform, streams_left=True)
    return code


def preempting(act: Callable[[], int], authority: WriteGate, seconds: float) -> int:
    """Do something that can be done again, from its first look on, until the lease is held for its writes.

    Raises:
        StepRefused: it was not for so many seconds.
    """
    deadline = time.monotonic() + seconds
    while True:
        authority.begin()
        try:
            return act()
        except LeaseLost as lost:
            if time.monotonic() >= deadline:
                raise StepRefused(f"{lost}; run it again") from lost
        SIGNALS.sleep(_PAUSE)


class LeaseGuardedOldServices:
    """The old system's services, written to only while the lease is held."""

    def __init__(self, inner: OldServices, writing: Writing) -> None:
        """Ask ``writing`` before each write."""
        self._inner = inner
        self._writing = writing

    def observe(self) -> tuple[OldService, ...]:
        """Read all of them."""
        return self._inner.observe()

    def publish(self, service: OldService, port: int | None) -> None:
        """Publish its port, or none."""
        with self._writing():
            self._inner.publish(service, port)

    def remove(self, service: OldService) -> None:
        """Remove it."""
        with self._writing():
            self._inner.remove(service)


def step(
    chosen: str,
    controller: Controller,
    old: OldServices,
    converge: Callable[[], int],
    *,
    writing: Writing = nullcontext,
) -> int:
    """Do one step and return the exit code.

    Args:
        chosen: which one.
        controller: which looks; its world writes as it is given, so it has to be behind the same fence.
        old: services, not behind a fence.
        converge: lets the operator make what it now can; returns an exit code.
        writing: the fence for writes to the old services.

    Raises:
        StepRefused: a pause holds all writes back, or something has to come first.
        ReconcilerError: a read or a write failed; the step can be run again.
    """
    fenced_old = LeaseGuardedOldServices(old, writing)
    if chosen == "back":
        return _back(controller, fenced_old, converge)
    scene = observe(controller, old)
    _need_no_pause(scene, controller)
    match chosen:
        case "start":
            _tell(migrate.start(scene, controller.world), may_end=True)
            return converge()
        case "switch":
            return _switch(scene, controller.world, old, fenced_old, converge)
        case _:
            _tell(migrate.remove_old(scene, controller.world, fenced_old), may_end=True)
    return Exit.OK


def _need_no_pause(front: PortState, controller: Controller) -> None:
    pause = latest(controller.pause, front.platform.records)
    if pause is not None and pause.active(controller.clocks.wall()):
        raise StepRefused(pause.text)


def _switch(
    scene: MigrationState, world: Dependencies, old: OldServices, fenced_old: OldServices, converge: Callable[[], int]
) -> int:
    """Move the port; where the new router does not take it, for whatever reason, the old one gets it back at once.

    That last write needs no lease: it undoes a write of this very command, at the version that was read, and no
    operator ever writes to that service. A lease that was lost meanwhile must not leave the port with nobody.
    """
    try:
        _tell(migrate.switch(scene, fenced_old))
        code = converge()
        if not scene.old_has_port or observe_port(world, old).new_has_port:
            return code
    except BaseException:  # Ctrl-C, too: what was taken may be nobody's now
        _rescue(scene, world, old)
        raise
    _rescue(scene, world, old)
    return code or Exit.NOT_CONVERGED


def _rescue(before: PortState, world: Dependencies, old: OldServices) -> None:
    """Give the old router the port that it had, unless the new one has it; ksqlDB may be away."""
    if not before.old_has_port:
        return
    for wait in _WAITS:
        time.sleep(wait)
        try:
            front = observe_port(world, old)
            if not front.new_has_port:
                _tell(migrate.restore_port(front, old))
        except (ReconcilerError, StepRefused) as error:
            trouble = error
        else:
            return
    complain(f"port {PORT} may be nobody's now ({trouble}): run `reconciler migrate --back`")


def _back(controller: Controller, old: OldServices, converge: Callable[[], int]) -> int:
    """Give back the port, for which ksqlDB need not be there, and then the names."""
    world = controller.world
    front = observe_port(world, old)
    _need_no_pause(front, controller)
    if front.new_has_port and not front.new_should_have_port:  # ours is to leave it first
        converge()
        _tell(migrate.release_port(observe_port(world, old), world))
    done = _tell(migrate.restore_port(observe_port(world, old), old))
    scene = observe(controller, old)
    done += _tell(migrate.restore_names(scene, world))
    if scene.stand_ins and not scene.is_torn_down:
        out("the old services are fed by stand-ins; `reconciler teardown`, then `migrate --back`, gives the names back")
    elif not done:
        out("nothing to take back")
    return Exit.OK


def _converge(options: argparse.Namespace, operator: Controller) -> int:
    """Let the operator's own cycles make the new side, as ``--once`` does."""
    with progress(complain) as show:
        code, outcome = converge(operator, options.timeout, prune=not options.no_prune, show=show)
    show_status("text", outcome)
    summary(code, outcome)
    return code


def _tell(done: Iterator[str], *, may_end: bool = False) -> int:
    """Say what is done; ``may_end`` between two parts, where another run finishes it and nothing is taken meanwhile."""
    count = 0
    with telling() as say:
        for line in done:
            say(printable(line))
            count += 1
            if may_end:
                SIGNALS.check()
    return count


def as_text(scene: MigrationState) -> str:
    """Show both sides and what comes next."""
    rows = [_service(one) for one in scene.unmodified] + [_stream(one, scene) for one in scene.streams]
    odd = [(one.name, f"left alone: {one.deviation}") for one in scene.services if one.deviation]
    odd += [(one.name, f"not ours: {why}") for one, why in scene.others]
    width = max((len(name) for name, _ in (*rows, *odd)), default=0)
    lines = [f"{name:{width}}  {what}".rstrip() for name, what in (*rows, *odd)]
    groups = [item for item in scene.plan.items if item.group is not None]
    ready = sum(item.condition == "Ready" for item in groups)
    old = ["The old system:", *lines] if lines else ["Nothing of the old system is here."]
    new = f"The new system: {ready} of {len(groups)} groups ready."
    why = [f"  {reason}" for reason in scene.unready_reasons[:10]] if scene.next_step else []
    return "\n".join([*old, "", new, *why, *([f"\nNext: {scene.next_step}"] if scene.next_step else [])])


def _service(one: OldService) -> tuple[str, str]:
    port = f", port {', '.join(map(str, one.ports))}" if one.ports else ""
    group = "" if one.group is None else f" {one.group!r}"
    return one.name, f"{one.role}{group}, {one.running}/{one.wanted}{port}"


def _stream(one: OldStream, scene: MigrationState) -> tuple[str, str]:
    if one.stand_in:
        return one.name, f"stands in for the old stream: writes {one.topic}"
    needed = "; the new stream needs its name" if one in scene.conflicting else ""
    return one.name, f"old stream, writes {one.topic}{needed}"


def as_json(scene: MigrationState) -> str:
    """Show the same for machines."""
    services = [
        {"name": s.name, "role": s.role, "group": s.group, "ports": s.ports, "running": s.running}
        | {"odd": s.deviation or None}
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

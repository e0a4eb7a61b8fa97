"""``migrate``: from the system before this one to this one, step by step, and back."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry

from reconciler import migrate
from reconciler.commands import run
from reconciler.commands.output import command, out
from reconciler.controller import Controller, World
from reconciler.converge import Exit
from reconciler.errors import ConfigurationError, ReconcilerError
from reconciler.legacy import PORT, OldService, OldServices, OldStream
from reconciler.metrics import Metrics
from reconciler.migrate import Front, Scene, StepRefused, look, look_at_front
from reconciler.platforms.swarm_legacy import SwarmOldServices
from reconciler.readonly import Withheld
from reconciler.settings import Settings
from reconciler.wiring import build_world

_STEPS = ("start", "switch", "back", "remove_old")
#: Seconds to wait before each try to give the port back: a service's version also changes while it is being updated.
_WAITS = (0.0, 0.5, 1.0, 2.0)


def add(commands: Any) -> None:
    """Register ``migrate``."""
    parser = command(commands, "migrate", "come from the system before this one, step by step", _migrate)
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument("--start", action="store_true", help="free the names that new streams need, and converge")
    steps.add_argument("--switch", action="store_true", help=f"give port {PORT} to the new router, and converge")
    steps.add_argument("--back", action="store_true", help="give the port back, or after a teardown the names")
    steps.add_argument("--remove-old", action="store_true", help="remove the old system's services and streams")
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds to converge in (300)")
    parser.add_argument("-o", "--output", choices=("text", "json"), help="format of what is shown (text)")


def _migrate(options: argparse.Namespace, settings: Settings) -> int:
    if settings.deployment_platform != "swarm":
        raise ConfigurationError(
            f"DEPLOYMENT_PLATFORM={settings.deployment_platform}: migrate knows the old system on a Swarm only"
        )
    chosen = next((step for step in _STEPS if getattr(options, step, False)), "")
    metrics = Metrics(CollectorRegistry())
    world = build_world(settings, metrics, None if chosen else Withheld())
    old = SwarmOldServices()
    try:
        if chosen:
            return step(chosen, Controller(world, metrics), old, lambda: _converge(options, settings))
        scene = look(Controller(world, metrics), old)
        out(as_json(scene) if options.output == "json" else as_text(scene))
    except StepRefused as refusal:
        _complain(f"refused: {refusal} (exit {Exit.REFUSED})")
        return Exit.REFUSED
    finally:
        old.close()
    return Exit.OK


def step(chosen: str, controller: Controller, old: OldServices, converge: Callable[[], int]) -> int:
    """Do one step and return the exit code; ``converge`` lets the operator make what it now can."""
    if chosen == "back":
        return _back(controller, old, converge)
    scene = look(controller, old)
    match chosen:
        case "start":
            _tell(migrate.start(scene, controller.world))
            return converge()
        case "switch":
            return _switch(scene, controller.world, old, converge)
        case _:
            _tell(migrate.remove_old(scene, controller.world, old))
    return Exit.OK


def _switch(scene: Scene, world: World, old: OldServices, converge: Callable[[], int]) -> int:
    """Move the port; where the new router does not take it, for whatever reason, the old one gets it back at once."""
    try:
        _tell(migrate.switch(scene, old))
        code = converge()
        if not scene.holds_port or look_at_front(world, old).has_port:
            return code
    except BaseException:  # Ctrl-C, too: what was taken may be nobody's now
        _rescue(scene, world, old)
        raise
    _rescue(scene, world, old)
    return code or Exit.NOT_CONVERGED


def _rescue(before: Front, world: World, old: OldServices) -> None:
    """Give the old router the port that it had, unless the new one has it; ksqlDB may be away."""
    if not before.holds_port:
        return
    for wait in _WAITS:
        time.sleep(wait)
        try:
            front = look_at_front(world, old)
            if not front.has_port:
                _tell(migrate.give_port_back(front, old))
        except (ReconcilerError, StepRefused) as error:
            trouble = error
        else:
            return
    _complain(f"port {PORT} may be nobody's now ({trouble}): run `reconciler migrate --back`")


def _back(controller: Controller, old: OldServices, converge: Callable[[], int]) -> int:
    """Give back the port, for which ksqlDB need not be there, and then the names."""
    world = controller.world
    front = look_at_front(world, old)
    if front.has_port and not front.wants_port:  # ours is to leave it first
        converge()
        _tell(migrate.leave_port(look_at_front(world, old), world))
    done = _tell(migrate.give_port_back(look_at_front(world, old), old))
    scene = look(controller, old)
    done += _tell(migrate.give_names_back(scene, world))
    if scene.stand_ins and not scene.is_torn_down:
        out("the old services are fed by stand-ins; `reconciler teardown`, then `migrate --back`, gives the names back")
    elif not done:
        out("nothing to take back")
    return Exit.OK


def _converge(options: argparse.Namespace, settings: Settings) -> int:
    """Let the operator's own cycles make the new side, as ``--once`` does."""
    options.once, options.output = True, "text"
    return run.run(options, settings)


def _complain(text: str) -> None:
    print(f"reconciler: {text}", file=sys.stderr)  # noqa: T201 - the one-line summary


def _tell(done: Iterator[str]) -> int:
    count = 0
    for line in done:
        out(line)
        count += 1
    return count


def as_text(scene: Scene) -> str:
    """Show both sides and what comes next."""
    rows = [_service(one) for one in scene.touchable] + [_stream(one, scene) for one in scene.streams]
    odd = [(one.name, f"left alone: {one.odd}") for one in scene.services if one.odd]
    width = max((len(name) for name, _ in (*rows, *odd)), default=0)
    lines = [f"{name:{width}}  {what}".rstrip() for name, what in (*rows, *odd)]
    groups = [item for item in scene.plan.items if item.group is not None]
    ready = sum(item.condition == "Ready" for item in groups)
    old = ["The old system:", *lines] if lines else ["Nothing of the old system is here."]
    new = f"The new system: {ready} of {len(groups)} groups ready."
    why = [f"  {reason}" for reason in scene.unready[:10]] if scene.next_step else []
    return "\n".join([*old, "", new, *why, *([f"\nNext: {scene.next_step}"] if scene.next_step else [])])


def _service(one: OldService) -> tuple[str, str]:
    port = f", port {', '.join(map(str, one.ports))}" if one.ports else ""
    group = f" {one.group!r}" if one.group else ""
    return one.name, f"{one.role}{group}, {one.running}/{one.wanted}{port}"


def _stream(one: OldStream, scene: Scene) -> tuple[str, str]:
    if one.stand_in:
        return one.name, f"stands in for the old stream: writes {one.topic}"
    needed = "; the new stream needs its name" if one in scene.in_the_way else ""
    return one.name, f"old stream, writes {one.topic}{needed}"


def as_json(scene: Scene) -> str:
    """Show the same for machines."""
    services = [
        {"name": s.name, "role": s.role, "group": s.group, "ports": s.ports, "running": s.running, "odd": s.odd or None}
        for s in scene.services
    ]
    streams = [{"name": s.name, "group": s.group, "topic": s.topic, "stand_in": s.stand_in} for s in scene.streams]
    document = {
        "services": services,
        "streams": streams,
        "in_the_way": [stream.name for stream in scene.in_the_way],
        "unready": scene.unready,
        "next": scene.next_step or None,
    }
    return json.dumps(document, indent=2, ensure_ascii=False)

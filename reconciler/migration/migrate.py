"""From the system before this one to this one, in steps of which each can be run again and taken back.

The one thing that cannot stand side by side is a name: the old system's stream of a group is called as ours has to be
(``ASSET_STREAM_WELD``). But the old group service reads the stream's *topic*, by another name than ours, and knows
nothing of the stream. So `start` lets the old definition go on under another name, the stand-in, and only then drops
the original: the old side stays fed, the name is free, and the operator makes the new side beside it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from openfactory_common.errors import KsqlError
from reconciler.control.controller import Controller, Dependencies
from reconciler.domain.installation import NAME, parse, sift
from reconciler.domain.names import SharedName, folded
from reconciler.domain.services import LiveService, PlatformState, Publish
from reconciler.domain.status import Condition, Plan
from reconciler.ksqldb.entities import OFFSET_RESET
from reconciler.ksqldb.statements import Topology
from reconciler.migration.legacy import (
    PORT,
    OldService,
    OldServices,
    OldStream,
    Role,
    create,
    elsewhere,
    is_old,
    old_streams,
    original_name,
    stand_in_name,
)
from reconciler.planning.specs import routing_layer_name, state_api_name
from reconciler.planning.survey import Survey
from reconciler.settings import Environment, Settings

#: Seconds for which stand-in and original both write: clients of the old side get events twice and lose none. A query
#: that was just created reads its first event after one to two seconds.
OVERLAP = 3.0
_KEPT_RETENTION = re.compile(r"retention \(topic has (-?\d+)\)")


class StepRefused(Exception):
    """A step is not safe now; the text says what has to come first."""


@dataclass(frozen=True)
class Front:
    """What clients come in through, as the platform alone tells it: ksqlDB is not asked.

    Attributes:
        settings: of the new system.
        platform: what is the new system's there.
        services: with names of the old system, the odd ones too.
        others: services of another plant's old system, each with the reason: none of our business.
    """

    settings: Settings
    platform: PlatformState
    services: tuple[OldService, ...]
    others: tuple[tuple[OldService, str], ...]

    @property
    def touchable(self) -> tuple[OldService, ...]:
        """Services in the old system's exact shape."""
        return tuple(one for one in self.services if not one.odd)

    @property
    def router(self) -> OldService | None:
        """The old router, in its exact shape."""
        return next((one for one in self.touchable if one.role is Role.ROUTER), None)

    @property
    def routing_layer(self) -> LiveService | None:
        """The new router, ours by its label."""
        return self._own(routing_layer_name(self.settings))

    @property
    def holds_port(self) -> bool:
        """Whether clients still reach the old router from outside, one that somebody changed included."""
        return any(one.role is Role.ROUTER and one.ports for one in self.services)

    @property
    def wants_port(self) -> bool:
        """Whether the settings give the new router the port that the old one has."""
        settings = self.settings
        outside = settings.routing_layer_publish is not Publish.NONE and self._is_deployed(routing_layer_name(settings))
        return outside and settings.routing_layer_port == PORT

    @property
    def has_port(self) -> bool:
        """Whether the new router publishes that port."""
        live = self.routing_layer
        return live is not None and live.spec is not None and any(port.published == PORT for port in live.spec.ports)

    @property
    def is_torn_down(self) -> bool:
        """Whether no service of ours is left."""
        owner = self.settings.reconciler_owner
        return not any(live.owner == owner for live in self.platform.services.values())

    def _is_deployed(self, name: str) -> bool:
        local = self.settings.environment is Environment.LOCAL
        return not (local and name == routing_layer_name(self.settings))

    def _own(self, name: str) -> LiveService | None:
        live = self.platform.services.get(name.casefold())
        return live if live is not None and live.owner == self.settings.reconciler_owner else None


@dataclass(frozen=True)
class Scene(Front):
    """Both systems as they are.

    Attributes:
        plan: what the operator would do.
        survey: what it saw.
        streams: of the old system, and stand-ins.
        namesakes: ids of other installations with our owner id in this ksqlDB.
    """

    plan: Plan
    survey: Survey
    streams: tuple[OldStream, ...]
    namesakes: tuple[str, ...] = ()

    @property
    def in_the_way(self) -> tuple[OldStream, ...]:
        """Old streams whose names new ones need."""
        needed = {names.stream for names in self.survey.wanted.values()}
        return tuple(one for one in self.streams if not one.stand_in and one.name in needed)

    @property
    def stand_ins(self) -> tuple[OldStream, ...]:
        """Old definitions that go on under names of ours."""
        return tuple(one for one in self.streams if one.stand_in)

    @property
    def read_on(self) -> tuple[OldStream, ...]:
        """Streams that an odd group service, or another plant's, may live on: of its group, or any if it names none."""
        odd = {one.group for one in self.services if one.odd and one.role is Role.GROUP}
        odd |= {one.group for one, _ in self.others if one.role is Role.GROUP}
        return tuple(one for one in self.streams if None in odd or one.group in odd)

    @property
    def unready(self) -> tuple[str, ...]:
        """What keeps the new side from taking over, in words."""
        groups = [
            item for item in self.plan.items if item.group is not None and item.condition is not Condition.LEAVING
        ]
        why = [
            f"{item.title} is {item.condition}: {item.detail or 'not registered'}"
            for item in groups
            if item.condition is not Condition.READY or item.url is None
        ]
        for name in (routing_layer_name(self.settings), state_api_name(self.settings)):
            live = self._own(name)
            if self._is_deployed(name) and (live is None or not live.running):
                why.append(f"service {name} does not run")
        return (*why, *([] if groups else ["it has no groups"]))

    @property
    def next_step(self) -> str:
        """The command that comes next, ``""`` where nothing of the old system is left."""
        if not self.touchable and set(self.streams) <= set(self.read_on) and not self.in_the_way:
            return ""
        if self.in_the_way:
            return "reconciler migrate --start"
        if self.unready:
            return "reconciler --once"
        waits = self.holds_port or (self.wants_port and not self.has_port)
        return "reconciler migrate --switch" if waits else "reconciler migrate --remove-old"


def observe(controller: Controller, old: OldServices) -> Scene:
    """Read both systems in full.

    Raises:
        ReconcilerError: a read failed or was not complete.
        StepRefused: a rule stops everything, for example because another cluster answers.
    """
    survey, verdict = controller.observe()
    settings = controller.world.settings
    plan = controller.plan(survey, verdict)
    stops = [refusal.text for refusal in plan.refusals if refusal.stops]
    if stops:
        raise StepRefused("; ".join(stops))
    streams = old_streams(survey.observed.source.queries, settings)
    services, others = _ours(old, settings, survey.observed.membership.groups)
    namesakes = _namesakes(survey, controller.world.topology)
    return Scene(settings, survey.observed.platform, services, others, plan, survey, streams, namesakes)


def observe_front(world: Dependencies, old: OldServices) -> Front:
    """Read what the platform tells, which is enough for the port.

    Raises:
        PlatformError: the read failed or was not complete.
    """
    services, others = _ours(old, world.settings, None)
    platform = world.platform.observe()
    installation = parse(platform.records.get(NAME)) or world.topology.installation
    return Front(world.settings, sift(platform, world.settings.reconciler_owner, installation), services, others)


def _ours(
    old: OldServices, settings: Settings, groups: Collection[str] | None
) -> tuple[tuple[OldService, ...], tuple[tuple[OldService, str], ...]]:
    """Tell the old system that this one follows from that of another plant in the same Swarm."""
    judged = [(one, elsewhere(one, settings, groups)) for one in old.observe()]
    return tuple(one for one, why in judged if not why), tuple((one, why) for one, why in judged if why)


def start(scene: Scene, world: Dependencies, sleep: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """Free the names that the new streams need; yield what was done.

    Raises:
        StepRefused: before anything is written, or when what is to be dropped is not what it was.
        ReconcilerError: a statement failed; the step can be run again.
    """
    _need_health(scene)
    if scene.in_the_way and scene.wants_port and scene.holds_port:
        raise StepRefused(
            f"port {PORT} is the old router's until the switch: run the new one beside it with another "
            "ROUTING_LAYER_PORT, or ROUTING_LAYER_PUBLISH=none, at the operator and here"
        )
    for stream in scene.in_the_way:
        _need_untouched(world, stream)
    if scene.in_the_way:
        _need_offset(world)
    there = {stream.name for stream in scene.stand_ins}
    for stream in scene.in_the_way:
        name = stand_in_name(stream.group, scene.settings)
        if name not in there:
            _create(world, stream.group, name)
            yield f"created stream {name}, which writes {stream.topic} as {stream.name} does"
    if scene.in_the_way:
        sleep(OVERLAP)
    for stream in scene.in_the_way:
        _replace(world, stream, stand_in_name(stream.group, scene.settings))
        yield f"dropped stream {stream.name}; its topic {stream.topic} stays and goes on being fed"


def switch(scene: Scene, old: OldServices) -> Iterator[str]:
    """Take the port from the old router, so that the operator can give it to the new one; yield what was done.

    Raises:
        StepRefused: the new side could not take over, or somebody changed the old router.
        ReconcilerError: the write failed; nothing has changed.
    """
    router = scene.router
    if router is None and scene.holds_port:
        odd = next(one for one in scene.services if one.role is Role.ROUTER)
        raise StepRefused(
            f"service {odd.name} publishes a port and is not touched ({odd.odd}): take that change back, or move its "
            "clients and its port by hand"
        )
    if router is None or not router.ports:
        return
    if not scene.wants_port:
        raise StepRefused(
            f"the new router is to take port {PORT}: set ROUTING_LAYER_PORT={PORT} and a ROUTING_LAYER_PUBLISH other "
            "than none, at the operator and here"
        )
    _need_ready(scene)
    old.publish(router, None)
    yield f"service {router.name} publishes no port any more; inside the network it goes on serving"


def leave_port(front: Front, world: Dependencies) -> Iterator[str]:
    """Take the port from the new router, where the settings name another; yield what was done.

    The operator does it too, and gives it that other one, but only where it can read everything.

    Raises:
        ReconcilerError: the write failed; nothing has changed.
    """
    live = front.routing_layer
    if front.wants_port or not front.has_port or live is None or live.spec is None:
        return
    world.platform.update_service(live, replace(live.spec, ports=()))
    yield f"service {live.name} publishes no port until the operator can give it its own"


def give_port_back(front: Front, old: OldServices) -> Iterator[str]:
    """Publish the old router's port again; yield what was done.

    Raises:
        StepRefused: the new router has it, or somebody changed the old one.
        ReconcilerError: the write failed; nothing has changed.
    """
    router = front.router
    if front.holds_port or front.settings.environment is Environment.LOCAL:
        return
    odd = next((one for one in front.services if one.role is Role.ROUTER and one.odd), None)
    if odd is not None and not front.has_port and not front.is_torn_down:
        raise StepRefused(f"service {odd.name} is not touched ({odd.odd}): publish its port {PORT} by hand")
    if router is None:
        return
    if front.has_port:
        raise StepRefused(
            f"the new router still publishes {PORT}: set another ROUTING_LAYER_PORT, or ROUTING_LAYER_PUBLISH=none, "
            "at the operator and here, and run `reconciler migrate --back` again"
        )
    old.publish(router, PORT)
    yield f"service {router.name} publishes port {PORT} again"


def give_names_back(scene: Scene, world: Dependencies, sleep: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """Let the originals go on under their own names, where nothing of the new side is left; yield what was done.

    While anything of the new side is there, stand-ins feed the old services as well as the originals did.

    Raises:
        ReconcilerError: a statement failed; the step can be run again.
    """
    back = [one for one in scene.stand_ins if original_name(one.group) not in scene.survey.observed.source.streams]
    if not scene.is_torn_down:
        return
    _need_health(scene)
    _need_own_stand_ins(scene)
    if back:
        _need_offset(world)
    for stream in back:
        _need_untouched(world, stream)
        _create(world, stream.group, original_name(stream.group))
        yield f"created stream {original_name(stream.group)} as it was"
    originals = {one.group for one in scene.streams if not one.stand_in} | {one.group for one in back}
    replaced = [one for one in scene.stand_ins if one.group in originals]
    if replaced:
        sleep(OVERLAP)
    for stream in replaced:
        _replace(world, stream, original_name(stream.group))
        yield f"dropped stream {stream.name}"


def remove_old(scene: Scene, world: Dependencies, old: OldServices) -> Iterator[str]:
    """Remove the old system's services, then its streams and their stand-ins; yield what was done.

    Raises:
        StepRefused: clients still reach the old router from outside, none reach the new one, or it is not ready.
        ReconcilerError: a write failed; the step can be run again.
    """
    if not scene.touchable and not scene.streams:
        return
    _need_health(scene)
    if scene.holds_port:
        raise StepRefused("the old router still publishes its port: run `reconciler migrate --switch` first")
    if scene.in_the_way:
        raise StepRefused("old streams have names that new ones need: run `reconciler migrate --start` first")
    _need_ready(scene)
    if scene.wants_port and not scene.has_port:
        raise StepRefused(
            f"nobody publishes port {PORT}: set ROUTING_LAYER_PORT={PORT} at the operator as it is set here, and run "
            "`reconciler migrate --switch` again"
        )
    _need_own_stand_ins(scene)
    gone = [one for one in scene.streams if one not in scene.read_on]
    for stream in gone:
        _need_untouched(world, stream)
    for service in scene.touchable:
        old.remove(service)
        yield f"removed service {service.name}"
    for stream in gone:
        _need_untouched(world, stream)
        world.ksqldb.execute(world.topology.drop(stream.name, delete_topic=scene.settings.delete_topics))
        yield f"dropped stream {stream.name}" + (f" and topic {stream.topic}" if scene.settings.delete_topics else "")
    for stream in scene.read_on:
        yield f"kept stream {stream.name}: an old group service that is left may read {stream.topic}"


def _namesakes(survey: Survey, topology: Topology) -> tuple[str, ...]:
    """Return the ids of other installations with our owner id whose streams are here."""
    parsed = map(SharedName.parse, survey.observed.source.streams)
    named = {one.installation for one in parsed if one is not None and one.owner == folded(topology.owner)}
    return tuple(sorted(one for one in named if not topology.installation.owns(one)))


def _need_own_stand_ins(scene: Scene) -> None:
    """Refuse to end stand-ins where another installation of our owner id is here too: their names have no id."""
    if scene.stand_ins and scene.namesakes:
        raise StepRefused(
            f"whose {_named(scene.stand_ins)} is cannot be told: installation {', '.join(scene.namesakes)} has the "
            "same RECONCILER_OWNER in this ksqlDB; drop it by hand where nothing reads its topic any more, or give "
            "one of the two another RECONCILER_OWNER"
        )


def _named(streams: Collection[OldStream]) -> str:
    return ", ".join(one.name for one in streams)


def _need_health(scene: Scene) -> None:
    trouble = scene.survey.observed.source.unhealthy_reason
    if trouble:
        raise StepRefused(f"ksqlDB is not well: {trouble}")


def _need_offset(world: Dependencies) -> None:
    """Refuse to make a join over a topic that exists where the server's own offset counts for it."""
    offset = world.ksqldb.offset_reset()
    effects = {
        "latest": "the stream would drop every event until each asset is mapped again",
        "earliest": f"the stream would write all that {world.settings.ksqldb_assets_stream} still holds once more",
    }
    if offset in effects:
        raise StepRefused(
            f"ksqlDB's own {OFFSET_RESET}={offset} counts for every new join, and {effects[offset]}: take it out of "
            "the server's settings"
        )


def _need_ready(scene: Scene) -> None:
    if scene.unready:
        more = f" (and {len(scene.unready) - 3} more)" if len(scene.unready) > 3 else ""  # noqa: PLR2004 - enough to read
        raise StepRefused(f"the new side is not ready: {'; '.join(scene.unready[:3])}{more}")


def _need_untouched(world: Dependencies, stream: OldStream) -> None:
    """Refuse to drop a stream that somebody reads or has changed: its own description says so, not a list."""
    found = world.ksqldb.describe_or_none(stream.name)
    if found is None:
        raise StepRefused(f"stream {stream.name} is gone since it was read: look again")
    if not is_old(found.statement, stream, world.settings):
        raise StepRefused(f"stream {stream.name} is not exactly the old system's any more: not touched")
    readers = (*found.constraints, *(query.id for query in found.read_queries))
    if readers:
        raise StepRefused(f"stream {stream.name} is read by {', '.join(readers)}: let those read {stream.topic} first")


def _create(world: Dependencies, group: str, name: str) -> None:
    """Create the old definition under a name; over a topic of another retention with that one."""
    try:
        world.ksqldb.execute(create(group, name, world.settings))
    except KsqlError as error:
        kept = _KEPT_RETENTION.search(" ".join(str(error).split()))
        if kept is None:
            raise
        world.ksqldb.execute(create(group, name, world.settings, int(kept[1])))


def _replace(world: Dependencies, stream: OldStream, by: str) -> None:
    """Drop a stream whose definition goes on under another name, once that is seen to be written."""
    _need_untouched(world, stream)
    follower = world.ksqldb.describe_or_none(by)
    if follower is None or not follower.write_queries:
        raise StepRefused(f"stream {by} does not write {stream.topic}: {stream.name} stays")
    world.ksqldb.execute(world.topology.drop(stream.name))

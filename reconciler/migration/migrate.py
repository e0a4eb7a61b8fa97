"""Migration from the 0.4 system, in steps that can each be run again and reverted.

The one conflict is a name: the old system's stream of a group has the name that ours needs (``ASSET_STREAM_WELD``). But
the old group service reads the stream's *topic*, which has another name than ours, and does not know the stream. So
`start` creates the old definition under another name, the stand-in, and only then drops the original: the old side
keeps receiving data, the name is free, and the operator makes the new side beside it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from openfactory_common.errors import KsqlError
from reconciler.control.controller import Controller, Dependencies
from reconciler.domain.installation import RECORD, parse, sift
from reconciler.domain.names import SharedName, fold
from reconciler.domain.services import LiveService, PlatformState, Publish
from reconciler.domain.status import Condition, Plan
from reconciler.ksqldb.entities import OFFSET_RESET
from reconciler.ksqldb.statements import Topology
from reconciler.migration.legacy import (
    PORT,
    OldRole,
    OldService,
    OldServices,
    OldStream,
    create_old_stream,
    find_mismatch,
    find_old_streams,
    is_old_stream,
    original_name,
    stand_in_name,
)
from reconciler.planning.specs import routing_layer_name, state_api_name
from reconciler.planning.survey import Survey
from reconciler.settings import Environment, Settings

#: Seconds for which stand-in and original both write: clients of the old side get events twice and lose none. A new
#: query reads its first event after one to two seconds.
OVERLAP = 3.0
_EXISTING_RETENTION = re.compile(r"retention \(topic has (-?\d+)\)")


class StepRefused(Exception):
    """A step is not safe now; the text says what to do first."""


@dataclass(frozen=True)
class PortState:
    """Which router has the clients' port, from the platform alone: ksqlDB is not read.

    Attributes:
        settings: of the new system.
        platform: the new system's objects.
        services: with names of the old system, those with deviations too.
        others: services of another plant's old system, each with the reason; not touched.
    """

    settings: Settings
    platform: PlatformState
    services: tuple[OldService, ...]
    others: tuple[tuple[OldService, str], ...]

    @property
    def unmodified(self) -> tuple[OldService, ...]:
        """Services in the old system's exact shape."""
        return tuple(one for one in self.services if not one.deviation)

    @property
    def router(self) -> OldService | None:
        """The old router, in its exact shape."""
        return next((one for one in self.unmodified if one.role is OldRole.ROUTER), None)

    @property
    def routing_layer(self) -> LiveService | None:
        """The new router, ours by its label."""
        return self._own(routing_layer_name(self.settings))

    @property
    def old_has_port(self) -> bool:
        """Whether the old router publishes a port, also one with a deviation."""
        return any(one.role is OldRole.ROUTER and one.ports for one in self.services)

    @property
    def new_should_have_port(self) -> bool:
        """Whether the settings give the new router the old router's port."""
        published = self.settings.routing_layer_publish is not Publish.NONE and self._has_routing_layer
        return published and self.settings.routing_layer_port == PORT

    @property
    def new_has_port(self) -> bool:
        """Whether the new router publishes that port."""
        live = self.routing_layer
        return live is not None and live.spec is not None and any(port.published == PORT for port in live.spec.ports)

    @property
    def is_torn_down(self) -> bool:
        """Whether no service of ours is left."""
        owner = self.settings.reconciler_owner
        return not any(live.owner == owner for live in self.platform.services.values())

    @property
    def _has_routing_layer(self) -> bool:
        return self.settings.environment is not Environment.LOCAL

    def _own(self, name: str) -> LiveService | None:
        live = self.platform.services.get(name.casefold())
        return live if live is not None and live.owner == self.settings.reconciler_owner else None


@dataclass(frozen=True)
class MigrationState(PortState):
    """The observed state of both systems.

    Attributes:
        plan: of the operator.
        survey: that the plan is based on.
        streams: of the old system, and stand-ins.
        namesakes: ids of other installations with our owner id in this ksqlDB.
    """

    plan: Plan
    survey: Survey
    streams: tuple[OldStream, ...]
    namesakes: tuple[str, ...] = ()

    @property
    def conflicting(self) -> tuple[OldStream, ...]:
        """Old streams whose names new ones need."""
        needed = {names.stream for names in self.survey.wanted.values()}
        return tuple(one for one in self.streams if not one.stand_in and one.name in needed)

    @property
    def stand_ins(self) -> tuple[OldStream, ...]:
        """Streams with old definitions under names of ours."""
        return tuple(one for one in self.streams if one.stand_in)

    @property
    def possibly_read(self) -> tuple[OldStream, ...]:
        """Streams that a group service that we do not touch may read: of its group, or any if its group is unknown."""
        groups = {one.group for one in self.services if one.deviation and one.role is OldRole.GROUP}
        groups |= {one.group for one, _ in self.others if one.role is OldRole.GROUP}
        return tuple(one for one in self.streams if None in groups or one.group in groups)

    @property
    def unready_reasons(self) -> tuple[str, ...]:
        """Why the new side cannot take over yet."""
        groups = [one for one in self.plan.items if one.group is not None and one.condition is not Condition.LEAVING]
        why = [
            f"{one.title} is {one.condition}: {one.detail or 'not registered'}"
            for one in groups
            if one.condition is not Condition.READY or one.url is None
        ]
        routers = [routing_layer_name(self.settings)] if self._has_routing_layer else []
        for name in (*routers, state_api_name(self.settings)):
            live = self._own(name)
            if live is None or not live.running:
                why.append(f"service {name} does not run")
        return (*why, *([] if groups else ["it has no groups"]))

    @property
    def next_step(self) -> str:
        """The next command, ``""`` where nothing of the old system is left."""
        if not self.unmodified and set(self.streams) <= set(self.possibly_read) and not self.conflicting:
            return ""
        if self.conflicting:
            return "reconciler migrate --start"
        if self.unready_reasons:
            return "reconciler --once"
        waits = self.old_has_port or (self.new_should_have_port and not self.new_has_port)
        return "reconciler migrate --switch" if waits else "reconciler migrate --remove-old"


def observe(controller: Controller, old: OldServices) -> MigrationState:
    """Read both systems in full.

    Raises:
        ReconcilerError: a read failed or was not complete.
        StepRefused: a guard stops everything, for example because another cluster answers.
    """
    survey, verdict = controller.observe()
    settings = controller.deps.settings
    plan = controller.plan(survey, verdict)
    stops = [refusal.text for refusal in plan.refusals if refusal.stops]
    if stops:
        raise StepRefused("; ".join(stops))
    streams = find_old_streams(survey.observed.source.queries, settings)
    services, others = _split_services(old, settings, survey.observed.membership.groups)
    namesakes = _find_namesakes(survey, controller.deps.topology)
    return MigrationState(settings, survey.observed.platform, services, others, plan, survey, streams, namesakes)


def observe_port(deps: Dependencies, old: OldServices) -> PortState:
    """Read the platform only, which is enough for the port.

    Raises:
        PlatformError: the read failed or was not complete.
    """
    services, others = _split_services(old, deps.settings, None)
    platform = deps.platform.observe()
    installation = parse(platform.records.get(RECORD)) or deps.topology.installation
    return PortState(deps.settings, sift(platform, deps.settings.reconciler_owner, installation), services, others)


def _split_services(
    old: OldServices, settings: Settings, groups: Collection[str] | None
) -> tuple[tuple[OldService, ...], tuple[tuple[OldService, str], ...]]:
    """Separate our old system's services from those of another plant in the same Swarm."""
    judged = [(one, find_mismatch(one, settings, groups)) for one in old.observe()]
    return tuple(one for one, why in judged if not why), tuple((one, why) for one, why in judged if why)


def start(state: MigrationState, deps: Dependencies, sleep: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """Free the names that the new streams need; yield each change.

    Raises:
        StepRefused: before the first write, or when a stream to drop has changed.
        ReconcilerError: a statement failed; the step can be run again.
    """
    _require_health(state)
    if state.conflicting and state.new_should_have_port and state.old_has_port:
        raise StepRefused(
            f"port {PORT} belongs to the old router until the switch: run the new one beside it with another "
            "ROUTING_LAYER_PORT, or ROUTING_LAYER_PUBLISH=none, at the operator and here"
        )
    for stream in state.conflicting:
        _require_untouched(deps, stream)
    if state.conflicting:
        _require_offset(deps)
    there = {stream.name for stream in state.stand_ins}
    for stream in state.conflicting:
        name = stand_in_name(stream.group, state.settings)
        if name not in there:
            _create(deps, stream.group, name)
            yield f"created stream {name}, which writes {stream.topic} as {stream.name} does"
    if state.conflicting:
        sleep(OVERLAP)
    for stream in state.conflicting:
        _replace(deps, stream, stand_in_name(stream.group, state.settings))
        yield f"dropped stream {stream.name}; its topic {stream.topic} stays and keeps receiving data"


def switch(state: MigrationState, old: OldServices) -> Iterator[str]:
    """Take the port from the old router, so that the operator can give it to the new one; yield each change.

    Raises:
        StepRefused: the new side is not ready, or the old router has a deviation.
        ReconcilerError: the write failed; nothing has changed.
    """
    router = state.router
    if router is None and state.old_has_port:
        odd = next(one for one in state.services if one.role is OldRole.ROUTER)
        raise StepRefused(
            f"service {odd.name} publishes a port and is not touched ({odd.deviation}): revert that change, or move "
            "its clients and its port by hand"
        )
    if router is None or not router.ports:
        return
    if not state.new_should_have_port:
        raise StepRefused(
            f"the new router must take port {PORT}: set ROUTING_LAYER_PORT={PORT} and a ROUTING_LAYER_PUBLISH other "
            "than none, at the operator and here"
        )
    _require_ready(state)
    old.publish(router, None)
    yield f"service {router.name} publishes no port any more; it keeps serving inside the network"


def release_port(port: PortState, deps: Dependencies) -> Iterator[str]:
    """Take the port from the new router, where the settings name another; yield each change.

    The operator does it too, and publishes the other port, but only when all its reads succeed.

    Raises:
        ReconcilerError: the write failed; nothing has changed.
    """
    live = port.routing_layer
    if port.new_should_have_port or not port.new_has_port or live is None or live.spec is None:
        return
    deps.platform.update_service(live, replace(live.spec, ports=()))
    yield f"service {live.name} publishes no port until the operator publishes its own"


def restore_port(port: PortState, old: OldServices) -> Iterator[str]:
    """Publish the old router's port again; yield each change.

    Raises:
        StepRefused: the new router has it, or the old one has a deviation.
        ReconcilerError: the write failed; nothing has changed.
    """
    router = port.router
    if port.old_has_port or port.settings.environment is Environment.LOCAL:
        return
    odd = next((one for one in port.services if one.role is OldRole.ROUTER and one.deviation), None)
    if odd is not None and not port.new_has_port and not port.is_torn_down:
        raise StepRefused(f"service {odd.name} is not touched ({odd.deviation}): publish its port {PORT} by hand")
    if router is None:
        return
    if port.new_has_port:
        raise StepRefused(
            f"the new router still publishes {PORT}: set another ROUTING_LAYER_PORT, or ROUTING_LAYER_PUBLISH=none, "
            "at the operator and here, and run `reconciler migrate --back` again"
        )
    old.publish(router, PORT)
    yield f"service {router.name} publishes port {PORT} again"


def restore_names(
    state: MigrationState, deps: Dependencies, sleep: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    """Create the originals again under their own names, if nothing of the new side is left; yield each change.

    While anything of the new side exists, stand-ins serve the old services as well as the originals did.

    Raises:
        ReconcilerError: a statement failed; the step can be run again.
    """
    back = [one for one in state.stand_ins if original_name(one.group) not in state.survey.observed.source.streams]
    if not state.is_torn_down:
        return
    _require_health(state)
    _require_own_stand_ins(state)
    if back:
        _require_offset(deps)
    for stream in back:
        _require_untouched(deps, stream)
        _create(deps, stream.group, original_name(stream.group))
        yield f"created stream {original_name(stream.group)} as it was"
    originals = {one.group for one in state.streams if not one.stand_in} | {one.group for one in back}
    replaced = [one for one in state.stand_ins if one.group in originals]
    if replaced:
        sleep(OVERLAP)
    for stream in replaced:
        _replace(deps, stream, original_name(stream.group))
        yield f"dropped stream {stream.name}"


def remove_old(state: MigrationState, deps: Dependencies, old: OldServices) -> Iterator[str]:
    """Remove the old system's services, then its streams and their stand-ins; yield each change.

    Raises:
        StepRefused: the old router still publishes its port, the new one does not, or the new side is not ready.
        ReconcilerError: a write failed; the step can be run again.
    """
    if not state.unmodified and not state.streams:
        return
    _require_health(state)
    if state.old_has_port:
        raise StepRefused("the old router still publishes its port: run `reconciler migrate --switch` first")
    if state.conflicting:
        raise StepRefused("old streams have names that new ones need: run `reconciler migrate --start` first")
    _require_ready(state)
    if state.new_should_have_port and not state.new_has_port:
        raise StepRefused(
            f"no router publishes port {PORT}: set ROUTING_LAYER_PORT={PORT} at the operator as it is set here, and "
            "run `reconciler migrate --switch` again"
        )
    _require_own_stand_ins(state)
    gone = [one for one in state.streams if one not in state.possibly_read]
    for stream in gone:
        _require_untouched(deps, stream)
    for service in state.unmodified:
        old.remove(service)
        yield f"removed service {service.name}"
    for stream in gone:
        _require_untouched(deps, stream)
        deps.ksqldb.execute(deps.topology.drop(stream.name, delete_topic=state.settings.delete_topics))
        yield f"dropped stream {stream.name}" + (f" and topic {stream.topic}" if state.settings.delete_topics else "")
    for stream in state.possibly_read:
        yield f"kept stream {stream.name}: a remaining old group service may read {stream.topic}"


def _find_namesakes(survey: Survey, topology: Topology) -> tuple[str, ...]:
    """Return the ids of other installations with our owner id that have streams here."""
    parsed = map(SharedName.parse, survey.observed.source.streams)
    named = {one.installation for one in parsed if one is not None and one.owner == fold(topology.owner)}
    return tuple(sorted(one for one in named if not topology.installation.owns(one)))


def _require_own_stand_ins(state: MigrationState) -> None:
    """Refuse to drop stand-ins if another installation with our owner id is here too: their names have no id."""
    if state.stand_ins and state.namesakes:
        raise StepRefused(
            f"the owner of {', '.join(one.name for one in state.stand_ins)} is unknown: installation "
            f"{', '.join(state.namesakes)} has the same RECONCILER_OWNER in this ksqlDB; drop it by hand if nothing "
            "reads its topic any more, or give one of the two another RECONCILER_OWNER"
        )


def _require_health(state: MigrationState) -> None:
    reason = state.survey.observed.source.unhealthy_reason
    if reason:
        raise StepRefused(f"ksqlDB is unhealthy: {reason}")


def _require_offset(deps: Dependencies) -> None:
    """Refuse to create a join over an existing topic if the server has an offset setting, which applies to it."""
    offset = deps.ksqldb.offset_reset()
    effects = {
        "latest": "the stream would drop every event until each asset is mapped again",
        "earliest": f"the stream would write all that {deps.settings.ksqldb_assets_stream} still has again",
    }
    if offset in effects:
        raise StepRefused(
            f"ksqlDB's own {OFFSET_RESET}={offset} applies to every new join, and {effects[offset]}: remove it from "
            "the server's settings"
        )


def _require_ready(state: MigrationState) -> None:
    if reasons := state.unready_reasons:
        more = f" (and {len(reasons) - 3} more)" if len(reasons) > 3 else ""  # noqa: PLR2004 - enough to read
        raise StepRefused(f"the new side is not ready: {'; '.join(reasons[:3])}{more}")


def _require_untouched(deps: Dependencies, stream: OldStream) -> None:
    """Refuse to drop a stream that has readers or has changed: its own description shows that, a list does not."""
    found = deps.ksqldb.describe_or_none(stream.name)
    if found is None:
        raise StepRefused(f"stream {stream.name} is gone since it was read: run it again")
    if not is_old_stream(found.statement, stream, deps.settings):
        raise StepRefused(f"stream {stream.name} no longer has the old system's definition: not touched")
    readers = (*found.constraints, *(query.id for query in found.read_queries))
    if readers:
        raise StepRefused(f"stream {stream.name} is read by {', '.join(readers)}: let them read {stream.topic} first")


def _create(deps: Dependencies, group: str, name: str) -> None:
    """Create the old definition under a name, with the retention of an existing topic."""
    try:
        deps.ksqldb.execute(create_old_stream(group, name, deps.settings))
    except KsqlError as error:
        existing = _EXISTING_RETENTION.search(" ".join(str(error).split()))
        if existing is None:
            raise
        deps.ksqldb.execute(create_old_stream(group, name, deps.settings, int(existing[1])))


def _replace(deps: Dependencies, stream: OldStream, by: str) -> None:
    """Drop a stream that another stream with its definition replaces, if that one has a running query."""
    _require_untouched(deps, stream)
    replacement = deps.ksqldb.describe_or_none(by)
    if replacement is None or not replacement.write_queries:
        raise StepRefused(f"stream {by} does not write {stream.topic}: {stream.name} stays")
    deps.ksqldb.execute(deps.topology.drop(stream.name))

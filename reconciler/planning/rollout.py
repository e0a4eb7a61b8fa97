"""Rollouts: which groups are updated now, and which are rolled back. Pure, and decided from the observation alone.

A change that replaces tasks goes in waves: one group first; when it has been ready for `ROLLOUT_BAKE`, a fraction of
the groups at a time. All groups of a template have the same settings, so a group without drift is updated, and one with
drift is to be updated. Groups with an image or limits of their own (`reconciler.planning.options`) are of another
template: what one template shows halts no other, and all together are updated no faster than one would be. An updated
group that is not ready `ROLLOUT_TIMEOUT` after its change, or whose update the engine gave up, has failed: the others
keep what they have, and it gets its previous spec back.

A group that was not ready before its update (`LiveService.failure` without `failed`) can show that the new spec works,
and not that it does not: its node may be what is broken. Neither does one that worked with it for long. They never halt
a rollout. A failed spec is remembered by its
`template_hash` in a label of the service, so the same is not tried again, and no update and rollback alternate.

A group that sleeps is not updated: it wakes with the spec that it has, and when that has started, or is broken, it is
updated in its turn. What a wake breaks shows nothing of the spec: it worked before the group slept.

Creations, and changes that replace no task, belong to no rollout.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from reconciler.domain.actions import Action, RollBackService, UpdateService
from reconciler.domain.names import names_of
from reconciler.domain.readiness import is_known_unready
from reconciler.domain.services import LiveService, ServiceSpec, apply_in_place, drift, spec_hash
from reconciler.domain.status import Condition, ObjectStatus, Reason
from reconciler.planning.inputs import PlanInputs, PlannedObject, add_failure
from reconciler.planning.options import GroupOptions
from reconciler.planning.services import check_health
from reconciler.planning.specs import group_spec
from reconciler.planning.survey import Survey
from reconciler.settings import OnFailure, Policy, Settings

#: The states of a rolling update that the engine gave up.
_GIVEN_UP = ("paused", "rollback_started", "rollback_paused", "rollback_completed")
#: Characters of a failure that a label keeps.
_LONGEST_FAILURE = 300


def template_hash(settings: Settings, options: GroupOptions | None = None) -> str:
    """Return the hash of what services of groups with these options have in common.

    It is that of the spec of a group that does not exist; without options, of all groups that have none of their own.
    """
    return spec_hash(replace(group_spec(names_of("x"), settings, None, options), replicas=1))


@dataclass(frozen=True)
class _Member:
    """A group with a service, in a rollout.

    Attributes:
        planned: what is planned of it, as if there were no rollouts.
        template: hash of what its service has in common with those of other groups (`template_hash`).
        live: its service.
        health: the status that the service had without drift.
        update: the update that replaces its tasks; None where it is updated.
        baked: it has been ready for `ROLLOUT_BAKE`.
        overdue: it was changed `ROLLOUT_TIMEOUT` ago or earlier, and has had the time to become ready: its tasks were
            asked, and the image of its update has been pulled.
        past: it worked with its present spec for long.
    """

    planned: PlannedObject
    template: str
    live: LiveService
    health: ObjectStatus
    update: UpdateService | None
    baked: bool
    overdue: bool
    past: bool

    @property
    def group(self) -> str:
        return self.planned.item.group or ""

    @property
    def key(self) -> str:
        return self.live.name.casefold()

    @property
    def write(self) -> str:
        """The key of its update."""
        return self.update.key if self.update is not None else ""

    @property
    def ready(self) -> bool:
        return self.health.condition is Condition.READY

    @property
    def sleeps(self) -> bool:
        """It has no task, or is updated after its wake: it shows nothing."""
        return self.planned.later != "" or (self.live.spec is not None and not self.live.spec.replicas)

    @property
    def woken(self) -> bool:
        """Its last change gave it its tasks again, with the spec that it had."""
        return self.live.previous is not None and not self.live.previous.replicas

    @property
    def settled(self) -> bool:
        """It shows that the desired spec works."""
        return self.update is None and self.ready and self.baked and not self.sleeps

    @property
    def failed(self) -> bool:
        """It shows that the desired spec does not work: neither broken before its update, nor long after it."""
        given_up = self.overdue or self.live.update_state in _GIVEN_UP
        other = self.live.failure or self.past or self.woken  # another reason
        return self.update is None and not self.ready and given_up and not other

    @property
    def busy(self) -> bool:
        """It may still show either; one that sleeps shows neither."""
        if self.update is not None or self.sleeps:
            return False
        return not self.settled and not self.failed and (self.ready or not self.overdue)

    @property
    def broken(self) -> bool:
        """It is not ready, and no recent change is the reason."""
        return not self.ready and (self.overdue or self.health.condition is Condition.DEGRADED)

    @property
    def why(self) -> str:
        """Why it is not ready, for a label."""
        return " ".join((self.live.error or self.health.detail).split())[:_LONGEST_FAILURE]


def plan_rollout(groups: Sequence[PlannedObject], survey: Survey, inputs: PlanInputs) -> list[PlannedObject]:
    """Return the planned groups with those updates that may be done now, and with rollbacks."""
    if inputs.settings.reconcile_policy is Policy.CREATE_ONLY:
        return list(groups)
    services = survey.observed.platform.services
    templates: dict[int, tuple[GroupOptions, str]] = {}
    found = {
        one.item.title: _make_member(one, live, inputs, templates)
        for one in groups
        if one.item.names is not None
        and one.item.condition is not Condition.CONFLICT
        and one.item.reason is not Reason.BUG  # what is not planned is neither updated nor waits
        and (live := services.get(one.item.names.service.casefold())) is not None
        and live.spec is not None
    }
    members = tuple(found.values())
    parts: dict[str, list[_Member]] = {}
    for one in members:
        parts.setdefault(one.template, []).append(one)
    room = (_limit(members, inputs) if any(one.settled for one in members) else 1) - sum(one.busy for one in members)
    # A group that fell without having failed shows to other templates that their change is not the reason.
    fell = {template: sum(_fell(one, inputs) and not one.failed for one in part) for template, part in parts.items()}
    waves: dict[str, _Waves] = {}
    for template, part in parts.items():
        waves[template] = _Waves(template, part, inputs, sum(fell.values()) - fell[template], room)
        room -= waves[template].started
    return [_decide(found.get(one.item.title), one, waves) for one in groups]


def _decide(member: _Member | None, planned: PlannedObject, waves: Mapping[str, _Waves]) -> PlannedObject:
    return planned if member is None else waves[member.template].decide(member)


def _fell(member: _Member, inputs: PlanInputs) -> bool:
    """Whether it shows that something else than its update is wrong; what a wake just broke shows nothing."""
    return member.broken and member.key in inputs.fallen and not (member.woken and member.key in inputs.on_trial)


def _limit(members: Sequence[_Member], inputs: PlanInputs) -> int:
    """Return how many of these may be updated at once."""
    return max(1, int(inputs.settings.rollout_max_parallel * len(members)))


def leave_out_updates(groups: Iterable[PlannedObject]) -> list[PlannedObject]:
    """Return the planned groups without updates of services, for where their rollout cannot be planned."""
    return [replace(one, actions=_list_others(one)) for one in groups]


def _list_others(planned: PlannedObject) -> tuple[Action, ...]:
    """Return what is planned of a group besides the update of its service."""
    return tuple(one for one in planned.actions if not isinstance(one, UpdateService))


def _make_member(
    planned: PlannedObject, live: LiveService, inputs: PlanInputs, templates: dict[int, tuple[GroupOptions, str]]
) -> _Member:
    key, spec = live.name.casefold(), live.spec
    update = next((one for one in planned.actions if isinstance(one, UpdateService)), None)
    in_place = update is None or spec is None or not drift(apply_in_place(spec, update.spec), update.spec)
    item = replace(planned.item, condition=Condition.READY, detail="", reason=None, running=live.running)
    health = check_health(replace(item, wanted=spec.replicas if spec else 0), live, inputs)
    update = None if in_place else update
    pulls = update is None and not live.error and "preparing" in live.waits
    # A task of before that the engine keeps says nothing of the new spec, if all tasks serve.
    surplus = live.has_surplus and not is_known_unready(inputs.readiness, key)
    overdue = key in inputs.overdue and not pulls and not surplus and not _is_unprobed(live, inputs)
    options = inputs.options.of_service(planned.item.group or "", inputs.settings)
    # Groups without tables of their own share one object of options; it is kept, as its id is its own only as long.
    if id(options) not in templates:
        templates[id(options)] = options, template_hash(inputs.settings, options)
    template = templates[id(options)][1]
    return _Member(planned, template, live, health, update, key in inputs.baked, overdue, key in inputs.past)


def _is_unprobed(live: LiveService, inputs: PlanInputs) -> bool:
    """Whether its tasks run, as far as the engine can tell, and were not asked yet."""
    readiness = inputs.readiness
    return readiness is not None and live.converged and not live.error and live.name.casefold() not in readiness


class _Waves:
    """What the groups of one template show together.

    Attributes:
        started: how many of them are updated now.
    """

    def __init__(self, template: str, members: Sequence[_Member], inputs: PlanInputs, fell: int, free: int) -> None:
        """Judge its groups: ``fell`` of other templates, and ``free`` more of any may be updated now."""
        self._inputs = inputs
        self._template = template
        self._limit = _limit(members, inputs)
        self._failed = [one for one in members if one.failed]
        fallen = fell + sum(one.update is not None and _fell(one, inputs) for one in members)
        awake = [one for one in members if not one.sleeps]
        # More than a wave has, or all: Kafka is away, or a node.
        self._outage = len(self._failed) + fallen > min(_limit(awake, inputs), max(1, len(awake) - 1))
        waiting = self._sort(one for one in members if one.update is not None)
        self._halt = self._find_halt(members) if waiting else ""
        settled = any(one.settled for one in members)
        room = (self._limit if settled else 1) - sum(one.busy for one in members)
        # One that was broken before, and still is.
        if not settled and any(one.update is None and one.broken for one in members):
            waiting = [*(one for one in waiting if not one.broken), *(one for one in waiting if one.broken)]
        starts = [one for one in waiting if one.woken and not one.ready and not one.broken]  # clients wait for it
        known = [one for one in waiting if one not in starts and not _is_unprobed(one.live, inputs)]
        # A write that failed and waits to be tried again replaces nothing, and must not hold up the others.
        tried = [one for one in known if one.write in inputs.waiting]
        free = max(0, min(room, free))
        starting = [one for one in known if one not in tried][:free]
        self._now = [] if self._halt else [*starting, *tried]
        self.started = len(starting)
        self._order = [*self._now, *(one for one in waiting if one not in self._now)]
        self._total, self._updated = len(awake), sum(one.update is None for one in awake)

    def _sort(self, waiting: Iterable[_Member]) -> list[_Member]:
        """Return the groups in their order: those that serve nobody first, as nothing of them can break.

        Last are those whose stream is written first, and those whose update failed: it may never come.
        """
        failures, contested = self._inputs.failures, self._inputs.contested
        mine = (one for one in waiting if one.write not in contested)
        return sorted(
            mine,
            key=lambda one: (
                one.write in failures,
                len(one.planned.actions),
                not one.broken,
                one.ready,
                one.group,
            ),
        )

    def _find_halt(self, members: Sequence[_Member]) -> str:
        """Return which group halts the rollout, and why; ``""`` where none does."""
        for one in members:
            if self._was_rolled_back(one):
                return f"{one.group}: {one.live.failure}"
        if not self._failed:
            return ""
        more = "; nothing is rolled back, as other groups are not ready either" if self._outage else ""
        return f"{self._failed[0].group}: {self._failed[0].why}{more}"

    def _was_rolled_back(self, member: _Member) -> bool:
        return (member.update is not None or member.sleeps) and member.live.failed == self._template

    def decide(self, member: _Member) -> PlannedObject:
        """Return what is planned of a group now."""
        update = member.update
        if update is None:
            return self._decide_updated(member)
        if update.key in self._inputs.contested:  # a dispute with another writer is no rollout
            return _exchange(member, member.planned.item, ())
        text = member.planned.item.detail
        if member in self._now:
            number, last = self._wave(member), self._wave(self._order[-1])
            text = f"{text} (wave {number} of {last})" if number < last else text
            item = member.planned.item
            if item.condition is not Condition.DEGRADED:  # a write that fails says so itself
                item = replace(item, detail=text)
            return _exchange(member, item, (replace(update, failed="", failure=member.why if member.broken else ""),))
        if self._was_rolled_back(member):
            text = f"the rollout failed and was rolled back: {member.live.failure}; change the settings to try again"
            return self._hold(member, Condition.DEGRADED, text, Reason.ROLLOUT)
        if self._halt:
            return self._hold(member, Condition.HELD, f"rollout halted by {self._halt}", Reason.ROLLOUT)
        wave = f"wave {self._wave(member)} of {self._wave(self._order[-1])}"
        text = f"{text} (waits for its wave: {self._updated} of {self._total} groups updated, {wave})"
        return self._hold(member, member.planned.item.condition, text, member.planned.item.reason)

    def _wave(self, member: _Member) -> int:
        """Return the number of a group's wave; the first has one group."""
        return 1 - (-(self._updated + self._order.index(member)) // self._limit)

    def _decide_updated(self, member: _Member) -> PlannedObject:
        """Return what is planned of a group with the desired spec: a rollback, or what was planned."""
        live, item = member.live, member.planned.item
        if member not in self._failed or member.planned.actions:
            return member.planned
        spec = self._find_way_back(live)
        if spec is not None:
            back = RollBackService(live, spec, (), self._template, member.why)
            text = f"roll back service: {member.why}"
            item = replace(item, condition=Condition.DEGRADED, change="~", detail=text, reason=Reason.ROLLOUT)
            return PlannedObject(add_failure(item, (back,), self._inputs), (back,))
        if self._halt and item.condition is not Condition.READY:
            return replace(member.planned, item=replace(item, detail=f"{item.detail}; it halts the rollout"))
        return member.planned

    def _find_way_back(self, live: LiveService) -> ServiceSpec | None:
        """Return the previous spec of a service that has failed, if its last update is the reason; None otherwise."""
        inputs = self._inputs
        never_ready = live.update_state in ("updating", *_GIVEN_UP) or live.name.casefold() in inputs.on_trial
        if inputs.settings.rollout_on_failure is OnFailure.HALT or self._outage or not never_ready:
            return None
        if live.previous is None or live.spec is None:
            return None
        spec = replace(apply_in_place(live.previous, live.spec), unexpected=())
        return spec if drift(spec, replace(live.spec, unexpected=())) else None

    def _hold(self, member: _Member, condition: Condition, text: str, reason: Reason | None = None) -> PlannedObject:
        """Leave out the update, except for what replaces no task."""
        live, health, update = member.live, member.health, member.update
        actions: tuple[Action, ...] = ()
        if live.spec is not None and update is not None:
            spec = apply_in_place(live.spec, update.spec)
            differences = drift(live.spec, spec)
            actions = (replace(update, spec=spec, drift=differences),) if differences else ()
        if not member.ready:
            condition, text, reason = health.condition, f"{health.detail}; {text}", health.reason
        change = "!" if condition is Condition.DEGRADED else "?"
        item = replace(member.planned.item, change=change, detail=text, serves=health.serves)
        item = add_failure(replace(item, condition=condition, reason=reason), actions, self._inputs)
        return _exchange(member, item, actions)


def _exchange(member: _Member, item: ObjectStatus, updates: Sequence[Action]) -> PlannedObject:
    others = _list_others(member.planned)
    if others:  # the group's stream is being changed, and its item says so
        item = member.planned.item
    return PlannedObject(item, (*others, *updates))

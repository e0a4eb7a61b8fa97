"""What of a group can be taken over from users, and what that would do. Pure.

Nothing is recorded of an adoption: afterwards an object is ours by what says so of every object, its labels or its
form (`reconciler.planning.specs.is_ours`, `reconciler.ksqldb.ownership`). So a service can be adopted in place, as its
labels can be set, and a stream cannot: one that has our form is ours already, and any other is dropped for ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from openfactory_common.text import list_some
from reconciler.domain.names import GroupNames
from reconciler.domain.services import ServiceSpec, drift
from reconciler.ksqldb.definition import Join, definition_of, properties_of, sources_of, target_of, topic_of
from reconciler.ksqldb.statements import Topology
from reconciler.planning.inputs import Adoption
from reconciler.planning.options import GroupFile
from reconciler.planning.services import find_conflict, refuse_adoption
from reconciler.planning.specs import group_spec
from reconciler.planning.survey import StreamVerdict, Survey
from reconciler.settings import Settings

#: The topic has a line of its own; the others are those of the topic, which stays, and the server adds them.
_SHOWN_OTHERWISE = {"KAFKA_TOPIC", "PARTITIONS", "REPLICAS", "CLEANUP_POLICY"}


@dataclass(frozen=True)
class Offer:
    """What adopting a group would take over.

    Attributes:
        adoption: the objects as they are now; None where there is none.
        shown: what there is, and what would be done.
        refusals: why nothing may be adopted.
    """

    adoption: Adoption | None
    shown: tuple[str, ...]
    refusals: tuple[str, ...] = ()


def offer_adoption(
    group: str,
    survey: Survey,
    topology: Topology,
    settings: Settings,
    held: Mapping[str, str],
    options: GroupFile | None = None,
    theirs: ServiceSpec | None = None,
) -> Offer:
    """Find what has the names of a group and is not ours.

    Args:
        group: that exists.
        survey: of a full read.
        topology: of this installation.
        settings: of the operator.
        held: groups of which nothing may be written, with the reason.
        options: what single groups have of their own.
        theirs: the spec of the service that has the group's name and is not ours; None where it was not read.
    """
    names = survey.wanted.get(group)
    if names is None:
        why = survey.losers.get(group, "the UNS map does not name it, so nothing of it has to be here")
        return Offer(None, (), (f"group {group}: {why}",))
    refusals = [f"group {group} is {held[group]}"] if group in held else []
    shown: list[str] = []
    own = (options or GroupFile()).of_service(group, settings)
    spec = replace(group_spec(names, settings, None, own), installation=topology.installation.id)
    service = _offer_service(spec, theirs, survey, settings, shown, refusals)
    stream = _offer_stream(names, survey, topology, shown, refusals)
    adoption = Adoption(group, service, stream) if (service or stream) and not refusals else None
    return Offer(adoption, tuple(shown), tuple(refusals))


def _offer_service(
    spec: ServiceSpec,
    theirs: ServiceSpec | None,
    survey: Survey,
    settings: Settings,
    shown: list[str],
    refusals: list[str],
) -> tuple[str, int] | None:
    live = survey.observed.platform.services.get(spec.name.casefold())
    if live is None or not (conflict := find_conflict(live, spec, settings)):
        return None
    shown.append(conflict.removesuffix(", not touched").removesuffix("; not touched"))
    if refusal := refuse_adoption(live, spec, settings, spec.installation):
        refusals.append(refusal)
        return None
    shown.append("it gets our labels and our whole spec; labels of others stay, and what else it has is gone:")
    if theirs is None:
        shown.append(f"  it cannot be compared with ours: `docker service inspect {live.name}` shows it")
    else:  # that it gets our labels is said
        same = replace(theirs, name=spec.name, kind=spec.kind, group=spec.group, installation=spec.installation)
        shown += [f"  {one.field} {one.live} -> {one.wanted}" for one in drift(same, spec)] or [
            "  nothing else differs"
        ]
    return live.id, live.version


def _offer_stream(names: GroupNames, survey: Survey, topology: Topology, shown: list[str], refusals: list[str]) -> str:
    check, source = survey.streams[names.group], survey.observed.source
    if check.verdict is not StreamVerdict.FOREIGN:
        return ""
    if not check.of_user:
        refusals.append(check.detail)
        return ""
    query, text, ours = source.queries.get(names.stream), source.statements[names.stream], topology.create_group(names)
    shown += [check.detail, f"its statement: {text}", f"ours:          {ours.sql}", *_compare(text, ours.sql)]
    if query is None:
        shown.append(
            f"no query writes it: what writes to topic {source.streams[names.stream].topic} is not known to ksqlDB, "
            "and goes on"
        )
    shown.append(
        "a stream becomes ours only by its form, so it is dropped and created again: its topic and what is in it "
        "stay, events of the meantime follow from the shared stream, and what only it did is gone"
    )
    readers = sorted(
        one for one, text in source.statements.items() if names.stream in sources_of(text) and one != names.stream
    )
    if readers:
        refusals.append(f"stream {names.stream} is read by {list_some(readers)}: drop those first")
    writers = sorted(one for one, text in source.inserts.items() if target_of(text) == names.stream)
    if writers:
        refusals.append(f"stream {names.stream} is also written by {list_some(writers)}: terminate those first")
    if survey.shared.verdict is not StreamVerdict.IN_SYNC:
        refusals.append(
            "the shared stream that ours reads is not there yet: run it again when the other groups are ready"
        )
    return source.identify(names.stream)


def _compare(text: str, ours: str) -> Iterator[str]:
    """Show what differs between the statements of two streams; one without a query has a topic, and no source."""
    live, wanted = definition_of(text), definition_of(ours)
    for name in ("source", "topic", "columns", "filter", "join", "rest"):
        was = _show(getattr(live, name, topic_of(text) if name == "topic" else None))
        want = _show(getattr(wanted, name))
        if was != want and (live is not None or name != "columns"):
            yield f"  {name} {was} -> {want}"
    theirs, own = ({"KEY_FORMAT": "KAFKA", **properties_of(one)} for one in (text, ours))
    for name in sorted((theirs.keys() | own.keys()) - _SHOWN_OTHERWISE):
        if theirs.get(name) != own.get(name):
            yield f"  {name} {_show(theirs.get(name))} -> {_show(own.get(name))}"


def _show(value: object) -> str:
    if isinstance(value, Join):
        return f"{value.kind} {value.table} ON {value.condition}"
    if isinstance(value, tuple):
        pairs = ((one.expression.removeprefix("s."), one.name) for one in value)
        return ", ".join(what if name in ("", what) else f"{what} AS {name}" for what, name in pairs)
    return str(value or "(none)")

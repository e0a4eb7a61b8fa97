"""What of a group can be taken over from users, and what that would do. Pure.

Nothing is recorded of an adoption: afterwards an object is ours by what says so of every object, its labels or its
form (`reconciler.planning.specs.is_ours`, `reconciler.ksqldb.ownership`). So a service can be adopted in place, as its
labels can be set, and a stream cannot: one that has our form is ours already, and any other is dropped for ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from openfactory_common.text import list_some
from reconciler.domain.names import GroupNames
from reconciler.ksqldb.definition import definition_of, sources_of
from reconciler.ksqldb.statements import Topology
from reconciler.planning.inputs import Adoption
from reconciler.planning.services import find_conflict, refuse_adoption
from reconciler.planning.specs import group_spec
from reconciler.planning.survey import StreamVerdict, Survey
from reconciler.settings import Settings


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
    group: str, survey: Survey, topology: Topology, settings: Settings, held: Mapping[str, str]
) -> Offer:
    """Find what has the names of a group and is not ours.

    Args:
        group: that exists.
        survey: of a full read.
        topology: of this installation.
        settings: of the operator.
        held: groups of which nothing may be written, with the reason.
    """
    names = survey.wanted.get(group)
    if names is None:
        why = survey.losers.get(group, "the UNS map does not name it, so nothing of it has to be here")
        return Offer(None, (), (f"group {group}: {why}",))
    refusals = [f"group {group} is {held[group]}"] if group in held else []
    shown: list[str] = []
    service = _offer_service(names, survey, topology, settings, shown, refusals)
    query_id = _offer_stream(names, survey, topology, shown, refusals)
    adoption = Adoption(group, service, query_id) if (service or query_id) and not refusals else None
    return Offer(adoption, tuple(shown), tuple(refusals))


def _offer_service(
    names: GroupNames, survey: Survey, topology: Topology, settings: Settings, shown: list[str], refusals: list[str]
) -> tuple[str, int] | None:
    live, spec = survey.observed.platform.services.get(names.service.casefold()), group_spec(names, settings, None)
    if live is None or not (conflict := find_conflict(live, spec, settings)):
        return None
    shown.append(conflict.removesuffix(", not touched").removesuffix("; not touched"))
    if refusal := refuse_adoption(live, spec, settings, topology.installation.id):
        refusals.append(refusal)
        return None
    shown.append(
        f"it gets our labels and our whole spec: image {spec.image}, variables {', '.join(sorted(spec.env))}, "
        f"{spec.replicas} tasks, network {spec.network}; labels of others stay, and what else it has is gone: "
        f"`docker service inspect {live.name}` shows it"
    )
    return live.id, live.version


def _offer_stream(names: GroupNames, survey: Survey, topology: Topology, shown: list[str], refusals: list[str]) -> str:
    check, source = survey.streams[names.group], survey.observed.source
    if check.verdict is not StreamVerdict.FOREIGN:
        return ""
    query = source.queries.get(names.stream)
    if query is None or not check.of_user:
        refusals.append(check.detail)
        return ""
    definition = definition_of(query.text)
    differences = topology.group_differences(definition, names) if definition is not None else ()
    differ = f" (other than ours: {', '.join(differences)})" if differences else ""
    shown.append(f"{check.detail}{differ}")
    shown += [f"its statement: {query.text}", f"ours:          {topology.create_group(names).sql}"]
    shown.append(
        "a stream becomes ours only by its form, so it is dropped and created again: its topic and what is in it "
        "stay, events of the meantime follow from the shared stream, and what only it did is gone"
    )
    readers = sorted(
        one for one, text in source.statements.items() if names.stream in sources_of(text) and one != names.stream
    )
    if readers:
        refusals.append(f"stream {names.stream} is read by {list_some(readers)}: drop those first")
    if survey.shared.verdict is not StreamVerdict.IN_SYNC:
        refusals.append(
            "the shared stream that ours reads is not there yet: run it again when the other groups are ready"
        )
    return query.id

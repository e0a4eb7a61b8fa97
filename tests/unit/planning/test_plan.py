"""What is planned for groups and registries: inputs and expected actions, a line a case."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from reconciler.domain.actions import (
    Action,
    CreateSharedStream,
    Effect,
    PublishRegistry,
    RemoveRegistry,
)
from reconciler.domain.names import names_of
from reconciler.domain.observed import LiveQuery
from reconciler.domain.services import LiveRegistry
from reconciler.domain.status import Condition, Guard, ObjectStatus, Plan, Reason, Refusal
from reconciler.planning.guards import Verdict
from reconciler.planning.plan import make_plan
from reconciler.planning.survey import Survey
from tests.unit.planning.tables import (
    document,
    live_registry,
    observed,
    plan_inputs,
    routing_layer,
    rows,
    seen,
    service,
    settings,
    source,
    spec_of,
    state_api,
    topology,
    topology_of_now,
)

WELD = "stream ASSET_STREAM_WELD"
SHARED = topology().shared_name
#: Guards that believe in what is missing.
SURE = Verdict(silent=frozenset({names_of("Weld").stream, SHARED}))


def said(actions: Iterable[Action]) -> str:
    """Actions in words; of a group's own ones the verb is enough."""
    return ", ".join(
        action.verb.replace("_", " ") + ("" if action.group or action.key == "registry" else " (shared)")
        for action in actions
    )


def weld(plan: Plan) -> ObjectStatus:
    """The group that all cases are about."""
    (item,) = (item for item in plan.items if item.group == "Weld")
    return item


def world(shared: str, stream: str, live: str, registered: str) -> Survey:
    """One group, in these states; everything else is as it should be."""
    made = live_registry(document(["Weld"] if registered == "yes" else []), 1, mounted=True)
    services = [service(spec_of("Weld"), live), state_api(), routing_layer(mounted=made.name)]
    return seen(observed({"Weld": 1}, source({"Weld": stream}, shared), services, [made]))


# ---- one group: its stream, its service, whether it is in the registry

GROUP = """
    # stream   service     registered actions                           condition    in the next registry
    ok         ok          yes        -                                 Ready        served
    ok         ok          no         publish registry                  Ready        served
    ok         absent      yes        create service                    Progressing  served
    ok         absent      no         create service                    Progressing  unserved
    ok         drifted     yes        update service                    Progressing  served
    ok         drifted     no         update service                    Progressing  unserved
    ok         starting    yes        -                                 Progressing  served
    ok         starting    no         -                                 Progressing  unserved
    ok         broken      yes        -                                 Degraded     served
    ok         broken      no         -                                 Degraded     unserved
    ok         paused      yes        -                                 Degraded     served
    ok         paused      no         publish registry                  Degraded     served
    ok         updating    yes        -                                 Progressing  served
    ok         updating    no         publish registry                  Progressing  served
    ok         unlabelled  yes        -                                 Conflict     served
    ok         unlabelled  no         -                                 Conflict     unserved
    ok         other's     yes        -                                 Conflict     served
    ok         other's     no         -                                 Conflict     unserved
    ok         global      yes        -                                 Conflict     served
    ok         global      no         -                                 Conflict     unserved
    absent     ok          yes        create stream                     Progressing  served
    absent     absent      yes        create stream, create service     Progressing  served
    absent     drifted     yes        create stream, update service     Progressing  served
    absent     starting    yes        create stream                     Progressing  served
    absent     broken      yes        create stream                     Progressing  served
    absent     paused      yes        create stream                     Progressing  served
    absent     updating    yes        create stream                     Progressing  served
    absent     unlabelled  yes        -                                 Conflict     served
    absent     other's     yes        -                                 Conflict     served
    absent     global      yes        -                                 Conflict     served
    silent     ok          yes        replace stream                    Progressing  served
    silent     absent      yes        replace stream, create service    Progressing  served
    silent     drifted     yes        replace stream, update service    Progressing  served
    silent     starting    yes        replace stream                    Progressing  served
    silent     broken      yes        replace stream                    Progressing  served
    silent     paused      yes        replace stream                    Progressing  served
    silent     updating    yes        replace stream                    Progressing  served
    silent     unlabelled  yes        -                                 Conflict     served
    silent     other's     yes        -                                 Conflict     served
    silent     global      yes        -                                 Conflict     served
    paused     ok          yes        resume stream                     Progressing  served
    paused     absent      yes        resume stream, create service     Progressing  served
    paused     drifted     yes        resume stream, update service     Progressing  served
    paused     starting    yes        resume stream                     Progressing  served
    paused     broken      yes        resume stream                     Progressing  served
    paused     paused      yes        resume stream                     Progressing  served
    paused     updating    yes        resume stream                     Progressing  served
    paused     unlabelled  yes        -                                 Conflict     served
    paused     other's     yes        -                                 Conflict     served
    paused     global      yes        -                                 Conflict     served
    filter     ok          yes        -                                 Conflict     served
    filter     absent      yes        -                                 Conflict     served
    filter     drifted     yes        -                                 Conflict     served
    filter     starting    yes        -                                 Conflict     served
    filter     broken      yes        -                                 Conflict     served
    filter     paused      yes        -                                 Conflict     served
    filter     updating    yes        -                                 Conflict     served
    filter     unlabelled  yes        -                                 Conflict     served
    filter     other's     yes        -                                 Conflict     served
    filter     global      yes        -                                 Conflict     served
    moved      ok          yes        recreate stream                   Progressing  served
    moved      absent      yes        recreate stream, create service   Progressing  served
    moved      drifted     yes        recreate stream, update service   Progressing  served
    moved      starting    yes        recreate stream                   Progressing  served
    moved      broken      yes        recreate stream                   Progressing  served
    moved      paused      yes        recreate stream                   Progressing  served
    moved      updating    yes        recreate stream                   Progressing  served
    moved      unlabelled  yes        -                                 Conflict     served
    moved      other's     yes        -                                 Conflict     served
    moved      global      yes        -                                 Conflict     served
    topicless  ok          yes        recreate stream                   Progressing  served
    topicless  absent      yes        recreate stream, create service   Progressing  served
    topicless  drifted     yes        recreate stream, update service   Progressing  served
    topicless  starting    yes        recreate stream                   Progressing  served
    topicless  broken      yes        recreate stream                   Progressing  served
    topicless  paused      yes        recreate stream                   Progressing  served
    topicless  updating    yes        recreate stream                   Progressing  served
    topicless  unlabelled  yes        -                                 Conflict     served
    topicless  other's     yes        -                                 Conflict     served
    topicless  global      yes        -                                 Conflict     served
    foreign    ok          yes        -                                 Conflict     served
    foreign    absent      yes        -                                 Conflict     served
    foreign    drifted     yes        -                                 Conflict     served
    foreign    starting    yes        -                                 Conflict     served
    foreign    broken      yes        -                                 Conflict     served
    foreign    paused      yes        -                                 Conflict     served
    foreign    updating    yes        -                                 Conflict     served
    foreign    unlabelled  yes        -                                 Conflict     served
    foreign    other's     yes        -                                 Conflict     served
    foreign    global      yes        -                                 Conflict     served
    failed     ok          yes        -                                 Degraded     served
    failed     ok          no         -                                 Degraded     unserved
    failed     absent      yes        create service                    Degraded     served
    failed     absent      no         -                                 Degraded     unserved
    failed     drifted     yes        update service                    Degraded     served
    failed     drifted     no         update service                    Degraded     unserved
    failed     starting    yes        -                                 Degraded     served
    failed     starting    no         -                                 Degraded     unserved
    failed     broken      yes        -                                 Degraded     served
    failed     broken      no         -                                 Degraded     unserved
    failed     paused      yes        -                                 Degraded     served
    failed     paused      no         -                                 Degraded     unserved
    failed     updating    yes        -                                 Degraded     served
    failed     updating    no         -                                 Degraded     unserved
    failed     unlabelled  yes        -                                 Conflict     served
    failed     unlabelled  no         -                                 Conflict     unserved
    failed     other's     yes        -                                 Conflict     served
    failed     other's     no         -                                 Conflict     unserved
    failed     global      yes        -                                 Conflict     served
    failed     global      no         -                                 Conflict     unserved
    twin       ok          yes        recreate stream                   Progressing  served
    twin       absent      yes        recreate stream, create service   Progressing  served
    twin       drifted     yes        recreate stream, update service   Progressing  served
    twin       starting    yes        recreate stream                   Progressing  served
    twin       broken      yes        recreate stream                   Progressing  served
    twin       paused      yes        recreate stream                   Progressing  served
    twin       updating    yes        recreate stream                   Progressing  served
    twin       unlabelled  yes        -                                 Conflict     served
    twin       other's     yes        -                                 Conflict     served
    twin       global      yes        -                                 Conflict     served
    reader     ok          yes        -                                 Conflict     served
    other      ok          yes        -                                 Conflict     served
    legacy     ok          yes        -                                 Conflict     served
    reader     absent      yes        -                                 Conflict     served
    other      absent      yes        -                                 Conflict     served
    legacy     absent      yes        -                                 Conflict     served
    reader     drifted     yes        -                                 Conflict     served
    other      drifted     yes        -                                 Conflict     served
    legacy     drifted     yes        -                                 Conflict     served
    reader     starting    yes        -                                 Conflict     served
    other      starting    yes        -                                 Conflict     served
    legacy     starting    yes        -                                 Conflict     served
    reader     broken      yes        -                                 Conflict     served
    other      broken      yes        -                                 Conflict     served
    legacy     broken      yes        -                                 Conflict     served
    reader     paused      yes        -                                 Conflict     served
    other      paused      yes        -                                 Conflict     served
    legacy     paused      yes        -                                 Conflict     served
    reader     updating    yes        -                                 Conflict     served
    other      updating    yes        -                                 Conflict     served
    legacy     updating    yes        -                                 Conflict     served
    reader     unlabelled  yes        -                                 Conflict     served
    other      unlabelled  yes        -                                 Conflict     served
    legacy     unlabelled  yes        -                                 Conflict     served
    reader     other's     yes        -                                 Conflict     served
    other      other's     yes        -                                 Conflict     served
    legacy     other's     yes        -                                 Conflict     served
    reader     global      yes        -                                 Conflict     served
    other      global      yes        -                                 Conflict     served
    legacy     global      yes        -                                 Conflict     served
    ok         theirs      yes        -                                 Conflict     served
    ok         theirs      no         -                                 Conflict     unserved
    absent     theirs      yes        -                                 Conflict     served
    absent     theirs      no         -                                 Conflict     unserved
    silent     theirs      yes        -                                 Conflict     served
    silent     theirs      no         -                                 Conflict     unserved
    paused     theirs      yes        -                                 Conflict     served
    paused     theirs      no         -                                 Conflict     unserved
    moved      theirs      yes        -                                 Conflict     served
    moved      theirs      no         -                                 Conflict     unserved
    failed     theirs      yes        -                                 Conflict     served
    failed     theirs      no         -                                 Conflict     unserved
"""


@pytest.mark.parametrize(("stream", "live", "registered", "actions", "condition", "served"), rows(GROUP))
def test_what_a_group_needs(stream: str, live: str, registered: str, actions: str, condition: str, served: str) -> None:
    """Nothing is created before its stream, nothing of others is touched, a served group stays in the registry."""
    plan = make_plan(world("ok", stream, live, registered), SURE, plan_inputs())
    assert (said(plan.actions), weld(plan).condition) == (actions, condition)
    assert plan.registry is not None
    assert ("Weld" in plan.registry.groups) == (served == "served")


#: A shared stream that is made takes neither the name nor the topic of one that was there.
NEXT = replace(topology(), generation=2).shared_name
BEHIND_SHARED = """
    # shared  stream     service  actions                                             condition
    absent    ok         ok       create shared stream (shared)                       Ready
    absent    ok         absent   create shared stream (shared), create service       Progressing
    absent    absent     ok       create shared stream (shared), create stream        Progressing
    absent    absent     absent   create shared stream (shared), create stream, create service  Progressing
    absent    silent     ok       create shared stream (shared)                       Progressing
    absent    silent     absent   create shared stream (shared), create service       Progressing
    absent    paused     ok       create shared stream (shared), resume stream        Progressing
    absent    paused     absent   create shared stream (shared), resume stream, create service  Progressing
    absent    filter     ok       create shared stream (shared)                       Conflict
    absent    filter     absent   create shared stream (shared)                       Conflict
    absent    moved      ok       create shared stream (shared)                       Progressing
    absent    moved      absent   create shared stream (shared), create service       Progressing
    absent    topicless  ok       create shared stream (shared)                       Progressing
    absent    topicless  absent   create shared stream (shared), create service       Progressing
    absent    foreign    ok       create shared stream (shared)                       Conflict
    absent    reader     ok       create shared stream (shared)                       Conflict
    absent    other      ok       create shared stream (shared)                       Conflict
    absent    foreign    absent   create shared stream (shared)                       Conflict
    absent    reader     absent   create shared stream (shared)                       Conflict
    absent    other      absent   create shared stream (shared)                       Conflict
    absent    failed     ok       create shared stream (shared)                       Degraded
    absent    failed     absent   create shared stream (shared), create service       Degraded
    silent    ok         ok       create shared stream (shared)                       Degraded
    silent    ok         absent   create shared stream (shared), create service       Degraded
    silent    absent     ok       create shared stream (shared)                       Degraded
    silent    absent     absent   create shared stream (shared)                       Degraded
    silent    silent     ok       create shared stream (shared)                       Degraded
    silent    silent     absent   create shared stream (shared), create service       Degraded
    silent    paused     ok       create shared stream (shared)                       Degraded
    silent    paused     absent   create shared stream (shared), create service       Degraded
    silent    filter     ok       create shared stream (shared)                       Conflict
    silent    filter     absent   create shared stream (shared)                       Conflict
    silent    moved      ok       create shared stream (shared)                       Degraded
    silent    moved      absent   create shared stream (shared), create service       Degraded
    silent    topicless  ok       create shared stream (shared)                       Degraded
    silent    topicless  absent   create shared stream (shared), create service       Degraded
    silent    foreign    ok       create shared stream (shared)                       Conflict
    silent    reader     ok       create shared stream (shared)                       Conflict
    silent    other      ok       create shared stream (shared)                       Conflict
    silent    foreign    absent   create shared stream (shared)                       Conflict
    silent    reader     absent   create shared stream (shared)                       Conflict
    silent    other      absent   create shared stream (shared)                       Conflict
    silent    failed     ok       create shared stream (shared)                       Degraded
    silent    failed     absent   create shared stream (shared), create service       Degraded
    paused    ok         ok       resume stream (shared)                              Ready
    paused    ok         absent   resume stream (shared), create service              Progressing
    paused    absent     ok       resume stream (shared), create stream               Progressing
    paused    absent     absent   resume stream (shared), create stream, create service  Progressing
    paused    silent     ok       resume stream (shared)                              Progressing
    paused    silent     absent   resume stream (shared), create service              Progressing
    paused    paused     ok       resume stream (shared), resume stream               Progressing
    paused    paused     absent   resume stream (shared), resume stream, create service  Progressing
    paused    filter     ok       resume stream (shared)                              Conflict
    paused    filter     absent   resume stream (shared)                              Conflict
    paused    moved      ok       resume stream (shared)                              Progressing
    paused    moved      absent   resume stream (shared), create service              Progressing
    paused    topicless  ok       resume stream (shared)                              Progressing
    paused    topicless  absent   resume stream (shared), create service              Progressing
    paused    foreign    ok       resume stream (shared)                              Conflict
    paused    reader     ok       resume stream (shared)                              Conflict
    paused    other      ok       resume stream (shared)                              Conflict
    paused    foreign    absent   resume stream (shared)                              Conflict
    paused    reader     absent   resume stream (shared)                              Conflict
    paused    other      absent   resume stream (shared)                              Conflict
    paused    failed     ok       resume stream (shared)                              Degraded
    paused    failed     absent   resume stream (shared), create service              Degraded
    refused   ok         ok       -                                                   Degraded
    refused   ok         absent   create service                                      Degraded
    refused   absent     ok       -                                                   Degraded
    refused   absent     absent   -                                                   Degraded
    refused   silent     ok       -                                                   Degraded
    refused   silent     absent   create service                                      Degraded
    refused   paused     ok       -                                                   Degraded
    refused   paused     absent   create service                                      Degraded
    refused   filter     ok       -                                                   Conflict
    refused   filter     absent   -                                                   Conflict
    refused   moved      ok       -                                                   Degraded
    refused   moved      absent   create service                                      Degraded
    refused   topicless  ok       -                                                   Degraded
    refused   topicless  absent   create service                                      Degraded
    refused   foreign    ok       -                                                   Conflict
    refused   reader     ok       -                                                   Conflict
    refused   other      ok       -                                                   Conflict
    refused   foreign    absent   -                                                   Conflict
    refused   reader     absent   -                                                   Conflict
    refused   other      absent   -                                                   Conflict
    refused   failed     ok       -                                                   Degraded
    refused   failed     absent   create service                                      Degraded
    failed    ok         ok       -                                                   Degraded
    failed    ok         absent   create service                                      Degraded
    failed    absent     ok       -                                                   Degraded
    failed    absent     absent   -                                                   Degraded
    failed    silent     ok       -                                                   Degraded
    failed    silent     absent   create service                                      Degraded
    failed    paused     ok       -                                                   Degraded
    failed    paused     absent   create service                                      Degraded
    failed    filter     ok       -                                                   Conflict
    failed    filter     absent   -                                                   Conflict
    failed    moved      ok       -                                                   Degraded
    failed    moved      absent   create service                                      Degraded
    failed    topicless  ok       -                                                   Degraded
    failed    topicless  absent   create service                                      Degraded
    failed    foreign    ok       -                                                   Conflict
    failed    reader     ok       -                                                   Conflict
    failed    other      ok       -                                                   Conflict
    failed    foreign    absent   -                                                   Conflict
    failed    reader     absent   -                                                   Conflict
    failed    other      absent   -                                                   Conflict
    failed    failed     ok       -                                                   Degraded
    failed    failed     absent   create service                                      Degraded
    foreign   ok         ok       create shared stream (shared)                       Progressing
    foreign   ok         absent   create shared stream (shared), create service       Progressing
    foreign   absent     ok       create shared stream (shared), create stream        Progressing
    foreign   absent     absent   create shared stream (shared), create stream, create service  Progressing
    foreign   silent     ok       create shared stream (shared)                       Progressing
    foreign   silent     absent   create shared stream (shared), create service       Progressing
    foreign   paused     ok       create shared stream (shared)                       Progressing
    foreign   paused     absent   create shared stream (shared), create service       Progressing
    foreign   filter     ok       create shared stream (shared)                       Conflict
    foreign   filter     absent   create shared stream (shared)                       Conflict
    foreign   moved      ok       create shared stream (shared)                       Progressing
    foreign   moved      absent   create shared stream (shared), create service       Progressing
    foreign   topicless  ok       create shared stream (shared)                       Progressing
    foreign   topicless  absent   create shared stream (shared), create service       Progressing
    foreign   foreign    ok       create shared stream (shared)                       Conflict
    foreign   foreign    absent   create shared stream (shared)                       Conflict
    foreign   failed     ok       create shared stream (shared)                       Progressing
    foreign   failed     absent   create shared stream (shared), create service       Progressing
    followed  ok         ok       -                                                   Ready
    followed  ok         absent   create service                                      Progressing
    followed  absent     ok       create stream                                       Progressing
    followed  absent     absent   create stream, create service                       Progressing
    followed  silent     ok       replace stream                                      Progressing
    followed  silent     absent   replace stream, create service                      Progressing
    followed  paused     ok       resume stream                                       Progressing
    followed  paused     absent   resume stream, create service                       Progressing
    followed  filter     ok       -                                                   Conflict
    followed  filter     absent   -                                                   Conflict
    followed  moved      ok       recreate stream                                     Progressing
    followed  moved      absent   recreate stream, create service                     Progressing
    followed  behind     ok       recreate stream                                     Progressing
    followed  behind     absent   recreate stream, create service                     Progressing
    followed  twin       ok       recreate stream                                     Progressing
    followed  reader     ok       -                                                   Conflict
    followed  other      ok       -                                                   Conflict
    followed  topicless  ok       recreate stream                                     Progressing
    followed  topicless  absent   recreate stream, create service                     Progressing
    followed  foreign    ok       -                                                   Conflict
    followed  foreign    absent   -                                                   Conflict
    followed  failed     ok       -                                                   Degraded
    followed  failed     absent   create service                                      Degraded
"""


@pytest.mark.parametrize(("shared", "stream", "live", "actions", "condition"), rows(BEHIND_SHARED))
def test_what_a_group_needs_while_the_shared_stream_is_not_in_order(
    shared: str, stream: str, live: str, actions: str, condition: str
) -> None:
    """The shared stream comes first; what reads it is dropped only once it is seen to be there."""
    found = world("absent" if shared == "refused" else shared, stream, live, "yes")
    known = plan_inputs(
        ours=topology_of_now(found.observed.source), offset_reset="latest" if shared == "refused" else ""
    )
    plan = make_plan(found, SURE, known)
    assert (said(plan.actions), weld(plan).condition) == (actions, condition)
    numbers = [action.name for action in plan.actions if isinstance(action, CreateSharedStream)]
    assert numbers == ([NEXT] if shared in {"absent", "silent", "foreign"} else [])


NOT_SURE = """
    # shared  stream  actions         condition
    ok        silent  -               Degraded
    silent    ok      -               Degraded
    silent    silent  -               Degraded
    silent    absent  -               Degraded
    absent    silent  create shared stream (shared)  Progressing
"""


@pytest.mark.parametrize(("shared", "stream", "actions", "condition"), rows(NOT_SURE))
def test_a_query_that_is_not_listed_is_not_believed_at_once(
    shared: str, stream: str, actions: str, condition: str
) -> None:
    """Before the guards are sure, a silent stream is left alone."""
    plan = make_plan(world(shared, stream, "ok", "yes"), Verdict(), plan_inputs())
    assert (said(plan.actions), weld(plan).condition) == (actions, condition)


# ---- what a policy, a refusal or ksqlDB's health leaves of a plan

ALLOWED = """
    # policy       ddl   stops  limit  stream  service  actions
    sync           yes   no     -      absent  absent   create stream, create service
    upsert-only    yes   no     -      absent  absent   create stream, create service
    create-only    yes   no     -      absent  absent   create stream, create service
    sync           yes   no     -      moved   drifted  recreate stream, update service
    upsert-only    yes   no     -      moved   drifted  recreate stream, update service
    create-only    yes   no     -      moved   drifted  -
    create-only    yes   no     -      moved   absent   -
    create-only    yes   no     -      ok      drifted  -
    sync           no    no     -      absent  absent   -
    sync           no    no     -      moved   drifted  -
    sync           no    no     -      ok      drifted  update service
    sync           no    no     -      ok      absent   create service
    sync           yes   yes    -      absent  absent   -
    sync           yes   yes    -      ok      drifted  -
    sync           yes   no     0      absent  absent   -
    sync           yes   no     1      absent  absent   -
    sync           yes   no     2      absent  absent   create stream, create service
    sync           yes   no     0      ok      absent   create service
    sync           yes   no     -1     moved   ok       recreate stream
"""


@pytest.mark.parametrize(("policy", "ddl", "stops", "limit", "stream", "live", "actions"), rows(ALLOWED))
def test_what_is_left_of_a_plan(
    policy: str, ddl: str, stops: str, limit: str, stream: str, live: str, actions: str
) -> None:
    """What may not be done is left out, with what would follow from it for that group."""
    options = settings(reconcile_policy=policy)
    verdict = Verdict(
        refusals=(Refusal(Guard.EMPTY, "no", stops=True),) if stops == "yes" else (),
        silent=SURE.silent,
        ddl=ddl == "yes",
    )
    plan = make_plan(
        world("ok", stream, live, "yes"), verdict, plan_inputs(options, query_limit=int(limit) if limit else None)
    )
    assert said(plan.actions) == actions


# ---- a group that leaves

LEAVING = """
    # may retire  drained  registered  service  stream  actions         condition  detail
    no            no       yes         yes      yes     -               Leaving    waits
    no            yes      yes         yes      yes     -               Leaving    waits
    yes           no       yes         yes      yes     publish registry  Leaving  leaves the registry
    yes           no       no          yes      yes     -               Leaving    is being drained
    yes           yes      no          yes      yes     remove service  Leaving    remove service ofa_group_Gone
    yes           yes      no          no       yes     drop stream     Leaving    drop stream ASSET_STREAM_GONE
    yes           no       no          no       yes     drop stream     Leaving    drop stream ASSET_STREAM_GONE
    held          no       no          yes      yes     -               Held       waits
"""


@pytest.mark.parametrize(
    ("retire", "drained", "registered", "live", "stream", "actions", "condition", "detail"), rows(LEAVING)
)
def test_a_group_leaves_in_steps(  # noqa: PLR0913, PLR0917 - the columns of the table
    retire: str, drained: str, registered: str, live: str, stream: str, actions: str, condition: str, detail: str
) -> None:
    """Registry, drain time, service, stream: one step a cycle, and none without the guards."""
    made = live_registry(document(["Gone", "Weld"] if registered == "yes" else ["Weld"]), 1, mounted=True)
    services = [service(spec_of("Weld"), "ok"), state_api(), routing_layer(mounted=made.name)]
    services += [service(spec_of("Gone"), "ok" if live == "yes" else "absent")]
    read = source({"Weld": "ok", "Gone": "ok" if stream == "yes" else "absent"})
    verdict = Verdict(
        retire=frozenset({"Gone"}) if retire == "yes" else frozenset(),
        drained=frozenset({"Gone"}) if drained == "yes" else frozenset(),
        waiting={"Gone": "waits"},
        held=retire == "held",
    )
    plan = make_plan(seen(observed({"Weld": 1}, read, services, [made])), verdict, plan_inputs())
    (item,) = (item for item in plan.items if item.group == "Gone")
    assert (said(plan.actions), item.condition, item.detail) == (actions, condition, detail)


# ---- registries: which is published, which mounted, which forgotten

REGISTRIES = """
    # documents, each content@number, * for the mounted one          published as    removed   the proxy mounts
    now@1*                                                           -               -         now
    old@1*                                                           2               -         old
    old@1* now@2                                                     -               -         old
    now@2 old@1*                                                     -               -         old
    old@1* old2@2 old3@3 now@4                                       -               -         old
    old@1 old2@2 old3@3 now@4*                                       -               old       now
    old@1 old2@2* old3@3 old4@4 now@5                                -               old       old2
    bad@2* now@1                                                     3               -         bad
    bad@1* now@1                                                     2               -         bad
    bad@3* now@1 old@2                                               4               -         bad
    old@2* now@1                                                     3               -         old
    old@1* now@1                                                     2               -         old
    now@1* old@1                                                     2               -         now
    now@1* bad@7                                                     8               -         now
    bad@4 bad2@5 bad3@6 now@1*                                       7               -         now
    bad@4* bad2@5 bad3@6 now@1                                       7               -         bad
    now@0*                                                           -               -         now
    now@-3*                                                          -               -         now
    old@-3* bad@-5                                                   1               -         old
    old@99999999999999999999999*                                     100000000000000000000000  -  old
    gone*                                                            1               -         now
    bad@1 gone*                                                      2               -         now
    now@1 gone*                                                      -               -         now
"""


def _documents(text: str) -> tuple[list[LiveRegistry], str]:
    found, mounted = [], ""
    for word in text.split():
        content, _, number = word.rstrip("*").partition("@")
        made: bytes | object = document(["Weld"]) if content == "now" else b"{" + content.encode()
        if content.startswith("old"):
            made = document(["Weld"]).model_copy(update={"state_api": f"http://{content}/asset_state"})
        if number:
            found.append(live_registry(made, int(number), mounted=word.endswith("*"), name=_name(content)))  # type: ignore[arg-type]
        mounted = _name(content) if word.endswith("*") else mounted
    return found, mounted


def _name(content: str) -> str:
    return f"ofa_registry-{document(['Weld']).revision}" if content == "now" else f"ofa_registry-{content}"


@pytest.mark.parametrize(("documents", "number", "removed", "mounts"), rows(REGISTRIES))
def test_which_registry_is_current(documents: str, number: str, removed: str, mounts: str) -> None:
    """The next number is the highest; nothing is rolled for what cannot be read, and the current one is kept."""
    found, mounted = _documents(documents)
    services = [service(spec_of("Weld"), "ok"), state_api(), routing_layer(mounted=mounted)]
    plan = make_plan(seen(observed({"Weld": 1}, source({"Weld": "ok"}), services, found)), Verdict(), plan_inputs())
    assert plan.bugs == ()
    published = [action.sequence for action in plan.actions if isinstance(action, PublishRegistry)]
    gone = [action.registry.name for action in plan.actions if isinstance(action, RemoveRegistry)]
    assert (published, gone) == ([int(number)] if number else [], [_name(removed)] if removed else [])
    updated = [action.spec.configs[0].name for action in plan.actions if action.verb == "update_service"]  # type: ignore[attr-defined]
    assert (updated or [mounted]) == [_name(mounts)]


# ---- what an object waits for is said, with its reason

FAILURES = """
    # stream  service  failed key              contested key            condition    reason       detail
    absent    ok       stream ASSET_STREAM_WELD  -                      Degraded     WriteFailed  failed
    absent    absent   service ofa_group_Weld  -                        Degraded     WriteFailed  failed
    ok        drifted  service ofa_group_Weld  -                        Degraded     WriteFailed  failed
    ok        drifted  -                       service ofa_group_Weld   Degraded     Contested    contested
    ok        drifted  service ofa_group_Weld  service ofa_group_Weld   Degraded     Contested    contested
    moved     ok       -                       stream ASSET_STREAM_WELD  Degraded    Contested    contested
    ok        ok       service ofa_group_Weld  stream ASSET_STREAM_WELD  Ready       -            -
    ok        ok       plan of group Weld      -                        Degraded     InternalError  failed
    absent    absent   plan of group Weld      -                        Degraded     InternalError  failed
"""


@pytest.mark.parametrize(("stream", "live", "failed", "contested", "condition", "reason", "detail"), rows(FAILURES))
def test_why_an_object_waits(
    stream: str, live: str, failed: str, contested: str, condition: str, reason: str, detail: str
) -> None:
    """A failure of what is still wanted degrades the group; one that is history does not."""
    known = plan_inputs(failures={failed: "failed"}, waiting=frozenset({failed}), contested={contested: "contested"})
    plan = make_plan(world("ok", stream, live, "yes"), SURE, known)
    item = weld(plan)
    assert (item.condition, item.reason or "", item.detail) == (condition, reason, detail)
    assert plan.settled == (condition == Condition.READY)


def test_a_failure_of_the_shared_stream_is_said_at_every_group_and_in_a_line_of_its_own() -> None:
    """Its action belongs to no group: the groups that wait for it name the reason, and so does its own item."""
    known = plan_inputs(failures={f"stream {SHARED.removesuffix('_1')}": "differs"})
    plan = make_plan(world("absent", "absent", "absent", "no"), SURE, known)
    assert (weld(plan).condition, weld(plan).reason) == (Condition.DEGRADED, Reason.WRITE_FAILED)
    assert weld(plan).detail == "waits for the shared stream: differs"
    (item,) = (item for item in plan.items if item.title == f"stream {SHARED.removesuffix('_1')}")
    assert (item.condition, item.reason, item.detail) == (Condition.DEGRADED, Reason.WRITE_FAILED, "differs")
    assert plan.notes == ()


COUNTS = (
    "CREATE TABLE {} WITH (KAFKA_TOPIC='counts') AS SELECT UNS_LEVELS['workcenter'] UNS_GROUP, COUNT(*) MEMBERS "
    "FROM ASSET_TO_UNS_MAP GROUP BY UNS_LEVELS['workcenter'] EMIT CHANGES;"
)


@pytest.mark.parametrize(
    ("owner", "table", "text", "noted"),
    [
        ("ofa", "OFA_GROUPS_1A2B3C4D", COUNTS, True),
        ("plant.two", "PLANT_TWO_GROUPS_1A2B3C4D", COUNTS, True),
        ("ofa", "PLANT_TWO_GROUPS_1A2B3C4D", COUNTS, False),
        ("ofa", "OFA_GROUPS_BY_HAND", COUNTS, False),
        ("ofa", "OFA_GROUPS_1A2B3C4D", "CREATE TABLE {} AS SELECT * FROM MINE EMIT CHANGES;", False),
    ],
)
def test_a_table_of_counts_of_an_earlier_version_is_noted(owner: str, table: str, text: str, noted: bool) -> None:
    """With the statement that drops it, by its name and its form; the operator itself does not touch it."""
    read = source({"Weld": "ok"})
    left = {table: LiveQuery(f"CTAS_{table}_1", text.format(table))}
    found = seen(observed({"Weld": 1}, replace(read, queries={**read.queries, **left})))
    plan = make_plan(found, SURE, plan_inputs(ours=replace(topology(), owner=owner)))
    assert [note for note in plan.notes if f"DROP TABLE `{table}` DELETE TOPIC;" in note] == list(plan.notes)
    assert bool(plan.notes) is noted
    assert not [action for action in plan.actions if table in action.key]


def test_an_unexpected_exception_in_one_groups_plan_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group stays as it is, in the registry too, and says why; every other group is planned."""
    made = live_registry(document(["Weld", "Paint"]), 1, mounted=True)
    services = [service(spec_of("Weld"), "drifted"), service(spec_of("Paint"), "drifted"), state_api()]
    read = source({"Weld": "ok", "Paint": "ok"})
    found = seen(observed({"Weld": 1, "Paint": 1}, read, [*services, routing_layer(mounted=made.name)], [made]))

    def broken(names: object, *_: object) -> object:
        if names == names_of("Weld"):
            raise KeyError("x")
        return spec_of("Paint")

    monkeypatch.setattr("reconciler.planning.plan.group_spec", broken)
    plan = make_plan(found, SURE, plan_inputs())
    assert [action.group for action in plan.actions] == ["Paint"]
    assert [action.effect for action in plan.actions] == [Effect.UPDATE]
    assert (weld(plan).condition, weld(plan).reason) == (Condition.DEGRADED, Reason.BUG)
    assert "KeyError: 'x'" in weld(plan).detail
    assert plan.registry == document(["Weld", "Paint"])
    assert [bug.key for bug in plan.bugs] == ["plan of group Weld"]
    assert not plan.settled


PARTS = ["note_unmanaged", "note_readers", "plan_publication", "plan_registry_cleanup", "make_registry"]


@pytest.mark.parametrize("part", PARTS)
def test_what_serves_no_group_fails_alone(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception in a note, or in what is planned for the registry, leaves every group its actions."""

    def broken(*_: object) -> object:
        raise KeyError("x")

    found = world("ok", "absent", "absent", "no")
    expected = [action for action in make_plan(found, SURE, plan_inputs()).actions if action.group == "Weld"]
    monkeypatch.setattr(f"reconciler.planning.plan.{part}", broken)
    plan = make_plan(found, SURE, plan_inputs())
    assert [action for action in plan.actions if action.group == "Weld"] == expected != []
    assert len(plan.bugs) == 1
    assert any("KeyError: 'x'" in note for note in plan.notes)
    assert not plan.settled

"""What is planned for groups and registries: inputs and expected actions, a line a case."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from reconciler.guards import Verdict
from reconciler.model import (
    Action,
    Condition,
    Effect,
    Guard,
    Item,
    Plan,
    PublishRegistry,
    Reason,
    Refusal,
    RemoveRegistry,
)
from reconciler.names import names_of
from reconciler.plan import make_plan
from reconciler.platforms.base import LiveRegistry
from reconciler.settings import Settings
from reconciler.steps import Facts
from reconciler.survey import Survey
from tests.unit.planning.tables import (
    LOOKUP,
    document,
    live_registry,
    observed,
    routing_layer,
    rows,
    seen,
    service,
    settings,
    source,
    spec_of,
    state_api,
    topology,
)

WELD = "stream ASSET_STREAM_WELD"
SHARED = topology().shared_name
#: Guards that believe in what is missing.
SURE = Verdict(silent=frozenset({names_of("Weld").stream, SHARED}))


def facts(options: Settings | None = None, **more: object) -> Facts:
    """What a plan depends on besides."""
    return Facts(options or settings(), topology(), LOOKUP, **more)  # type: ignore[arg-type]


def said(actions: Iterable[Action]) -> str:
    """Actions in words; of a group's own ones the verb is enough."""
    return ", ".join(
        action.verb.replace("_", " ") + ("" if action.group or action.key == "registry" else " (shared)")
        for action in actions
    )


def weld(plan: Plan) -> Item:
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
    filter     ok          yes        replace stream                    Progressing  served
    filter     absent      yes        replace stream, create service    Progressing  served
    filter     drifted     yes        replace stream, update service    Progressing  served
    filter     starting    yes        replace stream                    Progressing  served
    filter     broken      yes        replace stream                    Progressing  served
    filter     paused      yes        replace stream                    Progressing  served
    filter     updating    yes        replace stream                    Progressing  served
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
"""


@pytest.mark.parametrize(("stream", "live", "registered", "actions", "condition", "served"), rows(GROUP))
def test_what_a_group_needs(stream: str, live: str, registered: str, actions: str, condition: str, served: str) -> None:
    """Nothing is created before its stream, nothing of others is touched, a served group stays in the registry."""
    plan = make_plan(world("ok", stream, live, registered), SURE, facts())
    assert (said(plan.actions), weld(plan).condition) == (actions, condition)
    assert plan.registry is not None
    assert ("Weld" in plan.registry.groups) == (served == "served")


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
    absent    filter     ok       create shared stream (shared), replace stream       Progressing
    absent    filter     absent   create shared stream (shared), replace stream, create service  Progressing
    absent    moved      ok       create shared stream (shared)                       Progressing
    absent    moved      absent   create shared stream (shared), create service       Progressing
    absent    topicless  ok       create shared stream (shared)                       Progressing
    absent    topicless  absent   create shared stream (shared), create service       Progressing
    absent    foreign    ok       create shared stream (shared)                       Conflict
    absent    foreign    absent   create shared stream (shared)                       Conflict
    absent    failed     ok       create shared stream (shared)                       Degraded
    absent    failed     absent   create shared stream (shared), create service       Degraded
    silent    ok         ok       rebuild shared stream (shared)                      Degraded
    silent    ok         absent   rebuild shared stream (shared), create service      Degraded
    silent    absent     ok       rebuild shared stream (shared)                      Degraded
    silent    absent     absent   rebuild shared stream (shared)                      Degraded
    silent    silent     ok       rebuild shared stream (shared)                      Degraded
    silent    silent     absent   rebuild shared stream (shared), create service      Degraded
    silent    paused     ok       rebuild shared stream (shared)                      Degraded
    silent    paused     absent   rebuild shared stream (shared), create service      Degraded
    silent    filter     ok       rebuild shared stream (shared)                      Degraded
    silent    filter     absent   rebuild shared stream (shared), create service      Degraded
    silent    moved      ok       rebuild shared stream (shared)                      Degraded
    silent    moved      absent   rebuild shared stream (shared), create service      Degraded
    silent    topicless  ok       rebuild shared stream (shared)                      Degraded
    silent    topicless  absent   rebuild shared stream (shared), create service      Degraded
    silent    foreign    ok       rebuild shared stream (shared)                      Conflict
    silent    foreign    absent   rebuild shared stream (shared)                      Conflict
    silent    failed     ok       rebuild shared stream (shared)                      Degraded
    silent    failed     absent   rebuild shared stream (shared), create service      Degraded
    paused    ok         ok       resume stream (shared)                              Ready
    paused    ok         absent   resume stream (shared), create service              Progressing
    paused    absent     ok       resume stream (shared), create stream               Progressing
    paused    absent     absent   resume stream (shared), create stream, create service  Progressing
    paused    silent     ok       resume stream (shared)                              Progressing
    paused    silent     absent   resume stream (shared), create service              Progressing
    paused    paused     ok       resume stream (shared), resume stream               Progressing
    paused    paused     absent   resume stream (shared), resume stream, create service  Progressing
    paused    filter     ok       resume stream (shared), replace stream              Progressing
    paused    filter     absent   resume stream (shared), replace stream, create service  Progressing
    paused    moved      ok       resume stream (shared)                              Progressing
    paused    moved      absent   resume stream (shared), create service              Progressing
    paused    topicless  ok       resume stream (shared)                              Progressing
    paused    topicless  absent   resume stream (shared), create service              Progressing
    paused    foreign    ok       resume stream (shared)                              Conflict
    paused    foreign    absent   resume stream (shared)                              Conflict
    paused    failed     ok       resume stream (shared)                              Degraded
    paused    failed     absent   resume stream (shared), create service              Degraded
    foreign   ok         ok       -                                                   Degraded
    foreign   ok         absent   create service                                      Degraded
    foreign   absent     ok       -                                                   Degraded
    foreign   absent     absent   -                                                   Degraded
    foreign   silent     ok       -                                                   Degraded
    foreign   silent     absent   create service                                      Degraded
    foreign   paused     ok       -                                                   Degraded
    foreign   paused     absent   create service                                      Degraded
    foreign   filter     ok       -                                                   Degraded
    foreign   filter     absent   create service                                      Degraded
    foreign   moved      ok       -                                                   Degraded
    foreign   moved      absent   create service                                      Degraded
    foreign   topicless  ok       -                                                   Degraded
    foreign   topicless  absent   create service                                      Degraded
    foreign   foreign    ok       -                                                   Conflict
    foreign   foreign    absent   -                                                   Conflict
    foreign   failed     ok       -                                                   Degraded
    foreign   failed     absent   create service                                      Degraded
    failed    ok         ok       -                                                   Degraded
    failed    ok         absent   create service                                      Degraded
    failed    absent     ok       -                                                   Degraded
    failed    absent     absent   -                                                   Degraded
    failed    silent     ok       -                                                   Degraded
    failed    silent     absent   create service                                      Degraded
    failed    paused     ok       -                                                   Degraded
    failed    paused     absent   create service                                      Degraded
    failed    filter     ok       -                                                   Degraded
    failed    filter     absent   create service                                      Degraded
    failed    moved      ok       -                                                   Degraded
    failed    moved      absent   create service                                      Degraded
    failed    topicless  ok       -                                                   Degraded
    failed    topicless  absent   create service                                      Degraded
    failed    foreign    ok       -                                                   Conflict
    failed    foreign    absent   -                                                   Conflict
    failed    failed     ok       -                                                   Degraded
    failed    failed     absent   create service                                      Degraded
"""


@pytest.mark.parametrize(("shared", "stream", "live", "actions", "condition"), rows(BEHIND_SHARED))
def test_what_a_group_needs_while_the_shared_stream_is_not_in_order(
    shared: str, stream: str, live: str, actions: str, condition: str
) -> None:
    """The shared stream comes first; what reads it is dropped only once it is seen to be there."""
    plan = make_plan(world(shared, stream, live, "yes"), SURE, facts())
    assert (said(plan.actions), weld(plan).condition) == (actions, condition)


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
    plan = make_plan(world(shared, stream, "ok", "yes"), Verdict(), facts())
    assert (said(plan.actions), weld(plan).condition) == (actions, condition)


# ---- what a policy, a refusal or ksqlDB's health leaves of a plan

ALLOWED = """
    # policy       ddl   stops  limit  stream  service  actions
    sync           yes   no     -      absent  absent   create stream, create service
    upsert-only    yes   no     -      absent  absent   create stream, create service
    create-only    yes   no     -      absent  absent   create stream, create service
    sync           yes   no     -      filter  drifted  replace stream, update service
    upsert-only    yes   no     -      filter  drifted  replace stream, update service
    create-only    yes   no     -      filter  drifted  -
    create-only    yes   no     -      filter  absent   -
    create-only    yes   no     -      ok      drifted  -
    sync           no    no     -      absent  absent   -
    sync           no    no     -      filter  drifted  -
    sync           no    no     -      ok      drifted  update service
    sync           no    no     -      ok      absent   create service
    sync           yes   yes    -      absent  absent   -
    sync           yes   yes    -      ok      drifted  -
    sync           yes   no     0      absent  absent   -
    sync           yes   no     1      absent  absent   -
    sync           yes   no     2      absent  absent   create stream, create service
    sync           yes   no     0      ok      absent   create service
    sync           yes   no     -1     filter  ok       replace stream
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
        world("ok", stream, live, "yes"), verdict, facts(options, query_limit=int(limit) if limit else None)
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
    plan = make_plan(seen(observed({"Weld": 1}, read, services, [made])), verdict, facts())
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
    plan = make_plan(seen(observed({"Weld": 1}, source({"Weld": "ok"}), services, found)), Verdict(), facts())
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
    filter    ok       -                       stream ASSET_STREAM_WELD  Degraded    Contested    contested
    ok        ok       service ofa_group_Weld  stream ASSET_STREAM_WELD  Ready       -            -
    ok        ok       plan of group Weld      -                        Degraded     InternalError  failed
    absent    absent   plan of group Weld      -                        Degraded     InternalError  failed
"""


@pytest.mark.parametrize(("stream", "live", "failed", "contested", "condition", "reason", "detail"), rows(FAILURES))
def test_why_an_object_waits(
    stream: str, live: str, failed: str, contested: str, condition: str, reason: str, detail: str
) -> None:
    """A failure of what is still wanted degrades the group; one that is history does not."""
    known = facts(failures={failed: "failed"}, waiting=frozenset({failed}), contested={contested: "contested"})
    plan = make_plan(world("ok", stream, live, "yes"), SURE, known)
    item = weld(plan)
    assert (item.condition, item.reason or "", item.detail) == (condition, reason, detail)
    assert plan.settled == (condition == Condition.READY)


def test_a_failure_of_the_shared_stream_is_said_at_every_group_and_once_for_all() -> None:
    """Its action belongs to no group: the groups that wait for it name the reason, and so does a note."""
    plan = make_plan(world("absent", "absent", "absent", "no"), SURE, facts(failures={f"stream {SHARED}": "differs"}))
    assert (weld(plan).condition, weld(plan).reason) == (Condition.DEGRADED, Reason.WRITE_FAILED)
    assert weld(plan).detail == "the shared stream: differs"
    assert plan.notes == (f"stream {SHARED}: differs",)


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

    monkeypatch.setattr("reconciler.plan.group_spec", broken)
    plan = make_plan(found, SURE, facts())
    assert [action.group for action in plan.actions] == ["Paint"]
    assert [action.effect for action in plan.actions] == [Effect.UPDATE]
    assert (weld(plan).condition, weld(plan).reason) == (Condition.DEGRADED, Reason.BUG)
    assert "KeyError: 'x'" in weld(plan).detail
    assert plan.registry == document(["Weld", "Paint"])
    assert [bug.key for bug in plan.bugs] == ["plan of group Weld"]
    assert not plan.settled

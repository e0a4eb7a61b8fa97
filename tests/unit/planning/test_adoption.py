"""What can be adopted, and that nothing else is touched for it: inputs and expected actions, a line a case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.domain.names import names_of
from reconciler.domain.observed import LiveQuery, LiveStream
from reconciler.domain.status import Condition, Plan
from reconciler.planning.adoption import Offer, offer_adoption
from reconciler.planning.guards import Verdict
from reconciler.planning.inputs import Adoption
from reconciler.planning.plan import make_plan
from reconciler.planning.survey import Survey
from tests.unit.planning.tables import (
    THEIRS,
    document,
    live_registry,
    observed,
    plan_inputs,
    rows,
    seen,
    service,
    settings,
    source,
    spec_of,
    topology_of_now,
)

QUERY = f"CSAS_{names_of('Weld').stream}"
SHOWN = Adoption("Weld", ("id", 1), QUERY)


def plant(stream: str, live: str, shared: str = "ok", **more: object) -> Survey:
    """Group Weld in these states, beside group Paint whose service a user made as well."""
    made = live_registry(document(["Weld", "Paint"]), 1, mounted=True)
    services = [service(spec_of("Weld"), live), service(spec_of("Paint"), "unlabelled")]
    read = replace(source({"Weld": stream, "Paint": "foreign"}, shared), **more)  # type: ignore[arg-type]
    return seen(observed({"Weld": 1, "Paint": 1}, read, services, [made]))


def offer(survey: Survey, group: str = "Weld", platform: str = "swarm", held: dict[str, str] | None = None) -> Offer:
    """Look at one group."""
    options = settings(deployment_platform=platform)
    return offer_adoption(group, survey, topology_of_now(survey.observed.source), options, held or {})


OFFERED = """
    # stream   service     offered         refused
    ok         ok          -               -
    absent     absent      -               -
    moved      drifted     -               -
    ok         unlabelled  service         -
    ok         global      service         -
    absent     unlabelled  service         -
    ok         other's     -               belongs to owner other
    ok         theirs      -               belongs to owner ofa, installation 99999999
    foreign    ok          stream          -
    reader     ok          stream          -
    filter     ok          stream          -
    foreign    absent      stream          -
    foreign    unlabelled  service stream  -
    other      ok          -               belongs to installation 99999999
    legacy     ok          -               belongs to an installation made before there were ids
    other      unlabelled  -               belongs to installation 99999999
    other, one more column  ok  -          reads the shared stream of another installation (99999999)
    joins ours and theirs   ok  -          reads the shared stream of another installation (99999999)
    foreign    other's     -               belongs to owner other
"""


@pytest.mark.parametrize(("stream", "live", "offered", "refused"), rows(OFFERED))
def test_what_is_offered(stream: str, live: str, offered: str, refused: str) -> None:
    """What has no owner, or is a user's; never what is of another owner or installation, nor the rest beside it."""
    found = offer(plant(stream, live))
    adoption = Adoption("Weld", ("id", 1) if "service" in offered else None, QUERY if "stream" in offered else "")
    assert found.adoption == (adoption if offered else None)
    assert (refused in "; ".join(found.refusals)) if refused else not found.refusals
    assert bool(found.shown) == bool(offered or live in ("other's", "theirs") or (refused and live == "unlabelled"))


WITHOUT_QUERY = """
    # its statement                offered  refused                              condition
    foreign                        yes      -                                    Conflict
    reader                         yes      -                                    Conflict
    ok                             -        -                                    Degraded  # ours, that lost its query
    unreadable                     -        -                                    Degraded
    other                          -        belongs to installation 99999999     Conflict
    legacy                         -        belongs to an installation made      Conflict
    other, one more column         -        of another installation (99999999)   Conflict
    joins ours and theirs          -        of another installation (99999999)   Conflict
"""


@pytest.mark.parametrize(("word", "offered", "refused", "condition"), rows(WITHOUT_QUERY))
def test_a_stream_without_a_query_is_judged_by_its_own_statement(
    word: str, offered: str, refused: str, condition: str
) -> None:
    """What a user made over a topic is offered, and adopted only as it was shown."""
    text = "" if word == "unreadable" else source({"Weld": word}).queries[WELD.stream].text
    survey = plant("silent", "ok", orphans={WELD.stream: text})
    found = offer(survey)
    assert found.adoption == (Adoption("Weld", None, text) if offered else None)
    assert (refused in "; ".join(found.refusals)) if refused else not found.refusals
    for adoption, expected in ((Adoption("Weld", None, text), offered), (SHOWN, ""), (None, "")):
        plan = make_plan(survey, Verdict(), plan_inputs(adoption=adoption))
        assert actions(plan) == ("adopt_stream" if expected else "")
        if not expected:
            assert next(item for item in plan.items if item.group == "Weld").condition == condition


BARE = """
    # its topic           format  offered  said
    asset_stream_Weld     AVRO    -        the group's own: what does would go on beside ours
    asset_stream_Weld     JSON    -        `DROP STREAM `ASSET_STREAM_WELD`;` in ksqlDB lets the operator create ours
    by_hand               AVRO    yes      VALUE_FORMAT AVRO -> JSON
    by_hand               JSON    yes      topic by_hand -> asset_stream_Weld
"""


@pytest.mark.parametrize(("topic", "value_format", "offered", "said"), rows(BARE))
def test_a_stream_over_the_groups_own_topic_is_not_offered(
    topic: str, value_format: str, offered: str, said: str
) -> None:
    """No query writes it: unknown producers may, in any format, and ours would write into the same topic."""
    text = f"CREATE STREAM {WELD.stream} (ID STRING KEY) WITH (KAFKA_TOPIC='{topic}', VALUE_FORMAT='{value_format}');"
    streams = {**source({"Weld": "silent"}).streams, WELD.stream: LiveStream(WELD.stream, topic)}
    survey = plant("silent", "ok", orphans={WELD.stream: text}, streams=streams)
    found = offer(survey)
    assert found.adoption == (Adoption("Weld", None, text) if offered else None)
    assert said in "\n".join((*found.shown, *found.refusals))
    assert not any(line.partition(" -> ")[0].rpartition(" ")[2] == line.partition(" -> ")[2] for line in found.shown)
    plan = make_plan(survey, Verdict(), plan_inputs(adoption=Adoption("Weld", None, text)))
    assert actions(plan) == ("adopt_stream" if offered else "")


DIFFERENCES = """
    # ours               theirs                                                                              shown
    VALUE_FORMAT='JSON'  VALUE_FORMAT='AVRO'                                                                 VALUE_FORMAT AVRO -> JSON
    VALUE_FORMAT='JSON'  VALUE_FORMAT='JSON', KEY_FORMAT='KAFKA', PARTITIONS=4, WRAP_SINGLE_VALUE=FALSE      WRAP_SINGLE_VALUE FALSE -> (none)
    VALUE_FORMAT='JSON'  VALUE_FORMAT='JSON', KEY_FORMAT='AVRO', REPLICAS=2                                  KEY_FORMAT AVRO -> KAFKA
    `value`,             `value` AS `reading`,                                                               columns ASSET_KEY, asset_uuid, id, value AS reading, type, tag, timestamp -> ASSET_KEY, asset_uuid, id, value, type, tag, timestamp
"""  # noqa: E501 - one case a line


@pytest.mark.parametrize(("ours", "theirs", "shown"), rows(DIFFERENCES))
def test_what_differs_of_a_stream_that_looks_like_ours(ours: str, theirs: str, shown: str) -> None:
    """Its format, and what only it has; not what the server adds to each statement."""
    queries = dict(source({"Weld": "ok"}).queries)
    text = queries[WELD.stream].text
    assert text.count(ours) == 1
    queries[WELD.stream] = replace(queries[WELD.stream], text=text.replace(ours, theirs))
    found = offer(plant("ok", "ok", queries=queries))
    assert found.adoption is not None
    assert [line.strip() for line in found.shown if " -> " in line] == [shown]


def test_what_is_in_the_way_is_said() -> None:
    """A pause, readers of the stream, a shared stream that is not there, a platform without labels, no such group."""
    by_hand = plant("foreign", "unlabelled")
    assert offer(by_hand, held={"Weld": "paused until then"}).refusals == ("group Weld is paused until then",)
    read = plant("foreign", "ok", inserts={"INSERT_1": f"INSERT INTO X SELECT * FROM {names_of('Weld').stream};"})
    assert "is read by INSERT_1: drop those first" in offer(read).refusals[0]
    assert "the shared stream" in offer(plant("foreign", "ok", "silent")).refusals[0]
    assert "only Swarm's services get labels later" in offer(plant("ok", "unlabelled"), platform="docker").refusals[0]
    assert "the UNS map does not name it" in offer(by_hand, "Laser").refusals[0]
    assert offer(by_hand, held={"Paint": "paused"}).adoption == SHOWN


WELD = names_of("Weld")
INTO = f"WITH (KAFKA_TOPIC='{WELD.topic}') AS SELECT * FROM X EMIT CHANGES;"
BESIDE = """
    # written by                  partitions   refused
    -                             1            -
    its own query                 1            -
    another stream's query        1            topic asset_stream_Weld is written by the query of MINE
    its own and another's         1            topic asset_stream_Weld is written by the query of MINE
    -                             2            topic asset_stream_Weld has 2 partitions
"""


@pytest.mark.parametrize(("writer", "partitions", "refused"), rows(BESIDE))
def test_a_stream_is_dropped_only_if_ours_can_have_the_topic(writer: str, partitions: str, refused: str) -> None:
    """Not where another query would go on writing to it, nor where ksqlDB would refuse our stream over it."""
    queries = dict(source({"Weld": "foreign"}).queries)
    if "own" in writer:
        queries[WELD.stream] = LiveQuery(QUERY, f"CREATE STREAM {WELD.stream} {INTO}")
    if "another" in writer:
        queries["MINE"] = LiveQuery("Q", f"CREATE STREAM MINE {INTO}")
    shared = topology_of_now(source({})).shared_name.lower()
    survey = plant("foreign", "ok", queries=queries, partitions={WELD.topic: int(partitions), shared: 1})
    found = offer(survey)
    assert bool(found.adoption) is not bool(refused)
    assert refused in "; ".join(found.refusals)
    assert actions(make_plan(survey, Verdict(), plan_inputs(adoption=SHOWN))) == ("" if refused else "adopt_stream")


def actions(plan: Plan, group: str = "Weld") -> str:
    """What is done about a group, in words."""
    return ", ".join(action.verb for action in plan.actions if action.group == group)


PLANNED = """
    # stream   service     adoption     actions
    ok         unlabelled  shown        update_service
    ok         global      shown        update_service
    foreign    ok          shown        adopt_stream
    reader     unlabelled  shown        adopt_stream, update_service
    foreign    absent      shown        adopt_stream, create_service
    foreign    unlabelled  none         -
    foreign    unlabelled  of Paint     -
    ok         unlabelled  older        -
    ok         unlabelled  replaced     -
    foreign    ok          other query  -
    foreign    unlabelled  service      -
    foreign    unlabelled  stream       -
    other      ok          shown        -
    other, one more column  ok  shown   -
    joins ours and theirs   ok  shown   -
    legacy     ok          shown        -
    ok         other's     shown        -
    ok         theirs      shown        -
    foreign    theirs      shown        -
    other      unlabelled  shown        -
    ok         ok          shown        -
"""
ADOPTIONS = {
    "shown": SHOWN,
    "none": None,
    "of Paint": Adoption("Paint", ("id", 1), QUERY),
    "older": Adoption("Weld", ("id", 0), QUERY),
    "replaced": Adoption("Weld", ("other", 1), QUERY),
    "other query": Adoption("Weld", ("id", 1), f"{QUERY}_7"),
    "service": Adoption("Weld", ("id", 1)),
    "stream": Adoption("Weld", None, QUERY),
}


@pytest.mark.parametrize(("stream", "live", "adoption", "expected"), rows(PLANNED))
def test_only_what_was_shown_is_adopted(stream: str, live: str, adoption: str, expected: str) -> None:
    """Replaced or changed since it was shown, or of others: a conflict as before; Paint is never touched for it."""
    plan = make_plan(plant(stream, live), Verdict(), plan_inputs(adoption=ADOPTIONS[adoption]))
    assert (actions(plan), actions(plan, "Paint")) == (expected, "")
    if not expected and (stream, live) != ("ok", "ok"):
        assert next(item for item in plan.items if item.group == "Weld").condition is Condition.CONFLICT


def test_rules_come_before_an_adoption() -> None:
    """A paused group, an unhealthy server and a policy that changes nothing keep everything as it is."""
    by_hand = plant("foreign", "unlabelled")
    held = plan_inputs(adoption=SHOWN, held={"Weld": "paused"})
    assert actions(make_plan(by_hand, Verdict(), held)) == ""
    assert actions(make_plan(by_hand, Verdict(ddl=False), plan_inputs(adoption=SHOWN))) == ""
    kept = plan_inputs(settings(reconcile_policy="create-only"), adoption=SHOWN)
    assert actions(make_plan(by_hand, Verdict(), kept)) == ""
    absent = plant("foreign", "ok", "silent")
    assert actions(make_plan(absent, Verdict(), plan_inputs(adoption=SHOWN))) == ""


def test_a_label_of_another_installation_is_enough() -> None:
    """A service that has lost its owner label, and says whose it is all the same."""
    found = plant("ok", "unlabelled").observed
    live = replace(found.platform.services["ofa_group_weld"], installation=THEIRS)
    survey = seen(replace(found, platform=replace(found.platform, services={"ofa_group_weld": live})))
    assert offer(survey).refusals == (f"service ofa_group_Weld has the label of installation {THEIRS}",)
    assert actions(make_plan(survey, Verdict(), plan_inputs(adoption=SHOWN))) == ""

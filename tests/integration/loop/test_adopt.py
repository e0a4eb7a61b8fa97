"""`adopt`: it shows first, takes over exactly what it has shown, and nothing of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from reconciler.cli import adopt as adopt_command
from reconciler.cli import main as cli
from reconciler.cli import run as run_command
from reconciler.control.controller import Controller
from reconciler.domain.services import Healthcheck, Kind, LiveService, ServiceSpec
from reconciler.planning.adoption import Offer, offer_adoption
from reconciler.planning.guards import Overrides
from tests.harness.fakes import Stage
from tests.harness.serving import Plant, plant
from tests.integration.faults.matrix_scenarios import foreign_services

BY_HAND = "CREATE STREAM ASSET_STREAM_PAINT WITH (KAFKA_TOPIC='paint_by_hand') AS SELECT * FROM S EMIT CHANGES;"
#: What stays as it is, whatever is adopted.
OTHERS = {
    "ofa_group_held": foreign_services()["ofa_group_held"],
    "ofa_group_users": LiveService("u", 1, "ofa_group_users", None, None, 1),
}


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Weld is settled; of Paint a user has made the service and the stream, of Held another owner the service."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld"}
    stage.settle(stage.controller())
    stage.platform.services |= {"ofa_group_paint": LiveService("p", 1, "ofa_group_Paint", None, None, 1), **OTHERS}
    stage.ksqldb.made["ASSET_STREAM_PAINT"] = ("paint_by_hand", BY_HAND)
    stage.ksqldb.kept_topics.add("paint_by_hand")
    stage.ksqldb.assets |= {"b": "Paint", "c": "Held"}
    for name, value in {"KAFKA_BROKER": "k:9092", "KSQLDB_URL": "http://k:8088", "RECONCILER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)

    def operate(_: object, overrides: Overrides, command: str) -> tuple[Controller, object]:
        assert command == "adopt"
        return stage.controller(overrides), SimpleNamespace(stop=lambda: None)

    def converge(controller: Controller, *_: object, **more: object) -> object:
        return real(controller, 0, sleep=lambda _: None, **more)  # type: ignore[arg-type]

    real = run_command.converge
    monkeypatch.setattr(adopt_command, "make_reader", lambda _: stage.controller())
    monkeypatch.setattr(run_command, "make_preempting_controller", operate)
    monkeypatch.setattr(run_command, "converge", converge)
    return stage


def is_by_hand(stage: Stage) -> tuple[bool, bool]:
    """Whether service and stream of Paint are still the user's."""
    return stage.platform.services["ofa_group_paint"].owner is None, stage.ksqldb.made["ASSET_STREAM_PAINT"][
        1
    ] == BY_HAND


def test_it_shows_and_changes_nothing_without_an_answer(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """A stream needs --replace, and everything --yes where there is no terminal."""
    before = stage.writes
    assert cli.main(["adopt", "Paint"]) == 4
    shown = capsys.readouterr()
    assert "service ofa_group_Paint exists without our label\n" in shown.out
    assert f"its statement: {BY_HAND}\n" in shown.out
    assert "ours:          CREATE STREAM" in shown.out
    assert "--replace says that this is intended" in shown.err
    assert cli.main(["adopt", "Paint", "--replace"]) == 0
    assert "--yes adopts it" in capsys.readouterr().out
    assert cli.main(["adopt", "Weld", "--yes"]) == 0
    assert "nothing to adopt" in capsys.readouterr().out
    assert cli.main(["adopt", "Pant", "--yes"]) == 2
    assert "similar names: 'Paint'" in capsys.readouterr().err
    assert stage.writes == before


def test_it_shows_what_would_change_field_by_field(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """As plans show it: what may be a secret is not there, on either side."""
    theirs = ServiceSpec(
        "ofa_group_Paint",
        Kind.GROUP,
        None,
        "colleague/paint:3",
        {"PASSWORD": "hunter2", "KSQLDB_URL": "http://me:hunter2@ksql:1", "LOG_LEVEL": "debug"},
        2,
        1.0,
        0.5,
        "factory-net",
        unexpected=("args", "mounts"),
        labels={"team": "hunter2"},
        log_driver="syslog",
        log_options={"token": "hunter2"},
        healthcheck=Healthcheck("curl -u me:hunter2 http://x"),
    )
    read: list[str] = []

    def read_foreign(live: LiveService) -> ServiceSpec:
        read.append(live.name)
        return theirs

    vars(stage.platform)["read_foreign"] = read_foreign
    assert cli.main(["adopt", "Paint", "--replace"]) == 0
    shown = capsys.readouterr().out
    assert read == ["ofa_group_Paint"]
    assert "hunter2" not in shown
    for line in (
        '  image "colleague/paint:3" -> "ghcr.io/openfactoryio/stream-api-non-replicated:latest"',
        '  env LOG_LEVEL "debug" -> "info"',
        "  env PASSWORD *** -> (unset)",
        '  env KSQLDB_URL "http://***@ksql:1" -> "http://k:8088"',
        "  label team *** -> (unset)",
        "  log option token *** -> (unset)",
        "  replicas 2 -> 1",
        '  unexpected ["args", "mounts"] -> []',
        "  topic paint_by_hand -> asset_stream_Paint",
        "  columns * -> ASSET_KEY, asset_uuid, id, value, type, tag, timestamp",
        "  filter (none) -> s.UNS_GROUP = 'Paint'",
    ):
        assert f"\n{line}" in shown
    assert "\n  group" not in shown, "it is one of the labels"


def test_what_already_is_as_ours_differs_in_nothing_but_labels(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """A service that lost its labels."""
    lost = stage.platform.services["ofa_group_weld"]
    vars(stage.platform)["read_foreign"] = lambda _: replace(lost.spec, group=None, installation="")
    stage.platform.services["ofa_group_weld"] = replace(lost, owner=None, spec=None)
    assert cli.main(["adopt", "Weld"]) == 0
    assert "\n  nothing else differs\n" in capsys.readouterr().out


def test_it_takes_over_what_it_has_shown(stage: Stage) -> None:
    """The service is updated in place, the stream is dropped and made again; its topic and the others' objects stay."""
    assert cli.main(["adopt", "Paint", "--replace", "--yes"]) == 5  # the first cycle of one; Held stays in conflict
    live = stage.platform.services["ofa_group_paint"]
    assert (live.id, live.owner, live.spec and live.spec.group) == ("p", "ofa", "Paint")
    assert "FROM `OFA_ASSETS_WITH_UNS" in stage.ksqldb.made["ASSET_STREAM_PAINT"][1]
    assert "paint_by_hand" in stage.ksqldb.kept_topics
    assert {name: stage.platform.services[name] for name in OTHERS} == OTHERS
    operator = stage.controller()  # it knows of no adoption, and needs none
    stage.settle(operator)
    outcome = operator.cycle()
    assert outcome.plan is not None
    assert {item.group: item.condition for item in outcome.plan.items if item.group} == {
        "Weld": "Ready",
        "Paint": "Ready",
        "Held": "Conflict",
    }


def test_another_owner_is_refused(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names it."""
    assert cli.main(["adopt", "Held", "--yes"]) == 4
    assert "belongs to owner other" in capsys.readouterr().err
    assert stage.platform.services["ofa_group_held"] == OTHERS["ofa_group_held"]


def replace_service(stage: Stage) -> None:
    """Another service comes under the same name."""
    stage.platform.services["ofa_group_paint"] = LiveService("p2", 1, "ofa_group_Paint", None, None, 1)


def update_service(stage: Stage) -> None:
    """The user changes it."""
    stage.platform.services["ofa_group_paint"] = replace(stage.platform.services["ofa_group_paint"], version=2)


def claim_service(stage: Stage) -> None:
    """Another operator takes it first."""
    live = stage.platform.services["ofa_group_paint"]
    stage.platform.services["ofa_group_paint"] = replace(live, owner="other")


@pytest.mark.parametrize("meanwhile", [replace_service, update_service, claim_service])
def test_what_changed_since_it_was_shown_is_not_touched(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Stage], None]
) -> None:
    """Between the question and the answer."""

    def answer(_: str, *, yes: bool) -> bool:
        meanwhile(stage)
        return yes

    monkeypatch.setattr(adopt_command, "ask_to_go_on", answer)
    assert cli.main(["adopt", "Paint", "--replace", "--yes"]) == 5
    live = stage.platform.services["ofa_group_paint"]
    assert live.spec is None
    assert is_by_hand(stage)[1]


def test_a_stream_that_is_replaced_right_before_the_write_is_not_touched(stage: Stage) -> None:
    """The description that the write begins with decides, not the list of before."""
    mine = BY_HAND.replace("FROM S", "FROM T")

    def interfere(call: str) -> None:
        if call == "describe":
            stage.ksqldb.terminated.add("ASSET_STREAM_PAINT")
            stage.ksqldb.made["ASSET_STREAM_PAINT"] = ("paint_by_hand", mine)

    stage.ksqldb.fault = interfere
    assert cli.main(["adopt", "Paint", "--replace", "--yes"]) == 5
    assert stage.ksqldb.made["ASSET_STREAM_PAINT"][1] == mine
    assert is_by_hand(stage)[0]


def test_a_stream_that_reads_another_installations_stays(stage: Stage) -> None:
    """Also where only the description says so; with a column more than ours it may still be that installation's."""
    theirs = BY_HAND.replace("FROM S", "FROM OFA_ASSETS_WITH_UNS_99999999_0F0F0F0F_1")

    def interfere(call: str) -> None:
        if call == "describe":
            stage.ksqldb.made["ASSET_STREAM_PAINT"] = ("paint_by_hand", theirs)

    stage.ksqldb.fault = interfere
    assert cli.main(["adopt", "Paint", "--replace", "--yes"]) == 5
    assert stage.ksqldb.made["ASSET_STREAM_PAINT"][1] == theirs


def lose_the_shared_stream(stage: Stage) -> None:
    """A person drops it."""
    del stage.ksqldb.made[next(name for name in stage.ksqldb.made if name.startswith("OFA_ASSETS_WITH_UNS"))]


def change_partitions(stage: Stage) -> None:
    """Kafka creates the topic that ours is for, with its own number of partitions."""
    stage.ksqldb.topics = lambda: {"asset_stream_Paint": 7}  # type: ignore[method-assign]


@pytest.mark.parametrize("meanwhile", [lose_the_shared_stream, change_partitions])
def test_a_stream_is_not_dropped_where_ours_cannot_follow(stage: Stage, meanwhile: Callable[[Stage], None]) -> None:
    """Also where that changes right before the write."""

    def interfere(call: str) -> None:
        if call == "describe":
            stage.ksqldb.fault = lambda _: None
            meanwhile(stage)

    stage.ksqldb.fault = interfere
    assert cli.main(["adopt", "Paint", "--replace", "--yes"]) == 5
    assert is_by_hand(stage)[1]


def test_a_stream_with_readers_stays(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """They are named; whoever made them drops them first."""
    text = "CREATE STREAM ALARMS WITH (KAFKA_TOPIC='alarms') AS SELECT * FROM ASSET_STREAM_PAINT EMIT CHANGES;"
    stage.ksqldb.made["ALARMS"] = ("alarms", text)
    assert cli.main(["adopt", "Paint", "--replace", "--yes"]) == 4
    assert "is read by ALARMS: drop those first" in capsys.readouterr().err
    assert is_by_hand(stage) == (True, True)


def test_an_installation_is_shown_and_adopted_by_its_id(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """What carries the id is listed; without the record it needs this, and an id that nothing carries is refused."""
    ours = stage.controller().deps.topology.installation.id or ""
    identity = stage.platform.kept_records.pop("installation").fields["id"]
    assert identity != ours
    assert cli.main(["adopt", "deadbeef", "--yes"]) == 4
    assert f"found: {identity}" in capsys.readouterr().err
    assert cli.main(["adopt", identity]) == 0
    shown = capsys.readouterr().out
    assert "service ofa_group_Weld" in shown
    assert "--yes adopts it" in shown
    assert "installation" not in stage.platform.kept_records
    cli.main(["adopt", identity, "--yes"])
    assert stage.platform.kept_records["installation"].fields["id"] == identity
    assert {name: stage.platform.services[name] for name in OTHERS} == OTHERS


OVER_A_TOPIC = (
    "CREATE STREAM ASSET_STREAM_PAINT (asset VARCHAR KEY, speed INTEGER) "
    "WITH (KAFKA_TOPIC='paint_by_hand', VALUE_FORMAT='JSON', PARTITIONS=1);"
)


def find_offer(made: Plant) -> Offer:
    """Look at group Paint as the command does."""
    reader = made.operator()
    survey, _ = reader.observe()
    return offer_adoption("Paint", survey, reader.deps.topology, made.settings, {})


def adopt(made: Plant, offer: Offer) -> None:
    """Do what was shown, in one cycle."""
    made.run(made.operator(overrides=Overrides(adoption=offer.adoption)))


def condition(made: Plant) -> str:
    """Return the state of group Paint."""
    plan = made.operator().cycle().plan
    assert plan is not None
    return str(next(item.condition for item in plan.items if item.group == "Paint"))


def test_a_stream_over_a_topic_is_a_conflict_and_can_be_adopted() -> None:
    """On the embedded server: nothing is written to it before, its topic stays, and the group is served after."""
    with plant(1) as made:
        made.ksqldb.sql(OVER_A_TOPIC)
        made.ksqldb.assign({"p": "Paint"})
        operator = made.operator()
        outcomes = made.run(operator, 12, 60.0)
        assert [result for outcome in outcomes for result in outcome.results if result.action.group == "Paint"] == []
        assert condition(made) == "Conflict"
        offer = find_offer(made)
        assert offer.refusals == ()
        assert "stream ASSET_STREAM_PAINT does not read from our shared stream" in offer.shown
        assert any("`SPEED` INTEGER" in line or "SPEED INTEGER" in line for line in offer.shown)
        assert "  topic paint_by_hand -> asset_stream_Paint" in offer.shown
        assert any("what writes to topic paint_by_hand is not known" in line for line in offer.shown)
        adopt(made, offer)
        assert "paint_by_hand" in made.ksqldb.topics
        made.settle(made.operator())
        assert condition(made) == "Ready"
        assert find_offer(made) == Offer(None, ())


def test_a_stream_over_a_topic_that_is_in_use_or_another_one_is_not_touched() -> None:
    """One that a stream or a query of others reads, that a query writes into, or that is not the one that was shown."""
    with plant(1) as made:
        made.ksqldb.sql(OVER_A_TOPIC, "CREATE STREAM ALARMS AS SELECT * FROM ASSET_STREAM_PAINT EMIT CHANGES;")
        made.ksqldb.assign({"p": "Paint"})
        assert "stream ASSET_STREAM_PAINT is read by ALARMS: drop those first" in find_offer(made).refusals
        made.ksqldb.sql("DROP STREAM ALARMS;")
        offer = find_offer(made)
        assert offer.refusals == ()
        made.ksqldb.sql("DROP STREAM ASSET_STREAM_PAINT;", OVER_A_TOPIC.replace("speed", "torque"))
        adopt(made, offer)
        assert condition(made) == "Conflict"
        assert made.ksqldb.server.catalog.sources["ASSET_STREAM_PAINT"].topic.name == "paint_by_hand"
        made.ksqldb.sql(
            "CREATE STREAM THEIR (asset VARCHAR KEY, torque INTEGER) "
            "WITH (KAFKA_TOPIC='theirs', VALUE_FORMAT='JSON', PARTITIONS=1);",
            "INSERT INTO ASSET_STREAM_PAINT SELECT * FROM THEIR EMIT CHANGES;",
        )
        (refusal,) = find_offer(made).refusals
        assert "is also written by INSERTQUERY" in refusal

"""What is the old system's and what is only called so: streams and services that differ in anything are left alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from openfactory_common.errors import KsqlBadStatement
from reconciler.cli.migrate import render_json, render_text, run_step
from reconciler.control.converge import Exit
from reconciler.domain.observed import LiveQuery
from reconciler.migration.legacy import (
    OldRole,
    OldService,
    find_mismatch,
    find_old_streams,
    is_old_stream,
    stand_in_name,
)
from reconciler.migration.migrate import StepRefused, observe, remove_old, restore_names, start, switch
from tests.harness.fake_platform import INSTALLATION, FakePlatform
from tests.harness.fakes import Stage, unreachable
from tests.integration.migration.old import FakeOldServices, old_statement

SETTINGS = Stage().settings


def found(statement: str, name: str = "ASSET_STREAM_WELD") -> list[str]:
    """Return the groups of old streams among one query."""
    return [one.group for one in find_old_streams({name: LiveQuery("CSAS_1", statement)}, SETTINGS)]


def test_the_old_systems_statement_is_known_in_its_own_words() -> None:
    """As it was sent, and for every group that it could make a stream for."""
    assert found(old_statement("Weld")) == ["Weld"]
    assert found(old_statement("a_1"), "ASSET_STREAM_A_1") == ["a_1"]


@pytest.mark.parametrize(
    ("was", "is_"),
    [
        ("SELECT s.*", "SELECT s.id, s.asset_uuid"),
        ("'Weld'", "'Paint'"),
        ("enriched_assets_stream", "other_stream"),
        ("asset_to_uns_map h", "other_map h"),
        ("JOIN", "LEFT JOIN"),
        ("_topic'", "_topic2'"),
        ("'workcenter'", "'area'"),
        ("WHERE", "WHERE s.id IS NOT NULL AND"),
        ("VALUE_FORMAT='JSON'", "VALUE_FORMAT='AVRO'"),
    ],
)
def test_a_stream_that_differs_in_anything_is_not_the_old_systems(was: str, is_: str) -> None:
    """Another column, filter, source, table, join, topic, level, condition or format: another party's."""
    changed = old_statement("Weld").replace(was, is_)
    assert changed != old_statement("Weld")
    assert found(changed) == []


def test_only_its_own_name_and_the_stand_ins_count() -> None:
    """A copy that a user made under another name is not touched."""
    text = old_statement("Weld")
    assert found(text, "MY_COPY") == []
    assert found(text, stand_in_name("Weld", SETTINGS)) == ["Weld"]
    (stream,) = find_old_streams({"ASSET_STREAM_WELD": LiveQuery("CSAS_1", text)}, SETTINGS)
    assert is_old_stream(text, stream, SETTINGS)
    assert not is_old_stream(text.replace("asset_stream_Weld\n", "MY_COPY\n"), stream, SETTINGS)


def old_plant() -> tuple[Stage, FakeOldServices]:
    """A plant in memory that the old system serves."""
    stage = Stage(options={"routing_layer_port": 5556})
    stage.ksqldb.assets = {"a": "Weld"}
    stage.ksqldb.made["ASSET_STREAM_WELD"] = ("asset_stream_Weld_topic", old_statement("Weld"))
    return stage, FakeOldServices.of("Weld")


def test_odd_services_are_shown_and_left() -> None:
    """One with a name of the old system that is not quite its own stays when the rest is removed, and stays fed."""
    stage, old = old_plant()
    odd = replace(old.services["stream-api-group-weld"], deviation="it has labels")
    old.services[odd.name] = odd
    router = old.services["serving_layer_router"]
    assert "stream-api-group-weld  left alone: it has labels" in render_text(observe(stage.controller(), old))
    old.publish(router, None)
    controller = stage.controller()
    list(start(observe(controller, old), controller.deps, lambda _: None))
    stage.settle(controller)
    done = list(remove_old(observe(controller, old), controller.deps, old))
    assert set(old.services) == {"stream-api-group-weld"}
    stand_in = stand_in_name("Weld", stage.settings)
    assert stand_in in stage.ksqldb.made
    assert done[-1].startswith(f"kept stream {stand_in}")
    assert observe(controller, old).next_step == ""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"networks": ("other-net",)}, "its network is other-net, not factory-net"),
        ({"networks": ()}, "its network is none"),
        ({"variables": {"KAFKA_BROKER": "other:9092"}}, "its KAFKA_BROKER is other:9092, not k:9092"),
        ({"variables": {"KSQLDB_URL": "http://u:secret@other:8088"}}, r"its KSQLDB_URL is http://\*\*\*@other:8088"),
        ({"group": "Laser"}, "the UNS map has no group 'Laser'"),
    ],
)
def test_the_old_system_of_another_plant_is_not_ours(change: dict[str, Any], why: str) -> None:
    """In the old shape, but with another network, broker or ksqlDB, or of a group that is not in our map."""
    stage, old = old_plant()
    theirs = replace(old.services["stream-api-group-weld"], name="stream-api-group-theirs", **change)
    old.services[theirs.name] = theirs
    assert re.search(f"{theirs.name} +not ours: {why}", render_text(observe(stage.controller(), old)))
    assert theirs.name in json.loads(render_json(observe(stage.controller(), old)))["not_ours"]
    old.publish(old.services["serving_layer_router"], None)
    controller = stage.controller()
    list(start(observe(controller, old), controller.deps, lambda _: None))
    stage.settle(controller)
    list(remove_old(observe(controller, old), controller.deps, old))
    assert old.services == {theirs.name: theirs}
    assert observe(controller, old).next_step == ""


def test_the_router_of_another_plant_holds_nothing_up() -> None:
    """Its port is its own business: nothing is switched away from it, and nothing waits for it."""
    stage, old = old_plant()
    router = replace(old.services["serving_layer_router"], networks=("other-net",))
    old.services = {router.name: router}
    scene = observe(stage.controller(), old)
    assert (scene.router, scene.old_has_port, scene.unmodified) == (None, False, ())


@pytest.mark.parametrize("step", ["--back", "--remove-old"])
def test_stand_ins_of_another_installation_with_our_owner_stay(step: str) -> None:
    """Their names have no id, so neither way is taken beside one: the old services of the other live on them."""
    first, old = old_plant()
    controller = first.controller()
    list(start(observe(controller, old), controller.deps, lambda _: None))
    first.settle(controller)
    if step == "--back":
        first.ksqldb.made.pop("ASSET_STREAM_WELD")  # the group has left, so the original's name is free
    else:
        first.ksqldb.assets = {"a": "Paint"}  # the second has another map
    second = Stage(FakePlatform(kept_records={}), first.ksqldb, {"routing_layer_port": 5556})
    other = second.controller()
    if step == "--remove-old":
        second.settle(other)
    before, scene = dict(first.ksqldb.made), observe(other, FakeOldServices())
    assert scene.stand_ins
    with pytest.raises(StepRefused, match=f"installation {INSTALLATION.id} has the same RECONCILER_OWNER"):
        list(
            restore_names(scene, other.deps, lambda _: None)
            if step == "--back"
            else remove_old(scene, other.deps, FakeOldServices())
        )
    assert first.ksqldb.made == before


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_password_in_a_url_makes_no_other_plant(slash: str) -> None:
    """Nor does a slash at its end, and the address that services get counts as well."""
    settings = Stage(options={"ksqldb_service_url": "http://inside:8088"}).settings
    ours = OldService("s", 1, "s", OldRole.STATE_API, None, (), 1, 1, networks=("factory-net",))
    for url in ("http://k:8088", "http://u:p@k:8088", "http://inside:8088"):
        assert find_mismatch(replace(ours, variables={"KSQLDB_URL": url + slash}), settings, None) == ""


@pytest.mark.parametrize("offset", ["latest", "earliest"])
def test_no_stand_in_is_made_where_the_servers_offset_counts_for_it(offset: str) -> None:
    """Deaf, or a replay of all history into the old system's clients: refused before anything is written."""
    stage, old = old_plant()
    stage.ksqldb.offset = offset
    controller = stage.controller()
    with pytest.raises(StepRefused, match=f"auto.offset.reset={offset}"):
        list(start(observe(controller, old), controller.deps, lambda _: None))
    assert stage.ksqldb.writes == 0
    stage.ksqldb.offset = ""
    list(start(observe(controller, old), controller.deps, lambda _: None))
    (made,) = (one for one in stage.ksqldb.statements if one.verb == "create")
    assert not [name for name in made.properties if name.endswith("offset.reset")]


def test_streams_stay_for_an_odd_group_service_of_no_known_group() -> None:
    """Where its variables do not say what it reads, it may be any of them."""
    stage, old = old_plant()
    old.services["x"] = OldService(
        "x", 1, "stream-api-group-x", OldRole.GROUP, None, (), 1, 1, "its topic is another", networks=("factory-net",)
    )
    old.publish(old.services["serving_layer_router"], None)
    controller = stage.controller()
    list(start(observe(controller, old), controller.deps, lambda _: None))
    stage.settle(controller)
    list(remove_old(observe(controller, old), controller.deps, old))
    assert stand_in_name("Weld", stage.settings) in stage.ksqldb.made


def test_an_odd_router_that_publishes_a_port_stops_the_removal() -> None:
    """Clients come in through it whatever else is odd about it, so what it needs is left and the reason is said."""
    stage, old = old_plant()
    router = old.services["serving_layer_router"]
    old.services[router.name] = replace(router, deviation="it has labels")
    controller = stage.controller()
    list(start(observe(controller, old), controller.deps, lambda _: None))
    stage.settle(controller)
    scene = observe(controller, old)
    assert scene.next_step == "reconciler migrate --switch"
    with pytest.raises(StepRefused, match=r"it has labels.*by hand"):
        list(switch(scene, old))
    with pytest.raises(StepRefused, match="still publishes"):
        list(remove_old(scene, controller.deps, old))
    assert len(old.services) == 3


def test_nothing_is_removed_while_no_one_has_the_port(capsys: pytest.CaptureFixture[str]) -> None:
    """An operator whose own settings name another port takes the new router off it again after the switch."""
    stage, old = old_plant()
    assert commanded(stage, old, "start") == Exit.OK
    stage.options = {"routing_layer_port": 5555}
    assert commanded(stage, old, "switch") == Exit.OK
    stage.options = {"routing_layer_port": 5556}
    stage.settle(stage.controller())
    stage.options = {"routing_layer_port": 5555}
    assert observe(stage.controller(), old).next_step == "reconciler migrate --switch"
    with pytest.raises(StepRefused, match="no router publishes port 5555"):
        commanded(stage, old, "remove_old")
    assert len(old.services) == 3
    assert "removed" not in capsys.readouterr().out


def test_what_is_shown_names_the_next_step() -> None:
    """The plan: what is there, what has the name that is needed, and what comes next; for machines, too."""
    stage, old = old_plant()
    scene = observe(stage.controller(), old)
    text = render_text(scene)
    assert "ASSET_STREAM_WELD      old stream, writes asset_stream_Weld_topic; the new stream needs its name" in text
    assert "serving_layer_router   router, 1/1, port 5555" in text
    assert text.endswith("Next: reconciler migrate --start")
    assert '"in_the_way": [\n    "ASSET_STREAM_WELD"\n  ]' in render_json(scene)
    assert stage.writes == 0
    empty = render_text(observe(Stage(ksqldb=stage.ksqldb.clone()).controller(), FakeOldServices()))
    assert "old stream" in empty


def test_another_cluster_stops_everything() -> None:
    """The rule of identity holds here, too."""
    stage, old = old_plant()
    stage.ksqldb.made.clear()
    stage.settle(stage.controller())
    stage.ksqldb.identity = ("kafka-2", "default_")
    with pytest.raises(StepRefused, match="another cluster answers"):
        observe(stage.controller(), old)


def test_a_topic_of_another_retention_keeps_it() -> None:
    """Another retention is refused for a topic that exists, with the one that it has in the words: that is used."""
    stage, old = old_plant()
    refused: list[str] = []
    execute = stage.ksqldb.execute

    def strict(statement: object) -> object:
        text = statement.sql  # type: ignore[attr-defined]
        if "STANDIN" in text and "RETENTION_MS" not in text:
            refused.append(text)
            raise_retention()
        return execute(statement)  # type: ignore[arg-type]

    stage.ksqldb.execute = strict  # type: ignore[method-assign]
    controller = stage.controller()
    list(start(observe(controller, old), controller.deps, lambda _: None))
    assert len(refused) == 1
    assert "RETENTION_MS=86400000" in stage.ksqldb.made[stand_in_name("Weld", stage.settings)][1]


def raise_retention() -> None:
    """Refuse in ksqlDB's words."""
    raise KsqlBadStatement("... retention (topic has 86400000), ...")


def commanded(stage: Stage, old: FakeOldServices, chosen: str) -> int:
    """Run one step as the command does; the operator converges in between."""

    def converge() -> int:
        controller = stage.controller()
        for _ in range(8):
            outcome = controller.cycle()
            stage.now += 400  # longer than any back-off
        return Exit.OK if outcome.plan is not None and outcome.plan.in_sync else Exit.NOT_CONVERGED

    return run_step(chosen, stage.controller(), old, converge)


def router_ports(old: FakeOldServices) -> list[int]:
    """Return the ports that the old router publishes."""
    return list(old.services["serving_layer_router"].ports)


def test_the_commands_of_the_whole_way(capsys: pytest.CaptureFixture[str]) -> None:
    """Start, switch, back, switch again, remove: each says what it did and ends with 0."""
    stage, old = old_plant()
    assert commanded(stage, old, "start") == Exit.OK
    stage.options = {"routing_layer_port": 5555}
    assert commanded(stage, old, "switch") == Exit.OK
    assert router_ports(old) == []
    assert commanded(stage, old, "switch") == Exit.OK
    stage.options = {"routing_layer_port": 5556}
    assert commanded(stage, old, "back") == Exit.OK
    assert router_ports(old) == [5555]
    assert "`reconciler teardown`, then `migrate --back`" in capsys.readouterr().out
    stage.options = {"routing_layer_port": 5555}
    assert commanded(stage, old, "switch") == Exit.OK
    assert commanded(stage, old, "remove_old") == Exit.OK
    assert not old.services
    assert commanded(stage, old, "back") == Exit.OK
    assert "nothing to take back" in capsys.readouterr().out


def test_a_switch_that_fails_gives_the_port_back(capsys: pytest.CaptureFixture[str]) -> None:
    """When the new router does not take the port, clients reach the old one again, and the code says so."""
    stage, old = old_plant()
    assert commanded(stage, old, "start") == Exit.OK
    stage.options = {"routing_layer_port": 5555}

    def refuse(call: str) -> None:
        if call == "update_service":
            unreachable(call)(call)

    stage.platform.fault = refuse
    assert commanded(stage, old, "switch") == Exit.NOT_CONVERGED
    assert router_ports(old) == [5555]
    assert "publishes port 5555 again" in capsys.readouterr().out


def test_an_original_stays_while_its_stand_in_does_not_write() -> None:
    """A stand-in that has lost its query is no reason to stop feeding the old side."""
    stage, old = old_plant()
    controller = stage.controller()
    stand_in = stand_in_name("Weld", stage.settings)
    steps = start(observe(controller, old), controller.deps, lambda _: stage.ksqldb.terminated.add(stand_in))
    assert "created" in next(steps)
    with pytest.raises(StepRefused, match="ASSET_STREAM_WELD stays"):
        next(steps)
    assert "ASSET_STREAM_WELD" in stage.ksqldb.made


def test_what_was_changed_meanwhile_is_not_dropped() -> None:
    """Every stream is asked once more right before it is dropped: its statement then counts, not the one of before."""
    stage, old = old_plant()
    controller = stage.controller()
    changed = old_statement("Weld").replace("SELECT s.*", "SELECT s.id, s.asset_uuid")

    def change(_: float) -> None:
        stage.ksqldb.made["ASSET_STREAM_WELD"] = ("asset_stream_Weld_topic", changed)

    steps = start(observe(controller, old), controller.deps, change)
    next(steps)
    with pytest.raises(StepRefused, match="no longer has the old system's definition"):
        next(steps)
    assert stage.ksqldb.made["ASSET_STREAM_WELD"][1] == changed

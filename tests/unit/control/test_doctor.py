"""`doctor` reads each part by itself, writes nothing, and ends with the code of the worst finding."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from openfactory_common.errors import KsqlError, KsqlUnreachable, PlatformRefused
from openfactory_common.ksqldb.levels import WithFallback
from reconciler.cli import main as cli
from reconciler.control.doctor import connect, diagnose
from reconciler.domain.facts import EngineFacts
from reconciler.domain.services import LiveService
from reconciler.ksqldb.entities import Health
from reconciler.planning.diagnosis import Finding, Level
from reconciler.platforms.protocol import Reference
from tests.harness.fakes import FakeKsqldb, FakePlatform, Stage
from tests.unit.planning.test_diagnosis import ENGINE

MADE = "CREATE TABLE X AS SELECT * FROM Y"
SECRETS = {"ksqldb_username_secret": "ofa-user"}


@dataclass
class Described(FakePlatform):
    """A platform whose engine describes itself."""

    facts: EngineFacts = ENGINE
    missing: Collection[str] = ()
    asked: list[Collection[str]] = field(default_factory=list)

    def inspect(self, network: str, images: Collection[str]) -> EngineFacts:
        """Describe the engine."""
        self.fault("inspect")
        assert network == "factory-net"
        self.asked.append(images)
        return self.facts

    def missing_references(self, kind: Reference, names: Collection[str]) -> Mapping[str, str]:
        """Say which secrets are missing."""
        assert kind is Reference.SECRET
        self.fault("missing_references")
        return {name: "does not exist: no service; docker secret create" for name in names if name in self.missing}


def stage(**options: object) -> Stage:
    """Return an installation that would work."""
    made = {
        "ENRICHED_ASSETS_STREAM": ("enriched", "CREATE STREAM ENRICHED_ASSETS_STREAM (X INT)"),
        "ASSET_TO_UNS_MAP": ("map", MADE),
        "ASSETS": ("assets", MADE),
    }
    tables = {"ASSETS", "ASSET_TO_UNS_MAP"}
    ksqldb = FakeKsqldb(assets={"a": "Weld", "b": None}, made=made, named_tables=tables, limit=10)
    return Stage(platform=Described(), ksqldb=ksqldb, options=options)


def findings(
    stage: Stage, reach: Callable[[str, int], str] = lambda host, _: "" if host == "k" else "no"
) -> list[Finding]:
    """Run all checks; Kafka is reached, nothing listens on this host."""
    return list(diagnose(stage.controller().deps, reach))


def failed(stage: Stage) -> list[str]:
    """Return what fails."""
    found = findings(stage)
    assert stage.writes == 0
    return [f"{one.what} ({one.variable})" for one in found if one.level is Level.FAIL]


def test_an_installation_that_will_work_has_no_complaint() -> None:
    """Also with a running operator: its own objects are no obstacle."""
    new = stage()
    assert [one for one in findings(new) if one.level is not Level.OK] == []
    assert new.platform.calls == {"observe": 1}
    new.settle(new.controller())
    before = new.writes
    assert [one for one in findings(new) if one.level is not Level.OK] == []
    assert new.writes == before
    own = [one.what for one in findings(new) if "of ours" in one.what]
    assert own == ["3 queries of others and 2 of ours, ksqlDB allows 10"]


def test_ksqldb_away_leaves_the_engine_checked() -> None:
    """One line for it, and what does not depend on it."""
    made = stage()

    def away(_: str) -> None:
        raise KsqlUnreachable("connection refused")

    made.ksqldb.fault = away
    assert failed(made) == ["connection refused (KSQLDB_URL is http://k:8088) (KSQLDB_URL)"]
    assert any(one.what.startswith("Docker engine") for one in findings(made))


READS = ["health", "streams", "queries", "topics", "query_limit", "offset_reset", "members"]


@pytest.mark.parametrize("read", READS)
def test_a_read_that_fails_is_a_finding_of_its_own(read: str) -> None:
    """The rest is checked all the same."""
    made = stage()

    def fail(call: str) -> None:
        if call == read:
            raise KsqlError("a fault")

    made.ksqldb.fault = fail
    (found,) = failed(made)
    assert "cannot be read: a fault" in found


@pytest.mark.parametrize("call", ["observe", "inspect", "missing_references"])
def test_an_engine_that_refuses_is_a_finding_with_its_cure(call: str) -> None:
    """Its own words, and what helps."""
    made = stage(**SECRETS)

    def refuse(asked: str) -> None:
        if asked == call:
            raise PlatformRefused("This node is not a swarm manager.")

    made.platform.fault = refuse
    (found,) = [one for one in findings(made) if one.level is Level.FAIL]
    assert (found.what, found.variable) == ("This node is not a swarm manager.", "DOCKER_HOST")
    assert "docker swarm init" in found.cure


@pytest.mark.parametrize("call", ["info", *READS, "observe", "inspect", "missing_references"])
def test_an_error_that_nobody_expected_is_one_finding(call: str) -> None:
    """An answer of another shape, for one: a line with its kind, and no traceback; the rest is checked."""
    made = stage(**SECRETS)

    def break_(asked: str) -> None:
        if asked == call:
            raise AttributeError("no such part")

    made.ksqldb.fault = made.platform.fault = break_
    (found,) = failed(made)
    assert "unexpected AttributeError: no such part" in found


def test_an_unhealthy_server() -> None:
    """Its parts, or the state of the server."""
    made = stage()
    made.ksqldb.well = Health(healthy=False, kafka=False, metastore=True, command_runner=True, server_state="READY")
    assert failed(made) == ["ksqlDB 7.7.0: not healthy: kafka (KSQLDB_URL)"]
    made.ksqldb.status = "DEGRADED"
    assert failed(made) == ["ksqlDB 7.7.0: its state is DEGRADED (KSQLDB_URL)"]


def test_a_missing_secret() -> None:
    """With the variable that names it, and the command that makes it."""
    made = stage(**SECRETS)
    assert failed(made) == []
    made.platform = Described(missing={"ofa-user"})
    (found,) = [one for one in findings(made) if one.level is Level.FAIL]
    assert (found.variable, found.cure) == ("KSQLDB_USERNAME_SECRET", "docker secret create")


@pytest.mark.parametrize("there", ["both", "streams", "services", "the fallback", "nothing"])
@pytest.mark.parametrize("sampled", [True, False])
def test_a_misspelt_level_fails_where_others_are_served(
    there: str, sampled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the operator would stop at; the levels of assets may not have been seen."""
    made, assets = stage(uns_fallback_group="rest"), {"a": "Weld", "b": "rest"}
    right, wrong = WithFallback("workcenter", "rest"), WithFallback("workcentre", "rest")
    made.ksqldb.levels |= {right: assets, wrong: dict.fromkeys(assets, "rest")}
    if there == "the fallback":
        made.ksqldb.levels[right] = dict.fromkeys(assets, "rest")
    if there != "nothing":
        made.settle(made.controller())
    assert [one for one in findings(made) if one.level is not Level.OK] == []
    if there == "streams":
        made.platform.services.clear()
    if there == "services":
        made.ksqldb.made = {name: one for name, one in made.ksqldb.made.items() if not name.startswith("ASSET_STREAM_")}
    if not sampled:
        monkeypatch.setattr(made.ksqldb, "level_names", lambda *_: frozenset())
    made.options["uns_fastapi_group_grouping_level"] = "workcentre"
    before = made.writes
    found = [one for one in findings(made) if one.variable == "UNS_FASTAPI_GROUP_GROUPING_LEVEL"]
    found = [one for one in found if one.level is not Level.OK]
    assert made.writes == before
    if there in ("nothing", "the fallback"):
        assert [one.level for one in found] == ([Level.WARN] if sampled else [])
    else:
        assert [one.level for one in found] == [Level.FAIL]
        assert "stops every write beside Weld" in found[0].what


def test_another_installation_with_our_owner() -> None:
    """Its objects are here and no record says which one this is."""
    made = stage()
    made.platform.kept_records.clear()
    made.platform.services["ofa_group_x"] = LiveService("1", 1, "ofa_group_x", "ofa", None, 1, installation="99999999")
    (found,) = failed(made)
    assert "no record says which installation this is" in found
    assert "RECONCILER_OWNER" in found


def test_a_platform_that_describes_nothing_is_said_to_be_unchecked() -> None:
    """A plug-in need not be able to."""
    made = stage()
    made.platform = FakePlatform()
    assert failed(made) == []
    assert any("does not describe its engine" in one.what for one in findings(made))


def test_brokers_are_reached_one_by_one() -> None:
    """A list, an address in brackets; a program on this host at one of our ports."""
    asked: list[tuple[str, int]] = []

    def reach(host: str, port: int) -> str:
        asked.append((host, port))
        return "" if (host, port) == ("127.0.0.1", 5555) else "timed out"

    found = [one for one in findings(stage(kafka_broker="a:1,[fd00::1]:2"), reach) if one.level is Level.WARN]
    assert {("a", 1), ("fd00::1", 2)} <= set(asked)
    assert [one.variable for one in found] == ["ROUTING_LAYER_PORT", "KAFKA_BROKER", "KAFKA_BROKER"]


def test_a_connection_is_tried() -> None:
    """A name that does not resolve and a port that nothing listens on have a reason."""
    assert connect("name.invalid", 9092)
    assert connect("127.0.0.1", 1)


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings of an installation that does not exist."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BROKER", "127.0.0.1:1")
    monkeypatch.setenv("KSQLDB_URL", "http://user:secret@127.0.0.1:1")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")


@pytest.mark.usefixtures("_here")
def test_what_fails_ends_with_code_4(capsys: pytest.CaptureFixture[str]) -> None:
    """A line each, no password, and the numbers at the end."""
    assert cli.main(["doctor"]) == 4
    text = capsys.readouterr().out
    assert "secret" not in text
    assert text.startswith("ok    settings can be read\n")
    assert "\nfail  ksqlDB cannot be reached" in text
    assert "fail" in text.splitlines()[-1]
    assert cli.main(["doctor", "-o", "json"]) == 4
    document = json.loads(capsys.readouterr().out)
    assert {"level": "ok", "what": "settings can be read", "variable": "", "cure": ""} in document["findings"]


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(
    ("name", "value", "code"), [("RECONCILER_PORT", "0", 2), ("GROUPING_STRATEGY", "none", 4), ("KAFKA_BROKER", "", 2)]
)
def test_settings_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, code: int
) -> None:
    """The variable is named; nothing is asked."""
    monkeypatch.setenv(name, value)
    assert cli.main(["doctor"]) == code
    text = capsys.readouterr().out
    assert f"fail  {name}" in text
    assert "Docker" not in text

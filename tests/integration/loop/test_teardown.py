"""What `teardown` removes, and when it removes nothing: another cluster, a server that is not well, none at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from openfactory_common.errors import KsqlRefused
from reconciler import app
from reconciler.cli import main as cli
from reconciler.control.teardown import teardown
from reconciler.domain.actions import Result
from reconciler.domain.services import Record
from reconciler.ksqldb.entities import Description, QueryInfo
from tests.harness.fakes import WELL, Stage
from tests.harness.ports import free_port
from tests.harness.serving import Plant, plant


@dataclass
class Shell:
    """A person's command line on an installation of two groups, with the embedded ksqlDB on a real socket."""

    plant: Plant
    capsys: pytest.CaptureFixture[str]

    def teardown(self, *options: str) -> tuple[int, str]:
        """Run it; return its exit code and what it said."""
        code = cli.main(["teardown", "--yes", *options])
        printed = self.capsys.readouterr()
        return code, printed.out + printed.err

    def everything(self) -> object:
        """Return all that a teardown may change: services, documents, records, streams, topics."""
        platform, ksqldb = self.plant.platform, self.plant.ksqldb
        held = (dict(platform.services), dict(platform.registries), dict(platform.kept_records))
        return held, ksqldb.streams, ksqldb.topics, ksqldb.statements("DROP STREAM"), self.plant.writes

    @property
    def group_streams(self) -> list[str]:
        """The group streams that exist."""
        return sorted(name for name in self.plant.ksqldb.streams if name.startswith("ASSET_STREAM_"))


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    """Everything made; the command finds it by its settings."""
    monkeypatch.chdir(tmp_path)
    with plant(2) as made:
        monkeypatch.setitem(app._PLATFORMS, "memory", lambda *_: made.platform)
        monkeypatch.setenv("DEPLOYMENT_PLATFORM", "memory")
        monkeypatch.setenv("KAFKA_BROKER", "k:9092")
        monkeypatch.setenv("KSQLDB_URL", made.ksqldb.url)
        monkeypatch.setenv("LEASE_SECONDS", "3")
        yield Shell(made, capsys)


def test_everything_goes(shell: Shell) -> None:
    """Services, streams, documents and records; what the operator did not make stays."""
    assert shell.teardown()[0] == 0
    platform = shell.plant.platform
    assert (platform.services, platform.registries, platform.kept_records) == ({}, {}, {})
    assert shell.plant.ksqldb.streams == {"ENRICHED_ASSETS_STREAM"}


def test_the_last_line_says_how_long_operators_that_run_hold_still(shell: Shell) -> None:
    """They keep to the pause that they have seen, although its record is gone; otherwise they would create it again."""
    kept_to: list[str] = []
    write = shell.plant.platform.write_record

    def noting(name: str, fields: Mapping[str, str], before: Record | None) -> None:
        kept_to.extend([fields["until"][11:19]] if name == "pause" else [])
        write(name, fields, before)

    shell.plant.platform.write_record = noting  # type: ignore[method-assign]
    code, said = shell.teardown()
    assert code == 0
    last = said.splitlines()[-1]
    assert f"is paused until {kept_to[-1]} UTC and then recreates everything: stop it by then" in last
    assert said.count("paused until") == 1


def test_another_cluster_is_refused_before_the_first_write(shell: Shell) -> None:
    """A wrong KSQLDB_URL: its streams look like ours. Not even operators that run are paused."""
    shell.plant.ksqldb.switch(identity=True)
    before = shell.everything()
    code, said = shell.teardown()
    assert (code, shell.everything()) == (4, before)
    (line,) = said.splitlines()
    assert "nothing was removed: another cluster answers: kafka another-cluster, ksqlDB default_" in line
    assert line.endswith(
        "instead of kafka-1, default_; correct KSQLDB_URL, or if this is intended, give --accept-identity"
    )


def test_another_cluster_that_is_meant_is_torn_down(shell: Shell) -> None:
    """Kafka was set up again, and the streams in it are ours after all."""
    shell.plant.ksqldb.switch(identity=True)
    assert shell.teardown("--accept-identity")[0] == 0
    assert (shell.plant.platform.services, shell.plant.platform.registries) == ({}, {})
    assert shell.group_streams == []


def test_without_a_registry_there_is_nothing_to_compare(shell: Shell) -> None:
    """An installation that never published one can be removed, too."""
    shell.plant.ksqldb.switch(identity=True)
    shell.plant.platform.services.clear()
    shell.plant.platform.registries.clear()
    assert shell.teardown()[0] == 0
    assert shell.group_streams == []


@pytest.mark.parametrize("fault", ["dead_runner", "kafka_down", "unauthorized", "not_ready"])
def test_a_server_that_cannot_be_believed_removes_nothing(shell: Shell, fault: str) -> None:
    """One that is not well may list fewer queries than there are; one that does not answer tells nothing."""
    shell.plant.ksqldb.switch(**{fault: True})
    before = shell.everything()
    code, said = shell.teardown()
    shell.plant.ksqldb.good_day()
    assert (code, shell.everything()) == (1, before)
    (line,) = said.splitlines()
    assert line.startswith("reconciler: nothing was removed: ")
    assert f"(KSQLDB_URL is {shell.plant.ksqldb.url}); --keep-streams removes only services and configs" in line


def test_no_one_at_the_url_removes_nothing(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names the variable, without the password in it, and the way to do without ksqlDB."""
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("KSQLDB_URL", f"http://user:secret@{address}")
    before = shell.everything()
    code, said = shell.teardown()
    assert (code, shell.everything()) == (1, before)
    (line,) = said.splitlines()
    assert f"(KSQLDB_URL is http://{address}); --keep-streams removes only services and configs" in line
    assert "secret" not in line


def test_the_streams_stay_without_a_question_to_ksqldb(shell: Shell) -> None:
    """--keep-streams needs no ksqlDB: it is not asked whose it is, nor anything else."""
    shell.plant.ksqldb.switch(identity=True)
    asked = shell.plant.ksqldb.counted()["requests"]
    assert shell.teardown("--keep-streams")[0] == 0
    assert shell.plant.ksqldb.counted()["requests"] == asked
    assert shell.plant.platform.services == {}
    assert list(shell.plant.platform.kept_records) == ["installation"], "the streams carry its id"
    assert shell.group_streams == ["ASSET_STREAM_G0", "ASSET_STREAM_G1"]


@pytest.fixture
def stage() -> Stage:
    """Two groups, settled, in memory."""
    made = Stage()
    made.ksqldb.assets = {"a": "Weld", "b": "Paint"}
    made.settle(made.controller())
    return made


def torn(stage: Stage) -> list[Result]:
    """Tear it down."""
    return list(teardown(stage.controller().deps))


@pytest.mark.parametrize(
    ("sick", "why"),
    [
        ({"well": replace(WELL, command_runner=False)}, "its command runner is dead"),
        ({"identity": ("kafka-2", "default_")}, "another cluster answers"),
    ],
    ids=["not well", "another cluster"],
)
def test_what_changes_on_the_way_keeps_the_streams_and_the_registry(
    stage: Stage, sick: dict[str, object], why: str
) -> None:
    """After the services ksqlDB is looked at again; the registry stays, for the next run compares with it."""
    streams, documents, good = dict(stage.ksqldb.made), dict(stage.platform.registries), dict(vars(stage.ksqldb))

    def fall_ill(call: str) -> None:
        if call == "remove_service":
            vars(stage.ksqldb).update(sick)

    stage.platform.fault = fall_ill
    results = torn(stage)
    assert [why in str(result.error) for result in results if result.action.on_ksqldb] == [True]
    assert (stage.platform.services, stage.platform.registries, stage.ksqldb.made) == ({}, documents, streams)
    assert "which cluster" in str(results[-1].error)

    vars(stage.ksqldb).update({name: good[name] for name in sick})
    assert {result.outcome for result in torn(stage)} == {"ok"}
    assert (stage.platform.registries, stage.ksqldb.made) == ({}, {})


THEIRS = {
    "OFA_ASSETS_WITH_UNS_DEADBEEF": "AS SELECT * FROM ENRICHED_ASSETS_STREAM EMIT CHANGES;",
    "ASSET_STREAM_MINE": "AS SELECT * FROM ENRICHED_ASSETS_STREAM EMIT CHANGES;",
}


@pytest.mark.parametrize("query", [True, False], ids=["with a query", "without"])
@pytest.mark.parametrize("name", THEIRS)
def test_a_users_stream_that_is_named_like_ours_stays(stage: Stage, name: str, query: bool) -> None:
    """A name alone makes nothing ours, and what is not ours is nothing that is left."""
    stage.ksqldb.made[name] = ("x", f"CREATE STREAM {name} WITH (KAFKA_TOPIC='x') {THEIRS[name]}")
    if not query:
        stage.ksqldb.terminated.add(name)
    assert {result.outcome for result in torn(stage)} == {"ok"}
    assert list(stage.ksqldb.made) == [name]
    assert stage.platform.registries == {}


def test_streams_that_lost_their_queries_go(stage: Stage) -> None:
    """Their own statements say whose they are; the groups' streams go before the shared one."""
    stage.ksqldb.terminated |= stage.ksqldb.made.keys()
    assert {result.outcome for result in torn(stage)} == {"ok"}
    assert stage.ksqldb.made == {}


def test_a_stream_that_may_not_be_seen_stays_and_stops_nothing(stage: Stage) -> None:
    """Another party's, with rights of its own."""
    stage.ksqldb.made["ASSET_STREAM_MINE"] = ("x", "CREATE STREAM ASSET_STREAM_MINE (A STRING) WITH (KAFKA_TOPIC='x');")
    stage.ksqldb.terminated.add("ASSET_STREAM_MINE")
    describe = stage.ksqldb.describe_or_none

    def refused(name: str) -> Description | None:
        if name == "ASSET_STREAM_MINE":
            raise KsqlRefused("403 no access")
        return describe(name)

    stage.ksqldb.describe_or_none = refused  # type: ignore[method-assign]
    assert {result.outcome for result in torn(stage)} == {"ok"}
    assert list(stage.ksqldb.made) == ["ASSET_STREAM_MINE"]


def test_a_query_that_writes_into_a_stream_of_ours_hides_nothing(stage: Stage) -> None:
    """A user's INSERT INTO has the stream as its sink, too, and is not what made it."""
    ours = stage.ksqldb.queries()
    other = QueryInfo("INSERTQUERY_1", "INSERT INTO ASSET_STREAM_WELD SELECT * FROM X;", ("ASSET_STREAM_WELD",), "", {})
    stage.ksqldb.queries = lambda: (*ours, other)  # type: ignore[method-assign]
    torn(stage)
    assert stage.ksqldb.made == {}


def test_a_stream_of_ours_that_a_user_reads_stays_with_the_registry(stage: Stage) -> None:
    """It is said what is in the way; once that is gone, a second run finishes."""
    stage.ksqldb.readers["ASSET_STREAM_WELD"] = ("REPORT",)
    kept = {result.action.key: str(result.error) for result in torn(stage) if result.error}
    assert "read by REPORT" in kept["stream ASSET_STREAM_WELD"]
    assert "ASSET_STREAM_WELD" in stage.ksqldb.made
    assert stage.platform.registries
    stage.ksqldb.readers.clear()
    assert {result.outcome for result in torn(stage)} == {"ok"}
    assert (stage.platform.registries, stage.ksqldb.made) == ({}, {})

"""What `plan` and `status` say of things that others make and that are not there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from openfactory_common.errors import PlatformRefused
from reconciler.control.guarded import DryRunLog, withhold_writes
from reconciler.control.preflight import find_missing
from reconciler.platforms.protocol import Checkable, Platform, Reference
from reconciler.report.text import plan_markdown, plan_text
from tests.harness.fakes import FakeKsqldb, FakePlatform, Stage, unreachable

SECRETS = {"ksqldb_username_secret": "ofa-user", "ksqldb_password_secret": "ofa-pw"}


@dataclass
class Telling(FakePlatform):
    """A platform that can tell; everything is there but what stands in ``missing``."""

    missing: Collection[str] = ()
    refused: Collection[Reference] = ()
    asked: list[tuple[Reference, Collection[str]]] = field(default_factory=list)

    def missing_references(self, kind: Reference, names: Collection[str]) -> Mapping[str, str]:
        """Tell, or refuse to."""
        self.asked.append((kind, names))
        if kind in self.refused:
            raise PlatformRefused(f"GET /{kind}s: the socket proxy does not allow it (HTTP 403)")
        return {name: "is not there: make it" for name in names if name in self.missing}


@pytest.fixture
def ksqldb() -> FakeKsqldb:
    """A ksqlDB that has everything that the settings name."""
    made = {"ENRICHED_ASSETS_STREAM": ("enriched", "CREATE STREAM ENRICHED_ASSETS_STREAM (X INT)")}
    return FakeKsqldb(assets={"a": "Weld"}, made=made, named_tables={"ASSETS", "RAW_MAP"})


def notes(ksqldb: FakeKsqldb, platform: Platform | None = None, **options: object) -> list[str]:
    """Look as the commands do, and return what they note."""
    stage = Stage(platform=FakePlatform(), ksqldb=ksqldb, options=options)
    controller = stage.controller()
    seen, _ = controller.observe()
    file = controller.deps.groups_file.current
    return list(find_missing(seen, ksqldb, platform or Telling(), stage.settings, file))


def wrapped(platform: FakePlatform) -> Platform:
    """Return the platform as `plan` sees it, with its writes withheld."""
    return withhold_writes(Stage(platform=platform).controller().deps, DryRunLog()).platform


def test_nothing_is_said_where_everything_is_there(ksqldb: FakeKsqldb) -> None:
    """A plan stays as short as it was."""
    assert notes(ksqldb, ksqldb_uns_join_table="raw_map", **SECRETS) == []


def test_a_missing_stream_costs_no_read(ksqldb: FakeKsqldb) -> None:
    """The look has the list of streams; the name counts as ksqlDB stores it."""
    (note,) = notes(ksqldb, ksqldb_assets_stream="Other")
    assert note.startswith("the stream Other (KSQLDB_ASSETS_STREAM) does not exist in ksqlDB: ")
    assert ksqldb.calls["streams"] == 1


def test_missing_tables_are_named_with_their_variables(ksqldb: FakeKsqldb) -> None:
    """A stream of that name is no table."""
    found = notes(ksqldb, ksqldb_assets_table="enriched_assets_stream", ksqldb_uns_join_table="gone")
    assert [note.partition(" does not")[0] for note in found] == [
        "the table enriched_assets_stream (KSQLDB_ASSETS_TABLE)",
        "the table gone (KSQLDB_UNS_JOIN_TABLE)",
    ]


def test_a_table_that_cannot_be_asked_about_is_no_error(ksqldb: FakeKsqldb) -> None:
    """The plan is shown all the same, with what it does not know."""
    ksqldb.fault = unreachable("describe")
    assert notes(ksqldb) == ["not checked: the table assets (KSQLDB_ASSETS_TABLE): describe was not answered"]


def test_a_missing_network_or_secret_has_its_variable_and_the_platforms_words(ksqldb: FakeKsqldb) -> None:
    """Anyone who reads it knows which line to change, or what to make."""
    assert notes(ksqldb, Telling(missing=("factory-net", "ofa-pw")), **SECRETS) == [
        "the network factory-net (DOCKER_NETWORK) is not there: make it",
        "the secret ofa-pw (KSQLDB_PASSWORD_SECRET) is not there: make it",
    ]


def test_a_network_that_only_some_services_join_is_checked(ksqldb: FakeKsqldb, tmp_path: Path) -> None:
    """With the variable, or the line of the file, that names it; what another group joins is not asked about."""
    file = tmp_path / "groups.toml"
    file.write_text('[groups.Weld]\nnetworks = ["a-net"]\n[groups.Other]\nnetworks = ["c-net"]\n')
    platform = Telling(missing=("a-net", "b-net", "c-net"))
    assert notes(ksqldb, platform, state_api_networks="b-net", groups_file=file) == [
        "the network b-net (STATE_API_NETWORKS) is not there: make it",
        "the network a-net (GROUPS_FILE line 2, group Weld) is not there: make it",
    ]


def test_what_is_refused_is_not_checked_and_the_rest_is(ksqldb: FakeKsqldb) -> None:
    """The filter before the engine lets secrets be listed only where a switch says so."""
    platform = Telling(missing=("factory-net",), refused=(Reference.SECRET,))
    assert notes(ksqldb, platform, **SECRETS) == [
        "the network factory-net (DOCKER_NETWORK) is not there: make it",
        (
            "not checked: the secret ofa-user (KSQLDB_USERNAME_SECRET), ofa-pw (KSQLDB_PASSWORD_SECRET): "
            "GET /secrets: the socket proxy does not allow it (HTTP 403)"
        ),
    ]


def test_secrets_that_nothing_mounts_are_not_asked_about(ksqldb: FakeKsqldb) -> None:
    """One request less, and none that a filter has to refuse."""
    platform = Telling()
    notes(ksqldb, platform)
    assert platform.asked == [(Reference.NETWORK, ("factory-net",))]


def test_a_platform_that_cannot_tell_is_not_asked(ksqldb: FakeKsqldb) -> None:
    """A plug-in needs no method more than before, behind the wrapper that `plan` looks through, too."""
    assert not isinstance(FakePlatform(), Checkable)
    assert notes(ksqldb, FakePlatform(), **SECRETS) == []
    assert notes(ksqldb, wrapped(FakePlatform()), **SECRETS) == []
    found = notes(ksqldb, wrapped(Telling(missing=("factory-net",))))
    assert [note.partition(" (")[0] for note in found] == ["the network factory-net"]


def test_the_loop_asks_nothing_of_it(ksqldb: FakeKsqldb) -> None:
    """What it costs, it costs a person's command."""
    platform = Telling(missing=("factory-net",))
    Stage(platform=platform, ksqldb=ksqldb).controller().cycle()
    assert (platform.asked, ksqldb.calls["describe"]) == ([], 0)


def test_notes_reach_text_and_comment(ksqldb: FakeKsqldb) -> None:
    """A pipeline's comment on a change request has them, too; the platform's words write nothing but text there."""
    stage = Stage(ksqldb=ksqldb)
    controller = stage.controller()
    plan = replace(controller.plan(*controller.observe()), notes=("the network x\x1b[2J is <b>not</b> there",))
    assert "note      the network x\\x1b[2J is <b>not</b> there" in plan_text(plan).splitlines()
    assert "Note: the network x\\\\x1b\\[2J is &lt;b>not&lt;/b> there" in plan_markdown(plan)

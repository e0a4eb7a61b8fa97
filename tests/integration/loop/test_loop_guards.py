"""The safety rules, each with the situation that it is there for."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from openfactory_common.ksqldb.levels import Level, split_level
from reconciler.control.converge import Exit, converge
from reconciler.domain.names import names_of
from reconciler.domain.status import Condition, CycleResult, Guard
from reconciler.leadership.elector import AlwaysLeader, WriteBlock
from reconciler.planning.guards import Overrides, allowed_removals
from tests.harness.fakes import WELL, FakeKsqldb, Stage, unreachable

TEN = {f"a{n}": f"g{n}" for n in range(10)}


@pytest.fixture
def said() -> Iterator[list[MutableMapping[str, Any]]]:
    """Everything that is logged from warnings up."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with capture_logs() as lines:
        yield lines


@pytest.fixture
def stage() -> Stage:
    """Ten groups of one asset each, settled."""
    stage = Stage()
    stage.ksqldb.assets = dict(TEN)
    stage.settle(stage.controller())
    return stage


@pytest.mark.parametrize("call", ["info", "health", "members", "streams", "queries"])
def test_a_read_that_fails_ends_the_cycle_without_a_write(stage: Stage, call: str) -> None:
    """T12: whichever read fails, nothing is concluded from the others."""
    controller = stage.controller()
    stage.ksqldb.assets = {"new": "New"}
    stage.ksqldb.fault = unreachable(call)
    before = stage.writes
    outcome = controller.cycle()
    assert outcome.result == "read_error"
    assert stage.writes == before


def test_an_empty_map_changes_nothing(stage: Stage) -> None:
    """T13: no groups at all is refused for as long as it lasts, with exit code 4."""
    controller = stage.controller()
    stage.ksqldb.assets = {}
    before = stage.writes
    stage.run(controller, 50)
    assert stage.writes == before
    code, _ = converge(controller, 100, sleep=lambda _: None)
    assert code is Exit.REFUSED


class Sampled(FakeKsqldb):
    """A map with a fallback; of assets, the names of levels are read of those only that are asked for."""

    def _at(self, table: str, key: str, level: Level) -> Mapping[str, str | None]:
        assert super()._at(table, key, level).keys() == self.assets.keys()
        levels, fallback = split_level(level)
        return {asset: (group if "workcenter" in levels else None) or fallback for asset, group in self.assets.items()}

    def level_names(self, table: str, key: str, assets: Sequence[str]) -> frozenset[str]:
        """The levels of these assets."""
        found = self._at(table, key, "workcenter")
        return frozenset({"workcenter"} if any(found[asset] for asset in assets) else ())


@pytest.mark.parametrize("unmapped", [0, 49, 50])
def test_a_misspelt_level_moves_nothing_whatever_the_first_assets_have(unmapped: int) -> None:
    """The first of the map have no levels at all; a group of another installation is in the same ksqlDB."""
    assets: dict[str, str | None] = {f"a{n:02}": None for n in range(unmapped)}
    assets |= {f"m{n}": group for n, group in enumerate(("Weld", "Paint", "Fit", "Weld"))}
    stage = Stage(ksqldb=Sampled(assets=assets), options={"uns_fallback_group": "rest"})
    stage.settle(stage.controller())
    foreign = names_of("Laser")
    stage.ksqldb.made[foreign.stream] = (foreign.topic, f"CREATE STREAM {foreign.stream} AS SELECT * FROM X;")
    before = stage.writes
    stage.options["uns_fastapi_group_grouping_level"] = "workcentre"
    controller = stage.controller()
    stage.run(controller, 50)
    assert stage.writes == before
    outcome = controller.cycle()
    assert outcome.plan is not None
    assert [(one.guard, one.stops) for one in outcome.plan.refusals] == [(Guard.LEVEL, True)]


def test_the_last_group_beside_the_fallback_is_removed_like_any() -> None:
    """At the same level it is not misspelt: the group has lost its assets."""
    stage = Stage(ksqldb=Sampled(assets={"a": None, "m": "Weld"}), options={"uns_fallback_group": "rest"})
    controller = stage.controller()
    stage.settle(controller)
    stage.ksqldb.assets = {"a": None}
    stage.run(controller, 50)
    assert "ofa_group_weld" not in stage.platform.services
    assert "ofa_group_rest" in stage.platform.services


def test_an_empty_map_that_is_meant_needs_both_yeses(stage: Stage) -> None:
    """T13: --allow-empty lets the empty map be planned for; that all groups go at once, the budget asks about too."""
    stage.ksqldb.assets = {}

    def wait(seconds: float) -> None:
        stage.now += seconds

    code, outcome = converge(stage.controller(Overrides(allow_empty=True)), 300, sleep=wait)
    assert code is Exit.REFUSED
    assert outcome.plan is not None
    assert len([name for name in stage.ksqldb.made if name.startswith("ASSET_STREAM_")]) == 10
    both = Overrides(allow_empty=True, approve=outcome.plan.approval)
    code, _ = converge(stage.controller(both), 300, sleep=wait)
    assert code is Exit.OK
    assert [name for name in stage.ksqldb.made if name.startswith("ASSET_STREAM_")] == []
    assert [name for name in stage.platform.services if "_group_" in name] == []


def test_half_of_the_rows_missing_once_deletes_nothing(stage: Stage) -> None:
    """T15: one bad read in between does not count against any group."""
    controller = stage.controller()
    stage.run(controller, 3)
    before = stage.writes
    stage.ksqldb.assets = dict(list(TEN.items())[:5])
    controller.cycle()
    stage.ksqldb.assets = dict(TEN)
    stage.run(controller, 20)
    assert stage.writes == before


def test_a_group_is_removed_only_after_reads_and_grace(stage: Stage) -> None:
    """T16: two reads are too few, three within a second too quick."""
    controller = stage.controller()
    del stage.ksqldb.assets["a9"]
    stage.run(controller, 50, step=0.1)
    assert "ASSET_STREAM_G9" in stage.ksqldb.made
    stage.now += 60
    stage.run(controller, 10)
    assert "ASSET_STREAM_G9" not in stage.ksqldb.made


@pytest.mark.parametrize("bad", ["fault", "unwell", "collapse", "retried"])
def test_anything_suspicious_starts_the_count_again(stage: Stage, bad: str) -> None:
    """A failed read, a sick server, a collapse of rows, a retry: none is one of the agreeing reads."""
    controller = stage.controller()
    stage.ksqldb.assets |= {f"b{n}": "g0" for n in range(90)}
    del stage.ksqldb.assets["a9"]
    stage.run(controller, 6)
    assert controller.memory.guards.missing["g9"].reads == 6
    everything = dict(stage.ksqldb.assets)
    match bad:
        case "fault":
            stage.ksqldb.fault = unreachable("queries")
        case "unwell":
            stage.ksqldb.well = replace(WELL, kafka=False, healthy=False)
        case "collapse":
            stage.ksqldb.assets = dict(list(everything.items())[:40])
        case "retried":
            stage.ksqldb.fault = lambda _: setattr(stage.ksqldb, "failures", stage.ksqldb.failures + 1)
    controller.cycle()
    stage.ksqldb.fault, stage.ksqldb.well, stage.ksqldb.assets = (lambda _: None), WELL, everything
    controller.cycle()
    assert controller.memory.guards.missing["g9"].reads <= 1 + (bad == "retried")
    assert "ASSET_STREAM_G9" in stage.ksqldb.made


def test_a_group_that_comes_back_is_untouched(stage: Stage) -> None:
    """T16, T17: a flapping group starts from nothing each time."""
    controller = stage.controller()
    version = stage.platform.services["ofa_group_g9"].version
    for _ in range(20):
        del stage.ksqldb.assets["a9"]
        stage.run(controller, 3, step=15)
        stage.ksqldb.assets["a9"] = "g9"
        stage.run(controller, 1, step=15)
    assert stage.platform.services["ofa_group_g9"].version == version
    assert "ASSET_STREAM_G9" in stage.ksqldb.made


def test_a_direct_question_has_the_last_word(stage: Stage) -> None:
    """A scan that misses a group is overruled by what Kafka has."""
    controller = stage.controller()
    scan = stage.ksqldb.members

    def lies(table: str, key: str, level: str) -> tuple[tuple[str, str | None], ...]:
        return tuple(row for row in scan(table, key, level) if row[1] != "g9")

    stage.ksqldb.members = lies  # type: ignore[method-assign]
    stage.run(controller, 30)
    assert stage.ksqldb.calls["members_directly"] > 0
    assert controller.reporter.metrics.blocked.labels("question")._value.get() > 0
    assert "ofa_group_g9" in stage.platform.services


class Flipping(AlwaysLeader):
    """The write gate of an operator whose block ends after some questions of a cycle."""

    blocked = 0

    def __init__(self, questions: int) -> None:
        """Block the first so many questions of each cycle."""
        self.questions = questions

    def begin(self) -> None:
        """A cycle begins."""
        self.blocked = self.questions

    def write_block(self) -> WriteBlock | None:
        """Block, or not any more."""
        self.blocked -= 1
        return WriteBlock(CycleResult.PAUSED, "paused") if self.blocked >= 0 else None


@pytest.mark.parametrize("questions", range(4))
def test_a_block_that_ends_within_a_cycle_skips_no_direct_question(stage: Stage, questions: int) -> None:
    """Whenever it ends: a group that Kafka still has stays as it is, although ksqlDB has lost it."""
    controller = stage.controller()
    read = controller.deps.strategy.read_directly
    complete = lambda at_least: replace(read(at_least), groups={**read(at_least).groups, "g9": 1})  # noqa: E731
    controller.deps.strategy.read_directly = complete  # type: ignore[method-assign]
    controller.write_gate = Flipping(questions)
    del stage.ksqldb.assets["a9"]
    before = stage.writes
    stage.run(controller, 60)
    assert stage.writes == before


def test_too_many_missing_groups_remove_none(stage: Stage) -> None:
    """T31: five of ten are missing: nothing is removed, creates go on, exit code 4 names the way."""
    controller = stage.controller()
    stage.ksqldb.assets = {**dict(list(TEN.items())[:5]), "new": "New"}
    stage.run(controller, 30)
    assert len([name for name in stage.ksqldb.made if name.startswith("ASSET_STREAM_")]) == 11
    code, outcome = converge(controller, 500, sleep=lambda _: None)
    assert code is Exit.REFUSED
    assert outcome.plan is not None
    assert f"--approve {outcome.plan.approval}" in outcome.plan.refusals[0].text


def test_an_approval_is_for_exactly_one_plan(stage: Stage) -> None:
    """T32: the approved set goes; a set that grew meanwhile does not."""
    stage.ksqldb.assets = dict(list(TEN.items())[:5])
    plan = stage.controller().cycle().plan
    assert plan is not None
    stale = stage.controller(Overrides(approve=plan.approval))
    del stage.ksqldb.assets["a4"]
    stage.run(stale, 30)
    assert "ASSET_STREAM_G9" in stage.ksqldb.made
    stage.ksqldb.assets["a4"] = "g4"
    approved = stage.controller(Overrides(approve=plan.approval))
    stage.run(approved, 40)
    assert {name for name in stage.ksqldb.made if name.startswith("ASSET")} == {f"ASSET_STREAM_G{n}" for n in range(5)}


@pytest.mark.parametrize(("owned", "allowed"), [(1, 1), (2, 1), (5, 1), (10, 2), (100, 25), (1000, 250)])
def test_the_budget(owned: int, allowed: int) -> None:
    """T31: a quarter of the groups may go missing at once, and one always may."""
    assert allowed_removals(owned, 0.25) == allowed


def test_another_cluster_is_refused(stage: Stage) -> None:
    """T34: a valid map of another cluster changes nothing until a person accepts it."""
    stage.ksqldb.identity = ("kafka-2", "default_")
    stage.ksqldb.assets["new"] = "New"
    before = stage.writes
    stage.run(stage.controller(), 5)
    assert stage.writes == before
    code, outcome = converge(stage.controller(), 30, sleep=lambda _: pytest.fail("it waits"))
    assert code is Exit.REFUSED
    assert "kafka-2" in outcome.sentence
    assert "correct KSQLDB_URL, or if this is intended, run once with --accept-identity" in outcome.sentence
    stage.run(stage.controller(Overrides(accept_identity=True)), 5)
    assert "ASSET_STREAM_NEW" in stage.ksqldb.made
    assert stage.controller().cycle().result == "in_sync", "it was accepted for good: the registry names the cluster"


def test_another_cluster_offers_no_approval_of_what_it_does_not_have(stage: Stage) -> None:
    """Behind a wrong URL many groups are missing: only the URL, or the identity, is spoken of."""
    stage.ksqldb.identity = ("kafka-2", "default_")
    stage.ksqldb.assets = {"new": "New"}
    controller = stage.controller()
    outcome = controller.cycle()
    assert outcome.plan is not None
    assert [refusal.guard for refusal in outcome.plan.refusals] == [Guard.IDENTITY]
    assert (outcome.plan.approval, "--approve" in outcome.sentence) == ("", False)
    accepted = stage.controller(Overrides(accept_identity=True)).cycle()
    assert accepted.plan is not None
    assert [refusal.guard for refusal in accepted.plan.refusals] == [Guard.BUDGET]


def test_a_sick_server_gets_no_statement_but_services_are_repaired(stage: Stage) -> None:
    """A dead command runner executes nothing; what needs no statement goes on."""
    stage.ksqldb.well = replace(WELL, command_runner=False, healthy=False)
    stage.ksqldb.assets["new"] = "New"
    del stage.platform.services["ofa_group_g3"]
    sent = stage.ksqldb.writes
    stage.run(stage.controller(), 5)
    assert stage.ksqldb.writes == sent
    assert "ofa_group_g3" in stage.platform.services
    assert "ofa_group_new" not in stage.platform.services


def test_a_restart_in_the_middle_of_a_grace_time_waits_again(stage: Stage) -> None:
    """Losing the counters is safe: the new operator starts them from nothing."""
    del stage.ksqldb.assets["a9"]
    stage.run(stage.controller(), 5)
    stage.run(stage.controller(), 5)
    assert "ASSET_STREAM_G9" in stage.ksqldb.made


def test_a_label_stripped_by_hand_is_reported_and_nothing_is_removed(stage: Stage) -> None:
    """T19: a service that lost its label is not ours to touch any more."""
    live = stage.platform.services["ofa_group_g3"]
    stage.platform.services["ofa_group_g3"] = replace(live, owner=None)
    controller = stage.controller()
    stage.run(controller, 20)
    outcome = controller.cycle()
    assert outcome.plan is not None
    (item,) = [item for item in outcome.plan.items if item.group == "g3"]
    assert item.condition is Condition.CONFLICT
    assert stage.platform.services["ofa_group_g3"].id == live.id


@pytest.mark.parametrize("policy", ["upsert-only", "create-only"])
def test_a_policy_without_removal_removes_nothing(stage: Stage, policy: str) -> None:
    """RECONCILE_POLICY holds back removals for ever, and create-only also repairs."""
    stage.options["reconcile_policy"] = policy
    del stage.ksqldb.assets["a9"]
    stage.platform.touch("ofa_group_g3", replicas=7)
    stage.run(stage.controller(), 30)
    assert "ofa_group_g9" in stage.platform.services
    spec = stage.platform.services["ofa_group_g3"].spec
    assert spec is not None
    assert spec.replicas == (7 if policy == "create-only" else 1)


def test_the_servers_query_limit_is_refused_before_the_first_write() -> None:
    """T21: eleven queries are needed and ten allowed: none is made, and both numbers are named."""
    stage = Stage()
    stage.ksqldb.assets = dict(TEN)
    stage.ksqldb.limit = 10
    code, outcome = converge(stage.controller(), 30, sleep=lambda _: None)
    assert code is Exit.REFUSED
    assert stage.ksqldb.statements == []
    assert [name for name in stage.platform.services if "_group_" in name] == []
    assert outcome.plan is not None
    assert "11 streams are to be created, but ksqlDB has 0 of 10" in outcome.plan.refusals[0].text
    stage.ksqldb.limit = 11
    stage.settle(stage.controller())
    assert len(stage.ksqldb.made) == 11


@pytest.mark.parametrize("guard", ["empty", "identity", "budget", "health", "limit", "size"])
def test_every_guard_has_a_gauge_a_log_line_and_an_exit_code(
    stage: Stage, said: list[MutableMapping[str, Any]], guard: str
) -> None:
    """Anyone who refuses shows it in `reconciler_guard_active`, in the cycle's sentence, and as exit code 4."""
    match guard:
        case "empty":
            stage.ksqldb.assets = {}
        case "identity":
            stage.ksqldb.identity = ("kafka-2", "default_")
        case "budget":
            stage.ksqldb.assets = {"a0": "g0"}
        case "health":
            stage.ksqldb.well = replace(WELL, kafka=False, healthy=False)
        case "limit":
            stage.ksqldb.limit = 5
            stage.ksqldb.assets["new"] = "New"
        case "size":
            name = "x" * 100
            stage.ksqldb.assets |= {f"b{n}": f"{n}{name * 12}" for n in range(800)}
    controller = stage.controller()

    def wait(seconds: float) -> None:
        stage.now += seconds

    code, outcome = converge(controller, 100, sleep=wait)
    assert code is Exit.REFUSED
    assert controller.reporter.metrics.guard.labels(guard)._value.get() == 1
    assert outcome.plan is not None
    text = next(refusal.text for refusal in outcome.plan.refusals if refusal.guard == guard)
    assert any(text in line["event"] for line in said)


def test_a_collapse_shows(stage: Stage, said: list[MutableMapping[str, Any]]) -> None:
    """What restarts all counts is counted, and logged with both numbers."""
    controller = stage.controller()
    stage.run(controller, 2)
    stage.ksqldb.assets = dict(list(TEN.items())[:5])
    controller.cycle()
    assert controller.reporter.metrics.blocked.labels("collapse")._value.get() == 1
    assert [(line["before"], line["now"]) for line in said if "before" in line] == [(10, 5)]

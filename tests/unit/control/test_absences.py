"""When an absence is believed: the window of reads, the servers behind them, and the last question. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from openfactory_common.registry import Identity
from reconciler.app import topology_of
from reconciler.domain.names import names_of
from reconciler.domain.observed import MapSnapshot, Observed, SourceState
from reconciler.domain.services import LiveService, PlatformState
from reconciler.planning.guards import (
    WINDOW,
    Absence,
    GuardMemory,
    Overrides,
    Verdict,
    confirm,
    find_due,
    has_collapsed,
    judge,
    remember,
)
from reconciler.planning.survey import Owned, StreamCheck, StreamVerdict, Survey
from reconciler.settings import Settings

SETTINGS = Settings(_env_file=None, kafka_broker="k:9092", ksqldb_url="http://k:8088")  # type: ignore[call-arg]
TOPOLOGY = topology_of(SETTINGS)
SOURCE = SourceState(Identity(kafka="k", ksqldb="d"), "7.7.0", "", {}, {}, servers=2)
SERVICE = LiveService(
    id="1", version=1, name="ofa_group_gone", owner="ofa", spec=None, running=1, update_state="", error=""
)
GONE = Owned("ASSET_STREAM_GONE", SERVICE, "http://gone")


def seen(
    assets: int = 100,
    groups: Sequence[str] = ("kept",),
    owned: Mapping[str, Owned] | None = None,
    source: SourceState = SOURCE,
    *,
    fresh: bool = True,
) -> Survey:
    """Return the survey of a world in which group ``gone`` has no assets any more."""
    membership = MapSnapshot(assets, dict.fromkeys(groups, 1), fresh)
    there = {"gone": GONE, "kept": Owned()} if owned is None else owned
    return Survey(
        observed=Observed(source, PlatformState({}, (), {}), membership),
        wanted={group: names_of(group) for group in groups},
        losers={},
        owned=there,
        published=None,
        unreadable={},
        streams={group: StreamCheck(StreamVerdict.IN_SYNC) for group in groups},
        shared=StreamCheck(StreamVerdict.IN_SYNC),
    )


def after(*looks: tuple[float, Survey], memory: GuardMemory | None = None) -> GuardMemory:
    """Return what is remembered after looks at these times."""
    memory = memory or GuardMemory()
    for now, survey in looks:
        memory = remember(memory, survey, TOPOLOGY, SETTINGS, now)
    return memory


@pytest.mark.parametrize(
    ("reads", "largest"),
    [
        ([], None),
        ([(0, 100)], 100),
        ([(0, 100), (10, 90)], 100),
        ([(0, 100), (10, 120)], 120),
        ([(0, 100), (10, 60), (20, 80)], 100),
        ([(0, 100), (10, 60), (WINDOW, 80)], 100),
        ([(0, 100), (10, 60), (WINDOW + 1, 50)], 60),
        ([(0, 100), (10, 90), (WINDOW + 20, 50)], 90),  # the last read counts however old it is
        ([(0, 100), (WINDOW * 5, 50)], 100),
        ([(0, 100), (WINDOW * 5, 50), (WINDOW * 10, 50)], 50),
        ([(0, 0)], 0),
    ],
)
def test_the_largest_of_the_last_reads_is_kept(reads: list[tuple[float, int]], largest: int | None) -> None:
    """Within the window, and never less than the one before."""
    memory = after(*((now, seen(assets)) for now, assets in reads))
    assert memory.largest == largest


@pytest.mark.parametrize(
    ("before", "now", "collapsed"), [(None, 0, False), (100, 75, False), (100, 74, True), (0, 0, False)]
)
def test_a_collapse_is_a_loss_of_a_quarter(before: int | None, now: int, collapsed: bool) -> None:
    """PRUNE_MAX_FRACTION of the assets may go between two reads."""
    assert has_collapsed(before, now, SETTINGS) is collapsed


def test_a_long_partial_answer_stays_a_collapse() -> None:
    """Not only the first partial read is compared with the whole map, but each of them."""
    looks = [(0.0, seen(2000, ("kept", "gone")))] + [(5.0 * n, seen(1371)) for n in range(1, 13)]
    assert after(*looks).missing == {}
    assert after(*looks, (70.0, seen(0, ()))).missing == {}


def test_a_map_that_became_small_for_good_counts_again() -> None:
    """Half of a plant that is taken down is believed when the window has passed."""
    looks = [(0.0, seen(100, ("kept", "gone")))] + [(10.0 * n, seen(50)) for n in range(1, 40)]
    memory = after(*looks)
    assert memory.missing["gone"].reads >= SETTINGS.prune_reads


DEGRADED = replace(SOURCE, degraded="query X is UNRESPONSIVE on 1 of 2 servers")
UNWELL = replace(SOURCE, unhealthy_reason="it cannot reach Kafka")
ONE = replace(SOURCE, servers=1)


@pytest.mark.parametrize(
    ("looks", "reads"),
    [
        ([seen(), seen(), seen()], 3),
        ([seen(), seen(source=DEGRADED), seen()], 1),
        ([seen(), seen(source=UNWELL), seen()], 1),
        ([seen(source=DEGRADED)] * 5, 0),
        ([seen(), seen(), seen(source=ONE)], 0),  # a server left: what it held moves
        ([seen(source=ONE), seen(source=ONE), seen()], 0),  # a server joined
        ([seen(source=ONE), seen(source=ONE), seen(), seen(), seen()], 2),
        ([seen(), seen(fresh=False), seen(fresh=False)], 1),  # the same read again proves nothing more
        ([seen(), seen(fresh=False, source=DEGRADED)], 0),
        ([seen(), seen(groups=("kept", "gone")), seen()], 1),
    ],
)
def test_which_reads_count(looks: list[Survey], reads: int) -> None:
    """Complete, healthy reads of the same servers in a row."""
    memory = after(*((float(10 * n), look) for n, look in enumerate(looks)))
    assert memory.missing.get("gone", Absence(0, 0)).reads == reads


RIPE = GuardMemory(missing={"gone": Absence(9, 0.0)}, unregistered={"gone": 0.0}, counts=((0.0, 100),), servers=2)


@pytest.mark.parametrize(
    ("source", "retired", "ddl", "guards"),
    [(SOURCE, {"gone"}, True, []), (DEGRADED, set(), True, ["health"]), (UNWELL, set(), False, ["health"])],
)
def test_a_degraded_server_gets_statements_and_no_removals(
    source: SourceState, retired: set[str], ddl: bool, guards: list[str]
) -> None:
    """While one of two servers is away new groups are made, and none goes."""
    verdict = judge(RIPE, seen(source=source), SETTINGS, Overrides(), 1000.0)
    assert verdict.retire == retired
    assert verdict.ddl is ddl
    assert [refusal.guard for refusal in verdict.refusals] == guards


RETIRE = Verdict(retire=frozenset({"gone"}))
DRAINED = replace(RETIRE, drained=frozenset({"gone"}))


@pytest.mark.parametrize(
    ("owned", "verdict", "asked"),
    [
        (GONE, RETIRE, True),  # leaves the registry
        (replace(GONE, url=None), RETIRE, False),  # is being drained
        (replace(GONE, url=None), DRAINED, True),  # its service goes
        (replace(GONE, url=None, service=None), RETIRE, True),  # its stream goes
        (GONE, Verdict(), False),
    ],
)
def test_the_last_question_is_asked_at_each_step_that_removes(owned: Owned, verdict: Verdict, asked: bool) -> None:
    """Three times a group, not at every look while it is being drained."""
    assert (find_due(seen(owned={"gone": owned}), verdict) == {"gone"}) is asked


BOTH = GuardMemory(missing={"gone": Absence(9, 0.0), "other": Absence(9, 0.0)})


@pytest.mark.parametrize(
    ("direct", "doubt", "left"),
    [
        (MapSnapshot(2, {"kept": 2}), "", {"gone", "other"}),
        (MapSnapshot(3, {"kept": 2, "gone": 1}), "", {"other"}),
        (MapSnapshot(4, {"kept": 2, "gone": 1, "other": 1}), "", set()),
        (None, "fewer assets than there were", set()),
        (MapSnapshot(0, {}), "it does not have group kept, which ksqlDB has", set()),
        (MapSnapshot(1, {"new": 1}), "it does not have group kept, which ksqlDB has", set()),
    ],
)
def test_what_follows_from_the_last_question(direct: MapSnapshot | None, doubt: str, left: set[str]) -> None:
    """A group with members stays; without a complete answer all stay, and it is said why."""
    memory = confirm(BOTH, seen(), {"gone", "other"}, direct, doubt if direct is None else "")
    assert set(memory.missing) == left
    assert memory.doubt == doubt


def test_a_doubt_is_said_until_a_question_is_answered() -> None:
    """The reason stands beside the count, which has started again, and goes with the group or with an answer."""
    memory = confirm(RIPE, seen(), {"gone"}, None, "0 of 100 assets were read")
    memory = after((10.0, seen()), memory=memory)
    waiting = judge(memory, seen(), SETTINGS, Overrides(), 10.0).waiting["gone"]
    assert waiting.startswith("missing 1/")
    assert "proved nothing: 0 of 100 assets were read" in waiting
    assert after((20.0, seen(groups=("kept", "gone"))), memory=memory).doubt == ""
    assert confirm(memory, seen(), {"gone"}, MapSnapshot(1, {"kept": 1}), "").doubt == ""

"""How long an object waits after a failure, and when it counts as contested: tables, a line a case."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from openfactory_common.errors import (
    KsqlBadStatement,
    KsqlConflict,
    KsqlTransient,
    KsqlUnknownOutcome,
    PlatformConflict,
    PlatformRefused,
    PlatformUnreachable,
)
from reconciler.control.backoff import CONTEST_PAUSE, LONGEST_DELAY, Backoff, Contest, Failure, Surplus
from reconciler.domain.actions import (
    Action,
    CreateService,
    CreateSharedStream,
    CreateStream,
    DropStream,
    PauseStream,
    PublishRegistry,
    RecreateStream,
    RemoveService,
    ReplaceStream,
    ResubmitService,
    ResumeStream,
    UpdateService,
)
from reconciler.domain.names import names_of
from reconciler.domain.services import Drift
from tests.unit.planning.tables import NOW, document, rows, service, spec_of

TRANSIENT = (KsqlTransient, PlatformUnreachable, KsqlBadStatement, PlatformRefused)
LOOK_FIRST = (KsqlConflict, PlatformConflict)
UNKNOWN = (KsqlUnknownOutcome, RuntimeError, KeyError, MemoryError, ZeroDivisionError)
#: The number of the failure, and the seconds that follow it, by the kind of error.
DELAYS = (
    (1, 2.0, 0.0, 60.0),
    (2, 4.0, 2.0, 60.0),
    (3, 8.0, 4.0, 60.0),
    (5, 32.0, 16.0, 60.0),
    (6, 64.0, 32.0, 64.0),
    (8, 256.0, 128.0, 256.0),
    (9, 300.0, 150.0, 300.0),
    (10, 300.0, 150.0, 300.0),
    (1023, 300.0, 150.0, 300.0),
    (1024, 300.0, 150.0, 300.0),
    (1025, 300.0, 150.0, 300.0),
    (1026, 300.0, 150.0, 300.0),
    (10**6, 300.0, 150.0, 300.0),
    (10**30, 300.0, 150.0, 300.0),
)
CASES = [
    (kind, times, row[at])
    for times, *row in DELAYS
    for at, kinds in enumerate((TRANSIENT, LOOK_FIRST, UNKNOWN))
    for kind in kinds
]


@pytest.mark.parametrize(("kind", "times", "seconds"), CASES)
def test_how_long_an_object_waits(kind: type[Exception], times: int, seconds: float) -> None:
    """Twice as long after each failure in a row, five minutes at most, however many there were."""
    before = Backoff({"x": Failure(times - 1, 0.0, "before")} if times > 1 else {})
    failure = before.add_failure("x", kind("why"), 100.0).failures["x"]
    assert (failure.times, failure.until) == (times, 100.0 + seconds)
    assert "why" in failure.text or kind is MemoryError
    assert seconds <= LONGEST_DELAY


def test_a_million_failures_in_a_row() -> None:
    """Ten years of one failing write: each failure can be added, and the next try is never more than 300 s away."""
    backoff, now = Backoff(), 0.0
    for _ in range(10**5):
        backoff = backoff.add_failure("x", KsqlTransient("no"), now)
        assert 0 < backoff.failures["x"].until - now <= LONGEST_DELAY
        now = backoff.failures["x"].until
    assert backoff.failures["x"].times == 10**5
    assert len(backoff.failures) == 1


def test_what_is_forgotten() -> None:
    """A success forgets one object, a plan without an object forgets that; what waits is told by the clock."""
    both = Backoff().add_failure("x", KsqlTransient("a"), 0.0).add_failure("y", RuntimeError("b"), 0.0)
    assert both.forget("x").failures.keys() == {"y"}
    assert both.keep_only({"x", "z"}).failures.keys() == {"x"}
    assert [both.find_waiting(now) for now in (0.0, 1.9, 2.0, 60.0)] == [{"x", "y"}, {"x", "y"}, {"y"}, frozenset()]
    assert both.errors == {"x": "a", "y": "internal error, please report it: RuntimeError: b"}


@pytest.mark.parametrize(
    ("failed", "planned", "waits"),
    [
        ("sleep", "resume", False),
        ("resume", "sleep", False),
        ("sleep", "sleep", True),
        ("resume", "resume", True),
        ("replace", "resume", True),
        ("make", "replace", True),  # of an unknown outcome: it may still be executed
    ],
)
def test_a_pause_that_failed_delays_no_wake(failed: str, planned: str, *, waits: bool) -> None:
    """Its outcome is not known for a minute, and clients wait; what failed of another object is kept."""
    action = ACTIONS[failed]
    before = Backoff().add_failure(action.key, KsqlUnknownOutcome("?"), 0.0, action.verb)
    before = before.add_failure("service x", KsqlTransient("no"), 0.0, "pause_stream")
    kept = before.forget_opposites([ACTIONS[planned], ACTIONS["create"]])
    assert kept.failures.keys() == {"service x", *([action.key] if waits else [])}


WELD = names_of("Weld")
LIVE = service(spec_of("Weld"), "drifted")
assert LIVE is not None
FIRST, SECOND = spec_of("Weld"), replace(spec_of("Weld"), image="other:2")
DRIFT = (Drift("env LOG_LEVEL", "a", "b"),)
ACTIONS: dict[str, Action] = {
    "create": CreateService(FIRST),
    "update": UpdateService(replace(LIVE, updated_at=NOW - timedelta(seconds=1)), FIRST, DRIFT),
    "other": UpdateService(LIVE, SECOND, DRIFT),
    "remove": RemoveService(LIVE, "Weld"),
    "make": CreateStream(WELD),
    "replace": ReplaceStream(WELD, "its filter differs"),
    "again": RecreateStream(WELD, "its source differs"),
    "resume": ResumeStream(WELD.stream, "q", "Weld"),
    "sleep": PauseStream(WELD.stream, "q", "Weld"),
    "drop": DropStream(WELD.stream, "Weld"),
    "share": CreateSharedStream("OFA_ASSETS_WITH_UNS_0FA0FA00_0BADC0DE_1"),
    "follow": CreateSharedStream("OFA_ASSETS_WITH_UNS_0FA0FA00_0BADC0DE_2"),
    "publish": PublishRegistry(document(["Weld"]), 1),
    "another": PublishRegistry(document(["Weld", "Paint"]), 2),
}

CONTESTED = """
    # writes, in order                                    seconds apart  then     held
    update update update update update                    1              update   no
    update update update update update update             1              update   yes
    update update update update update update             100            update   yes
    update update update update update update             119            update   yes
    update update update update update update             121            update   no
    update update update update update update             1              other    no
    update update update update update update             1              remove   no
    update update update update update update             1              make     no
    update update update update update update other       1              other    no
    update other update other update other update other   1              update   no
    create create create create create create             1              create   yes
    create remove create remove create remove create remove create remove create remove create  1  create  no
    create update update update update update             1              update   yes
    create                                                1              create   no
    make make make make make make                         1              make     yes
    make again again again again again                    1              again    yes
    replace replace replace replace replace replace       1              replace  yes
    resume resume resume resume resume resume             1              resume   yes
    make drop make drop make drop make drop make drop make drop  1       make     no
    make drop drop drop drop drop drop                    1              drop     yes
    drop drop drop drop drop                              1              drop     no
    drop drop drop drop drop drop                         1              make     no
    drop drop drop drop drop make drop                    1              drop     no
    remove remove remove remove remove remove             119            remove   yes
    remove remove remove remove remove remove             121            remove   no
    update update update update update update remove      1              update   no
    make replace again resume                             1              make     no
    share follow share                                    60             follow   no
    share follow share follow share follow share follow share follow share  10  follow  yes
    publish publish publish publish publish publish       1              publish  yes
    publish another publish another publish another publish  1           publish  no
    publish publish publish publish publish publish       1              another  no
"""


@pytest.mark.parametrize(("writes", "apart", "then", "held"), rows(CONTESTED))
def test_what_is_contested(writes: str, apart: str, then: str, held: str) -> None:
    """More than five writes of one desired state within ten minutes; what we do on our own account is none."""
    contest, now = Contest(), 0.0
    for word in writes.split():
        now += float(apart)
        contest = contest.add_write(ACTIONS[word], now, NOW)
    assert contest.suspends(ACTIONS[then], now + 0.1) == (held == "yes")


TEXTS = """
    # write   names
    update    service ofa_group_Weld  another writer changes env LOG_LEVEL (last at 23:59:59 UTC)
    create    service ofa_group_Weld  another writer removes it (seen at 00:00:00 UTC)
    make      stream ASSET_STREAM_WELD  another writer removes it
    again     stream ASSET_STREAM_WELD  another writer changes it, its source differs
    replace   stream ASSET_STREAM_WELD  another writer changes it, its filter differs
    resume    stream ASSET_STREAM_WELD  another writer pauses its query
    sleep     stream ASSET_STREAM_WELD  another writer resumes its query
    publish   registry                another writer replaces it
    drop      stream ASSET_STREAM_WELD  another writer makes it again (seen at 00:00:00 UTC); removed 6 times
    remove    service ofa_group_Weld  another writer makes it again (seen at 00:00:00 UTC); removed 6 times
"""


@pytest.mark.parametrize(("word", "key", "text"), rows(TEXTS))
def test_what_is_said(word: str, key: str, text: str) -> None:
    """The field, when the other writer was last there, how often we wrote, and until when we do not."""
    contest = Contest()
    for second in range(6):
        contest = contest.add_write(ACTIONS[word], float(second), NOW)
    (said,) = contest.find_contested(5.0).values()
    assert contest.find_contested(5.0).keys() == {key}
    assert text in said
    assert " 6 times within 10 minutes, not again before 00:05:00 UTC" in said
    assert ("written" in said) is not ("removed" in said)


def test_a_hold_ends_and_what_is_old_is_forgotten() -> None:
    """After five minutes one write is let through; if it is undone at once the hold begins again, with no more kept."""
    contest = Contest()
    for second in range(6):
        contest = contest.add_write(ACTIONS["update"], float(second), NOW)
    assert contest.suspends(ACTIONS["update"], 5 + CONTEST_PAUSE - 0.1)
    assert not contest.suspends(ACTIONS["update"], 5 + CONTEST_PAUSE)
    assert contest.find_contested(5 + CONTEST_PAUSE) == {}
    contest = contest.add_write(ACTIONS["update"], 5 + CONTEST_PAUSE, NOW)
    assert contest.suspends(ACTIONS["update"], 6 + CONTEST_PAUSE)
    for second in range(1000):
        contest = contest.add_write(ACTIONS["update"], 400.0 + second, NOW)
    assert len(contest.written["service ofa_group_Weld"].times) <= 6
    contest = contest.add_write(ACTIONS["make"], 9000.0, NOW)
    assert contest.written.keys() == {"stream ASSET_STREAM_WELD"}
    assert contest.held == {}


#: Observations: the second, the version, how many tasks run of two that are wanted, the state of the update, or "w"
#: where the service is written then; whether it may be written at the last.
SURPLUS = """
    # observations                                   due
    0,1,3,                                           no
    0,1,3, 59,1,3,                                   no
    0,1,3, 60,1,3,                                   yes
    0,1,3,completed 60,1,3,completed                 yes
    0,1,2, 60,1,2,                                   no
    0,1,1, 60,1,1,                                   no
    0,1,3,updating 60,1,3,updating                   no
    0,1,3,rollback_started 60,1,3,rollback_started   no
    0,1,3,paused 60,1,3,paused                       no
    0,1,3, 30,2,3, 60,2,3,                           no
    0,1,3, 30,2,3, 90,2,3,                           yes
    0,1,3, 30,1,2, 60,1,3,                           no
    0,1,3, 60,1,3,w 61,2,3, 179,2,3,                 no
    0,1,3, 60,1,3,w 61,2,3, 180,2,3,                 yes
    0,1,3, 60,1,3,w 70,1,3,                          no
    0,1,3, 60,1,3,w 61,2,2, 999,3,3, 1058,3,3,       no
    0,1,3, 60,1,3,w 61,2,2, 999,3,3, 1059,3,3,       yes
"""


@pytest.mark.parametrize(("observations", "due"), [(*row[:-1], row[-1]) for row in rows(SURPLUS)])
def test_when_a_surplus_may_be_cured(observations: str, due: str) -> None:
    """After a minute in one version and at rest; again after twice as long as it had lasted."""
    surplus, now = Surplus(), 0.0
    live = service(replace(spec_of("Weld"), replicas=2), "ok")
    assert live is not None
    for one in observations.split():
        at, version, running, state = one.split(",")
        now = float(at)
        live = replace(live, version=int(version), running=int(running), update_state=state.removeprefix("w"))
        surplus = surplus.observe({"ofa_group_weld": live}, now)
        if one.endswith(",w"):
            assert live.spec is not None
            surplus = surplus.add_cure(ResubmitService(live, live.spec, ()), now)
    assert surplus.find_due(now) == ({"ofa_group_weld"} if due == "yes" else set())
    assert surplus.observe({}, now) == Surplus(), "what is gone is forgotten"

"""How a cycle's plan and writes are judged, in one word and one sentence: tables, a line a case."""

from __future__ import annotations

import pytest

from openfactory_common.errors import (
    KsqlBadStatement,
    KsqlTransient,
    KsqlUnreachable,
    KsqlWrongShape,
    LeaseLost,
    PlatformUnreachable,
    ReconcilerError,
)
from reconciler.control.outcome import CycleOutcome, describe_block, explain_error, judge_cycle
from reconciler.domain.actions import CreateService, Result
from reconciler.domain.status import Condition, CycleResult, Guard, ObjectStatus, Plan, Refusal
from reconciler.leadership.elector import WriteBlock
from reconciler.planning.survey import make_survey
from tests.unit.planning.tables import observed, rows, settings, source, spec_of, topology

SURVEY = make_survey(observed({"Weld": 3}, source({})), topology(), settings())
WRITES = {
    "ok": Result(CreateService(spec_of("Weld"))),
    "failed": Result(CreateService(spec_of("Weld")), PlatformUnreachable("no leader")),
    "bug": Result(CreateService(spec_of("Weld")), KeyError("x")),
    "skipped": Result(CreateService(spec_of("Weld")), skipped=True),
}
REFUSALS = {
    "stops": (Refusal(Guard.EMPTY, "the map is empty", stops=True),),
    "refuses": (Refusal(Guard.BUDGET, "too many"),),
    "both": (Refusal(Guard.BUDGET, "too many"), Refusal(Guard.EMPTY, "the map is empty", stops=True)),
    "": (),
}
COUNTS = "0 of 1 groups ready, 3 assets"
FIRST = "1 failed (first: service ofa_group_Weld: no leader)"
CASES = f"""
    # Weld        refusals  writes          result       sentence
    Ready         -         -               in_sync      1 of 1 groups ready, 3 assets, in sync
    Held          -         -               in_sync      {COUNTS}, in sync
    Progressing   -         -               progressing  {COUNTS}
    Degraded      -         -               progressing  {COUNTS}
    Conflict      -         -               progressing  {COUNTS}
    Progressing   -         skipped         progressing  {COUNTS}
    Progressing   -         ok              changed      {COUNTS}, 1 write done
    Progressing   -         ok ok           changed      {COUNTS}, 2 writes done
    Progressing   -         ok skipped      changed      {COUNTS}, 1 write done
    Progressing   -         ok failed       write_error  {COUNTS}, 1 write done, {FIRST}
    Progressing   -         bug failed      write_error  {COUNTS}, 2 failed (first: service ofa_group_Weld: 'x')
    Leaving       refuses   -               refused      {COUNTS}; refused: too many
    Leaving       refuses   ok              refused      {COUNTS}, 1 write done; refused: too many
    Leaving       refuses   failed          write_error  {COUNTS}, {FIRST}
    Ready         stops     -               refused      nothing changed, refused: the map is empty
    Ready         both      -               refused      nothing changed, refused: the map is empty
"""


def plan_of(condition: str, refusals: str = "") -> Plan:
    """Return a plan for one group."""
    item = ObjectStatus("group Weld", Condition(condition), group="Weld")
    return Plan(items=(item,), refusals=REFUSALS[refusals])


@pytest.mark.parametrize(("condition", "refusals", "writes", "result", "sentence"), rows(CASES))
def test_a_cycle_is_judged_by_its_plan_and_writes(
    condition: str, refusals: str, writes: str, result: str, sentence: str
) -> None:
    """A stop comes first, then a failed write, a refusal, a write that was done, and only then the plan's own state."""
    done = tuple(WRITES[word] for word in writes.split())
    outcome = judge_cycle(plan_of(condition, refusals), SURVEY, done, "done")
    assert (outcome.result, outcome.sentence) == (result, sentence)
    assert outcome.results == done


def test_a_dry_run_does_not_say_done() -> None:
    """The word for a write that succeeded is given."""
    outcome = judge_cycle(plan_of("Progressing"), SURVEY, (WRITES["ok"],), "withheld")
    assert outcome.sentence == f"{COUNTS}, 1 write withheld"


STANDBY = WriteBlock(CycleResult.STANDBY, "other holds the lease")
BLOCKED = f"""
    # actions  sentence
    0          other holds the lease, 0 writes wait; {COUNTS}
    1          other holds the lease, 1 write waits; {COUNTS}
    2          other holds the lease, 2 writes wait; {COUNTS}
"""


@pytest.mark.parametrize(("number", "sentence"), rows(BLOCKED))
def test_a_blocked_cycle_says_why_and_what_waits(number: str, sentence: str) -> None:
    """The reason first: it is what a person can change."""
    actions = (CreateService(spec_of("Weld")),) * int(number)
    plan = Plan(actions=actions, items=plan_of("Progressing").items)
    outcome = describe_block(STANDBY, plan, SURVEY)
    assert (outcome.result, outcome.sentence) == (CycleResult.STANDBY, sentence)


LATE = """
    # writes     blocked  result       stopped
    ok           yes      changed      no
    ok skipped   yes      standby      yes
    skipped      yes      standby      yes
    failed       yes      standby      yes
    ok skipped   no       changed      no
"""


@pytest.mark.parametrize(("writes", "blocked", "result", "stopped"), rows(LATE))
def test_a_cycle_that_loses_the_lease_says_so(writes: str, blocked: str, result: str, stopped: str) -> None:
    """Only where a write was left out because of it."""
    outcome = judge_cycle(plan_of("Progressing"), SURVEY, tuple(WRITES[word] for word in writes.split()), "done")
    outcome = outcome.cut_short(STANDBY if blocked == "yes" else None)
    assert outcome.result == result
    assert ("; stopped in between: other holds the lease" in outcome.sentence) == (stopped == "yes")


BUGS = """
    # bugs  result of the cycle  result afterwards
    -       changed              changed
    a       changed              bug
    a b     in_sync              bug
    a       paused               paused
    a       standby              standby
"""


@pytest.mark.parametrize(("bugs", "before", "after"), rows(BUGS))
def test_bugs_that_did_not_end_a_cycle_are_named(bugs: str, before: str, after: str) -> None:
    """The first one and how many; a cycle that may not write stays what it is."""
    outcome = CycleOutcome(CycleResult(before), "said", plan_of("Ready"), SURVEY).with_bugs(bugs.split())
    assert outcome.result == after
    count = len(bugs.split())
    errors = "1 internal error" if count == 1 else f"{count} internal errors"
    assert outcome.sentence == (f"said; {errors} (first: a)" if bugs else "said")


ERRORS: list[tuple[ReconcilerError, str]] = [
    (KsqlUnreachable("refused"), "refused (KSQLDB_URL is http://k:8088)"),
    (KsqlWrongShape("no JSON"), "no JSON (KSQLDB_URL is http://k:8088: does ksqlDB answer there?)"),
    (KsqlTransient("no", status=404), "no (KSQLDB_URL is http://k:8088: does ksqlDB answer there?)"),
    (KsqlTransient("busy", status=503), "busy"),
    (KsqlBadStatement("no such table", status=400, code=40001), "no such table"),
    (PlatformUnreachable("no leader"), "no leader"),
    (LeaseLost("not written"), "not written"),
]


@pytest.mark.parametrize(
    ("error", "text"), ERRORS, ids=[type(error).__name__ + str(n) for n, (error, _) in enumerate(ERRORS)]
)
def test_an_error_names_the_address_where_that_may_be_wrong(error: ReconcilerError, text: str) -> None:
    """What is no ksqlDB, or no server at all, is looked for at another address; never with a password."""
    given = settings(ksqldb_url="http://k:8088")
    assert explain_error(error, given) == text

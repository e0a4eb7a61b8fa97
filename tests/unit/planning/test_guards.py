"""What the guards count and allow: one read after another, a line a case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openfactory_common.registry import Identity
from reconciler.domain.names import names_of
from reconciler.domain.status import Guard
from reconciler.planning.guards import (
    Absence,
    GuardMemory,
    Overrides,
    allowed_removals,
    approval_id,
    approve,
    has_collapsed,
    judge,
    remember,
)
from reconciler.planning.plan import make_plan
from reconciler.planning.survey import Survey
from tests.unit.planning.tables import (
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
    topology,
)

NOW = 1000.0
DEFAULTS = settings(prune_reads=3, prune_grace=60.0, drain_seconds=10.0)


def plant(live: int, missing: int, *, registered: bool = True, assets: int | None = None, **more: object) -> Survey:
    """So many groups with assets and services, and so many without assets."""
    wanted = [f"g{number}" for number in range(live)]
    gone = [f"x{number}" for number in range(missing)]
    options = {name: more.pop(name) for name in ("fresh",) if name in more}
    read = source(dict.fromkeys([*wanted, *gone], "ok"), **more)  # type: ignore[arg-type]
    made = live_registry(document([*wanted, *(gone if registered else [])]), 1, mounted=True)
    services = [service(spec_of(group), "ok") for group in (*wanted, *gone)]
    members = dict.fromkeys(wanted, 1)
    return seen(observed(members, read, services, [made], assets=assets, **options))  # type: ignore[arg-type]


RETIRE = """
    # live  missing  reads  seconds  policy       trouble  unasked  fresh  retires  refusals
    10      1        3      60       sync         -        -        yes    yes      -
    10      1        2      60       sync         -        -        yes    no       -
    10      1        3      59       sync         -        -        yes    no       -
    10      1        1      999      sync         -        -        yes    no       -
    10      1        999    1        sync         -        -        yes    no       -
    10      1        0      0        sync         -        -        yes    no       -
    10      1        3      60       upsert-only  -        -        yes    no       -
    10      1        3      60       create-only  -        -        yes    no       -
    10      1        3      60       sync         dead     -        yes    no       health
    10      1        3      60       sync         -        one      yes    no       -
    10      1        3      60       sync         -        -        no     no       -
    10      2        3      60       sync         -        -        yes    yes      -
    9       3        3      60       sync         -        -        yes    yes      -
    10      3        3      60       sync         -        -        yes    yes      -
    10      4        3      60       sync         -        -        yes    no       budget
    1       1        3      60       sync         -        -        yes    yes      -
    1       2        3      60       sync         -        -        yes    no       budget
    0       1        3      60       sync         -        -        yes    no       empty
    0       5        3      60       sync         -        -        yes    no       budget empty
    10      9        3      60       sync         dead     -        yes    no       budget health
    10      1        99999  1e300    sync         -        -        yes    yes      -
    10      1        3      -5       sync         -        -        yes    no       -
"""


@pytest.mark.parametrize(
    ("live", "missing", "reads", "seconds", "policy", "trouble", "unasked", "fresh", "retires", "refusals"),
    rows(RETIRE),
)
def test_what_may_be_removed(  # noqa: PLR0913, PLR0917 - the columns of the table
    live: str,
    missing: str,
    reads: str,
    seconds: str,
    policy: str,
    trouble: str,
    unasked: str,
    fresh: str,
    retires: str,
    refusals: str,
) -> None:
    """Enough agreeing reads of a healthy server, spread over the grace time, never many groups at once."""
    found = plant(
        int(live),
        int(missing),
        unhealthy_reason=trouble,
        unknown_owners={"ASSET_STREAM_Y": ""} if unasked else {},
        fresh=fresh == "yes",
    )
    since = NOW - float(seconds)
    memory = GuardMemory(missing={f"x{number}": Absence(int(reads), since) for number in range(int(missing))})
    options = settings(prune_reads=3, prune_grace=60.0, drain_seconds=10.0, reconcile_policy=policy)
    verdict = judge(memory, found, options, Overrides(), NOW)
    assert bool(verdict.retire) == (retires == "yes")
    assert sorted(refusal.guard for refusal in verdict.refusals) == refusals.split()
    assert verdict.waiting.keys() == found.missing - verdict.retire
    assert all(verdict.waiting.values())
    assert bool(verdict.approval) == ("budget" in refusals)
    assert verdict.ddl == (not trouble)
    assert verdict.stopped == ("empty" in refusals)


def test_what_is_kept_is_not_removed_and_does_not_count_as_missing() -> None:
    """Three of eight groups are too many; with two of them kept, the third goes as ever."""
    found = plant(5, 3)
    memory = GuardMemory(missing={f"x{number}": Absence(9, 0.0) for number in range(3)})
    options = settings(prune_reads=3, prune_grace=60.0)
    kept = {"x0": "kept by the file", "x1": "kept by the file", "other": "kept, and not missing"}
    verdict = judge(memory, found, options, Overrides(), NOW, kept)
    assert (verdict.retire, verdict.kept, verdict.refusals) == ({"x2"}, {"x0", "x1"}, ())
    assert verdict.waiting == {"x0": "kept by the file", "x1": "kept by the file"}
    assert [refusal.guard for refusal in judge(memory, found, options, Overrides(), NOW).refusals] == ["budget"]


KEPT = """
    # there  missing  kept   fraction   refused
    6        4        0      0.4        -
    6        5        0      0.4        5 of 11 groups are missing, at most 4
    4        6        4      0.4        -
    4        7        4      0.4        3 of 7 groups are missing, at most 2
    2        8        6      0.5        -
    1        9        7      0.5        2 of 3 groups are missing, at most 1
"""


@pytest.mark.parametrize(("there", "missing", "kept", "fraction", "refused"), rows(KEPT))
def test_what_is_kept_counts_in_neither_number(
    there: str, missing: str, kept: str, fraction: str, refused: str
) -> None:
    """Of all others, no more than the fraction go at once."""
    options = settings(prune_max_fraction=float(fraction))
    reasons = {f"x{number}": "kept by the file" for number in range(int(kept))}
    refusals = judge(GuardMemory(), plant(int(there), int(missing)), options, Overrides(), NOW, reasons).refusals
    assert bool(refusals) is bool(refused)
    assert all(refused in refusal.text for refusal in refusals)


COUNT = """
    # before: reads  since  trouble  fresh  assets before  assets now  after: reads  since
    0                -      -        yes    10             10          1             1000
    1                900    -        yes    10             10          2             900
    7                900    -        yes    10             10          8             900
    7                900    -        no     10             10          7             900
    0                -      -        no     10             10          0             -
    7                900    dead     yes    10             10          0             -
    7                900    dead     no     10             10          0             -
    7                900    -        yes    100            75          8             900
    7                900    -        yes    100            74          0             -
    7                900    -        yes    100            0           0             -
    7                900    -        yes    -              10          8             900
    7                900    -        yes    0              10          8             900
"""


@pytest.mark.parametrize(("reads", "since", "trouble", "fresh", "before", "assets", "counted", "after"), rows(COUNT))
def test_what_one_more_read_counts(  # noqa: PLR0913, PLR0917 - the columns of the table
    reads: str, since: str, trouble: str, fresh: str, before: str, assets: str, counted: str, after: str
) -> None:
    """A server that is not healthy, and a map that lost many assets at once, start the count again."""
    memory = GuardMemory(
        missing={"x0": Absence(int(reads), float(since))} if since else {},
        counts=((900.0, int(before)),) if before else (),
    )
    found = plant(3, 1, unhealthy_reason=trouble, fresh=fresh == "yes", assets=int(assets))
    absence = remember(memory, found, topology(), DEFAULTS, NOW).missing.get("x0")
    assert absence == (Absence(int(counted), float(after)) if after else None)


DRAIN = """
    # registered  out of the registry since  drained
    yes           -                          no
    no            -                          no
    no            995                        no
    no            990                        yes
    no            0                          yes
    no            2000                       no
"""


@pytest.mark.parametrize(("registered", "since", "drained"), rows(DRAIN))
def test_when_a_group_is_drained(registered: str, since: str, drained: str) -> None:
    """Its service goes only after it has been out of the registry for the drain time."""
    found = plant(10, 1, registered=registered == "yes")
    memory = GuardMemory(missing={"x0": Absence(9, 0.0)}, unregistered={"x0": float(since)} if since else {})
    after = remember(memory, found, topology(), DEFAULTS, NOW)
    assert judge(after, found, DEFAULTS, Overrides(), NOW).drained == ({"x0"} if drained == "yes" else set())


SILENT = """
    # stream  queries before  queries now  reads before  since  believed
    silent    0               0            0             -      no
    silent    0               0            2             900    yes
    silent    0               0            1             900    no
    silent    0               0            2             950    no
    ok        0               0            2             900    no
    silent    1               0            2             900    yes   # as many as before
    silent    2               0            2             900    no    # the list shrinks: the server stops
    silent    99              0            2             900    no
"""


@pytest.mark.parametrize(("stream", "before", "_now", "reads", "since", "believed"), rows(SILENT))
def test_when_a_missing_query_is_believed(
    stream: str, before: str, _now: str, reads: str, since: str, believed: str
) -> None:
    """As an absence; a list of queries that gets shorter starts the count again."""
    name = names_of("Weld").stream
    found = seen(observed({"Weld": 1}, source({"Weld": stream})))
    memory = GuardMemory(silent={name: Absence(int(reads), float(since))} if since else {}, queries=int(before))
    after = remember(memory, found, topology(), DEFAULTS, NOW)
    assert (name in judge(after, found, DEFAULTS, Overrides(), NOW).silent) == (believed == "yes")


@pytest.mark.parametrize(("shared", "believed"), [("silent", True), ("ok", False), ("absent", False)])
def test_the_missing_query_of_the_shared_stream_is_counted_too(shared: str, believed: bool) -> None:
    """As that of a group's stream."""
    name = topology().shared_name
    memory = GuardMemory(silent={name: Absence(2, 900.0)})
    found = seen(observed({"Weld": 1}, source({"Weld": "ok"}, shared)))
    after = remember(memory, found, topology(), DEFAULTS, NOW)
    assert (name in judge(after, found, DEFAULTS, Overrides(), NOW).silent) is believed


@pytest.mark.parametrize(("assets", "said"), [(0, "(0 assets: it is empty, or not loaded yet)"), (7, "(7 assets)")])
def test_a_map_without_groups_is_refused_with_its_assets(assets: int, said: str) -> None:
    """So that an empty map and a wrong level can be distinguished; `--allow-empty` accepts both."""
    found = plant(0, 1, assets=assets)
    (refusal,) = judge(GuardMemory(), found, DEFAULTS, Overrides(), NOW).refusals
    assert (refusal.guard, refusal.stops, said in refusal.text) == (Guard.EMPTY, True, True)
    assert judge(GuardMemory(), found, DEFAULTS, Overrides(allow_empty=True), NOW).refusals == ()


LEVELS = """
    # fallback  services  streams    registry  unasked  refused
    -           -         -          -         -        level
    Rest        -         -          -         -        -      # a new plant
    Rest        Rest      -          -         -        -      # and its next cycles
    Rest        Rest      Rest       Rest      -        -
    Rest        Weld      -          -         -        level
    Rest        -         Weld       -         -        level
    Rest        -         -          Weld      -        level
    Rest        Rest      Rest       Weld      -        level
    Other       Rest      -          -         -        level  # another fallback: all would move
    Rest        -         -          -         one      level  # a stream whose owner is not known yet
    -           Weld      Weld       Weld      -        level
"""


@pytest.mark.parametrize(("fallback", "services", "streams", "registry", "unasked", "refused"), rows(LEVELS))
@pytest.mark.parametrize("allow_empty", [False, True])
def test_no_asset_has_the_level(
    fallback: str, services: str, streams: str, registry: str, unasked: str, refused: str, allow_empty: bool
) -> None:
    """A misspelt name moves no group into the fallback; with nothing that could move, it is a plant without one yet."""
    read = source({streams: "ok"} if streams else {}, unknown_owners={"ASSET_STREAM_Y": ""} if unasked else {})
    made = [live_registry(document([registry]), 1)] if registry else []
    live = [service(spec_of(services), "ok")] if services else []
    found = observed({fallback: 2} if fallback else {}, read, live, made, assets=2)
    lacking = replace(found.membership, unknown_level="no asset has level 'x'", fallback=fallback)
    survey = seen(replace(found, membership=lacking))
    verdict = judge(GuardMemory(), survey, DEFAULTS, Overrides(allow_empty=allow_empty), NOW)
    assert [refusal.guard for refusal in verdict.refusals] == ([Guard.LEVEL] if refused else [])
    assert verdict.stopped == bool(refused)
    plan = make_plan(survey, verdict, plan_inputs())
    assert any("all are in group Rest" in note for note in plan.notes) is not bool(refused)
    assert bool(plan.actions) is not bool(refused)


SAMPLED = """
    # members    services   shared  unasked  foreign  refused
    Rest         Weld       absent  -        -        level  # the level is new, and no asset of the sample has any
    Rest         Rest Weld  absent  -        -        level
    Rest         -          absent  one      -        level
    Rest         -          absent  -        -        -      # a new plant
    Rest         Rest       absent  -        -        -
    Rest         Rest       absent  -        Weld     -      # another installation's group in the same ksqlDB
    Rest Paint   Rest Weld  absent  -        -        -
    Rest         Rest Weld  ok      -        -        -      # the same level: Weld has lost its assets
    Rest         Rest Weld  silent  -        -        -
"""


@pytest.mark.parametrize(("members", "services", "shared", "unasked", "foreign", "refused"), rows(SAMPLED))
def test_the_sample_has_no_levels(
    members: str, services: str, shared: str, unasked: str, foreign: str, refused: str
) -> None:
    """Another level than that of the shared stream, at which all are in the fallback: it is misspelt."""
    unknown = {"ASSET_STREAM_Y": ""} if unasked else {}
    read = source({foreign: "other"} if foreign else {}, shared, unknown_owners=unknown)
    found = observed(dict.fromkeys(members.split(), 1), read, [service(spec_of(one), "ok") for one in services.split()])
    survey = seen(replace(found, membership=replace(found.membership, fallback="Rest")))
    verdict = judge(GuardMemory(), survey, DEFAULTS, Overrides(), NOW)
    assert [(one.guard, one.stops) for one in verdict.refusals] == ([(Guard.LEVEL, True)] if refused else [])
    assert not refused or ("Weld" if "Weld" in services else "unknown owners") in verdict.refusals[0].text
    assert bool(make_plan(survey, verdict, plan_inputs()).actions) is not bool(refused)


WAITING = """
    # missing  reads  since  largest  last  policy       doubt    waiting
    1          0      -      -        -     sync         -        no assets; counting starts when ksqlDB is healthy
    1          0      -      100      10    sync         -        no assets, but the map fell from 100 to 10 assets: counting starts when that lasts
    1          0      -      100      90    sync         -        no assets; counting starts when ksqlDB is healthy
    1          2      980    -        -     sync         -        missing 2/3 reads, 20 s of 60 s
    1          9      990    -        -     sync         -        missing 3/3 reads, 10 s of 60 s
    1          2      0      -        -     sync         -        missing 2/3 reads, 60 s of 60 s
    1          2      980    -        -     sync         it died  missing 2/3 reads, 20 s of 60 s; the last direct read of the UNS map proved nothing: it died
    9          9      0      -        -     sync         -        missing 3/3 reads, 60 s of 60 s; held by the budget
    1          9      0      -        -     upsert-only  -        no assets; kept because RECONCILE_POLICY=upsert-only
"""  # noqa: E501 - one case a line


@pytest.mark.parametrize(("missing", "reads", "since", "largest", "last", "policy", "doubt", "waiting"), rows(WAITING))
def test_why_a_removal_waits(  # noqa: PLR0913, PLR0917 - the columns of the table
    missing: str, reads: str, since: str, largest: str, last: str, policy: str, doubt: str, waiting: str
) -> None:
    """With both numbers of what is counted, and what has to change."""
    options = settings(prune_reads=3, prune_grace=60.0, drain_seconds=10.0, reconcile_policy=policy)
    memory = GuardMemory(
        missing={f"x{number}": Absence(int(reads), float(since)) for number in range(int(missing)) if since},
        counts=((900.0, int(largest)), (910.0, int(last))) if largest else (),
        doubt=doubt,
    )
    assert judge(memory, plant(10, int(missing)), options, Overrides(), NOW).waiting["x0"] == waiting


IDENTITY = """
    # kafka   ksqldb    accepted  refused
    kafka-1   default_  no        -
    kafka-1   default_  yes       -
    kafka-2   default_  no        identity
    kafka-1   other_    no        identity
    kafka-2   other_    yes       -
"""


@pytest.mark.parametrize(("kafka", "ksqldb", "accepted", "refused"), rows(IDENTITY))
def test_another_cluster_is_refused(kafka: str, ksqldb: str, accepted: str, refused: str) -> None:
    """The registry says which cluster it was made from; another one stops everything until a person accepts it."""
    found = plant(3, 0, identity=Identity(kafka=kafka, ksqldb=ksqldb))
    verdict = judge(GuardMemory(), found, DEFAULTS, Overrides(accept_identity=accepted == "yes"), NOW)
    assert [refusal.guard for refusal in verdict.refusals] == ([Guard(refused)] if refused else [])
    assert verdict.stopped == bool(refused)


@pytest.mark.parametrize(
    ("owned", "fraction", "allowed"),
    [(0, 0.25, 1), (1, 0.0, 1), (3, 0.25, 1), (4, 0.25, 1), (8, 0.25, 2), (100, 0.25, 25), (100, 1.0, 100)],
)
def test_how_many_may_go_at_once(owned: int, fraction: float, allowed: int) -> None:
    """One always may."""
    assert allowed_removals(owned, fraction) == allowed


@pytest.mark.parametrize(
    ("before", "now", "collapsed"),
    [(None, 0, False), (0, 0, False), (4, 3, False), (4, 2, True), (100, 75, False), (100, 74, True), (-1, 0, False)],
)
def test_when_a_map_has_collapsed(before: int | None, now: int, collapsed: bool) -> None:
    """More than the fraction of its assets went between two reads."""
    assert has_collapsed(before, now, DEFAULTS) == collapsed


def test_an_approval_is_for_exactly_one_set_of_groups() -> None:
    """Its id changes with the set, and one that does not fit approves nothing."""
    four, five = plant(4, 4), plant(4, 5)
    memory = GuardMemory(missing={f"x{number}": Absence(9, 0.0) for number in range(5)})
    assert approval_id(four) != approval_id(five)
    for found in (four, five):
        right, wrong = (Overrides(approve=approval_id(one)) for one in (found, five if found is four else four))
        assert judge(approve(memory, found, right), found, DEFAULTS, Overrides(), NOW).retire == found.missing
        assert judge(approve(memory, found, wrong), found, DEFAULTS, Overrides(), NOW).retire == set()

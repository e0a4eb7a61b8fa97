"""Whatever was observed, the page, the status and every other form of it can be written and read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.cli.show import choose_exit
from reconciler.control.backoff import Backoff, Failure
from reconciler.control.loop import History, Loop
from reconciler.control.outcome import CycleOutcome
from reconciler.domain.names import names_of
from reconciler.domain.observed import MapSnapshot
from reconciler.domain.status import Condition, CycleResult, Guard, ObjectStatus, Plan, Refusal
from reconciler.planning.survey import Survey
from reconciler.report.documents import make_schema
from reconciler.report.table import status_table
from reconciler.report.text import plan_json, plan_markdown, plan_text, status_json, status_markdown, status_text
from reconciler.web.status_page import StatusPage
from reconciler.web.status_view import Filter
from tests.harness.fakes import Stage

TEXT = st.one_of(st.text(st.characters(), max_size=20), st.sampled_from(["", "\ud800", "\x1b[2J", "\u202e", "9" * 50]))
NUMBER = st.one_of(st.integers(-5, 5), st.sampled_from([-(10**30), 10**30, 2**63]))
REAL = st.one_of(st.floats(), st.sampled_from([float("nan"), float("inf"), -float("inf"), -1.0, 1e300]))
WHEN = st.datetimes(timezones=st.just(UTC))


@st.composite
def items(draw: st.DrawFn) -> ObjectStatus:
    """A line of a plan with any values."""
    group = draw(st.none() | TEXT)
    return ObjectStatus(
        title=f"group {group}" if group is not None else draw(TEXT | st.just("stream X") | st.just("service y")),
        condition=draw(st.sampled_from(Condition)),
        change=draw(st.sampled_from("+~!-?x ")),
        detail=draw(TEXT),
        group=group,
        names=names_of(group) if group is not None and draw(st.booleans()) else None,
        members=draw(NUMBER),
        running=draw(NUMBER),
        wanted=draw(NUMBER),
        url=draw(st.none() | TEXT),
    )


PLANS = st.builds(
    Plan,
    items=st.lists(items(), max_size=4).map(tuple),
    registry_before=st.none() | TEXT,
    added=st.lists(TEXT, max_size=2).map(tuple),
    refusals=st.lists(st.builds(Refusal, st.sampled_from(Guard), TEXT, st.booleans()), max_size=2).map(tuple),
    approval=TEXT,
    notes=st.lists(TEXT, max_size=2).map(tuple),
    unknown=NUMBER,
)
FAILURES = st.dictionaries(TEXT, st.builds(Failure, NUMBER, REAL, TEXT), max_size=2)


@pytest.fixture(scope="module")
def seen() -> tuple[Loop, Survey]:
    """An operator that has read once."""
    loop = Loop(Stage().controller(), 10)
    survey, _ = loop.controller.observe()
    return loop, survey


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(plan=PLANS, assets=NUMBER, counts=st.dictionaries(TEXT, NUMBER, max_size=2), failures=FAILURES, at=WHEN)
def test_no_value_costs_a_page_or_a_document(
    seen: tuple[Loop, Survey],
    plan: Plan,
    assets: int,
    counts: dict[str, int],
    failures: dict[str, Failure],
    at: datetime,
) -> None:
    """Negative, huge, not a number, missing, unprintable: everything is valid by its schema, and nothing is raw."""
    loop, survey = seen
    survey = replace(survey, observed=replace(survey.observed, membership=MapSnapshot(assets, counts)))
    outcome = CycleOutcome(CycleResult.BUG, "x\x1b\ud800", plan, survey)
    loop.history = History(outcome, at, outcome, at, None)
    loop.controller.memory.backoff = Backoff(failures)
    page = StatusPage(loop)
    html = page.render(Filter())
    document = page.make_document()
    assert document is not None
    texts = (plan_text(plan), plan_markdown(plan), status_text(plan, survey), status_markdown(plan, survey))
    for text in (*texts, status_table(plan, 80).plain, html, plan_json(plan), status_json(plan, survey)):
        assert all(char.isprintable() or char == "\n" for char in text), ascii(text)
    status = jsonschema.Draft202012Validator(make_schema("status"))
    status.validate(json.loads(document.model_dump_json()))
    status.validate(json.loads(status_json(plan, survey)))
    jsonschema.Draft202012Validator(make_schema("plan")).validate(json.loads(plan_json(plan)))
    assert choose_exit(plan) in (0, 3, 5)

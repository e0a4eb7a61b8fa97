"""What machines read and what goes into comments: true to the published schemas, and inert whatever the names."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from openfactory_common.errors import KsqlUnreachable
from openfactory_common.text import printable_json
from reconciler.cli.show import choose_exit
from reconciler.control.converge import Exit
from reconciler.control.journal import Journal
from reconciler.domain.status import Plan
from reconciler.planning.survey import Survey
from reconciler.report.documents import events_document, make_schema
from reconciler.report.text import COMMENT_MARK, plan_json, plan_markdown, status_json, status_markdown
from tests.harness.fakes import Stage

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = ("@everyone", "a|b", "`x` <img src=x>", "[x](http://x)", "half \ud800", "\u202eWeld", "# Title\n- [ ] do")


def _empty(stage: Stage) -> None:
    stage.ksqldb.assets.clear()


def _many_missing(stage: Stage) -> None:
    stage.ksqldb.assets = {"a": "Weld"}


def _other_cluster(stage: Stage) -> None:
    stage.ksqldb.identity = ("kafka-2", "default_")


def _broken(stage: Stage) -> None:
    stage.platform.healthy = lambda name: "Weld" not in name


def _drift(stage: Stage) -> None:
    stage.platform.touch("ofa_group_weld", replicas=3)


def _case_twin(stage: Stage) -> None:
    stage.ksqldb.assets["z"] = "WELD"


def _hostile(stage: Stage) -> None:
    stage.ksqldb.assets |= dict(zip("klmnopq", HOSTILE, strict=True))


SITUATIONS: dict[str, tuple[Callable[[Stage], None], Exit]] = {
    "in sync": (lambda _: None, Exit.OK),
    "empty": (_empty, Exit.CHANGES),
    "many missing": (_many_missing, Exit.OK),
    "another cluster": (_other_cluster, Exit.OK),
    "broken": (_broken, Exit.CHANGES),
    "drift": (_drift, Exit.CHANGES),
    "case twin": (_case_twin, Exit.NOT_CONVERGED),
    "hostile": (_hostile, Exit.CHANGES),
}


def seen(change: Callable[[Stage], None]) -> tuple[Plan, Survey]:
    """Return the plan after a change to three groups that were in sync."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint", "c": "Pack", "d": None}
    controller = stage.controller()
    stage.settle(controller)
    change(stage)
    survey, verdict = controller.observe()
    return controller.plan(survey, verdict), survey


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_document_is_as_its_published_schema_says(situation: str) -> None:
    """Plans and states of every kind, against the files that others build on."""
    plan, survey = seen(SITUATIONS[situation][0])
    for name, text in {"plan": plan_json(plan), "status": status_json(plan, survey)}.items():
        published = json.loads((ROOT / "docs" / "schema" / f"{name}.schema.json").read_text())
        jsonschema.Draft202012Validator.check_schema(published)
        jsonschema.Draft202012Validator(published).validate(json.loads(text))


def test_the_history_is_as_its_published_schema_says() -> None:
    """Also with text that no one would choose, which stays within its string."""
    published = json.loads((ROOT / "docs" / "schema" / "events.schema.json").read_text())
    assert published == make_schema("events")
    checker = jsonschema.Draft202012Validator(published)
    journal = Journal()
    assert checker.is_valid(json.loads(events_document(journal, "ofa", None).model_dump_json()))
    hostile = "We\nld\ud800\u202e</script>"
    journal.warning("write failed", object=f"group {hostile}", group=hostile, error="no", drift=["image"], before=3)
    document = json.loads(printable_json(events_document(journal, "ofa", "standby").model_dump_json()))
    checker.validate(document)
    (event,) = document["events"]
    assert event["fields"] == {"drift": ["image"], "before": "3"}
    assert event["group"] == "We\nld?\u202e</script>"
    del document["last"]
    assert not checker.is_valid(document)


@pytest.mark.parametrize("name", ["plan", "status"])
def test_the_published_schema_is_the_programs(name: Any) -> None:
    """``reconciler schema`` writes exactly the file; it bites on a document with a field too many or one too few."""
    made = json.dumps(make_schema(name), indent=2, ensure_ascii=False) + "\n"
    assert (ROOT / "docs" / "schema" / f"{name}.schema.json").read_text() == made
    plan, survey = seen(lambda _: None)
    document = json.loads(plan_json(plan) if name == "plan" else status_json(plan, survey))
    checker = jsonschema.Draft202012Validator(make_schema(name))
    assert checker.is_valid(document)
    assert not checker.is_valid({**document, "surprise": 1})
    del document["counts"]
    assert not checker.is_valid(document)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_detailed_exit_code_tells_changes_from_what_a_person_must_do(situation: str) -> None:
    """3 if something is to be done or in progress, 5 for a conflict, 0 in sync; refusals come before it."""
    change, expected = SITUATIONS[situation]
    plan, _ = seen(change)
    if not plan.refusals:
        assert choose_exit(plan) is expected


def test_a_comment_begins_with_its_mark_and_the_totals() -> None:
    """A job finds its comment again; a reader sees the totals first, and every write folded away."""
    plan, _ = seen(_drift)
    lines = plan_markdown(plan).splitlines()
    assert lines[0] == COMMENT_MARK
    assert "**Plan: 0 create, 1 update, 0 repair, 0 delete; 1 write.**" in lines[2]
    assert "<summary>1 write, in this order</summary>" in lines
    assert "1. update service: `service ofa_group_Weld`" in lines


def test_names_in_comments_are_inert() -> None:
    """No name mentions, links, breaks a table or opens a tag: outside of code spans nothing of it is left."""
    plan, survey = seen(_hostile)
    for text in (plan_markdown(plan), status_markdown(plan, survey)):
        table = [line for line in text.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
        bare = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", "\n".join(table))
        assert not re.search(r"@everyone|<img|\]\(|://|\u202e|\ud800|# Title", bare)


def test_a_comment_of_a_thousand_groups_is_short_enough() -> None:
    """GitHub allows 65,536 characters."""
    stage = Stage()
    stage.ksqldb.assets = {f"a{at}": f"Cell-{at:04d}-" + "x" * 30 for at in range(1000)}
    controller = stage.controller()
    survey, verdict = controller.observe()
    text = plan_markdown(controller.plan(survey, verdict))
    assert len(text) < 40_000
    assert "… and 903 more." in text


def test_a_plan_of_a_server_that_is_not_there_is_no_document() -> None:
    """A failed read ends with an error, never with a document that looks complete."""
    stage = Stage()

    def refuse(_: str) -> None:
        raise KsqlUnreachable("refused")

    stage.ksqldb.fault = refuse
    with pytest.raises(KsqlUnreachable):
        stage.controller().observe()


def test_the_jobs_in_the_manual_can_be_read() -> None:
    """Every YAML block parses and has the jobs that the text speaks of; their scripts are valid shell and Python."""
    text = (ROOT / "docs" / "ci.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    github, gitlab = blocks
    assert set(github["jobs"]) == {"plan", "apply"}
    scripts = [step["run"] for job in github["jobs"].values() for step in job["steps"] if "run" in step]
    assert {"plan", "apply", "drift"} <= set(gitlab)
    scripts += ["\n".join(gitlab[job]["script"]) for job in ("plan", "apply", "drift")]
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert any(COMMENT_MARK in script for script in scripts)
    (python,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    ast.parse(python)
    assert COMMENT_MARK in python

"""The routing layer's page names what its code has."""

from __future__ import annotations

import re
from pathlib import Path

from reconciler.settings import Settings as OperatorSettings
from routing_layer.metrics import EndReason, Metrics
from routing_layer.problems import ProblemType
from routing_layer.settings import Settings

_ROOT = Path(__file__).resolve().parents[3]
_PAGE = (_ROOT / "docs" / "routing.md").read_text(encoding="utf-8")


def test_every_refusal_is_in_the_table() -> None:
    """Each kind of problem has its row, and no row is about one that does not exist."""
    kinds = {problem.kind for problem in ProblemType}
    table = _PAGE[_PAGE.index("| status | kind |") : _PAGE.index("The `detail` names")]
    assert set(re.findall(r"`([a-z]+(?:-[a-z]+)+|internal|draining|unauthorized|forbidden)`", table)) == kinds


def test_every_variable_of_the_page_exists() -> None:
    """At the routing layer or at the operator, as the table's columns say."""
    table = _PAGE[_PAGE.index("| at the routing layer |") : _PAGE.index("```bash\nprintf")]
    rows = [row.split("|")[1:3] for row in table.splitlines()[2:] if row.startswith("|")]
    for column, known in enumerate((Settings.model_fields.keys(), OperatorSettings.model_fields.keys())):
        named = {name for row in rows for name in re.findall(r"`([A-Z_]+)`", row[column])}
        assert {name.lower() for name in named} <= known


def test_every_metric_and_every_reason_is_explained() -> None:
    """Every name at `/metrics` is on the page."""
    found = re.findall(rb"^# HELP routing_layer_(\w+) ", Metrics().exposition(), re.MULTILINE)
    names = {name.decode() for name in found}
    assert {name for name in names if f"`{name}" not in _PAGE} == set()
    assert {reason.value for reason in EndReason if f"`{reason.value}`" not in _PAGE} == set()

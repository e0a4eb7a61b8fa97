"""Alert rules and dashboard ask for what `/metrics` has, and the rules fire when they should."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from reconciler.metrics import Metrics
from scripts.docs_pages import Family, operator, routing_layer
from tests.e2e.system import ROOT
from tests.harness.tools import find_tool

ALERTS = ROOT / "manifests" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "manifests" / "grafana" / "dashboard.json"
#: Prometheus' own, and the labels that a scrape adds.
_SCRAPED = ("instance", "job")
_SELECTOR = re.compile(r"\b((?:reconciler|routing_layer)_\w+|up)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"')
_BY = re.compile(r"\bby \(([^)]*)\)")


@pytest.fixture(scope="module")
def families() -> dict[str, Family]:
    """What both programs export, by each name that a query can use."""
    found = {name: each for each in (*operator(), *routing_layer()) for name in each.series}
    return found | {"up": Family("up", "gauge", "", {"job": ("reconciler", "routing-layer")})}


def rules() -> list[dict[str, Any]]:
    """The alert rules as they are in the file."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def queries() -> Iterator[tuple[str, str, str]]:
    """Every query with a name for it, and the legend that is made of its labels."""
    for rule in rules():
        yield rule["alert"], rule["expr"], ""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], target["legendFormat"]


@pytest.mark.parametrize(("title", "query", "legend"), list(queries()), ids=lambda value: str(value)[:40])
def test_a_query_asks_for_what_there_is(families: dict[str, Family], title: str, query: str, legend: str) -> None:
    """Each metric, each label, and each value of a label whose values are known beforehand."""
    selected = _SELECTOR.findall(query)
    assert selected, title
    labels: set[str] = {*_SCRAPED, "le"}
    for name, matchers in selected:
        assert name in families, f"{title}: no metric {name}"
        family = families[name]
        labels |= family.labels.keys()
        for label, _, wanted in _MATCHER.findall(matchers):
            assert label in {*family.labels, *_SCRAPED}, f"{title}: {name} has no label {label}"
            known = family.labels.get(label, ())
            assert not known or any(re.fullmatch(wanted, value) for value in known), f"{title}: {label}={wanted}"
    used = {label.strip() for group in _BY.findall(query) for label in group.split(",")}
    used |= set(re.findall(r"\{\{(\w+)\}\}", legend))
    assert used <= labels, f"{title}: no label {used - labels}"


#: What each operator shows of the same plant, a standby too: added up it would be there twice.
_OF_THE_PLANT = "|".join(
    f"reconciler_{name}"
    for name in (
        *("groups", "desired_groups", "live_groups", "assets", "guard_active", "registry_bytes", "paused"),
        "paused_groups",
        *("deletes_blocked_total", "probes_total"),
    )
)


@pytest.mark.parametrize(("title", "query", "legend"), list(queries()), ids=lambda value: str(value)[:40])
def test_a_standby_adds_nothing_to_a_figure_of_the_plant(title: str, query: str, legend: str) -> None:
    """What two operators show of the same groups is no sum of both."""
    del legend
    added = rf"\b(sum|count|avg)(?: by \([^)]*\))? ?\((?:rate\(|increase\()?({_OF_THE_PLANT})\b"
    assert not re.search(added, query), f"{title}: {query}"


def test_every_metric_of_trouble_is_on_the_dashboard(families: dict[str, Family]) -> None:
    """All metrics are shown but those that only name something."""
    shown = {name for title, query, _ in queries() for name, _ in _SELECTOR.findall(query)}
    left_out = {each.name for name, each in families.items() if not shown & set(each.series)} - {"up"}
    assert (
        left_out
        == {
            "reconciler_build_info",
            "reconciler_lease_info",
            "reconciler_registry_info",
            "routing_layer_build_info",
            "routing_layer_membership_relists_total",
            "routing_layer_workers",
        }
        - shown
    )


def test_panels_do_not_overlap() -> None:
    """Each panel has its place, so that the dashboard is as it was drawn."""
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


# ---- the rules themselves, by Prometheus' own tool


@dataclass(frozen=True)
class Case:
    """A history that fires an alert: one value a minute (``a+bxN``: from a in steps of b), looked at after a while."""

    alert: str
    series: dict[str, str]
    labels: dict[str, str]
    after: str = "30m"


OPERATOR, PROXY = 'job="reconciler",instance="a"', 'job="routing-layer",instance="b"'
STANDBY = 'job="reconciler",instance="standby"'
CASES = (
    Case("ReconcilerDown", {f"up{{{OPERATOR}}}": "0x60"}, {}),
    Case("ReconcilerDown", {f"up{{{PROXY}}}": "1x60"}, {"job": "reconciler"}),
    Case("ReconcilerNoLeader", {f"reconciler_leader{{{OPERATOR}}}": "0x60"}, {}),
    Case(
        "ReconcilerStuck",
        {
            f"reconciler_last_success_timestamp_seconds{{{OPERATOR}}}": "0x60",
            f"reconciler_leader{{{OPERATOR}}}": "1x60",
            f"reconciler_last_success_timestamp_seconds{{{STANDBY}}}": "0+60x60",
            f"reconciler_leader{{{STANDBY}}}": "0x60",
        },
        {},
    ),
    Case("ReconcilerBug", {f'reconciler_bugs_total{{part="write",{OPERATOR}}}': "0x20 1x40"}, {"part": "write"}, "22m"),
    Case(
        "ReconcilerReadErrors",
        {f'reconciler_source_read_errors_total{{source="ksqldb",kind="unreachable",{OPERATOR}}}': "0+2x60"},
        {"source": "ksqldb", "kind": "unreachable"},
    ),
    Case(
        "ReconcilerWriteErrors",
        {f'reconciler_actions_total{{action="create_service",result="error",{OPERATOR}}}': "0+1x60"},
        {"action": "create_service"},
    ),
    Case(
        "ReconcilerGuardActive", {f'reconciler_guard_active{{guard="budget",{OPERATOR}}}': "1x60"}, {"guard": "budget"}
    ),
    Case(
        "ReconcilerGroupsInTrouble",
        {f'reconciler_groups{{condition="Conflict",{OPERATOR}}}': "2x60"},
        {"condition": "Conflict"},
    ),
    Case("ReconcilerGroupsSlow", {f'reconciler_groups{{condition="Progressing",{OPERATOR}}}': "1x60"}, {}),
    Case("ReconcilerContested", {f"reconciler_contested_objects{{{OPERATOR}}}": "1x60"}, {}),
    Case("ReconcilerFoughtOver", {f'reconciler_drift_total{{field="env",{OPERATOR}}}': "0+1x120"}, {}, "60m"),
    Case("ReconcilerPaused", {f"reconciler_paused{{{OPERATOR}}}": "1x120"}, {}, "90m"),
    Case("ReconcilerGroupsPaused", {f"reconciler_paused_groups{{{OPERATOR}}}": "1x1500"}, {}, "1470m"),
    Case("ReconcilerRegistryNearlyFull", {f"reconciler_registry_bytes{{{OPERATOR}}}": "900000x60"}, {}),
    Case("RoutingLayerDown", {f"up{{{PROXY}}}": "0x60"}, {}),
    Case("RoutingLayerNotReady", {f"routing_layer_ready{{{PROXY}}}": "0x60"}, {}),
    Case("RoutingLayerMembershipOld", {f"routing_layer_membership_age_seconds{{{PROXY}}}": "0+60x60"}, {}),
    Case("RoutingLayerKeysOld", {f"routing_layer_keys_age_seconds{{{PROXY}}}": "0+60x60"}, {}),
    Case("RoutingLayerRegistryOld", {f"routing_layer_registry_age_seconds{{{PROXY}}}": "0+60x60"}, {}),
    Case(
        "RoutingLayerErrors",
        {
            f'routing_layer_requests_total{{route="asset_stream",code="200",{PROXY}}}': "0+60x60",
            f'routing_layer_requests_total{{route="asset_stream",code="502",{PROXY}}}': "0+6x60",
        },
        {},
    ),
    Case(
        "RoutingLayerStreamsBreak",
        {f'routing_layer_streams_ended_total{{reason="upstream_broke",{PROXY}}}': "0+60x60"},
        {},
    ),
    Case("RoutingLayerFull", {f'routing_layer_streams_refused_total{{reason="total",{PROXY}}}': "0+60x60"}, {}),
    Case("RoutingLayerFull", {f'routing_layer_connections_ended_total{{reason="refused",{PROXY}}}': "0+60x60"}, {}),
    Case(
        "RoutingLayerTaskEnds", {f'routing_layer_background_task_ends_total{{task="membership",{PROXY}}}': "0+1x60"}, {}
    ),
)
#: A good day: nothing may fire.
QUIET = {
    f"up{{{OPERATOR}}}": "1x120",
    f"up{{{PROXY}}}": "1x120",
    f"reconciler_leader{{{OPERATOR}}}": "1x30 0x30 1x60",  # given up while paused
    f"reconciler_leader{{{STANDBY}}}": "0x120",
    f"reconciler_last_success_timestamp_seconds{{{OPERATOR}}}": "0+60x120",
    f'reconciler_reconcile_total{{result="in_sync",{OPERATOR}}}': "0+6x120",
    f'reconciler_bugs_total{{part="write",{OPERATOR}}}': "0x120",
    f"reconciler_contested_objects{{{OPERATOR}}}": "0x120",
    f'reconciler_source_read_errors_total{{source="ksqldb",kind="not_ready",{OPERATOR}}}': "0x30 3x90",
    f'reconciler_actions_total{{action="create_service",result="ok",{OPERATOR}}}': "0+1x120",
    f'reconciler_guard_active{{guard="budget",{OPERATOR}}}': "0x120",
    f'reconciler_groups{{condition="Ready",{OPERATOR}}}': "20x120",
    f'reconciler_groups{{condition="Progressing",{OPERATOR}}}': "0x30 1x5 0x85",
    f"reconciler_paused{{{OPERATOR}}}": "0x30 1x30 0x60",
    f"reconciler_paused_groups{{{OPERATOR}}}": "0x30 1x90",
    f"reconciler_registry_bytes{{{OPERATOR}}}": "3000x120",
    f"routing_layer_ready{{{PROXY}}}": "1x120",
    f"routing_layer_membership_age_seconds{{{PROXY}}}": "1x120",
    f"routing_layer_registry_age_seconds{{{PROXY}}}": "1x120",
    f'routing_layer_requests_total{{route="asset_stream",code="200",{PROXY}}}': "0+60x120",
    f'routing_layer_requests_total{{route="asset_stream",code="502",{PROXY}}}': "0x30 5x90",
    f'routing_layer_streams_ended_total{{reason="client_left",{PROXY}}}': "0+60x120",
    f'routing_layer_connections_ended_total{{reason="idle_timeout",{PROXY}}}': "0+60x120",
    f'routing_layer_background_task_ends_total{{task="membership",{PROXY}}}': "0x30 1x90",
}


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus' tool from Debian's package; in CI a machine where it cannot be had fails the tests."""
    return find_tool("promtool")


def said(promtool: str, *arguments: object) -> str:
    """Run the tool, which must be content."""
    done = subprocess.run([promtool, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def firing(case: Case) -> dict[str, Any]:
    """The expectation that a case's alert fires, as the tool wants it."""
    [rule] = [rule for rule in rules() if rule["alert"] == case.alert]
    labels = {**rule["labels"], **case.labels}
    expected = [{"exp_labels": labels, "exp_annotations": rule["annotations"]}]
    return {"eval_time": case.after, "alertname": case.alert, "exp_alerts": expected}


def unit_test(series: dict[str, str], expectations: list[dict[str, Any]]) -> dict[str, Any]:
    """One history with what is expected of it."""
    given = [{"series": name, "values": values} for name, values in series.items()]
    return {"interval": "1m", "input_series": given, "alert_rule_test": expectations}


def test_every_rule_fires_when_it_should_and_not_on_a_good_day(promtool: str, tmp_path: Path) -> None:
    """Each rule has a history that fires it; a day with small mishaps fires none."""
    names = [rule["alert"] for rule in rules()]
    quiet = [{"eval_time": f"{m}m", "alertname": name, "exp_alerts": []} for m in (31, 36, 62, 110) for name in names]
    tests = [unit_test(case.series, [firing(case)]) for case in CASES] + [unit_test(QUIET, quiet)]
    written = tmp_path / "tests.yml"
    written.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    said(promtool, "test", "rules", written)
    assert {case.alert for case in CASES} == set(names)


def test_the_exposition_is_as_prometheus_wants_it(promtool: str) -> None:
    """Names, units and help texts of the operator's metrics, by Prometheus' own rules for them."""
    registry = CollectorRegistry()
    Metrics(registry)
    text = generate_latest(registry)
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def test_prometheus_accepts_its_configuration(promtool: str) -> None:
    """As a Prometheus would read it, with the rules that it names."""
    assert "valid" in said(promtool, "check", "config", ALERTS.parent / "prometheus.yml")

"""Write docs/metrics.md from the code: what both programs export; ``--check`` only compares."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from reconciler.metrics import Metrics
from routing_layer.app import Proxy
from routing_layer.settings import Settings as ProxySettings
from routing_layer.siblings import family

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "metrics.md"
ALERTS = ROOT / "manifests" / "prometheus" / "alerts.yml"
#: Label values that are shown; a label with more is open-ended.
_SHOWN = 24

HEAD = """\
# Metrics

Written by `scripts/metrics_page.py` from the code. Both programs answer `GET /metrics` in Prometheus' text format: the
operator on `RECONCILER_PORT` (8080), the routing layer on `ROUTING_LAYER_PORT` (5555; with several workers, for all of
them). Every series whose labels are known beforehand exists from the start at 0, so a first failure is seen as an
increase. There is no label per group or asset: groups come and go, and each would stay as a series for ever;
`reconciler status` names them.

[manifests/prometheus](../manifests/prometheus/) has a scrape configuration and alert rules,
[manifests/grafana](../manifests/grafana/) a dashboard.
"""


@dataclass(frozen=True)
class Family:
    """One metric as Prometheus sees it.

    Attributes:
        name: as in a query; a histogram's is without ``_bucket``, ``_sum`` and ``_count``.
        kind: counter, gauge or histogram.
        text: what it means.
        labels: each label with the values that exist from the start.
    """

    name: str
    kind: str
    text: str
    labels: dict[str, tuple[str, ...]]

    @property
    def series(self) -> tuple[str, ...]:
        """Names that a query can use."""
        parts = ("_bucket", "_sum", "_count")
        return tuple(self.name + part for part in parts) if self.kind == "histogram" else (self.name,)


def operator() -> list[Family]:
    """Return what the operator exports."""
    registry = CollectorRegistry()
    Metrics(registry)
    return _families(registry)


def routing_layer() -> list[Family]:
    """Return what the routing layer exports."""
    return asyncio.run(_proxy())


async def _proxy() -> list[Family]:
    settings: dict[str, Any] = {"_env_file": None, "ksqldb_url": "http://127.0.0.1:1"}
    [alone] = family(1)
    proxy = Proxy(ProxySettings(**settings), alone)
    try:
        return _families(proxy.metrics._registry)  # noqa: SLF001 - nothing else tells a metric's label names
    finally:
        await proxy.close()


def _families(registry: CollectorRegistry) -> list[Family]:
    collectors: Iterable[Any] = registry._collector_to_names  # noqa: SLF001 - as above
    return sorted((_family(collector) for collector in collectors), key=lambda family: family.name)


def _family(collector: Any) -> Family:
    [described] = collector.describe() if hasattr(collector, "describe") else collector.collect()
    names: tuple[str, ...] = collector._labelnames  # noqa: SLF001 - as above
    samples = [sample for metric in collector.collect() for sample in metric.samples]
    labels = {name: tuple(dict.fromkeys(s.labels[name] for s in samples if name in s.labels)) for name in names}
    name = described.name + ("_total" if described.type == "counter" else "")
    return Family(name, described.type, described.documentation.rstrip("."), labels)


def page() -> str:
    """Return the whole page."""
    parts = [HEAD, "## The operator\n", _table(operator()), "\n## The routing layer\n", _table(routing_layer())]
    return "\n".join([*parts, "\n## Alerts\n", _alerts(), ""])


def _table(families: list[Family]) -> str:
    rows = ["| Metric | Type | Labels | What it is |", "|---|---|---|---|"]
    rows += [f"| `{each.name}` | {each.kind} | {_labels(each)} | {each.text} |" for each in families]
    return "\n".join(rows)


def _labels(family: Family) -> str:
    def shown(name: str, values: tuple[str, ...]) -> str:
        if not values:
            return f"`{name}`"
        more = ", …" if len(values) > _SHOWN else ""
        return f"`{name}`: {', '.join(values[:_SHOWN])}{more}"

    return "; ".join(shown(name, values) for name, values in family.labels.items())


def _alerts() -> str:
    rows = ["| Alert | Severity | After | What it means, and what to do |", "|---|---|---|---|"]
    for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            text = " ".join(rule["annotations"]["description"].split())
            rows.append(f"| {rule['alert']} | {rule['labels']['severity']} | {rule.get('for', '0m')} | {text} |")
    return "\n".join(rows)


def main() -> int:
    """Renew or check the page."""
    fresh = page()
    if "--check" in sys.argv[1:]:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == fresh
        if not same:
            print("docs/metrics.md is out of date; run: scripts/metrics_page.py", file=sys.stderr)
        return int(not same)
    PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Write the generated pages of docs/ from the code (`make docs`); with ``--check`` only compare them (`make lint`).

Settings, metrics, the command lines and the JSON documents each have a page. The form of `--help` depends on the
version of Python: the pages are made with 3.11, which the images have.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from prometheus_client import CollectorRegistry
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from group_service.__main__ import main as group_service_program
from group_service.hub import Hub
from group_service.metrics import Metrics as GroupServiceMetrics
from group_service.settings import Settings as GroupServiceSettings
from reconciler.__main__ import main as reconciler
from reconciler.cli.settings import show_value
from reconciler.metrics import Metrics
from reconciler.report.text import make_markdown_table
from reconciler.settings import Settings
from routing_layer.__main__ import main as routing_layer_program
from routing_layer.app.proxy import Proxy
from routing_layer.settings import Settings as ProxySettings
from routing_layer.workers import create_peers
from state_api.__main__ import main as state_api_program
from state_api.metrics import Metrics as StateApiMetrics

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
ALERTS = ROOT / "manifests" / "prometheus" / "alerts.yml"
DOCUMENTS = ("plan", "status", "events")
#: Label values that are shown; a label with more is open-ended.
_SHOWN = 24
_SETTINGS = re.compile(r"(?<=<!-- settings: written by make docs -->\n).*(?=<!-- end of settings -->)", re.DOTALL)

# ---- settings


def settings_page(name: str, settings: type[BaseSettings]) -> str:
    """Return a page with the table of settings between its two marks renewed."""
    rows = []
    for variable, info in settings.model_fields.items():
        text = " ".join((info.description or "").split()).replace("|", "\\|")
        rows.append((f"`{variable.upper()}`", _default(info.default), text))
    table = make_markdown_table(("Variable", "Default", "What it does"), rows)
    return _SETTINGS.sub(lambda _: f"{table}\n", (DOCS / name).read_text(encoding="utf-8"), count=1)


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "**required**"
    text = show_value(value)
    return f"`{text}`" if text else ""


# ---- metrics

METRICS = """\
# Metrics

All programs answer `GET /metrics` in Prometheus' text format: the operator on `RECONCILER_PORT` (8080), the routing
layer on `ROUTING_LAYER_PORT` (5555; with several workers, for all of them), the services on `PORT`. Every series whose
labels are known beforehand exists from the start at 0, so that a first failure is seen as an increase. There is no
label per group or asset: groups come and go, and each would stay as a series for ever; `reconciler status` names them.

[manifests/prometheus](../manifests/prometheus/alerts.yml) has alert rules and a
[scrape configuration](../manifests/prometheus/prometheus.yml),
[manifests/grafana](../manifests/grafana/dashboard.json) a dashboard. `make docs` writes this page from the code.
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
    [alone] = create_peers(1)
    proxy = Proxy(ProxySettings(**settings), alone)
    try:
        return _families(proxy.metrics._registry)  # noqa: SLF001 - nothing else tells a metric's label names
    finally:
        await proxy.close()


def _group_service() -> list[Family]:
    metrics = GroupServiceMetrics()
    Hub("Weld", 0, 1.0, metrics)
    return _families(metrics.registry)


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


def metrics_page() -> str:
    """Return docs/metrics.md."""
    parts = [METRICS, "## The operator\n", _table(operator()), "\n## The routing layer\n", _table(routing_layer())]
    parts += ["\n## The group service\n", _table(_group_service())]
    parts += ["\n## The state API\n", _table(_families(StateApiMetrics().registry))]
    return "\n".join([*parts, "\n## Alerts\n", _alerts(), ""])


def _table(families: list[Family]) -> str:
    rows = [(f"`{each.name}`", each.kind, _labels(each), each.text) for each in families]
    return make_markdown_table(("Metric", "Type", "Labels", "What it is"), rows)


def _labels(family: Family) -> str:
    def show_label(name: str, values: tuple[str, ...]) -> str:
        if not values:
            return f"`{name}`"
        more = ", …" if len(values) > _SHOWN else ""
        return f"`{name}`: {', '.join(values[:_SHOWN])}{more}"

    return "; ".join(show_label(name, values) for name, values in family.labels.items())


def _alerts() -> str:
    rows = []
    for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            text = " ".join(rule["annotations"]["description"].split())
            rows.append((rule["alert"], rule["labels"]["severity"], rule.get("for", "0m"), text))
    return make_markdown_table(("Alert", "Severity", "After", "What it means, and what to do"), rows)


# ---- command lines

CLI = """\
# Command line

What `--help` prints; `make docs` writes this page from the programs. The exit codes are part of the interface.
"""


def cli_page() -> str:
    """Return docs/cli.md."""
    main = _printed(reconciler, "reconciler", "--help")
    commands = re.findall(r"^    (\w+) ", main.partition("\ncommands:")[2].partition("\n\n")[0], re.MULTILINE)
    parts = [CLI, _help("reconciler", main)]
    parts += [_help(f"reconciler {name}", _printed(reconciler, "reconciler", name, "--help")) for name in commands]
    parts.append(_help("routing-layer", _printed(routing_layer_program, "routing-layer", "--help")))
    parts.append(_help("group-service", _printed(group_service_program, "group-service", "--help")))
    parts.append(_help("state-api", _printed(state_api_program, "state-api", "--help")))
    return "\n".join(parts)


def _help(name: str, text: str) -> str:
    return f"## {name}\n\n```text\n{text.rstrip()}\n```\n"


def _printed(program: Callable[[], int], *arguments: str) -> str:
    """Return what a program of ours prints, on a terminal of 80 columns."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as written,
        contextlib.suppress(SystemExit),
        mock.patch.object(sys, "argv", list(arguments)),
        mock.patch.dict(os.environ, {"COLUMNS": "80"}),
    ):
        program()
    return written.getvalue()


# ---- JSON documents

SCHEMA = """\
# JSON documents

What `reconciler plan -o json`, `reconciler status -o json`, `reconciler events -o json` and the operator's
`GET /status` and `GET /events` return. The JSON Schemas (2020-12) are [plan.schema.json](plan.schema.json),
[status.schema.json](status.schema.json) and [events.schema.json](events.schema.json), and `reconciler schema plan`
prints that of the installed program. Fields may be added; none is renamed, removed or given another meaning without a
new `schema_version`. `make docs` writes this page and the files.
"""


def schema_file(name: str) -> str:
    """Return the JSON Schema of a document, as the command prints it."""
    return _printed(reconciler, "reconciler", "schema", name)


def schema_page() -> str:
    """Return docs/schema/README.md."""
    parts = [SCHEMA]
    shared: dict[str, Any] = {}
    for name in DOCUMENTS:
        schema = json.loads(schema_file(name))
        parts.append(_definition(name, schema))
        shared |= schema["$defs"]
    parts += [_definition(name, shared[name]) for name in sorted(shared)]
    return "\n".join(parts)


def _definition(name: str, schema: dict[str, Any]) -> str:
    lines = [f"## {name}", "", " ".join(schema["description"].split()), ""]
    if "enum" in schema:
        return "\n".join([*lines, ", ".join(f"`{value}`" for value in schema["enum"]), ""])
    rows = []
    for field, about in schema["properties"].items():
        text = " ".join(about.get("description", "").split()).replace("|", "\\|")
        rows.append((f"`{field}`", _type(about), text))
    return "\n".join([*lines, make_markdown_table(("Field", "Type", "What it is"), rows), ""])


def _type(about: dict[str, Any]) -> str:
    if ref := about.get("$ref"):
        name = ref.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in about:
        return f"`{json.dumps(about['const'])}`"
    if choices := about.get("anyOf"):
        return " or ".join(_type(choice) for choice in choices)
    if about["type"] == "array":
        return f"list of {_type(about['items'])}"
    if about["type"] == "object":
        return f"map of {_type(about['additionalProperties'])}"
    return str(about["type"])


# ---- all of them

PAGES: dict[Path, Callable[[], str]] = {
    DOCS / "settings.md": partial(settings_page, "settings.md", Settings),
    DOCS / "group-service.md": partial(settings_page, "group-service.md", GroupServiceSettings),
    DOCS / "metrics.md": metrics_page,
    DOCS / "cli.md": cli_page,
    **{DOCS / "schema" / f"{name}.schema.json": partial(schema_file, name) for name in DOCUMENTS},
    DOCS / "schema" / "README.md": schema_page,
}


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them."""
    stale = []
    for path, make in PAGES.items():
        fresh = make()
        if not path.exists() or path.read_text(encoding="utf-8") != fresh:
            stale.append(str(path.relative_to(ROOT)))
            if "--check" not in arguments:
                path.write_text(fresh, encoding="utf-8")
    if stale and "--check" in arguments:
        print(f"not as the code says: {', '.join(stale)}; run: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

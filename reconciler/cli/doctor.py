"""``doctor``: whether everything is there that a deployment needs, before the first one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from prometheus_client import CollectorRegistry

from openfactory_common import logs
from openfactory_common.errors import ConfigurationError
from openfactory_common.text import printable, printable_json
from reconciler.app import build_dependencies
from reconciler.cli.output import add_command, add_output_option, echo
from reconciler.cli.settings import describe_unknown
from reconciler.control.converge import Exit
from reconciler.control.doctor import diagnose
from reconciler.metrics import Metrics
from reconciler.planning.diagnosis import Finding, Level
from reconciler.settings import Settings, read


def add(commands: Any) -> None:
    """Register ``doctor``."""
    add_output_option(add_command(commands, "doctor", _doctor, needs_settings=False), "text", "json")


def _doctor(options: argparse.Namespace) -> int:
    """Check everything that a deployment needs, and write nothing.

    It checks settings, ksqlDB with its stream and tables, the engine and its Swarm, cores and memory, the network and
    its addresses, ports, images, secrets, configs and the registry's size, and the addresses that services get. Each
    line is a check: ok, warn or fail, what was found, the variable that it is about, and what to do.
    """
    found = read()
    if isinstance(found, Settings):
        logs.configure(found.log_level)
        findings = [*_check_settings(), *_diagnose(found)]
        failed = any(one.level is Level.FAIL for one in findings)
        code = Exit.REFUSED if failed else Exit.OK
    else:
        findings = [Finding(Level.FAIL, problem, field.upper()) for field, problem in found]
        code = Exit.USAGE
    echo(show_json(findings) if options.output == "json" else show_text(findings))
    return code


def _check_settings() -> Iterator[Finding]:
    yield Finding(Level.OK, "settings can be read")
    for text in describe_unknown():
        yield Finding(Level.WARN, text, cure="`reconciler settings` shows all variables")


def _diagnose(settings: Settings) -> list[Finding]:
    try:
        deps = build_dependencies(settings, Metrics(CollectorRegistry()))
    except ConfigurationError as error:
        return [Finding(Level.FAIL, str(error))]
    try:
        return list(diagnose(deps))
    finally:
        deps.ksqldb.close()
        deps.platform.close()


def show_text(findings: list[Finding]) -> str:
    """Return a line for each finding, and a last one with the numbers."""
    lines = []
    for one in findings:
        variable = f"  ({one.variable})" if one.variable else ""
        lines.append(f"{one.level:4}  {one.what}{variable}" + (f"  -> {one.cure}" if one.cure else ""))
    counts = {level: sum(one.level is level for one in findings) for level in Level}
    lines.append(", ".join(f"{number} {level}" for level, number in counts.items()))
    return "\n".join(printable(line) for line in lines)


def show_json(findings: list[Finding]) -> str:
    """Return the findings as a JSON document."""
    document = {"schema_version": 1, "findings": [asdict(one) for one in findings]}
    return printable_json(json.dumps(document, indent=2, ensure_ascii=False))

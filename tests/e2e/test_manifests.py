"""The stack files name what the code reads."""

from __future__ import annotations

import re

import pytest

from reconciler.settings import Settings
from tests.e2e.system import ROOT

#: Settings that a stack file cannot offer as a variable: secrets and files, and what has meaning on a host only.
_ELSEWHERE = {
    "KSQLDB_PASSWORD",
    "KSQLDB_USERNAME_FILE",
    "KSQLDB_PASSWORD_FILE",
    "KSQLDB_CA_FILE",
    "RECONCILER_PORT",
    "SWARM_NODE_HOST",
    "FASTAPI_GROUP_PORT_BASE",
    "REGISTRY_DIR",
}
_SETTINGS = {name.upper() for name in Settings.model_fields}


def environment(manifest: str) -> set[str]:
    """Return the names of the variables that a stack file gives to the operator."""
    text = (ROOT / "manifests" / manifest).read_text()
    operator = text[text.index("  reconciler:") :]
    block = operator[operator.index("    environment:") : operator.index("    volumes:")]
    return set(re.findall(r"^      ([A-Z_]+):", block, re.MULTILINE))


def test_every_setting_can_be_set_in_the_stack_file() -> None:
    """A setting that the operator gains has to appear in `stack.yml`, or beside it for a reason."""
    assert environment("stack.yml") == _SETTINGS - _ELSEWHERE


@pytest.mark.parametrize("manifest", ["stack.yml", "demo.yml"])
def test_a_stack_file_sets_nothing_that_the_operator_does_not_read(manifest: str) -> None:
    """A misspelt variable would be ignored in silence."""
    assert environment(manifest) <= _SETTINGS

"""What the pages for operators name exists: variables, commands, messages, files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reconciler import cli
from reconciler.settings import Settings
from reconciler.settings_report import DOCKER
from routing_layer.settings import Settings as ProxySettings

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("docs/operations.md", "docs/demo.md", "docs/metrics.md", "manifests/README.md")
#: Variables of the stack files alone.
_OF_MANIFESTS = set(
    re.findall(r"\$\{(\w+)", "".join(path.read_text() for path in (ROOT / "manifests").rglob("*.yml")))
) | {"WRITES", "SECRETS"}
#: What Docker, ksqlDB and clients say, in the first column of the table of symptoms.
_OF_OTHERS = {"This node is not a swarm manager", "QUEUED", "already in use"}


def words(page: str) -> list[str]:
    """Return what stands in backticks on a page."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    return re.findall(r"`([^`]+)`", text)


@pytest.mark.parametrize("page", PAGES)
def test_variables_exist(page: str) -> None:
    """A name in capitals is a setting of one of the programs, Docker's, or one of the stack files."""
    known = {name.upper() for kind in (Settings, ProxySettings) for name in kind.model_fields}
    known |= _OF_MANIFESTS | DOCKER.keys()
    named = {name for word in words(page) for name in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", word)}
    assert {name for name in named if name not in known and not name.startswith("OFA_")} == set()


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page: str) -> None:
    """`reconciler plan` and the like are commands with these options."""
    for word in words(page):
        command = re.fullmatch(r"reconciler ([a-z-].*)", word)
        if command is not None:
            arguments = [part.strip("'") for part in command[1].replace("'…'", "why").split()]
            cli._parser().parse_args(arguments)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link is to a file of this repository."""
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_messages_are_the_programs() -> None:
    """A symptom in backticks is a text that one of our programs says."""
    sources = [
        path.read_text()
        for part in ("reconciler", "routing_layer", "manifests")
        for path in (ROOT / part).rglob("*.*")
        if path.suffix in (".py", ".cfg", ".html")
    ]
    text = " ".join("".join(sources).replace('"\n', "").split())
    rows = re.findall(
        r"^\| (.*?) \|", (ROOT / "docs/operations.md").read_text().partition("by symptom")[2], re.MULTILINE
    )
    said = {word.removesuffix(" …") for row in rows for word in re.findall(r"`([^`]+)`", row)} - _OF_OTHERS
    parts = {part for each in said for part in re.split(r" ?\b(?:N|M|401)\b ?", each) if part}
    assert [part for part in parts if part not in text] == []

"""What the pages refer to exists: tests by name, and files of the repository by path."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted({page for form in ("*.md", "*/*.md", "docs/**/*.md", "examples/**/*.md") for page in ROOT.glob(form)})
#: A file of the tests and a test of it, as docs/safety.md names both: ``unit/cli/test_run.py::test_a_plan``.
_TEST = re.compile(r"(?:([\w/]+\.py))?::(test_\w+)|\b(test_\w+)\b(?!\.py)")
#: A file of the repository by its path from the top; a page may name a file of the reader's in a folder of that name.
_PATH = re.compile(
    r"`((?:reconciler|routing_layer|group_service|state_api|openfactory_common|docs|tests|scripts)/[\w./-]+\.\w+)"
)
_OF_THE_READER = {"scripts/comment.py"}


@cache
def names_in(file: Path) -> frozenset[str]:
    """Return the names of the tests in a file."""
    return frozenset(re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8")))


@cache
def all_names() -> frozenset[str]:
    """Return the names of all tests."""
    return frozenset().union(*map(names_in, (ROOT / "tests").glob("**/test_*.py")))


def find_missing(text: str) -> list[str]:
    """Return the tests and files that a page names and that do not exist."""
    missing = []
    for file, of_file, alone in _TEST.findall(text):
        name, path = of_file or alone, ROOT / "tests" / file
        known = (names_in(path) if path.is_file() else ()) if file else all_names()
        missing += [f"{file}::{name}"] if name not in known else []
    named = set(_PATH.findall(text)) - _OF_THE_READER
    return missing + sorted(path for path in named if not (ROOT / path).exists())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    """A test that was renamed would leave a rule without its proof."""
    assert find_missing(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("`unit/scripts/test_docs_names.py::test_what_a_page_names_exists`", []),
        (
            "`unit/scripts/test_sizes.py::test_what_a_page_names_exists`",
            ["unit/scripts/test_sizes.py::test_what_a_page_names_exists"],
        ),
        ("`gone/test_it.py::test_it`, `…::test_nothing`", ["gone/test_it.py::test_it", "::test_nothing"]),
        ("the test test_that_is_not_there", ["::test_that_is_not_there"]),
        ("`test_docs_names.py`, `docs/safety.md`, `reconciler/planning/none.py`", ["reconciler/planning/none.py"]),
    ],
)
def test_what_does_not_exist_is_found(text: str, missing: list[str]) -> None:
    """A test of another file does not count."""
    assert find_missing(text) == missing

"""The tests' README names every point of the catalogue with tests that exist, and every mutant as it is."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.mutations.mutants import MUTANTS, Mutant, table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
ROWS: dict[str, str] = dict(re.findall(r"^\| (T\d+) \| (.+) \|$", README, re.MULTILINE))


@cache
def functions_of(file: str) -> frozenset[str]:
    """Return the names of the test functions in a file."""
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def test_every_point_of_the_catalogue_has_its_row() -> None:
    """T1 to T38, each once."""
    assert list(ROWS) == [f"T{number}" for number in range(1, 39)]


@pytest.mark.parametrize("point", ROWS)
def test_every_test_that_is_named_exists(point: str) -> None:
    """A renamed or removed test is missed here."""
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", ROWS[point])
    assert named
    for file, test in named:
        assert test in functions_of(file), f"{file}::{test}"


def test_the_list_of_mutants_is_the_codes() -> None:
    """The table is made by `python -m tests.mutations --table`."""
    assert table() in README


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.guard)
def test_a_mutant_still_applies(mutant: Mutant) -> None:
    """What it breaks is there once, is broken by it, and is Python afterwards; its tests exist."""
    sound = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert sound.count(mutant.old) == 1
    broken = sound.replace(mutant.old, mutant.new)
    assert broken != sound
    ast.parse(broken)
    for test in mutant.dies:
        file, _, name = test.partition("::")
        assert (ROOT / file).is_file()
        assert not name or name.partition("[")[0] in functions_of(file.removeprefix("tests/"))

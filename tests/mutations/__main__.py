"""Runs the mutants: each in a copy of the project, two at a time, and shows which tests die of it.

python -m tests.mutations [WORD...]     all of them, or those whose rule contains a word
python -m tests.mutations --table       print the list as the tests' README shows it
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.mutations.mutants import MUTANTS, Mutant, table

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("reconciler", "routing_layer", "demo", "tests", "docs", "pyproject.toml", "README.md")
#: Seconds for one run of the tests of one mutant.
PATIENCE = 600
#: What pytest returns when tests ran and one of them failed; anything else is no proof.
FAILED = 1


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: the first test that failed, ``""`` where it survived, and pytest's last words."""

    mutant: Mutant
    died: str
    said: str


@contextmanager
def copies(count: int) -> Iterator[SimpleQueue[Path]]:
    """Make some copies of the project, to be taken and given back."""
    free: SimpleQueue[Path] = SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="mutants-") as home:
        for number in range(count):
            copy = Path(home, str(number))
            copy.mkdir()
            for name in COPIED:
                source = ROOT / name
                if source.is_dir():
                    shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
                else:
                    shutil.copy(source, copy / name)
            free.put(copy)
        yield free


def tests_in(copy: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """Run tests in a copy until the first fails; return pytest's code and output."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return done.returncode, done.stdout + done.stderr


def judged(mutant: Mutant, free: SimpleQueue[Path]) -> Verdict:
    """Break the rule in a free copy, run the tests, mend it."""
    copy = free.get()
    file = copy / mutant.file
    sound = file.read_text(encoding="utf-8")
    try:
        if sound.count(mutant.old) != 1:
            return Verdict(mutant, "", f"its text occurs {sound.count(mutant.old)} times in {mutant.file}")
        file.write_text(sound.replace(mutant.old, mutant.new), encoding="utf-8")
        code, said = tests_in(copy, mutant.dies)
        return Verdict(mutant, _first_failure(said) if code == FAILED else "", said)
    finally:
        file.write_text(sound, encoding="utf-8")
        free.put(copy)


def _first_failure(said: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return lines[0].partition(" - ")[0].partition(" ")[2] if lines else ""


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)  # noqa: T201 - a program


def main(words: list[str]) -> int:
    """Run the mutants; return 1 if one survives, or if the tests fail without any."""
    if words == ["--table"]:
        say(table())
        return 0
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.guard for word in words)]
    workers = os.cpu_count() or 1
    with copies(workers) as free:
        say(f"{len(chosen)} mutants, {workers} at a time; first the tests as they are")
        sound = free.get()
        code, said = tests_in(sound, tuple(sorted({test for mutant in chosen for test in mutant.dies})))
        free.put(sound)
        if code:
            say(said)
            say("the tests fail without a mutant")
            return 1
        with ThreadPoolExecutor(workers) as pool:
            verdicts = list(pool.map(lambda mutant: _told(judged(mutant, free)), chosen))
    survivors = [verdict for verdict in verdicts if not verdict.died]
    say(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants died")
    for verdict in survivors:
        say(f"SURVIVED {verdict.mutant.guard} ({verdict.mutant.file})\n{verdict.said[-600:]}")
    return 1 if survivors else 0


def _told(verdict: Verdict) -> Verdict:
    say(f"{'died    ' if verdict.died else 'SURVIVED'}  {verdict.mutant.guard}: {verdict.died}")
    return verdict


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

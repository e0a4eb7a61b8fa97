"""The project as pip installs it: console scripts, and a plug-in beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = Path(sys.executable).parent


def run(*command: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program outside the checkout, without PYTHONPATH."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **variables}
    return subprocess.run(
        [str(part) for part in command], cwd="/", env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("program", ["reconciler", "routing-layer", "state-api"])
def test_console_scripts_print_the_version(program: str) -> None:
    """`make venv` installs both programs; the version comes from one place."""
    done = run(SCRIPTS / program, "--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == version("openfactory-routing-layer")


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment on top of this one, with the example installed by pip, and no index."""
    venv = tmp_path_factory.mktemp("install") / "venv"
    made = run(sys.executable, "-m", "venv", "--without-pip", venv)
    assert made.returncode == 0, made.stderr
    [packages] = venv.glob("lib/python*/site-packages")
    below = sysconfig.get_paths()["purelib"]
    (packages / "below.pth").write_text(f"import site; site.addsitedir({below!r})\n")
    example = venv.parent / "example"
    example.mkdir()  # a copy, because a build leaves files beside its sources
    for file in (ROOT / "examples" / "two_levels").glob("*.*"):
        (example / file.name).write_bytes(file.read_bytes())
    done = run(venv / "bin" / "python", "-m", "pip", "install", "--no-index", "--no-build-isolation", example)
    assert done.returncode == 0, done.stderr
    return venv


def test_pip_installs_the_example_beside_the_project(beside: Path) -> None:
    """Its requirement openfactory-routing-layer is met, and the operator finds its strategy by the entry point."""
    done = run(
        beside / "bin" / "python", "-m", "reconciler", "plan",
        GROUPING_STRATEGY="two_levels", UNS_FASTAPI_GROUP_GROUPING_LEVEL="area",
        KAFKA_BROKER="broker:9092", KSQLDB_URL="http://127.0.0.1:1",
    )  # fmt: skip
    assert done.returncode == 2
    assert "GROUPING_STRATEGY=two_levels takes two levels" in done.stderr

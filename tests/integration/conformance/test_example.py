"""The worked example of a plug-in: it conforms, and the operator finds it where it is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.system import ROOT
from tests.harness.serving import Served

EXAMPLE = ROOT / "examples" / "two_levels"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Lay the example out as pip does: its module, and a directory with its entry points beside it.

    pip itself would have to build a wheel, for which an environment without a network may lack the tools.
    """
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    shutil.copy(EXAMPLE / "two_levels.py", tmp_path)
    metadata = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    metadata.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    sections = [
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
        for group, points in project["entry-points"].items()
    ]
    metadata.joinpath("entry_points.txt").write_text("\n".join(sections))
    return tmp_path


@pytest.fixture
def ksqldb() -> Iterator[Served]:
    """An embedded ksqlDB with workcenters of one name in two areas."""
    served = Served()
    for asset, area in (("W1", "North"), ("W2", "North"), ("W3", "South")):
        levels = f"MAP('area' := '{area}', 'workcenter' := 'Weld')"
        served.sql(
            f"INSERT INTO asset_to_uns_map_raw (asset_uuid, uns_id, uns_levels) VALUES ('{asset}', 'p', {levels});"
        )
    yield served
    served.stop()


def reconciler(where: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with what is installed in ``where``."""
    path = os.pathsep.join([str(where), str(ROOT)])
    environment = {"PATH": os.environ["PATH"], "HOME": str(where), "PYTHONPATH": path, "KAFKA_BROKER": "embedded:9092"}
    program = [sys.executable, "-m", "reconciler", *(arguments or ("plan",))]
    environment |= {"DEPLOYMENT_PLATFORM": "memory", "GROUPING_STRATEGY": "two_levels", **variables}
    return subprocess.run(program, env=environment, cwd=where, capture_output=True, text=True, check=False)


@pytest.fixture
def memory(installed: Path) -> None:
    """Install a platform in memory beside it: no engine is needed to see what would be done."""
    installed.joinpath("in_memory.py").write_text(
        "from tests.harness.fakes import FakePlatform\n\n\ndef make(settings, on_request):\n"
        "    return FakePlatform(settings.reconciler_owner, settings.resource_prefix)\n"
    )
    metadata = installed / "in_memory-1.dist-info"
    metadata.mkdir()
    metadata.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: in-memory\nVersion: 1\n")
    metadata.joinpath("entry_points.txt").write_text(
        "[openfactory_routing_layer.deployment_platforms]\nmemory = in_memory:make\n"
    )


@pytest.mark.usefixtures("memory")
def test_the_operator_groups_by_two_levels(installed: Path, ksqldb: Served) -> None:
    """Both plug-ins are found by their entry points; each pair of values has a group with a stream.

    The next run finds the streams as they should be: what the server keeps of the longer expression is recognised.
    """
    levels = {"UNS_FASTAPI_GROUP_GROUPING_LEVEL": "area,workcenter", "KSQLDB_URL": ksqldb.url}
    done = reconciler(installed, **levels)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"\+ group (\S+)", done.stdout) == ["North-Weld", "South-Weld"]
    done = reconciler(installed, "--once", **levels)
    assert done.returncode == 0, done.stderr
    assert {"ASSET_STREAM_NORTH-WELD", "ASSET_STREAM_SOUTH-WELD"} < ksqldb.streams
    made = ksqldb.statements("CREATE STREAM")
    assert reconciler(installed, "--once", **levels).returncode == 0
    assert ksqldb.statements("CREATE STREAM") == made > 0


@pytest.mark.usefixtures("memory")
def test_one_level_is_a_configuration_error(installed: Path, ksqldb: Served) -> None:
    """A strategy refuses a setting as the operator does: one line that names the variable, exit code 2."""
    done = reconciler(installed, KSQLDB_URL=ksqldb.url, UNS_FASTAPI_GROUP_GROUPING_LEVEL="area")
    assert done.returncode == 2
    assert "UNS_FASTAPI_GROUP_GROUPING_LEVEL='area'" in done.stderr


def test_what_is_not_installed_is_named_with_what_is(tmp_path: Path) -> None:
    """A misspelt name is answered with the names that there are."""
    done = reconciler(
        tmp_path, KSQLDB_URL="http://127.0.0.1:1", GROUPING_STRATEGY="two_levls", DEPLOYMENT_PLATFORM="swarm"
    )
    assert done.returncode == 2
    assert "GROUPING_STRATEGY='two_levls': not installed; installed are: workcenter" in done.stderr


@pytest.mark.usefixtures("memory")
def test_what_cannot_be_loaded_is_said(installed: Path) -> None:
    """A broken installation is a configuration error that names the module, not a stack trace."""
    (installed / "two_levels.py").unlink()
    done = reconciler(installed, KSQLDB_URL="http://127.0.0.1:1")
    assert done.returncode == 2
    assert "GROUPING_STRATEGY='two_levels': two_levels:TwoLevels cannot be loaded: No module named" in done.stderr


def test_its_own_tests_pass(tmp_path: Path) -> None:
    """The command in its README, run in its own directory, passes the tests of every rule."""
    shutil.copytree(EXAMPLE, tmp_path / "mine")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(program, env=environment, cwd=tmp_path / "mine", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 passed" in done.stdout


BENCH = """
from contextlib import contextmanager

from demo.conformance import EmbeddedKsqldb
from reconciler.grouping.unslevel import UNSLevelGroupingStrategy
from reconciler.testing.grouping import GroupingBench


class Sloppy(UNSLevelGroupingStrategy):
    def lookup(self):
        return super().lookup().model_copy(update={"levels": ("area",)})


@contextmanager
def bench(make):
    yield GroupingBench(EmbeddedKsqldb, make, {"W1": {"workcenter": "Weld"}}, {"W1": "Weld"})


def good():
    return bench(UNSLevelGroupingStrategy)


def sloppy():
    return bench(Sloppy)
"""


@pytest.mark.parametrize(("function", "failed"), [("good", 0), ("sloppy", 1)])
def test_the_command_runs_every_rule(tmp_path: Path, function: str, failed: int) -> None:
    """`python -m reconciler.testing` ends with 0 for a strategy that conforms, and names the rule that another breaks.

    The sloppy one tells the routing layer another expression than it groups by itself.
    """
    (tmp_path / "benches.py").write_text(BENCH)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    program = [sys.executable, "-m", "reconciler.testing", "-p", "no:cacheprovider", "-q"]
    program += ["--strategy", f"benches:{function}", "--rootdir", str(tmp_path)]
    done = subprocess.run(program, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == failed, done.stdout + done.stderr
    assert f"{9 - failed} passed" in done.stdout
    assert ("test_the_routing_layer_finds_the_same_group" in done.stdout) == bool(failed)


@pytest.mark.parametrize(
    ("options", "said"),
    [((), "usage: python -m reconciler.testing"), (("--strategy", "no_such:thing"), "--strategy=no_such:thing")],
)
def test_a_command_that_names_nothing_says_what_to_name(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    """No tests at all would look like success."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-m", "reconciler.testing", "-p", "no:cacheprovider", *options]
    done = subprocess.run(program, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert said in done.stdout + done.stderr


def test_the_operator_needs_no_pytest() -> None:
    """The image has none: nothing that the command line imports may need it."""
    program = "import sys, reconciler.cli.main, reconciler.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0

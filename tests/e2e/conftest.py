"""The system under test, brought up once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.system import ROOT, System


@pytest.fixture(scope="session")
def images() -> None:
    """An engine in Swarm mode and the images of this tree; in CI a machine without them fails the tests."""
    made = [_run(script) for script in ("engine.sh", "images.sh")]
    (ROOT / "build" / "images.env").write_text(made[-1])


def _run(script: str) -> str:
    done = subprocess.run([ROOT / "scripts" / script], capture_output=True, text=True, check=False)
    if done.returncode and os.environ.get("CI") != "true":
        pytest.skip(f"scripts/{script}: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def system(images: None) -> Iterator[System]:  # noqa: ARG001 - only that they are there
    """The demo, up under its own names; removed afterwards, whatever happened."""
    deployed = System()
    try:
        deployed.shown = deployed.demo("up")
        yield deployed
    finally:
        deployed.demo("down")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show with a failure what the operator of the test's own system says and has logged."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for system in (one for one in getattr(item, "funcargs", {}).values() if isinstance(one, System)):
            report.sections.append((f"operator of {system.name}", system.explain()))

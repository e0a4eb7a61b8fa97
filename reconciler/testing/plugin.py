"""The pytest plug-in of ``python -m reconciler.testing``: its options name what the conformance tests run on."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

_OPTIONS = {"platform": "PlatformBench", "strategy": "GroupingBench"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add an option for each kind of plug-in."""
    group = parser.getgroup("openfactory", "conformance of plug-ins")
    for name, bench in _OPTIONS.items():
        text = f"a function that returns a context manager with a {bench}"
        group.addoption(f"--{name}", metavar="MODULE:FUNCTION", help=text)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore the tests of a kind that no option names."""
    if collection_path.parent != Path(__file__).parent or not collection_path.stem.startswith("test_"):
        return None
    return not config.getoption(f"--{collection_path.stem.removeprefix('test_')}")


def load_bench(config: pytest.Config, option: str) -> Callable[[], AbstractContextManager[Any]]:
    """Import the function that an option names.

    Raises:
        pytest.UsageError: it is not ``MODULE:FUNCTION``, or cannot be imported.
    """
    module, _, function = str(config.getoption(f"--{option}")).partition(":")
    try:
        found: Callable[[], AbstractContextManager[Any]] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as problem:
        raise pytest.UsageError(f"--{option}={module}:{function}: {problem}") from problem
    return found

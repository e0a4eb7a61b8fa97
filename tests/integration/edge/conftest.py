"""What tests of the edge share with those of the proxy: a browser, and tests that are coroutines; and HAProxy."""

from __future__ import annotations

import pytest

from tests.harness.tools import find_tool
from tests.integration.routing_layer.conftest import chromium, pytest_pyfunc_call

__all__ = ["chromium", "pytest_pyfunc_call"]


@pytest.fixture(scope="session")
def haproxy() -> str:
    """Debian's HAProxy; in CI a machine where it cannot be had fails the tests."""
    return find_tool("haproxy")

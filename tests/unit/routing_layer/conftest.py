"""Tests of the proxy's parts can be coroutines."""

from __future__ import annotations

from tests.harness.coroutines import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]

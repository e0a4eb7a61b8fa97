"""Tests of this folder may be coroutines."""

from tests.harness.coroutines import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]

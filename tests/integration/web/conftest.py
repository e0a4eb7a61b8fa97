"""What tests of the page share with those of the proxy: a browser, and tests that are coroutines."""

from tests.integration.routing_layer.conftest import chromium, pytest_pyfunc_call

__all__ = ["chromium", "pytest_pyfunc_call"]

"""What these tests share with those of the proxy: a browser."""

from tests.integration.routing_layer.conftest import chromium

__all__ = ["chromium"]

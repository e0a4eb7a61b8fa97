"""An operator between two fakes whose pages are served, as a browser finds them."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry

from openfactory_common.connections import ConnectionLimits
from reconciler.control.loop import Loop
from reconciler.metrics import Metrics
from reconciler.web.server import RegistryCache, Server
from tests.harness.fakes import Stage


class Operator:
    """A loop with its server, both in threads, until `close`."""

    def __init__(self, stage: Stage, limits: ConnectionLimits | None = None) -> None:
        """Start both; a cycle runs when it is nudged."""
        self.stage = stage
        registry, board = CollectorRegistry(), RegistryCache()
        controller = stage.controller()
        controller.reporter.metrics, controller.reporter.on_registry = Metrics(registry), board.put
        self.loop = Loop(controller, 3600.0)
        self.server = Server(self.loop, board, 0, host="127.0.0.1", registry=registry, limits=limits)
        self.server.start()
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self.server.port}/"

    def ask(self, path: str) -> tuple[int, dict[str, str], str]:
        """Return status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, dict(answer.getheaders()), body

    def until(self, condition: Callable[[], bool]) -> None:
        """Run cycles until a condition holds, for at most 30 seconds."""
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "it did not come about"
            self.loop.nudge()
            time.sleep(0.05)

    def until_settled(self) -> None:
        """Run cycles until everything is registered and nothing is to be written."""
        self.until(lambda: (read := self.loop.history.read) is not None and bool(read.plan and not read.plan.actions))

    def stop_serving(self) -> None:
        """Close the port, as an operator does that ends."""
        self.server.stop()

    def close(self) -> None:
        """End both."""
        self.loop.stop()
        self._thread.join(timeout=10)
        self.server.stop()


@contextmanager
def operating(stage: Stage, limits: ConnectionLimits | None = None) -> Iterator[Operator]:
    """Run an operator until the end of the block, settled at its beginning."""
    operator = Operator(stage, limits)
    try:
        operator.until_settled()
        yield operator
    finally:
        operator.close()

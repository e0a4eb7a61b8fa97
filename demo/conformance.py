"""The embedded ksqlDB as the conformance tests of grouping strategies use it (`reconciler.testing.grouping`)."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from typing import Any

from demo.factory.settings import FactorySettings
from demo.factory.statements import definitions
from demo.ksqldb.__main__ import start
from demo.ksqldb.server import Config, DevServer

_TIMEOUT = 20.0


class EmbeddedKsqldb:
    """An embedded ksqlDB in a thread of its own, with the assets' stream and the UNS map."""

    def __init__(self) -> None:
        """Start it on a free port of this host."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner, port = self._run(start(DevServer(Config(host="127.0.0.1", port=0))))
        self.url = f"http://127.0.0.1:{port}"
        for _, statement in definitions(FactorySettings()):
            self._post("/ksql", {"ksql": statement})

    def hide_rows(self) -> None:
        """Answer pull queries from now on as a server whose twin is away: with none of the rows."""
        self._post("/dev/faults", {"lost_server": {"share": 0.0}})

    def stop(self) -> None:
        """Stop the server; requests are refused from now on."""
        self._run(self._runner.cleanup())

    def close(self) -> None:
        """Stop the server and its thread."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT)
        self._loop.close()

    def _post(self, path: str, body: object) -> None:
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(body).encode())  # noqa: S310 - on this host
        urllib.request.urlopen(request, timeout=_TIMEOUT).close()  # noqa: S310 - likewise

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_TIMEOUT)

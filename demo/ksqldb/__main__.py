"""`python -m demo.ksqldb`: run the development server until SIGTERM or SIGINT."""

from __future__ import annotations

if __name__ == "__main__":  # a signal that comes during the imports below must not be lost
    from openfactory_common import signals

    signals.exit_on_signal()

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web

from demo.ksqldb.app import Api
from demo.ksqldb.server import Config, DevServer

GRACE_SECONDS = 1.0


def _config(arguments: Sequence[str]) -> Config:
    found = Config.from_environment()
    parser = argparse.ArgumentParser(
        prog="python -m demo.ksqldb",
        description="A ksqlDB-compatible development server, in memory. Not for production.",
        epilog="Environment: PORT, DATA_FILE, KAFKA_CLUSTER_ID, KSQL_SERVICE_ID, PERSISTENT_QUERY_LIMIT, OFFSET_RESET, "
        "PUSH_QUERY_LIMIT.",
    )
    parser.add_argument("--host", default=found.host, help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=found.port, help="port (default: PORT or 8088; 0 takes a free one)")
    given = parser.parse_args(arguments)
    return replace(found, host=given.host, port=given.port)


async def start(server: DevServer) -> tuple[web.AppRunner, int]:
    """Listen; the runner and the port come back.

    Raises:
        OSError: the port is taken.
    """
    runner = web.AppRunner(
        Api(server).application(), handler_cancellation=True, shutdown_timeout=GRACE_SECONDS, access_log=None
    )
    await runner.setup()
    site = web.TCPSite(runner, server.config.host, server.config.port)
    await site.start()
    addresses: list[Any] = runner.addresses
    return runner, int(addresses[0][1])


async def serve(config: Config) -> None:
    """Run until a signal asks to stop; open push queries are ended first, so that nothing waits for them."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stopped.set)
    server = DevServer(config)
    runner, port = await start(server)
    sys.stdout.write(f"ksqlDB-compatible development server on http://{config.host}:{port} (not for production)\n")
    sys.stdout.flush()
    await stopped.wait()
    await server.stop()
    await runner.cleanup()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server; 0 after a clean stop, 1 when it cannot listen or its journal cannot be read."""
    try:
        asyncio.run(serve(_config(sys.argv[1:] if arguments is None else arguments)))
    except OSError as error:
        sys.stderr.write(f"cannot start: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""``python -m routing_layer``: the proxy."""

from __future__ import annotations

if __name__ == "__main__":  # a signal that comes during the imports below must not be lost
    from openfactory_common import signals

    signals.exit_on_signal()

import argparse
import gc
import socket
import sys
from functools import partial

from openfactory_common import __version__, logs
from openfactory_common.errors import ConfigurationError
from openfactory_common.service import run
from openfactory_common.service_settings import describe, load
from routing_layer.access.gate import log_mode
from routing_layer.client.tls import Certificate, read_certificate
from routing_layer.server import listen, serve
from routing_layer.settings import Settings
from routing_layer.workers import WorkerPeers, run_workers

_ABOUT = """Route clients to the service of their asset's group.

  GET /asset_stream?asset_uuid=...           the asset's events (SSE), from its group's service
  GET /group/<Group>/asset_stream?...        the same of a named group
  GET /asset_state?asset_uuid=...            from the state API
  GET /healthz  /ready  /metrics

Settings are environment variables, also read from .env (default in brackets):
"""
_EXIT = """Exit codes: 0 stopped by SIGTERM or SIGINT after draining, 1 cannot run, 2 a setting is wrong,
143 or 130 stopped by SIGTERM or SIGINT before it served."""


def main() -> int:
    """Run until stopped; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m routing_layer",
        description=f"{_ABOUT}\n{describe(Settings)}",
        epilog=_EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"routing layer {__version__}")
    parser.parse_args()
    try:
        settings = load(Settings)
        certificate = read_certificate(settings.tls_cert_file, settings.tls_key_file)
    except ConfigurationError as error:
        print(error, file=sys.stderr)  # noqa: T201 - before there is a log
        return 2
    logs.configure(settings.log_level, interval=60.0, per_place=logs.PER_PLACE_OF_CLIENTS, cache=True)
    log_mode(settings)
    ports = {"ROUTING_LAYER_PORT": settings.routing_layer_port, "METRICS_PORT": settings.metrics_port}
    sockets: list[socket.socket] = []
    for variable, port in ports.items():
        try:
            sockets += [] if port is None else [listen(port)]
        except OSError as error:
            print(f"{variable}={port}: {error.strerror}", file=sys.stderr)  # noqa: T201 - as above
            return 1
    start = partial(_run, settings, certificate, sockets)
    # Collections leave alone what has been loaded by now: they are shorter, and workers go on sharing it.
    gc.freeze()
    workers = settings.routing_layer_workers
    return run_workers(workers, start, sockets) if workers > 1 else start(WorkerPeers())


def _run(settings: Settings, certificate: Certificate | None, sockets: list[socket.socket], peers: WorkerPeers) -> int:
    metrics_sock = sockets[1] if len(sockets) > 1 else None
    return run(serve(settings, sockets[0], peers, metrics_sock, certificate))


if __name__ == "__main__":
    sys.exit(main())

"""``python -m demo.group_service``: settings from the environment, served until SIGTERM."""

from __future__ import annotations

if __name__ == "__main__":  # a signal that comes during the imports below must not be lost
    from openfactory_common import signals

    signals.exit_on_signal()

import sys

import structlog

from demo.group_service.app import make_app
from demo.group_service.settings import GroupServiceSettings
from demo.service import configure_logging, load, run, serve


def main() -> int:
    """Run the service and return its exit code."""
    settings = load(GroupServiceSettings)
    configure_logging(settings.log_level)
    structlog.contextvars.bind_contextvars(group=settings.group_name)
    return run(serve(make_app(settings), settings.host, settings.port))


if __name__ == "__main__":
    sys.exit(main())

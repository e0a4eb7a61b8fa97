"""``python -m demo.state_api``: settings from the environment, served until SIGTERM."""

from __future__ import annotations

if __name__ == "__main__":  # a signal that comes during the imports below must not be lost
    from openfactory_common import signals

    signals.exit_on_signal()

import sys

from demo.service import configure_logging, load, run, serve
from demo.state_api.app import StateApiSettings, make_app


def main() -> int:
    """Run the service and return its exit code."""
    settings = load(StateApiSettings)
    configure_logging(settings.log_level)
    return run(serve(make_app(settings), settings.host, settings.port))


if __name__ == "__main__":
    sys.exit(main())

"""``python -m group_service``: serves one group's events until SIGTERM."""

from __future__ import annotations

if __name__ == "__main__":  # a signal that comes during the imports below must not be lost
    from openfactory_common import signals

    signals.exit_on_signal()

import sys

from group_service.app import start
from group_service.settings import Settings
from openfactory_common import service

_ABOUT = """Serve the asset events of one group as server-sent events.

  GET /asset_stream?asset_uuid=...[&id=...]  the events of an asset, or of one of
                                             its data items; without asset_uuid:
                                             of the whole group
      [&since=15m]  from this time on; a duration, or a date and time (RFC 3339)
      Last-Event-ID (header) or lastEventId (query) continues after an event;
      @<milliseconds since the epoch> continues at a time
  GET /ready /healthz /metrics

What cannot be given is told: event: gap, with from, to and reason.
Any number of replicas serve the same group; each one serves every event."""


def main() -> int:
    """Run until stopped; return the exit code."""
    return service.main("group-service", _ABOUT, Settings, start)


if __name__ == "__main__":
    sys.exit(main())

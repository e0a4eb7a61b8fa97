"""``python -m state_api``: the state API."""

from __future__ import annotations

if __name__ == "__main__":  # a signal that comes during the imports below must not be lost
    from openfactory_common import signals

    signals.exit_on_signal()

import sys

from openfactory_common import service
from state_api.app import make_app
from state_api.settings import Settings

_ABOUT = """Answer the current state of assets, from ksqlDB's table of data items.

  GET /asset_state?asset_uuid=...            all data items of an asset
  GET /asset_state?asset_uuid=...&id=...     one data item
  GET /ready  /healthz  /metrics"""


async def _serve(settings: Settings) -> None:
    await service.serve(make_app(settings), None, settings.port, cost=1)  # a connection to ksqlDB


def main() -> int:
    """Run until stopped; return the exit code."""
    return service.main("state-api", _ABOUT, Settings, _serve)


if __name__ == "__main__":
    sys.exit(main())

"""``python -m routing_layer.manage``: deploy, tear down and run the system, by the command line of the operator."""

from __future__ import annotations

import argparse
import os
import sys

_HELP = """commands:
  deploy      create or update streams and services until they match the UNS map
              (with ENVIRONMENT=local all but the routing layer itself)
  teardown    remove all services, streams and configs of this owner
  runserver   run the routing layer on this host, on ROUTING_LAYER_PORT

Each is the command of the same name of `python -m reconciler`; options and exit
codes are the same:

  python -m routing_layer.manage deploy --timeout 600
  python -m routing_layer.manage deploy --help
  python -m routing_layer.manage teardown --yes
"""


def main() -> None:
    """Replace this process by the operator's command line."""
    parser = argparse.ArgumentParser(
        prog="python -m routing_layer.manage",
        usage="%(prog)s [-h] {deploy,teardown,runserver} [OPTION ...]",
        description="Deploy or tear down the system, or run the routing layer on this host.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("deploy", "teardown", "runserver"), help=argparse.SUPPRESS)
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    command = [sys.executable, "-m", "reconciler", given.command, *given.options]
    os.execv(sys.executable, command)  # noqa: S606 - no shell is meant


if __name__ == "__main__":
    main()

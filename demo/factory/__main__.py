"""``python -m demo.factory``: simulate; ``map ASSET WORKCENTER``: map or move one asset; ``list``: show the map."""

from __future__ import annotations

if __name__ == "__main__":  # a signal that comes during the imports below must not be lost
    from openfactory_common import signals

    signals.exit_on_signal()

import argparse
import sys
from collections.abc import Awaitable, Callable

from demo.factory.plant import Placement
from demo.factory.settings import FactorySettings
from demo.factory.simulation import Factory, place, read_mappings
from demo.ksql_rest import KsqlError, KsqlRest, client_session
from demo.service import configure_logging, load, run, until_stopped
from openfactory_common.tasks import run_until_one_ends

EPILOG = """environment: KSQLDB_URL (http://localhost:8088), WORKCENTERS (Weld,Paint,Assembly),
ASSETS_PER_WORKCENTER (4), EVENTS_PER_SECOND (12, in total), LOG_LEVEL (info), KSQLDB_ASSETS_STREAM
(enriched_assets_stream), KSQLDB_ASSETS_TABLE (assets), KSQLDB_UNS_MAP (asset_to_uns_map)"""


def parser() -> argparse.ArgumentParser:
    """Return the command line's definition."""
    made = argparse.ArgumentParser(
        prog="python -m demo.factory",
        description="Simulate a factory through ksqlDB's REST API.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--ksqldb-url", help="where ksqlDB is (default: $KSQLDB_URL)")
    commands = made.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("run", help="set up what is missing, then insert events until stopped (the default)")
    mapping = commands.add_parser("map", help="map an asset to a workcenter, or move it there")
    mapping.add_argument("asset", metavar="ASSET", help="e.g. WELD-ROBOT-01; a new name is a new asset")
    mapping.add_argument("workcenter", metavar="WORKCENTER", help="e.g. Paint; a new name is a new group")
    commands.add_parser("list", help="print each asset and its workcenter")
    return made


async def simulate(ksql: KsqlRest, settings: FactorySettings) -> None:
    """Run the factory until SIGTERM or SIGINT."""
    await run_until_one_ends(Factory(ksql, settings).run(), until_stopped())


async def print_map(ksql: KsqlRest, settings: FactorySettings) -> None:
    """Write one line for each asset to stdout."""
    for asset, workcenter in sorted((await read_mappings(ksql, settings)).items()):
        sys.stdout.write(f"{asset}\t{workcenter}\n")


def _action(arguments: argparse.Namespace) -> Callable[[KsqlRest, FactorySettings], Awaitable[None]]:
    if arguments.command == "map":
        return lambda ksql, settings: place(ksql, settings, Placement(arguments.asset, arguments.workcenter))
    return print_map if arguments.command == "list" else simulate


async def _with_ksql(action: Callable[[KsqlRest, FactorySettings], Awaitable[None]], settings: FactorySettings) -> int:
    async with client_session() as session:
        try:
            await action(KsqlRest(session, settings.ksqldb_url), settings)
        except KsqlError as error:
            sys.stderr.write(f"ksqlDB: {error}\n")
            return 1
    return 0


def main() -> int:
    """Run the command and return its exit code: 0, 1 if ksqlDB did not do it, 2 for a bad setting."""
    arguments = parser().parse_args()
    settings = load(FactorySettings, ksqldb_url=arguments.ksqldb_url)
    configure_logging(settings.log_level)
    return run(_with_ksql(_action(arguments), settings))


if __name__ == "__main__":
    sys.exit(main())

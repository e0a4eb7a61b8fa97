"""What every grouping strategy has to keep to, against a development ksqlDB.

The group of an asset is worked out in three places: by `read`, by the streams and by the routing layer. A strategy is
right when all three say the same.
"""

# ruff: noqa: S101 - asserts are how these tests test, wherever they are run from
# ruff: noqa: S608, S310 - statements of tests, for a server of tests on this host

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest

from openfactory_common.errors import KsqlError
from openfactory_common.ksqldb.levels import group_sql, membership_sql
from openfactory_common.ksqldb.wire import Column, literal
from reconciler.app import topology_of
from reconciler.grouping.base import GroupingStrategy
from reconciler.ksqldb.api import Ksqldb
from reconciler.ksqldb.client import KsqlClient
from reconciler.ksqldb.definition import definition_of
from reconciler.ksqldb.statements import Topology
from reconciler.ksqldb.transport import Timeouts
from reconciler.settings import Settings

_PATIENCE = 20.0


class DevelopmentServer(Protocol):
    """A ksqlDB for one test, with the assets' stream and the UNS map of the default settings."""

    url: str

    def hide_rows(self) -> None:
        """Answer pull queries without rows from now on."""

    def stop(self) -> None:
        """Refuse requests from now on."""

    def close(self) -> None:
        """Release everything."""


@dataclass(frozen=True)
class GroupingBench:
    """A strategy to be tested, a few assets, and in which group each is.

    Attributes:
        ksqldb: starts a server for one test; the repository has one, ``demo.conformance.EmbeddedKsqldb``.
        make: what the entry point names.
        assets: the UNS levels of every asset.
        groups: the group of every asset; None for one that is in none. At least one group has one asset alone.
        settings: variables that the strategy reads, by the names of `reconciler.settings.Settings`.
    """

    ksqldb: Callable[[], DevelopmentServer]
    make: Callable[[Settings, Ksqldb], GroupingStrategy]
    assets: Mapping[str, Mapping[str, str]]
    groups: Mapping[str, str | None]
    settings: Mapping[str, Any] = field(default_factory=dict)


class Installation:
    """A development server with the assets of a bench in its UNS map."""

    def __init__(self, bench: GroupingBench) -> None:
        """Start it."""
        self.server = bench.ksqldb()
        self.settings = Settings(
            _env_file=None, **{"kafka_broker": "embedded:9092", "ksqldb_url": self.server.url, **bench.settings}
        )  # type: ignore[call-arg]  # pydantic-settings' own argument
        self.client = KsqlClient(self.server.url, limits=Timeouts(connect=1.0, read=2.0, quiet=0.3))
        self.strategy = bench.make(self.settings, self.client)
        for asset, levels in bench.assets.items():
            self.place(asset, levels)

    @property
    def topology(self) -> Topology:
        """The streams as the operator makes them."""
        return topology_of(self.settings, self.strategy.level)

    def sql(self, statement: str) -> None:
        """Execute one statement as somebody with ksqlDB's own command line would."""
        body = json.dumps({"ksql": statement}).encode()
        request = urllib.request.Request(f"{self.settings.ksqldb_url}/ksql", body)
        urllib.request.urlopen(request, timeout=_PATIENCE).close()

    def place(self, asset: str, levels: Mapping[str, str]) -> None:
        """Map an asset, or move it."""
        pairs = ", ".join(f"{literal(name)} := {literal(value)}" for name, value in levels.items())
        values = f"{literal(asset)}, 'plant', MAP({pairs})"
        self.sql(f"INSERT INTO asset_to_uns_map_raw (asset_uuid, uns_id, uns_levels) VALUES ({values});")

    def close(self) -> None:
        """End everything."""
        self.client.close()
        self.server.close()


class GroupingConformance:
    """Subclass it as ``Test...`` with a fixture ``bench`` that gives a `GroupingBench`, a new one for each test."""

    @pytest.fixture
    def installed(self, bench: GroupingBench) -> Iterator[Installation]:
        """Bring up the bench's assets in a ksqlDB."""
        made = Installation(bench)
        yield made
        made.close()

    def test_all_assets_and_groups_are_read(self, bench: GroupingBench, installed: Installation) -> None:
        """How many assets there are, grouped or not, and how many are in each group; only groups with members."""
        membership = installed.strategy.read()
        assert membership.assets == len(bench.assets)
        assert dict(membership.groups) == counted(bench)

    def test_the_routing_layer_finds_the_same_group(self, bench: GroupingBench, installed: Installation) -> None:
        """The levels in the registry give every asset the group that `read` counts it in."""
        lookup = installed.strategy.lookup()
        sql = f"{membership_sql(lookup.table, lookup.key, lookup.level)};"
        columns = (Column(lookup.key, "STRING", key=True), Column("UNS_GROUP", "STRING"))
        assert dict(installed.client.pull(sql, columns)) == dict(bench.groups)

    def test_the_streams_carry_the_same_group(self, bench: GroupingBench, installed: Installation) -> None:
        """The expression that the shared stream carries, counted over the map, gives what `read` counts."""
        topology = installed.topology
        installed.client.execute(topology.create_shared())
        group = group_sql(installed.strategy.level)
        counts = f"SELECT {group} AS UNS_GROUP, COUNT(*) AS MEMBERS FROM {topology.join_table} GROUP BY {group}"
        installed.sql(f"CREATE TABLE CONFORMANCE AS {counts} EMIT CHANGES;")
        columns = (Column("UNS_GROUP", "STRING", key=True), Column("MEMBERS", "BIGINT"))
        assert dict(installed.client.pull("SELECT UNS_GROUP, MEMBERS FROM CONFORMANCE;", columns)) == counted(bench)

    def test_the_shared_stream_is_recognised_again(self, installed: Installation) -> None:
        """What the server keeps of the statement is read back as ours, so that the next cycle changes nothing."""
        topology = installed.topology
        installed.client.execute(topology.create_shared())
        found = definition_of(installed.client.describe(topology.shared_name).statement)
        assert found is not None
        assert topology.shared_differences(found) == ()

    def test_kafka_has_the_same_groups(self, bench: GroupingBench, installed: Installation) -> None:
        """What is read directly is what `read` says, whatever part of it a server holds."""
        assert installed.strategy.read_directly(len(bench.assets)) == installed.strategy.read()
        installed.server.hide_rows()
        membership = installed.strategy.read_directly(len(bench.assets))
        assert (membership.assets, dict(membership.groups)) == (len(bench.assets), counted(bench))
        assert installed.strategy.read().assets == 0

    def test_an_incomplete_direct_read_is_an_error(self, bench: GroupingBench, installed: Installation) -> None:
        """Fewer assets than there were proves nothing, and it never returns them."""
        with pytest.raises(KsqlError):
            installed.strategy.read_directly(len(bench.assets) + 1)

    def test_a_group_that_lost_its_last_asset_is_gone(self, bench: GroupingBench, installed: Installation) -> None:
        """It is neither read nor found any more."""
        group = next(group for group, members in counted(bench).items() if members == 1)
        [asset] = [asset for asset, of in bench.groups.items() if of == group]
        installed.place(asset, {})
        assert group not in installed.strategy.read().groups
        assert group not in installed.strategy.read_directly(len(bench.assets)).groups

    def test_a_read_that_fails_is_an_error(self, installed: Installation) -> None:
        """Never an empty set: groups would be removed for it."""
        installed.server.stop()
        with pytest.raises(KsqlError):
            installed.strategy.read()
        with pytest.raises(KsqlError):
            installed.strategy.read_directly(0)

    def test_reading_writes_nothing(self, installed: Installation) -> None:
        """A strategy only reads."""
        before = (installed.client.streams(), installed.client.queries())
        installed.strategy.read()
        installed.strategy.read_directly(0)
        installed.strategy.lookup()
        assert (installed.client.streams(), installed.client.queries()) == before


def counted(bench: GroupingBench) -> dict[str, int]:
    """Return how many assets are in each group."""
    return dict(Counter(group for group in bench.groups.values() if group is not None))

"""The rules that every grouping strategy must follow, tested with a development ksqlDB.

Three places derive the group of an asset: `read`, the streams and the routing layer. A strategy is correct if all three
agree.
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

_TIMEOUT = 20.0


class DevelopmentServer(Protocol):
    """A ksqlDB for one test, with the assets' stream and the UNS map of the default settings."""

    url: str

    def hide_rows(self) -> None:
        """From now on, answer pull queries without rows."""

    def stop(self) -> None:
        """From now on, refuse requests."""

    def close(self) -> None:
        """Release everything."""


@dataclass(frozen=True)
class GroupingBench:
    """A strategy to test, a few assets, and the group of each.

    Attributes:
        ksqldb: starts a server for one test; the repository has ``demo.conformance.EmbeddedKsqldb``.
        make: the function that the entry point names.
        assets: the UNS levels of every asset.
        groups: the group of every asset; None without a group. At least one group has exactly one asset.
        settings: settings that the strategy reads, by the field names of `reconciler.settings.Settings`.
    """

    ksqldb: Callable[[], DevelopmentServer]
    make: Callable[[Settings, Ksqldb], GroupingStrategy]
    assets: Mapping[str, Mapping[str, str]]
    groups: Mapping[str, str | None]
    settings: Mapping[str, Any] = field(default_factory=dict)


class Installation:
    """A development server whose UNS map has the assets of a bench."""

    def __init__(self, bench: GroupingBench) -> None:
        """Start the server."""
        self.server = bench.ksqldb()
        self.settings = Settings(
            _env_file=None, **{"kafka_broker": "embedded:9092", "ksqldb_url": self.server.url, **bench.settings}
        )  # type: ignore[call-arg]  # pydantic-settings' own argument
        self.client = KsqlClient(self.server.url, limits=Timeouts(connect=1.0, read=2.0, quiet=0.3))
        self.strategy = bench.make(self.settings, self.client)
        for asset, levels in bench.assets.items():
            self.map_asset(asset, levels)

    @property
    def topology(self) -> Topology:
        """The streams as the operator creates them."""
        return topology_of(self.settings, self.strategy.level)

    def execute_sql(self, statement: str) -> None:
        """Execute one statement, as ksqlDB's own command line does."""
        body = json.dumps({"ksql": statement}).encode()
        request = urllib.request.Request(f"{self.settings.ksqldb_url}/ksql", body)
        urllib.request.urlopen(request, timeout=_TIMEOUT).close()

    def map_asset(self, asset: str, levels: Mapping[str, str]) -> None:
        """Map an asset, or move it to another group."""
        pairs = ", ".join(f"{literal(name)} := {literal(value)}" for name, value in levels.items())
        values = f"{literal(asset)}, 'plant', MAP({pairs})"
        self.execute_sql(f"INSERT INTO asset_to_uns_map_raw (asset_uuid, uns_id, uns_levels) VALUES ({values});")

    def close(self) -> None:
        """Close the client and the server."""
        self.client.close()
        self.server.close()


class GroupingConformance:
    """Subclass it as ``Test...`` with a fixture ``bench`` that provides a new `GroupingBench` for each test."""

    @pytest.fixture
    def installed(self, bench: GroupingBench) -> Iterator[Installation]:
        """Start a ksqlDB with the bench's assets."""
        installation = Installation(bench)
        yield installation
        installation.close()

    def test_all_assets_and_groups_are_read(self, bench: GroupingBench, installed: Installation) -> None:
        """`read` returns the number of all assets, and of those in each group; only groups with members."""
        membership = installed.strategy.read()
        assert membership.assets == len(bench.assets)
        assert dict(membership.groups) == count_members(bench)

    def test_the_routing_layer_finds_the_same_group(self, bench: GroupingBench, installed: Installation) -> None:
        """The levels in the registry give every asset the same group as `read`."""
        lookup = installed.strategy.lookup()
        sql = f"{membership_sql(lookup.table, lookup.key, lookup.level)};"
        columns = (Column(lookup.key, "STRING", key=True), Column("UNS_GROUP", "STRING"))
        assert dict(installed.client.pull(sql, columns)) == dict(bench.groups)

    def test_the_streams_carry_the_same_group(self, bench: GroupingBench, installed: Installation) -> None:
        """The expression of the shared stream, counted over the map, gives the counts of `read`."""
        topology = installed.topology
        installed.client.execute(topology.create_shared())
        group = group_sql(installed.strategy.level)
        counts = f"SELECT {group} AS UNS_GROUP, COUNT(*) AS MEMBERS FROM {topology.join_table} GROUP BY {group}"
        installed.execute_sql(f"CREATE TABLE CONFORMANCE AS {counts} EMIT CHANGES;")
        columns = (Column("UNS_GROUP", "STRING", key=True), Column("MEMBERS", "BIGINT"))
        assert dict(installed.client.pull("SELECT UNS_GROUP, MEMBERS FROM CONFORMANCE;", columns)) == count_members(
            bench
        )

    def test_the_shared_stream_is_recognised_again(self, installed: Installation) -> None:
        """The server's form of the statement is recognised as ours, so that the next cycle changes nothing."""
        topology = installed.topology
        installed.client.execute(topology.create_shared())
        definition = definition_of(installed.client.describe(topology.shared_name).statement)
        assert definition is not None
        assert topology.shared_differences(definition) == ()

    def test_kafka_has_the_same_groups(self, bench: GroupingBench, installed: Installation) -> None:
        """A direct read returns the same as `read`, also if a server has only a part of the map."""
        assert installed.strategy.read_directly(len(bench.assets)) == installed.strategy.read()
        installed.server.hide_rows()
        membership = installed.strategy.read_directly(len(bench.assets))
        assert (membership.assets, dict(membership.groups)) == (len(bench.assets), count_members(bench))
        assert installed.strategy.read().assets == 0

    def test_an_incomplete_direct_read_is_an_error(self, bench: GroupingBench, installed: Installation) -> None:
        """Fewer assets than before prove nothing; they are never returned."""
        with pytest.raises(KsqlError):
            installed.strategy.read_directly(len(bench.assets) + 1)

    def test_a_group_that_lost_its_last_asset_is_gone(self, bench: GroupingBench, installed: Installation) -> None:
        """Neither read returns it."""
        group = next(group for group, members in count_members(bench).items() if members == 1)
        [asset] = [asset for asset, of in bench.groups.items() if of == group]
        installed.map_asset(asset, {})
        assert group not in installed.strategy.read().groups
        assert group not in installed.strategy.read_directly(len(bench.assets)).groups

    def test_a_read_that_fails_is_an_error(self, installed: Installation) -> None:
        """It is never an empty set, which would remove groups."""
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


def count_members(bench: GroupingBench) -> dict[str, int]:
    """Return the number of assets in each group."""
    return dict(Counter(group for group in bench.groups.values() if group is not None))

"""Writes are recorded in a dry run, and done only while the lease is held; everything else passes through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from openfactory_common.errors import LeaseLost
from reconciler.control.guarded import WRITES, DryRunLog, guard_by_lease, withhold_writes
from reconciler.domain.names import names_of
from reconciler.ksqldb.api import Ksqldb
from reconciler.platforms.protocol import Platform
from tests.harness.fakes import FakePlatform, Stage
from tests.unit.planning.tables import service, spec_of

#: Every method of the two protocols that changes nothing.
READS = {
    *("info", "health", "streams", "tables", "queries", "query_limit", "offset_reset", "describe_or_none"),
    *("describe_extended", "sample", "topics", "members", "pull", "level_names", "members_directly"),
    *("observe", "records", "stop_waiting", "close"),
}


@contextmanager
def lost() -> Iterator[None]:
    """The lease is not held."""
    raise LeaseLost("not written: another operator holds the lease")
    yield


def test_each_method_of_the_protocols_is_known_as_a_read_or_a_write() -> None:
    """A new method that writes would pass the guards unless it is listed."""
    methods = {name for kind in (*Ksqldb.__mro__, *Platform.__mro__) for name in vars(kind) if not name.startswith("_")}
    assert methods == READS | set(WRITES)
    assert READS.isdisjoint(WRITES)


def test_without_the_lease_nothing_is_written_but_what_operators_agree_by() -> None:
    """The pause and the lease are records, so they are written without it; which installation this is needs it."""
    stage = Stage(platform=FakePlatform(kept_records={}))
    guarded = guard_by_lease(stage.controller().deps, lost)
    guarded.platform.write_record("pause", {"until": ""}, None)
    guarded.platform.write_record("lease", {"holder": "a"}, None)
    live, spec = service(spec_of("Weld"), "same"), spec_of("Weld")
    assert live is not None
    writes = (
        lambda: guarded.platform.write_record("installation", {"id": "1a2b3c4d"}, None),
        lambda: guarded.platform.create_service(spec),
        lambda: guarded.platform.update_service(live, spec),
        lambda: guarded.platform.remove_service(live),
        lambda: guarded.platform.publish_registry(b"{}", "r1", 1),
        lambda: guarded.ksqldb.execute(stage.topology.create_shared()),
    )
    for write in writes:
        with pytest.raises(LeaseLost):
            write()
    assert (stage.writes, guarded.platform.observe().services) == (0, {})
    assert stage.platform.kept_records.keys() == {"pause", "lease"}
    guarded.platform.remove_record(guarded.platform.records()["pause"])
    assert stage.platform.kept_records.keys() == {"lease"}


def test_a_dry_run_records_every_write_in_words() -> None:
    """Each as a person would say it, statements as they would be sent; nothing reaches either side."""
    stage, log = Stage(platform=FakePlatform(kept_records={})), DryRunLog()
    world = withhold_writes(stage.controller().deps, log)
    live, spec = service(spec_of("Weld"), "same"), spec_of("Weld")
    assert live is not None
    statement = stage.topology.create_group(names_of("Weld"), "earliest")
    world.ksqldb.execute(statement)
    world.platform.create_service(spec)
    world.platform.update_service(live, spec)
    world.platform.remove_service(live)
    world.platform.publish_registry(b"{}", "r1", 7)
    world.platform.write_record("pause", {}, None)
    assert log.writes == [
        statement.sql,
        f"create service {spec.name}",
        f"update service {live.name} to {spec.image}",
        f"remove service {live.name}",
        "publish registry r1 (2 bytes) as number 7",
        "write record pause",
    ]
    assert (stage.writes, stage.platform.kept_records) == (0, {})

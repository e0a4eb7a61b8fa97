"""What the lease holds back: every write, and of the records the one that says which installation this is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from openfactory_common.errors import LeaseLost
from reconciler.control.fence import LeaseGuardedPlatform
from tests.harness.fakes import FakePlatform


@contextmanager
def lost() -> Iterator[None]:
    """The lease is not held."""
    raise LeaseLost("not written: somebody holds the lease")
    yield


def test_who_does_not_hold_the_lease_says_nothing_about_the_installation() -> None:
    """Pause and lease are what operators agree by, so they are written without it."""
    platform = FakePlatform(kept_records={})
    fenced = LeaseGuardedPlatform(platform, lost)
    fenced.write_record("pause", {"until": ""}, None)
    fenced.write_record("lease", {"holder": "a"}, None)
    with pytest.raises(LeaseLost):
        fenced.write_record("installation", {"id": "1a2b3c4d"}, None)
    assert platform.kept_records.keys() == {"pause", "lease"}

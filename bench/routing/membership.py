"""How much memory the membership of many assets takes, at rest and while it is listed again.

``python bench/routing/membership.py [ASSETS]`` (default 1,000,000); the table comes through the real wire format.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from openfactory_common.ksqldb.wire import Row, RowFeed
from routing_layer.membership.ksqldb import parse_member
from routing_layer.membership.store import MembershipStore


def resident() -> float:
    """Return the resident memory in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def listed(count: int) -> dict[str, str | None]:
    """Return a full list as a pull answers it."""
    feed, found = RowFeed(), dict[str, str | None]()
    feed.feed(b'[{"header":{"queryId":"q","schema":"`ASSET_UUID` STRING KEY, `UNS_GROUP` STRING"}}')
    for start in range(0, count, 500):
        rows = (
            {"row": {"columns": [f"PLANT-07-ASSET-{n:08}", f"Workcenter-{n % 200}"]}} for n in range(start, start + 500)
        )
        chunk = "".join(f",\n{json.dumps(row)}" for row in rows).encode()
        found.update(parse_member(item) for item in feed.feed(chunk) if isinstance(item, Row))
    return found


def main(count: int) -> None:
    """Print the memory."""
    base, started = resident(), time.monotonic()
    members = MembershipStore(lambda _asset, _group: None)
    first = listed(count)
    read = time.monotonic() - started
    for asset, group in first.items():
        members.put(asset, group)
    del first
    rest = resident() - base
    second, stage = listed(count), listed(count)
    peak = resident() - base
    assert not members.differences(second)
    assert len(stage) == count
    print(f"{count} assets: {rest:.0f} MiB at rest, {peak:.0f} MiB while listed again, parsed in {read:.1f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)

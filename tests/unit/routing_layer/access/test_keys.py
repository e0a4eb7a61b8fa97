"""A key file that changes: which of its versions is in use."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from routing_layer.access.keys import KeyFile
from tests.harness.issuer import key_set, public_jwk


def test_the_second_of_two_changes_with_one_time_is_read(tmp_path: Path) -> None:
    """The size, the inode and the time of modification are the same: a rotation by a script takes less than a tick."""
    file = tmp_path / "keys.json"
    first, second = (key_set(public_jwk("ES256", name)) for name in ("one", "two"))
    assert len(first) == len(second)
    file.write_bytes(first)
    found = file.stat()
    source = KeyFile(file)
    keys = asyncio.run(source.read())
    assert keys is not None
    file.write_bytes(second)
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert file.stat().st_ino == found.st_ino
    others = asyncio.run(source.read())
    assert others is not None
    assert others != keys

"""Files that others replace: when one must be read again."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from openfactory_common import files as module
from openfactory_common.files import FileChanges

_SECOND = 1_000_000_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file."""
    path = tmp_path / "file"
    path.write_text("one")
    return path


@pytest.fixture
def clock(file: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time, which starts with the last change of the file; the file's own times stay as they are."""
    found = file.stat()
    times = SimpleNamespace(now=max(found.st_mtime_ns, found.st_ctime_ns))
    monkeypatch.setattr(module, "time", SimpleNamespace(time_ns=lambda: times.now))
    return times


def _read(changes: FileChanges) -> bool:
    """Return whether the file is read, and read it if so."""
    found = changes.changed()
    if found:
        changes.confirm()
    return found


def test_two_changes_within_one_tick_of_the_clock_are_two(file: Path, clock: SimpleNamespace) -> None:
    """The kernel's clock has ticks of 4 ms: the file of a moment ago may have changed without another time."""
    changes = FileChanges(file)
    for after, expected in ((0, True), (1, True), (_SECOND, True), (_SECOND + 1, True), (2 * _SECOND, False)):
        moment = clock.now
        clock.now += after
        assert _read(changes) is expected, after
        clock.now = moment


@pytest.mark.parametrize("way", ["in place", "replaced", "times set back"])
def test_a_settled_file_that_changes_is_read_again(file: Path, clock: SimpleNamespace, way: str) -> None:
    """Also with the same size and the same time of modification: tools that copy files keep it."""
    changes, found = FileChanges(file), file.stat()
    clock.now += 2 * _SECOND
    assert [_read(changes) for _ in range(2)] == [True, False]
    target = file.with_name("next") if way == "replaced" else file
    while file.stat().st_ctime_ns == found.st_ctime_ns:  # until the kernel's clock has ticked
        target.write_text("two")
        if way != "in place":
            os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
        target.replace(file)
    assert _read(changes)


def test_a_file_that_was_not_confirmed_stays_changed(file: Path, clock: SimpleNamespace) -> None:
    """A broken file is reported again, until it is good; after one that is missing, the next is read."""
    changes = FileChanges(file)
    clock.now += 2 * _SECOND
    assert [changes.changed() for _ in range(3)] == [True] * 3
    changes.confirm()
    assert not changes.changed()
    hidden = file.rename(file.with_name("hidden"))
    with pytest.raises(FileNotFoundError):
        changes.changed()
    hidden.rename(file)
    assert changes.changed()

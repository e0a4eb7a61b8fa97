"""The registry as files: whole, in order, and published again where a crash or a hand came between."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from openfactory_common.errors import PlatformConflict, PlatformRefused
from reconciler.platforms.docker.records import lock_file
from reconciler.platforms.docker.registry import RegistryFiles


@pytest.fixture
def files(tmp_path: Path) -> RegistryFiles:
    """Two documents, the second one current."""
    made = RegistryFiles(tmp_path / "ofa", "ofa")
    made.publish(b"one\n", "aaa", 1)
    made.publish(b"two\n", "bbb", 2)
    return made


def seen(files: RegistryFiles) -> list[tuple[str, int]]:
    """Return name and number of every document, newest first."""
    return [(live.name, live.sequence) for live in files.read(mounted=False)]


def test_the_current_document_is_one_file_for_everybody(tmp_path: Path) -> None:
    """Under one name, whatever is current, and readable for the routing layer's user, whatever this user's mask is."""
    files = RegistryFiles(tmp_path / "ofa", "ofa")
    mask = os.umask(0o077)
    try:
        files.publish(b"one\n", "aaa", 1)
        files.publish(b"two\n", "bbb", 2)
    finally:
        os.umask(mask)
    assert files.directory.stat().st_mode & 0o777 == 0o755
    current = files.directory / "registry.json"
    assert current.read_bytes() == b"two\n"
    assert current.stat().st_mode & 0o777 == 0o644
    assert files.locate().current == "ofa_registry-bbb"


@pytest.mark.parametrize("mishap", ["lost", "older", "emptied"])
def test_a_current_file_that_is_not_the_newest_document_is_published_again(files: RegistryFiles, mishap: str) -> None:
    """A crash before the last rename, or a user's hand: an unreadable document on top asks for a publication."""
    current = files.directory / "registry.json"
    if mishap == "lost":
        current.unlink()
    else:
        current.write_bytes(b"one\n" if mishap == "older" else b"")
    assert seen(files) == [("registry.json", 3), ("ofa_registry-bbb", 2), ("ofa_registry-aaa", 1)]
    assert files.read(mounted=True)[0].data == b""
    files.publish(b"two\n", "bbb", 4)
    assert seen(files) == [("ofa_registry-bbb", 4), ("ofa_registry-aaa", 1)]
    assert current.read_bytes() == b"two\n"


def test_a_late_publication_is_a_conflict(files: RegistryFiles) -> None:
    """A user published meanwhile: nothing is overwritten, also not under the same number."""
    for sequence in (1, 2):
        with pytest.raises(PlatformConflict, match="is too old"):
            files.publish(b"three\n", "ccc", sequence)
    assert (files.directory / "registry.json").read_bytes() == b"two\n"
    files.publish(b"two\n", "bbb", 2)
    assert seen(files) == [("ofa_registry-bbb", 2), ("ofa_registry-aaa", 1)]


def test_files_of_others_are_neither_read_nor_removed(files: RegistryFiles) -> None:
    """What is not named as ours is not ours; the directory stays for its sake."""
    strange = ("notes.txt", "other_registry-ccc.9.json", "ofa_registry-ddd.json", "ofa_registry-.7.json")
    for name in strange:
        (files.directory / name).write_text("x")
    assert seen(files) == [("ofa_registry-bbb", 2), ("ofa_registry-aaa", 1)]
    for live in files.read(mounted=False):
        files.remove(live)
    assert sorted(path.name for path in files.directory.iterdir()) == sorted(strange)


def test_the_last_document_takes_the_directory_with_it(files: RegistryFiles) -> None:
    """Nothing of ours is left."""
    for live in (*files.read(mounted=False), *files.read(mounted=False)):
        files.remove(live)
    assert not files.directory.exists()


def test_a_shown_document_is_not_removed(files: RegistryFiles) -> None:
    """A running routing layer reads it."""
    with pytest.raises(PlatformRefused, match="mounted by a running container"):
        files.remove(files.read(mounted=True)[0])


def test_a_directory_that_cannot_be_written_names_the_setting(tmp_path: Path) -> None:
    """The operator's user is often not the one who made it."""
    (tmp_path / "ofa").write_text("a file where a directory should be")
    with pytest.raises(PlatformRefused, match="REGISTRY_DIR"):
        RegistryFiles(tmp_path / "ofa", "ofa").publish(b"one\n", "aaa", 1)


def test_of_many_who_publish_the_same_number_one_does(files: RegistryFiles) -> None:
    """A lock makes look and write one step."""
    conflicts: list[int] = []

    def publish(number: int) -> None:
        try:
            files.publish(f"{number}\n".encode(), f"c{number}", 3)
        except PlatformConflict:
            conflicts.append(number)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(conflicts) == 7
    [newest] = [live for live in files.read(mounted=False) if live.sequence == 3]
    assert (files.directory / "registry.json").read_bytes() == newest.data


def test_a_lock_whose_file_was_removed_still_keeps_out(tmp_path: Path) -> None:
    """Anyone who waited for the removed file takes the new one, which another party may hold."""
    path = tmp_path / "lock"
    inside: list[int] = []
    most = 0

    def work() -> None:
        nonlocal most
        for _ in range(50):
            with lock_file(path):
                inside.append(1)
                most = max(most, len(inside))
                inside.pop()
                path.unlink()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1

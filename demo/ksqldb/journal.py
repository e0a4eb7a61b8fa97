"""The optional journal: what a restarted development server needs to be the same again.

One JSON object a line: the Kafka cluster id (`cluster`), an executed statement (`ksql`, `properties`) or a record of a
table's topic (`topic`, `key`, `value`). Records of streams are not kept: they are events, and a demonstration that was
down missed them. At start the file is read, replayed and rewritten with the newest record of every key alone.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

Entry = dict[str, Any]


@dataclass
class Journal:
    """An append-only file; without a path everything is a no-op."""

    path: Path | None
    _file: TextIO | None = field(default=None, repr=False)

    def load(self) -> list[Entry]:
        """The entries in order, older records of a key left out; opens the file for `append`.

        A last line that was cut off by a crash is dropped. Raises OSError when the file cannot be used.
        """
        if self.path is None:
            return []
        entries = _folded(_read(self.path)) if self.path.exists() else []
        fresh = self.path.with_name(self.path.name + ".new")
        with fresh.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(each) + "\n" for each in entries)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(self.path)
        self._file = self.path.open("a", encoding="utf-8")
        return entries

    def append(self, entry: Entry) -> None:
        """Write one entry; it is in the operating system's hands when this returns."""
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _read(path: Path) -> list[Entry]:
    entries: list[Entry] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries


def _folded(entries: list[Entry]) -> list[Entry]:
    last: dict[tuple[str, str], int] = {}
    for at, each in enumerate(entries):
        if "topic" in each:
            last[each["topic"], json.dumps(each["key"])] = at
    return [
        each
        for at, each in enumerate(entries)
        if "topic" not in each or last[each["topic"], json.dumps(each["key"])] == at
    ]

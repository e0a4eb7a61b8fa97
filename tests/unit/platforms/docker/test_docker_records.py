"""Records as files that people can edit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler.leadership import lease, pause
from reconciler.platforms.docker.records import RecordFiles


@pytest.mark.parametrize(
    ("name", "fields"),
    [("lease", {"holder": "x", "seconds": 15}), ("pause", {"until": None, "by": ["ana"]}), ("pause", {"until": 7})],
)
def test_what_a_hand_spoilt_reads_as_a_default(tmp_path: Path, name: str, fields: dict[str, object]) -> None:
    """A field that is no text is none, and the record can be written again over what was read."""
    files = RecordFiles(tmp_path)
    (tmp_path / f"{name}.json").write_text(json.dumps({"record": name, "version": 3, "fields": fields}))
    record = files.read()[name]
    if name == "lease":
        assert lease.parse(record.fields) == lease.Lease(holder="x")
    else:
        assert pause.parse(record.fields).until is None
    files.write(name, {"by": "ben"}, record)
    assert (files.read()[name].version, files.read()[name].fields) == (4, {"by": "ben"})


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "[" * 100_000, '{"record": "lease", "fields": {}, "version": 1e999}', '{"record": []}'],
)
def test_a_file_with_any_text_is_no_record(tmp_path: Path, text: str) -> None:
    """Whatever a person left there: nothing that is read ends in an exception."""
    (tmp_path / "lease.json").write_text(text)
    assert RecordFiles(tmp_path).read() == {}

"""The embedded ksqlDB against traffic recorded from a real one: the same requests, the same answers.

Each scenario of the corpus runs from an empty server, over a real socket, in the order recorded. Compared are status,
content-type and body, after masking what differs between two runs of the real server too (query ids of pull and push
queries, epochs, object hashes, the order of rows and of lists). What remains different stands in
`test_embedded_differences.py` with its reason; an unexpected difference fails, and so does an entry that no longer
differs.

The corpus is found through KSQLDB_CORPUS, by default `../shared/ksqldb/corpus.jsonl` beside the repository.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from test_embedded_differences import DIFFERENCES

from demo.ksqldb.__main__ import start
from demo.ksqldb.server import Config, DevServer

REPOSITORY = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("KSQLDB_CORPUS") or REPOSITORY.parent / "shared/ksqldb/corpus.jsonl")
if not CORPUS.exists() and os.environ.get("CI") != "true":
    pytest.skip(f"no recorded corpus at {CORPUS}: set KSQLDB_CORPUS", allow_module_level=True)

Case = dict[str, Any]
# Scenarios that ran on one server, one after the other.
CHAINS = (
    ("basic", "push"),
    ("ddl", "ddl-blocked"),
    ("names",),
    ("parallel", "kafka-down"),
    ("limits",),
    ("rate",),
    ("topology", "kafka-short", "leave-group"),
    ("restart", "groups"),
)
PROPERTIES = {"ksql.streams.auto.offset.reset": "earliest", "ksql.streams.num.stream.threads": 1}
COLUMNS = "asset_key, `asset_uuid`, `id`, `value`, `type`, `tag`, `timestamp`"
CTAS = "CREATE TABLE asset_to_uns_map AS SELECT * FROM asset_to_uns_map_raw EMIT CHANGES;"


def _filter(name: str, group: str) -> str:
    return (
        f"CREATE STREAM `{name}` WITH (KAFKA_TOPIC='{name}', VALUE_FORMAT='JSON') AS SELECT {COLUMNS} "
        f"FROM ofa_assets_with_uns WHERE uns_group = '{group}' EMIT CHANGES;"
    )


def load() -> dict[str, list[Case]]:
    """The cases by scenario, in the order recorded."""
    found: dict[str, list[Case]] = {}
    for line in CORPUS.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        found.setdefault(case["scenario"], []).append(case)
    return found

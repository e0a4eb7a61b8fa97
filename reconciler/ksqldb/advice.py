"""What helps against errors of ksqlDB that no repetition cures: the one table of their texts. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

_ASSETS = "{KSQLDB_ASSETS_STREAM} (KSQLDB_ASSETS_STREAM)"
_MAP = "{join_table} (KSQLDB_UNS_JOIN_TABLE or KSQLDB_UNS_MAP)"
_DELETE = "`kafka-topics --bootstrap-server {KAFKA_BROKER} --delete --topic {topic}`"

#: Regular expressions for an error, without regard to case and line ends, and what helps. In braces: settings, and the
#: ``topic`` that the error names.
_ERRORS: Mapping[str, str] = {
    r"kafka topic with the name '(?P<topic>[^']*)' already exists, with different ": (
        f"the topic {{topic}} has other settings than its stream needs and must be deleted: {_DELETE}; "
        "the operator then makes both again"
    ),
    r"number of partitions don't match": (
        f"the topics of {_ASSETS} and of {_MAP} must have equally many partitions: make one of them again"
    ),
    r"topic\(s\): \[(?P<topic>[^\]]*)\]": (
        f"the topic {{topic}} is gone from Kafka: make it again, or correct the names of {_ASSETS} and {_MAP}"
    ),
    r"\b(does not exist\b|could not find stream/table)": f"{_ASSETS} or {_MAP} is not there: correct the names",
    r"column .* cannot be resolved": f"{_ASSETS} or {_MAP} lacks a column: docs/ksqldb.md names those that are read",
    r"active, persistent queries to exceed": (
        "raise ksql.query.persistent.active.limit in the server's settings, or group by a coarser level"
    ),
    r"corruption in the command topic": "restart the ksqlDB server: it executes no statement until then",
    r"not authorized|authorization": "grant the ksqlDB server, or KSQLDB_USERNAME, what it needs",
    r"is read by |read from this source|reads it, is in the way": "drop what reads it: it is kept until then",
}


def statement_advice(error: str, names: Mapping[str, str]) -> str | None:
    """Return what a person has to do about an error that no repetition cures; None where time may.

    Args:
        error: of a statement.
        names: what stands in the braces of the table.
    """
    text = " ".join(error.split())
    for pattern, helps in _ERRORS.items():
        found = re.search(pattern, text, re.IGNORECASE)
        if found is not None:
            return helps.format_map({"topic": found.groupdict().get("topic"), **names})
    return None

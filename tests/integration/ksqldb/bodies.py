"""Bodies in ksqlDB's own form, for tests that make up their answers."""

from __future__ import annotations

import json

from openfactory_common.ksqldb.wire import Column

MEMBERS_SCHEMA = "`ASSET_UUID` STRING KEY, `UNS_GROUP` STRING"
MEMBERS = (Column("ASSET_UUID", "STRING", key=True), Column("UNS_GROUP", "STRING"))


def header(schema: str = MEMBERS_SCHEMA) -> str:
    """Return a header item."""
    return json.dumps({"header": {"queryId": "query_1", "schema": schema}})


def row(*values: object) -> str:
    """Return a row item."""
    return json.dumps({"row": {"columns": values}})


def error_row(message: str = "store closed") -> str:
    """Return an error item."""
    return json.dumps({"errorMessage": {"@type": "generic_error", "error_code": 50000, "message": message}})


def rows(*items: str) -> bytes:
    """Return a StreamedRow body of these items."""
    return ("[" + ",\n".join(items) + "]").encode()


def error(code: int, message: str) -> bytes:
    """Return an error body."""
    return json.dumps({"@type": "statement_error", "error_code": code, "message": message}).encode()


def command(status: str, command_id: str = "stream/`X`/create", message: str = "done") -> bytes:
    """Return the answer to a statement."""
    entity = {
        "@type": "currentStatus",
        "statementText": "",
        "commandId": command_id,
        "commandStatus": {"status": status, "message": message, "queryId": "CSAS_X_5"},
        "commandSequenceNumber": 6,
        "warnings": [],
    }
    return json.dumps([entity]).encode()


def command_status(status: str) -> bytes:
    """Return the answer of /status about one command."""
    return json.dumps({"status": status, "message": status.lower(), "queryId": "CSAS_X_5"}).encode()


def listed(kind: str, members: object, warnings: tuple[str, ...] = ()) -> bytes:
    """Return the answer to a LIST."""
    entity = {"@type": kind, "statementText": "", kind: members, "warnings": [{"message": text} for text in warnings]}
    return json.dumps([entity]).encode()

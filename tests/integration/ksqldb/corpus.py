"""Recorded traffic: one JSON object a line, with the request, the status, the headers and the exact body."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BESIDE = Path(__file__).resolve().parents[4] / "shared" / "ksqldb" / "corpus.jsonl"


@dataclass(frozen=True)
class Case:
    """One recorded exchange.

    Attributes:
        name: of the case.
        method: GET or POST.
        path: with the query string, as sent.
        sent: the body that was sent.
        status: None where no answer came.
        content_type: of the answer, "" where it had none.
        body: of the answer, exactly.
        cause: why no answer came.
        left_open: the client ended the exchange, so the answer has no end.
    """

    name: str
    method: str
    path: str
    sent: Any
    status: int | None
    content_type: str
    body: bytes
    cause: str = ""
    left_open: bool = False

    @property
    def sql(self) -> str:
        """The statements that were sent, if any."""
        fields = self.sent if isinstance(self.sent, Mapping) else {}
        return str(fields.get("ksql") or fields.get("sql") or "")


def corpus_path() -> Path:
    """Return where the recorded traffic is: ``KSQLDB_CORPUS``, else beside the repository."""
    return Path(os.environ.get("KSQLDB_CORPUS") or _BESIDE)


def read_cases(path: Path) -> Iterator[Case]:
    """Yield the cases of a corpus file in the order recorded."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield _case(json.loads(line))


def _case(document: Mapping[str, Any]) -> Case:
    request, response = document["request"], document["response"]
    headers = {str(name).lower(): value for name, value in (response.get("headers") or {}).items()}
    cause = str(document.get("transport_error") or response.get("transport_error") or response.get("body") or "")
    return Case(
        name=str(document["case"]),
        method=request["method"],
        path=request["path"],
        sent=request.get("body"),
        status=response.get("status"),
        content_type=str(headers.get("content-type") or ""),
        body=(response.get("body") or "").encode(),
        cause=cause if response.get("status") is None else "",
        left_open=str(document.get("closed_by") or "").startswith("client"),
    )

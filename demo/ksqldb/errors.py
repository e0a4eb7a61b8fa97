"""Refusals, as values that carry the exact answer of ksqlDB."""

from __future__ import annotations

from typing import Any

BAD_REQUEST = 40000
BAD_STATEMENT = 40001
QUERY_ENDPOINT = 40002
NOT_FOUND = 40400
SERVER_ERROR = 50000


class KsqlRefusal(Exception):
    """An answer other than 200.

    Attributes:
        status: HTTP status.
        code: ksqlDB's `error_code` (the HTTP status followed by two digits).
        statement: the text for `statementText`; None makes a `generic_error`, a text a `statement_error`.
    """

    def __init__(self, message: str, *, code: int = BAD_STATEMENT, statement: str | None = None) -> None:
        """Keep the parts; the HTTP status follows from the code."""
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = code // 100
        self.statement = statement

    def body(self) -> dict[str, Any]:
        """The JSON body in the shape of ksqlDB's error entities."""
        if self.statement is None:
            return {"@type": "generic_error", "error_code": self.code, "message": self.message}
        return {
            "@type": "statement_error",
            "error_code": self.code,
            "message": self.message,
            "statementText": self.statement,
            "entities": [],
        }


class StatementFault(Exception):
    """A statement that cannot run: becomes 400/40001 with the statement's text."""


class RequestFault(Exception):
    """A request that is refused without naming a statement: becomes 400/40000."""


class ServerFault(Exception):
    """Something that ksqlDB reports as its own failure: becomes 500/50000 with the whole request's text."""


class PlanFault(StatementFault):
    """A statement that cannot be planned; ksqlDB prefixes these for CREATE … AS SELECT."""

"""One table of what ksqlDB's error answers mean for the caller.

ksqlDB's HTTP status and ``error_code`` alone do not say whether waiting helps: "the table is being restored" is a
400 with the same code as a syntax error, and "another writer was first" is a 500 like any other. The message
distinguishes them. It is wrapped at 80 columns with a tab, so it is compared with its whitespace collapsed, and it may
echo the statement (and with it any value of the user's), so every pattern is anchored to the server's own words.

The texts were recorded from ksqlDB 7.7; the families behind them (a 5xx passes, a 4xx does not) catch the rest, so
every answer has a class.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from openfactory_common.errors import (
    KsqlBadStatement,
    KsqlConflict,
    KsqlError,
    KsqlInBandFailure,
    KsqlNotReady,
    KsqlRefused,
    KsqlTransient,
    KsqlUnknownOutcome,
    KsqlUnreachable,
    KsqlWrongShape,
)

DEGRADED = "The server has detected corruption in the command topic"
"""The beginning of the text by which a server says that its command runner accepts no more statements."""

NOT_QUERYABLE = "isn't queryable"
"""Part of the answer to a pull on a plain table, and on any table while the server stops (the same text)."""

MISSING_SOURCE = re.compile(r"Could not find STREAM/TABLE '")
"""How DESCRIBE begins its answer for a name that does not exist."""

_MESSAGE_LIMIT = 600
#: Followed, the credentials would go to whichever host the redirect names.
_REDIRECT = "redirects are not followed; KSQLDB_URL must be ksqlDB's own address"


# The server quotes the statement: Could not write the statement '...' into the command topic. Caused by: ...
_COULD_NOT_WRITE = r"^Could not write the statement '.*' into the command topic\. Caused by: "
_NOT_WRITTEN = _COULD_NOT_WRITE + r"Timeout while waiting for command topic consumer to process command topic$"
_SAME_COMMAND = _COULD_NOT_WRITE + r"Another command with the same id "

#: Status, ``error_code`` and a pattern of the message, each None where any fits: the first line that fits decides.
_Rule = tuple[int | None, int | None, str | None, type[KsqlError]]
_TABLE: tuple[_Rule, ...] = (
    # Credentials, roles, Kafka's access lists.
    (401, None, None, KsqlRefused),
    (403, None, None, KsqlRefused),
    # A degraded command runner refuses every statement until the server is restarted.
    (None, None, rf"^(Failed to handle Ksql Statement\. )?{DEGRADED}", KsqlRefused),
    # A pull while the tables are being restored, or while the server stops: 400, yet only time is needed.
    (400, None, r"^Error starting pull query: |^Unable to execute pull query", KsqlNotReady),
    (400, None, r"\[Partition \d+ failed to find valid host\. Hosts scanned: ", KsqlNotReady),
    # Understood, and refused for a reason outside of the statement.
    (400, 40003, None, KsqlRefused),
    (400, None, r"^Not executing statement\(s\) .* as it would cause the number of active, ", KsqlRefused),
    (400, None, r"^Cannot drop \S+ The following ", KsqlRefused),
    (400, None, r"^Cannot (delete topic for|insert values into) read-only ", KsqlRefused),
    (400, None, r"^One or more properties overrides set locally are prohibited", KsqlRefused),
    (400, None, r"^Missing WHERE clause\.|^WHERE clause missing key column", KsqlRefused),
    # The name was taken between our observation and our statement.
    (
        400,
        None,
        (
            r"^(Could not determine output schema for query due to error: )?"
            r"Cannot add (stream|table) '[^']*': A (stream|table) with the same name already exists"
        ),
        KsqlConflict,
    ),
    # Kafka does not answer: the INSERT gave up after its own 60 s.
    (400, None, r"^Failed to insert values into .* not present in metadata after \d+ ms", KsqlTransient),
    (400, None, None, KsqlBadStatement),
    (404, 40400, None, KsqlBadStatement),
    (405, None, None, KsqlBadStatement),
    (406, None, None, KsqlBadStatement),
    (413, None, None, KsqlBadStatement),
    (417, 41700, None, KsqlRefused),
    (421, None, None, KsqlRefused),
    (428, None, None, KsqlRefused),
    (429, None, None, KsqlTransient),
    # Two writers: exactly one wins, the others were not executed (measured 10 of 10).
    (500, None, r"^Producer with transactionalId '.*' .*has been fenced by another producer", KsqlConflict),
    (500, None, _COULD_NOT_WRITE + r".*has been fenced by another producer", KsqlConflict),
    (500, None, _SAME_COMMAND, KsqlConflict),
    # The one text of this family that says that nothing was written; any other may have been.
    (500, None, _NOT_WRITTEN, KsqlTransient),
    (500, None, r"^Could not write the statement '", KsqlUnknownOutcome),
    (500, None, r"^Timeout while initializing transaction to the KSQL command topic", KsqlTransient),
    (500, None, r"Worker executor closed$", KsqlNotReady),
    # The topics are not as the statement needs them.
    (500, None, r"^A Kafka topic with the name '.*' already exists, with different ", KsqlRefused),
    (500, None, r"^Refusing to delete topic\. ", KsqlRefused),
    (500, None, r"Caused by: The request attempted to perform an operation on an invalid topic", KsqlBadStatement),
    (500, None, r"^Failed to guarantee existence of topic .* collides with existing topic", KsqlBadStatement),
    # The request itself: a property, a body, a path that no retry makes better.
    (500, None, r"^Not recognizable as ksql, streams, consumer, or producer property", KsqlBadStatement),
    (500, None, r"^Failed to deserialize buffer|^No enum constant |\"buffer\" is null$", KsqlBadStatement),
    (500, None, r"^Unexpected error generating code for ", KsqlBadStatement),
    (503, 50301, None, KsqlTransient),
    (503, None, None, KsqlNotReady),
    # A proxy in between that has lost its server.
    (502, None, None, KsqlUnreachable),
    (504, None, None, KsqlUnreachable),
)


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: no JSON, no UTF-8, NaN or Infinity, a number of more than 4,300 digits (Python's limit), or nested
            too deeply.
    """
    try:
        return json.loads(text, parse_constant=no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def no_constant(name: str) -> NoReturn:
    """Refuse what Python reads as a number and JSON has not: NaN, Infinity, -Infinity."""
    raise ValueError(f"{name} is not JSON")


def brief(value: object, limit: int = 120) -> str:
    """Return the beginning of a JSON value, for a message."""
    try:
        return json.dumps(value)[:limit]
    except (ValueError, RecursionError):  # as deep as could just be parsed
        return f"a deep {type(value).__name__}"


def error_of(status: int, body: bytes, content_type: str = "") -> KsqlError:
    """Return the error that an answer with a status other than 200 stands for.

    Args:
        status: the HTTP status.
        body: the body as it came; error bodies are JSON even where ksqlDB gives them no content type.
        content_type: the header, shown where the body is not ksqlDB's.

    Returns:
        An instance of one leaf of ``KsqlError``, with ksqlDB's ``error_code`` as ``code``.
    """
    if 300 <= status < 400:  # noqa: PLR2004 - HTTP's redirects
        return KsqlWrongShape(f"ksqlDB answered {status}: {_REDIRECT}", status=status)
    code, message = _read_error(body)
    text = collapse(message)
    # A status without a line of its own: 5xx passes, anything else is not ksqlDB's answer.
    kind: type[KsqlError] = KsqlTransient if status >= 500 else KsqlWrongShape  # noqa: PLR2004 - HTTP's server errors
    for of_status, of_code, pattern, found in _TABLE:
        if of_status in (None, status) and of_code in (None, code) and (not pattern or re.search(pattern, text)):
            kind = found
            break
    shown = _shorten(text) or f"an empty answer ({content_type or 'no content type'})"
    return kind(f"ksqlDB answered {status}: {shown}", code=code, status=status)


def in_band(document: object) -> KsqlInBandFailure:
    """Return the error for an error object that was found inside a 200 body."""
    code, message = _read_fields(document)
    return KsqlInBandFailure(f"ksqlDB failed within its answer: {_shorten(collapse(message))}", code=code, status=200)


def no_answer(cause: str, *, writes: bool) -> KsqlError:
    """Return the error for a request that got no complete answer.

    Args:
        cause: what happened, for the message.
        writes: whether the request may have changed something; then its outcome is unknown (a statement that was
            given up after 10 s was executed when Kafka came back).
    """
    if writes:
        return KsqlUnknownOutcome(f"no answer from ksqlDB, the statement may have been executed: {cause}")
    return KsqlUnreachable(f"no answer from ksqlDB: {cause}")


def collapse(message: str) -> str:
    """Return ``message`` with each run of whitespace as one blank (the server wraps at 80 columns)."""
    return " ".join(message.split())


def is_error_object(document: object) -> bool:
    """Say whether a JSON value is one of ksqlDB's error objects."""
    return isinstance(document, dict) and "error_code" in document


def is_missing_source(error: KsqlError) -> bool:
    """Say whether ``error`` means that the described source does not exist."""
    return error.code == 40001 and MISSING_SOURCE.search(str(error)) is not None  # noqa: PLR2004 - ksqlDB's code for "bad statement"


def _read_error(body: bytes) -> tuple[int | None, str]:
    try:
        document = parse_json(body)
    except ValueError:
        return None, body[:_MESSAGE_LIMIT].decode("utf-8", "replace")
    return _read_fields(document)


def _read_fields(document: Any) -> tuple[int | None, str]:
    if not isinstance(document, dict):
        return None, brief(document, _MESSAGE_LIMIT)
    code, message = document.get("error_code"), document.get("message")
    text = message if isinstance(message, str) else brief(document, _MESSAGE_LIMIT)
    return (code if isinstance(code, int) else None), text


def _shorten(text: str) -> str:
    return text if len(text) <= _MESSAGE_LIMIT else text[: _MESSAGE_LIMIT - 1] + "…"

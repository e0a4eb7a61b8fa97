"""Every error that crosses a module boundary, as one tree.

    ReconcilerError
    |-- ConfigurationError          a setting is missing or wrong; names the variable          exit 2
    |-- RegistryError               a registry document that must not be used
    |-- GuardRefusal                a safety rule refused; names the rule and what to do       exit 4
    |-- LeaseLost                   this process may not write now                             look first
    |-- KsqlError                   an error of ksqlDB, or no answer                           code = its error_code
    |   |-- KsqlUnreachable         refused, reset, timed out before an answer                 transient
    |   |-- KsqlNotReady            503, or a pull while the server starts, restores or stops  transient
    |   |-- KsqlTransient           rate limit, a 5xx that passes                              transient
    |   |-- KsqlUnknownOutcome      a statement that may or may not have been executed         look first
    |   |-- KsqlConflict            fenced by another writer, same command in flight           look first
    |   |-- KsqlBadStatement        it will never be accepted as it is                         permanent
    |   |-- KsqlRefused             understood and refused: privileges, readers, limits        permanent
    |   |-- KsqlInBandFailure       an error object inside a 200 body                          transient
    |   |-- KsqlTruncated           a body that ends before its end                            transient
    |   `-- KsqlWrongShape          not what this request answers: schema, JSON, types         permanent
    `-- PlatformError               an error of the engine, or no answer
        |-- PlatformUnreachable     no engine, no quorum, timed out                            transient
        |-- PlatformConflict        another writer was first ("update out of sequence")       look first
        `-- PlatformRefused         the engine does not accept it as it is                     permanent

Adapters translate the exceptions of their libraries into these and chain the cause, so that no caller depends on
the library. Any other exception that escapes is a bug and is counted as one.
"""

from __future__ import annotations

from enum import Enum


class Retry(Enum):
    """What the caller may do about an error."""

    TRANSIENT = "transient"
    LOOK_FIRST = "look-first"
    PERMANENT = "permanent"


class ReconcilerError(Exception):
    """Base of all errors of this project."""

    retry = Retry.PERMANENT


class ConfigurationError(ReconcilerError):
    """A setting is missing or has a value that cannot be used."""


class RegistryError(ReconcilerError):
    """A registry document that is corrupt, of another version, of another cluster, or too large."""


class GuardRefusal(ReconcilerError):
    """A safety rule refused; the message names the rule, the numbers and the way to override it."""


class LeaseLost(ReconcilerError):
    """This process may not write now; the message says why. Nothing was sent."""

    retry = Retry.LOOK_FIRST


class KsqlError(ReconcilerError):
    """An error of ksqlDB, or no answer.

    Attributes:
        code: ksqlDB's own ``error_code`` (40001, 50302, ...), None where the server gave none.
        status: the HTTP status, None where no answer came.
    """

    def __init__(self, message: str, *, code: int | None = None, status: int | None = None) -> None:
        """Keep ksqlDB's error code and the HTTP status beside the message."""
        super().__init__(message)
        self.code = code
        self.status = status


class KsqlUnreachable(KsqlError):
    """The connection was refused, reset, or nothing came within the time limit."""

    retry = Retry.TRANSIENT


class KsqlNotReady(KsqlError):
    """The server is starting, restoring or stopping."""

    retry = Retry.TRANSIENT


class KsqlTransient(KsqlError):
    """A failure of the server that passes: a rate limit, an internal error."""

    retry = Retry.TRANSIENT


class KsqlUnknownOutcome(KsqlError):
    """The statement may have been executed, may be later, or never: observe before repeating it."""

    retry = Retry.LOOK_FIRST


class KsqlConflict(KsqlError):
    """Another writer was first (fenced), or the same command is being executed."""

    retry = Retry.LOOK_FIRST


class KsqlBadStatement(KsqlError):
    """The statement will never be accepted as it is."""


class KsqlRefused(KsqlError):
    """Understood and refused: credentials, privileges, readers of a source, a limit."""


class KsqlInUse(KsqlRefused):
    """Others read a stream of ours or write into it, so it stays."""


class KsqlInBandFailure(KsqlError):
    """An error object inside a body that came with status 200."""

    retry = Retry.TRANSIENT


class KsqlTruncated(KsqlError):
    """A body that ended before its end."""

    retry = Retry.TRANSIENT


class KsqlWrongShape(KsqlError):
    """The body is not what this request answers: another schema, not JSON, other types."""


class PlatformError(ReconcilerError):
    """An error of the deployment platform, or no answer."""


class PlatformUnreachable(PlatformError):
    """No engine answers, it has no quorum, or it took too long."""

    retry = Retry.TRANSIENT


class PlatformConflict(PlatformError):
    """The object has changed since it was read, or its name was taken."""

    retry = Retry.LOOK_FIRST


class PlatformRefused(PlatformError):
    """The engine does not accept this as it is."""


def describe(error: Exception) -> str:
    """Return an error as a message; an unexpected one is marked as internal."""
    if isinstance(error, ReconcilerError):
        return str(error)
    return f"internal error, please report it: {type(error).__name__}: {error}"

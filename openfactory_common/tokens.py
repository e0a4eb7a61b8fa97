"""Tokens by which programs of ours know each other: a file has one a line.

Each of them is accepted, the first is sent. So a token is replaced without an interruption: the new one is added as the
second line at the server, becomes the first line at the clients, and then the old one goes.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from pathlib import Path

import structlog

from openfactory_common.files import FileChanges, read_file

_log = structlog.get_logger(__name__)

#: What can be sent after `Bearer`: b64token of RFC 6750, section 2.1.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)
_MAX_BYTES = 64 * 1024
#: Characters. Fewer are guessable over the network; `openssl rand -hex 32` writes 64.
_SHORTEST = 16


def read_tokens(path: Path) -> tuple[str, ...]:
    """Return the tokens of a file; blank lines, and blanks around a token, do not count.

    Raises:
        ValueError: it cannot be read, or has no token or something else; the message repeats neither path nor content.
    """
    try:
        text = read_file(path, _MAX_BYTES + 1).decode("ascii")
    except UnicodeDecodeError:
        raise ValueError("it has characters that no token has") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ValueError(getattr(error, "strerror", None) or "the file cannot be read") from error
    tokens = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not tokens:
        raise ValueError("there is no token in it")
    if len(text) > _MAX_BYTES:
        raise ValueError("it is too large")
    for number, token in enumerate(tokens, 1):
        if not _TOKEN.fullmatch(token):
            raise ValueError(f"token {number} has characters other than letters, digits, - . _ ~ + / and = at its end")
        if len(token) < _SHORTEST:
            raise ValueError(f"token {number} has {len(token)} characters: at least {_SHORTEST} are required")
    return tokens


def check_token_file(path: Path) -> Path:
    """Refuse a file that has no tokens, or something else.

    Raises:
        ValueError: with what is wrong.
    """
    read_tokens(path)
    return path


class TokenFile:
    """The tokens of a file, which is read again when it changes; while it cannot be used, the last good ones stay."""

    def __init__(self, path: Path, variable: str) -> None:
        """Read the file at the first use; ``variable`` names it in the log."""
        self._path = path
        self._variable = variable
        self._tokens: tuple[str, ...] = ()
        self._changes = FileChanges(path)
        self._problem = ""

    def read(self) -> tuple[str, ...]:
        """Return the tokens; none if the file could never be read."""
        try:
            self._refresh()
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or str(error)
            if problem != self._problem:
                _log.warning("%s: %s; the tokens of before stay in use", self._variable, problem)
            self._problem = problem
        return self._tokens

    def _refresh(self) -> None:
        if self._changes.changed():
            self._tokens = read_tokens(self._path)
            self._changes.confirm()
            self._problem = ""

    def accepts(self, token: str) -> bool:
        """Return whether this is one of the tokens; how long that takes says nothing about them."""
        given = _digest(token)
        return sum(hmac.compare_digest(given, _digest(one)) for one in self.read()) > 0  # `any` would skip the rest

    def header(self) -> dict[str, str]:
        """Return the field of a request that has the first token; none without a token."""
        tokens = self.read()
        return {"Authorization": f"Bearer {tokens[0]}"} if tokens else {}


def bearer_token(fields: Sequence[str]) -> str | None:
    """Return the token of the values of a request's `Authorization` fields; None if there is none, or no single one."""
    match = _BEARER.fullmatch(fields[0].strip()) if len(set(fields)) == 1 else None
    return match[1] if match else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()

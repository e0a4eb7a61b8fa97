"""One HTTP exchange with ksqlDB: httpx inside, ``KsqlError`` outside."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from openfactory_common.errors import (
    ConfigurationError,
    KsqlError,
    KsqlRefused,
    KsqlTruncated,
    KsqlUnreachable,
    KsqlWrongShape,
)
from openfactory_common.ksqldb.failures import error_of, no_answer
from openfactory_common.ksqldb.wire import JSON_ACCEPT
from reconciler.ksqldb.deadline import time_limit, transport

OnRequest = Callable[[str, str, float], None]
"""Called after every attempt with the kind of request, the status or the failure's name, and its seconds."""


@dataclass(frozen=True)
class Timeouts:
    """Time limits in seconds; every one bounds a whole exchange, so that a dripping server cannot hold us.

    Attributes:
        connect: until a connection is open.
        read: for reads. 20,000 assets take 0.2 s; a server whose Kafka is down does not answer for minutes.
        ddl: for a statement; the server itself answers QUEUED after 5 s.
        outcome: for a queued statement to become final.
        direct: for a read of a whole table from Kafka; 100,000 assets take a few seconds.
        first_row: for its first row: the server makes a consumer first, and the broker waits for 3 s by default.
        quiet: without a row, after which nothing more is there; longer than a commit interval (2 s), the longest pause
            between rows that the server has.
    """

    connect: float = 2.0
    read: float = 10.0
    ddl: float = 15.0
    outcome: float = 30.0
    direct: float = 30.0
    first_row: float = 10.0
    quiet: float = 2.5


@dataclass(frozen=True)
class Request:
    """One request: ``label`` names it in metrics, ``writes`` says that a lost answer leaves its outcome open.

    ``seconds`` is its own time limit, None for that of its kind.
    """

    label: str
    method: str
    path: str
    payload: Mapping[str, Any] | None = None
    accept: str = JSON_ACCEPT
    writes: bool = False
    seconds: float | None = None


_UNAUTHORIZED = "look at KSQLDB_USERNAME and KSQLDB_PASSWORD (or their _FILE variables)"
_NO_HOST = "KSQLDB_URL does not name a host that can be looked up"
_NOT_TRUSTED = "KSQLDB_CA_FILE must name the authority that signed it, and KSQLDB_URL the host that it is for"


class Transport:
    """Sends requests over one connection pool.

    Environment proxies and ``.netrc`` are left aside: the address in the settings is the server's own.
    """

    def __init__(
        self, url: str, limits: Timeouts, *, ca: str | None, auth: tuple[str, str] | None, on_request: OnRequest | None
    ) -> None:
        """Prepare a pool; nothing is sent yet.

        Args:
            url: where the server listens, e.g. ``http://ksqldb-server:8088``.
            limits: the time limits.
            ca: file with the certificate authority that signed the server's certificate, None for the system's.
            auth: user and password for basic authentication.
            on_request: see ``OnRequest``.

        Raises:
            ConfigurationError: the host of ``url`` cannot be a host's name.
        """
        self._limits = limits
        self._on_request = on_request
        try:
            self._http = httpx.Client(
                base_url=url,
                auth=httpx.BasicAuth(*auth) if auth else None,
                transport=transport(ssl.create_default_context(cafile=ca)),
                trust_env=False,
                follow_redirects=False,
                event_hooks={"response": [_without_location]},
            )
        except (httpx.InvalidURL, UnicodeError) as error:  # what they say may repeat the password
            raise ConfigurationError(_NO_HOST) from error

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def body(self, ask: Request) -> bytes:
        """Return the whole body of a 200.

        Raises:
            KsqlError: of the class that the answer, or its absence, stands for.
        """
        with self.chunks(ask) as chunks:
            return b"".join(chunks)

    @contextmanager
    def chunks(self, ask: Request) -> Iterator[Iterator[bytes]]:
        """Yield the body of a 200 as it comes.

        Raises:
            KsqlError: as ``body``; also inside of the block, where the connection breaks.
        """
        began, code = time.monotonic(), ""
        try:
            with time_limit(self._seconds(ask)), self._opened(ask) as response:
                code = str(response.status_code)
                if response.status_code != httpx.codes.OK:
                    raise _refusal(response, ask)
                yield response.iter_bytes()
        except UnicodeError as error:  # a label of the host that is empty or has more than 63 characters
            code = code or type(error).__name__
            raise KsqlUnreachable(f"ksqlDB cannot be reached: {_NO_HOST}") from error
        except httpx.RequestError as error:
            failure = _failure(error, ask, begun=code != "")
            code = code or type(error).__name__
            raise failure from error
        except KsqlError as error:
            code = f"{code} {type(error).__name__}" if code == "200" else code
            raise
        finally:
            if self._on_request:
                self._on_request(ask.label, code, time.monotonic() - began)

    def until_quiet(self, ask: Request, patience: Callable[[], float]) -> Generator[bytes, None, None]:
        """Yield the body of an answer that has no end, until ``patience()`` seconds are over; to be closed.

        Args:
            ask: with its own time limit.
            patience: asked before each chunk how many seconds to wait for it.

        Raises:
            KsqlTruncated: the server ended the answer, or the time limit is over while it still answers.
            KsqlError: as ``body``.
        """
        ends = time.monotonic() + self._seconds(ask)
        with self.chunks(ask) as chunks:
            while (wait := patience()) > 0:
                try:
                    with time_limit(wait):
                        chunk = next(chunks, None)
                except httpx.ReadTimeout:
                    chunk = b""
                if chunk is None:
                    raise KsqlTruncated(f"{ask.label}: the server ended the answer", status=200)
                if time.monotonic() >= ends:
                    raise KsqlTruncated(f"{ask.label}: rows still come after {self._seconds(ask):g} s", status=200)
                if not chunk:
                    return
                yield chunk

    def _seconds(self, ask: Request) -> float:
        return ask.seconds or (self._limits.ddl if ask.writes else self._limits.read)

    def _opened(self, ask: Request) -> Any:
        limit = self._seconds(ask)
        return self._http.stream(
            ask.method,
            ask.path,
            # ASCII with escapes: a value may hold a lone surrogate, which has no UTF-8 form.
            content=None if ask.payload is None else json.dumps(ask.payload).encode(),
            headers={"accept": ask.accept, "content-type": JSON_ACCEPT},
            timeout=httpx.Timeout(limit, connect=self._limits.connect, pool=self._limits.connect),
        )


def _without_location(response: httpx.Response) -> None:
    """Take off where a redirect leads: httpx parses it also where it does not follow it, and fails with it."""
    response.headers.pop("location", None)


def _refusal(response: httpx.Response, ask: Request) -> KsqlError:
    """Return the error of an answer other than 200; a gateway that lost its server does not know the outcome either."""
    error = error_of(response.status_code, response.read(), response.headers.get("content-type", ""))
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return KsqlRefused(f"{error}; {_UNAUTHORIZED}", code=error.code, status=error.status)
    if ask.writes and isinstance(error, KsqlUnreachable):
        return no_answer(str(error), writes=True)
    return error


def _failure(error: httpx.RequestError, ask: Request, *, begun: bool) -> KsqlError:
    """Translate httpx's error; ``begun`` means that the status line had come."""
    cause = f"{ask.label}: {type(error).__name__}: {error}"
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return KsqlUnreachable(f"ksqlDB cannot be reached: {_tls_problem(error) or cause}")
    if ask.writes:
        return no_answer(cause, writes=True)
    if isinstance(error, httpx.DecodingError):
        return KsqlWrongShape(f"the answer cannot be decoded: {cause}", status=200)
    if begun and not isinstance(error, httpx.TimeoutException):
        return KsqlTruncated(f"the connection broke within the answer: {cause}", status=200)
    return no_answer(cause, writes=False)


def _tls_problem(error: BaseException) -> str:
    """Return what is wrong with the TLS handshake and which setting is about it; empty where it is something else."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return ""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {cause.verify_message}; {_NOT_TRUSTED}"
    return f"the TLS handshake failed: {cause.reason}; does KSQLDB_URL begin with https:// for a server without TLS?"

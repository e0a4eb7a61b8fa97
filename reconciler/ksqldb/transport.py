"""HTTP to ksqlDB: httpx inside, ``KsqlError`` outside.

httpx's read limit starts again with every byte, so a server (or something in between) that sends slowly would block the
operator for ever. Here every read, write and connect of an exchange gets what is left of one total time.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpcore
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

OnRequest = Callable[[str, str, float], None]
"""Called after every attempt with the request's label, the status or the error's name, and the seconds."""

_ends_at: ContextVar[float] = ContextVar("exchange_ends_at", default=float("inf"))
_KEEP_ALIVE_SECONDS = 60.0
_CONNECTIONS = 10


@dataclass(frozen=True)
class Timeouts:
    """Time limits in seconds; each is for a whole exchange.

    Attributes:
        connect: until a connection is open.
        read: for reads. 20,000 assets take 0.2 s; a server whose Kafka is down does not answer for minutes.
        ddl: for a statement; the server itself answers QUEUED after 5 s.
        outcome: for a queued statement to become final.
        direct: for a read of a whole table from Kafka; 100,000 assets take a few seconds.
        first_row: for its first row: the server first makes a consumer, and the broker waits for 3 s by default.
        quiet: without a row, after which the table is read; longer than a commit interval (2 s), the server's longest
            pause between rows.
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
    """One request: ``label`` is its name in metrics; after a lost answer the outcome of one that ``writes`` is unknown.

    ``seconds`` is its own time limit, None for that of its kind.
    """

    label: str
    method: str
    path: str
    payload: Mapping[str, Any] | None = None
    accept: str = JSON_ACCEPT
    writes: bool = False
    seconds: float | None = None


_UNAUTHORIZED = "check KSQLDB_USERNAME and KSQLDB_PASSWORD (or their _FILE variables)"
_NO_HOST = "KSQLDB_URL does not name a host that can be looked up"
_NOT_TRUSTED = "KSQLDB_CA_FILE must name the authority that signed it, and KSQLDB_URL the host that it is for"


class Transport:
    """Sends requests over one connection pool.

    Environment proxies and ``.netrc`` are ignored: the address in the settings is the server's own.
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
                transport=_LimitedTransport(ssl.create_default_context(cafile=ca)),
                trust_env=False,
                follow_redirects=False,
                event_hooks={"response": [_remove_location]},
            )
        except (httpx.InvalidURL, UnicodeError) as error:  # their text may have the password
            raise ConfigurationError(_NO_HOST) from error

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def body(self, request: Request) -> bytes:
        """Return the whole body of a 200.

        Raises:
            KsqlError: of the class for the answer, or for no answer.
        """
        with self.chunks(request) as chunks:
            return b"".join(chunks)

    @contextmanager
    def chunks(self, request: Request) -> Iterator[Iterator[bytes]]:
        """Yield the body of a 200 as it comes.

        Raises:
            KsqlError: as ``body``; also inside the block, when the connection breaks.
        """
        began, code = time.monotonic(), ""
        try:
            limit = self._seconds(request)
            stream = self._http.stream(
                request.method,
                request.path,
                # ASCII with escapes: a value may have a lone surrogate, which has no UTF-8 form.
                content=None if request.payload is None else json.dumps(request.payload).encode(),
                headers={"accept": request.accept, "content-type": JSON_ACCEPT},
                timeout=httpx.Timeout(limit, connect=self._limits.connect, pool=self._limits.connect),
            )
            with _time_limit(limit), stream as response:
                code = str(response.status_code)
                if response.status_code != httpx.codes.OK:
                    raise _translate_status(response, request)
                yield response.iter_bytes()
        except UnicodeError as error:  # a label of the host that is empty or has more than 63 characters
            code = code or type(error).__name__
            raise KsqlUnreachable(f"ksqlDB cannot be reached: {_NO_HOST}") from error
        except httpx.RequestError as error:
            failure = _translate_error(error, request, begun=code != "")
            code = code or type(error).__name__
            raise failure from error
        except KsqlError as error:
            code = f"{code} {type(error).__name__}" if code == "200" else code
            raise
        finally:
            if self._on_request:
                self._on_request(request.label, code, time.monotonic() - began)

    def until_quiet(self, request: Request, patience: Callable[[], float]) -> Generator[bytes, None, None]:
        """Yield the body of an endless answer until nothing comes for ``patience()`` seconds; close it after use.

        Args:
            request: with its own time limit.
            patience: called before each chunk: how many seconds to wait for it.

        Raises:
            KsqlTruncated: the server ended the answer, or it still answers at the time limit.
            KsqlError: as ``body``.
        """
        limit = self._seconds(request)
        ends = time.monotonic() + limit
        with self.chunks(request) as chunks:
            while (wait := patience()) > 0:
                try:
                    with _time_limit(wait):
                        chunk = next(chunks, None)
                except httpx.ReadTimeout:
                    chunk = b""
                if chunk is None:
                    raise KsqlTruncated(f"{request.label}: the server ended the answer", status=200)
                if time.monotonic() >= ends:
                    raise KsqlTruncated(f"{request.label}: rows still come after {limit:g} s", status=200)
                if not chunk:
                    return
                yield chunk

    def _seconds(self, request: Request) -> float:
        return request.seconds or (self._limits.ddl if request.writes else self._limits.read)


def _remove_location(response: httpx.Response) -> None:
    """Remove the target of a redirect: httpx parses it also where it does not follow it, and may fail."""
    response.headers.pop("location", None)


def _translate_status(response: httpx.Response, request: Request) -> KsqlError:
    """Return the error for an answer other than 200; a gateway that lost its server does not know the outcome."""
    error = error_of(response.status_code, response.read(), response.headers.get("content-type", ""))
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return KsqlRefused(f"{error}; {_UNAUTHORIZED}", code=error.code, status=error.status)
    if request.writes and isinstance(error, KsqlUnreachable):
        return no_answer(str(error), writes=True)
    return error


def _translate_error(error: httpx.RequestError, request: Request, *, begun: bool) -> KsqlError:
    """Translate httpx's error; ``begun``: the status line was received."""
    cause = f"{request.label}: {type(error).__name__}: {error}"
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return KsqlUnreachable(f"ksqlDB cannot be reached: {_find_tls_problem(error) or cause}")
    if request.writes:
        return no_answer(cause, writes=True)
    if isinstance(error, httpx.DecodingError):
        return KsqlWrongShape(f"the answer cannot be decoded: {cause}", status=200)
    if begun and not isinstance(error, httpx.TimeoutException):
        return KsqlTruncated(f"the connection broke within the answer: {cause}", status=200)
    return no_answer(cause, writes=False)


def _find_tls_problem(error: BaseException) -> str:
    """Return what is wrong with the TLS handshake and which setting to correct; empty for any other error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return ""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {cause.verify_message}; {_NOT_TRUSTED}"
    return f"the TLS handshake failed: {cause.reason}; does KSQLDB_URL begin with https:// for a server without TLS?"


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """End every operation on the transport within the block after ``seconds``, with httpx's time-out errors.

    Inside another limit the earlier end counts.
    """
    token = _ends_at.set(min(_ends_at.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _ends_at.reset(token)


def _limit(timeout: float | None, expired: type[Exception]) -> float | None:
    """Return the shorter of httpx's own limit and what is left of the exchange."""
    left = _ends_at.get() - time.monotonic()
    if left <= 0:
        raise expired("the time for the whole exchange is over")
    limit = left if timeout is None else min(timeout, left)
    return None if limit == float("inf") else limit


class _LimitedTransport(httpx.HTTPTransport):
    """httpx's own transport over a pool whose sockets keep to ``_time_limit`` (httpx has no parameter for that)."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(verify=context)
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=_CONNECTIONS,
            max_keepalive_connections=_CONNECTIONS,
            keepalive_expiry=_KEEP_ALIVE_SECONDS,
            network_backend=_LimitedBackend(),
        )


class _LimitedBackend(httpcore.SyncBackend):
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        limit = _limit(timeout, httpcore.ConnectTimeout)
        return _LimitedStream(super().connect_tcp(host, port, limit, local_address, socket_options))


class _LimitedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _limit(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _limit(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        limit = _limit(timeout, httpcore.ConnectTimeout)
        return _LimitedStream(self._stream.start_tls(ssl_context, server_hostname, limit))

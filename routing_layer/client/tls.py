"""TLS for clients, with a certificate that is read again when its files change."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from pathlib import Path

import structlog

from openfactory_common.connections import Ending, Entry, address_key
from openfactory_common.errors import ConfigurationError
from routing_layer.client.connection import ClientConnection, ClientServer

_log = structlog.get_logger(__name__)
#: Seconds between two looks at the files.
_LOOK_SECONDS = 5.0
#: The guard ends a handshake that takes too long, and counts it; the event loop would only later.
_LATER_SECONDS = 5.0
#: For the client's part of the end of a connection. The event loop's own 30 s kept 100 descriptors of a silent client.
_SHUTDOWN_SECONDS = 1.0
#: Connections that are accepted before others have their turn.
_ACCEPTS = 64
#: Seconds before the next attempt to accept, where the system has no more descriptors.
_NO_ROOM_SECONDS = 0.5


class Certificate:
    """A certificate, its key, and the context of new connections; open ones keep what they began with.

    Attributes:
        context: what connections are made with.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read the files.

        Raises:
            ConfigurationError: they cannot be read, or do not belong together; names the variables.
        """
        self._files = certificate, key
        self.context = _new_context()
        self._in_use = self._refused = ""
        try:
            self._load()
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"TLS_CERT_FILE={certificate}, TLS_KEY_FILE={key}: {_explain(error)}") from error

    async def follow(self) -> None:
        """Read the files again whenever they have changed, until cancelled; what is wrong is logged once."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.refresh()

    def refresh(self) -> None:
        """Take files that have changed into use; wrong ones are logged, and the last good ones stay."""
        try:
            changed = self._load()
        except (OSError, ssl.SSLError) as error:
            text = _explain(error)
            if text != self._refused:
                self._refused = text
                _log.error("tls: the new certificate is not used, the old one stays in use: %s", text)
        else:
            self._refused = ""
            if changed:
                _log.info("tls: a new certificate is in use")

    def _load(self) -> bool:
        """Return whether other files than before are in use now."""
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in self._files)).hexdigest()
        if digest == self._in_use:
            return False
        # A new context: an old one keeps a certificate for each type of key, and goes on serving it.
        context = _new_context()
        context.load_cert_chain(*self._files)
        self.context, self._in_use = context, digest
        return True


def read_certificate(certificate: Path | None, key: Path | None) -> Certificate | None:
    """Return the certificate of the settings, None without one.

    Raises:
        ConfigurationError: see `Certificate`.
    """
    return None if certificate is None or key is None else Certificate(certificate, key)


class TlsListener:
    """Accepts connections whose clients speak TLS, on a socket that listens.

    The event loop's own TLS server makes a connection known after its handshake: nothing would limit silent ones.
    """

    def __init__(self, server: ClientServer, sock: socket.socket, certificate: Certificate) -> None:
        """Accept from now on, each connection with the certificate of the moment."""
        self._server = server
        self._sock = sock
        self._certificate = certificate
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Accept no more."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                _log.warning("tls: a connection cannot be accepted: %s", error.strerror)
                self._loop.remove_reader(self._sock.fileno())
                self._loop.call_later(_NO_ROOM_SECONDS, self._resume)
                return
            _Handshake(self._server, sock, address_key(address), self._certificate.context)

    def _resume(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.add_reader(self._sock.fileno(), self._accept)


class _Handshake:
    """A connection until its client speaks TLS, as the guard sees it."""

    def __init__(self, server: ClientServer, sock: socket.socket, address: str, context: ssl.SSLContext) -> None:
        entry = server.guard.open(self, address)
        if entry is None:
            sock.close()
        else:
            self._task = asyncio.get_running_loop().create_task(_secure(server, sock, entry, context))

    def end(self, why: Ending) -> None:  # noqa: ARG002 - the guard tells it
        """Cut the connection: its client could not read an error document."""
        self._task.cancel()

    def gone(self) -> bool:
        """Never asked: no connection is half-closed before its first request."""
        return False


async def _secure(server: ClientServer, sock: socket.socket, entry: Entry, context: ssl.SSLContext) -> None:
    sock.setblocking(False)
    patience = server.guard.limits.head + _LATER_SECONDS
    try:
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: ClientConnection(server, entry),
            sock,
            ssl=context,
            ssl_handshake_timeout=patience,
            ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
        )
    except (OSError, ssl.SSLError):  # no TLS, or none that both sides speak
        server.guard.close(entry)
    except asyncio.CancelledError:
        server.guard.close(entry)
        raise
    finally:
        if entry.closed:
            sock.close()


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _explain(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"not a certificate and its key in PEM: {error.reason or error}"
    return error.strerror or str(error)

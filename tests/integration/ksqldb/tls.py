"""The embedded ksqlDB behind TLS, with certificates of an authority that the test makes itself."""

from __future__ import annotations

import asyncio
import base64
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from demo.ksqldb.app import Api
from demo.ksqldb.server import Config, DevServer

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a directory: its certificate, and what it signs."""

    directory: Path

    @property
    def certificate(self) -> Path:
        """The PEM file that a client trusts."""
        return self.directory / "ca.pem"

    @classmethod
    def make(cls, directory: Path) -> Authority:
        """Make one with a key of its own."""
        directory.mkdir()
        made = cls(directory)
        key = ("-keyout", str(directory / "ca.key"), "-out", str(made.certificate))
        _openssl("req", "-x509", *_CURVE, *key, "-subj", f"/CN=Authority {directory.name}")
        return made

    def sign(self, host: str) -> tuple[Path, Path]:
        """Return certificate and key of a server that is reached as ``host`` (``DNS:name`` or ``IP:address``)."""
        certificate, key = self.directory / "server.pem", self.directory / "server.key"
        signer = ("-CA", str(self.certificate), "-CAkey", str(self.directory / "ca.key"))
        name = ("-subj", "/CN=ksqldb", "-addext", f"subjectAltName={host}")
        _openssl("req", "-x509", *_CURVE, *signer, *name, "-keyout", str(key), "-out", str(certificate))
        return certificate, key


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@dataclass
class Guarded:
    """A running server: its port, and the ``Authorization`` header of each request that it got."""

    port: int = 0
    authorizations: list[str | None] = field(default_factory=list)


@contextmanager
def ksqldb(pair: tuple[Path, Path] | None, auth: tuple[str, str] | None = None) -> Iterator[Guarded]:
    """Serve an empty ksqlDB on 127.0.0.1, over TLS with ``pair`` (certificate, key); refuse others than ``auth``."""
    guarded, loop, ready = Guarded(), asyncio.new_event_loop(), threading.Event()

    async def begin() -> web.AppRunner:
        application = Api(DevServer(Config())).application()
        application.middlewares.append(_doorkeeper(guarded, auth))
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=_context(pair)).start()
        addresses: list[Any] = runner.addresses
        guarded.port = int(addresses[0][1])
        ready.set()
        return runner

    def run() -> None:
        runner = loop.run_until_complete(begin())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield guarded
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)


def _context(pair: tuple[Path, Path] | None) -> ssl.SSLContext | None:
    if pair is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pair)
    return context


def _doorkeeper(guarded: Guarded, auth: tuple[str, str] | None) -> Any:
    wanted = auth and "Basic " + base64.b64encode(":".join(auth).encode()).decode()

    @web.middleware
    async def check(request: web.Request, handler: Any) -> web.StreamResponse:
        given = request.headers.get("Authorization")
        guarded.authorizations.append(given)
        if wanted and given != wanted:
            return web.json_response(
                {"@type": "generic_error", "error_code": 40100, "message": "Unauthorized"}, status=401
            )
        response: web.StreamResponse = await handler(request)
        return response

    return check

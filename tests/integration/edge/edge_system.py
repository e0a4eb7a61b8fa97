"""The edge as a process with the manifest's own command and configuration, and what is around it.

Only files and addresses are other ones: the name server is the test's, which answers for the names of the manifest.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.harness.coroutines import PATIENCE, until
from tests.harness.ports import free_port
from tests.integration.ksqldb.tls import Authority
from tests.integration.routing_layer.proxy_system import ROOT, Asked, Response

CONFIGURATION = ROOT / "manifests" / "edge" / "haproxy.cfg"
#: The names of the services in the network, with the prefix and the stack's name of the manifests.
ROUTING_LAYER, OPERATOR = "tasks.ofa_routing_layer", "tasks.ofa_reconciler"
TOKEN, OLD_TOKEN = "the.operators-token_~+/0123==", "the-token-of-before"
#: What the stack file mounts.
TOKENS = f"{TOKEN}\n{OLD_TOKEN}\n"
USER, PASSWORD = "alice", "correct horse"
#: Where clients connect from; the edge itself connects from 127.0.0.1.
CLIENT = "127.0.0.9"


class NameServer(asyncio.DatagramProtocol):
    """Answers questions for addresses as the engine's name server does: all tasks of a service.

    Attributes:
        addresses: IPv4 addresses by name; another name does not exist.
    """

    def __init__(self) -> None:
        """Know no names yet."""
        self.port = free_port()
        self.addresses: dict[str, list[str]] = {}
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self) -> NameServer:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", self.port))
        return self

    def stop(self) -> None:
        """Answer no more questions."""
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer one question (RFC 1035, section 4)."""
        labels, at = [], 12
        while size := data[at]:
            labels.append(data[at + 1 : at + 1 + size].decode())
            at += 1 + size
        question, kind = data[12 : at + 5], data[at + 1 : at + 3]
        found = self.addresses.get(".".join(labels).lower())
        answers = found if found and kind == b"\0\1" else []
        # Each record names the question's name by its place, and lives for no time, as the engine's do.
        records = [b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + bytes(int(part) for part in each.split(".")) for each in answers]
        flags = b"\x81\x80" if found is not None else b"\x81\x83"
        head = data[:2] + flags + b"\0\1" + len(records).to_bytes(2, "big") + bytes(4)
        assert self._transport is not None
        self._transport.sendto(head + question + b"".join(records), addr)


class RecordingOperator:
    """An operator that keeps what reaches it.

    Attributes:
        requests: method, target and headers of each request but the health checks.
    """

    def __init__(self) -> None:
        """Start with no request."""
        self.port = free_port()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self._runner: web.AppRunner | None = None

    async def start(self) -> RecordingOperator:
        """Listen."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def stop(self) -> None:
        """Go away."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        if request.path != "/healthz":
            self.requests.append((request.method, request.raw_path, dict(request.headers)))
        return web.Response(text="the page")


class Edge:
    """HAProxy with the configuration of the manifest.

    Attributes:
        names: the name server that it asks.
        authority: what its certificate is signed by.
        running: its processes, the newest last.
    """

    def __init__(self, haproxy: str, folder: Path, environment: dict[str, str], tokens: str | None = TOKENS) -> None:
        """Prepare certificate, users and tokens as files in an empty folder, and variables.

        With None for ``tokens``, HAProxy runs with the configuration alone, without the command of the stack file.
        """
        folder.mkdir()
        self.port = free_port()
        self.authority = Authority.make(folder / "authority")
        certificate, key = self.authority.sign("DNS:edge.test")
        (folder / "edge.pem").write_bytes(certificate.read_bytes())
        (folder / "edge.pem.key").write_bytes(key.read_bytes())
        (folder / "edge_users").write_text(f"userlist operators\n    user {USER} password {_hash(PASSWORD)}\n")
        self.log = folder / "log"
        if tokens is None:
            self.command = [haproxy, "-db", "-f", str(CONFIGURATION), "-f", str(folder / "edge_users")]
        else:
            (folder / "reconciler_token").write_text(tokens)
            self.command = _read_command(folder)
        self.environment = {
            "PATH": f"{Path(haproxy).parent}:{os.environ['PATH']}",
            "LISTEN": f"127.0.0.1:{self.port}",
            "CERTIFICATE": str(folder / "edge.pem"),
            **environment,
        }
        self.running: list[asyncio.subprocess.Process] = []

    @property
    def url(self) -> str:
        """The address of the edge for browsers, which do not know the name in its certificate."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def browser_option(self) -> str:
        """What makes Chromium accept the certificate, and no other."""
        certificate = x509.load_pem_x509_certificate(Path(self.environment["CERTIFICATE"]).read_bytes())
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return f"--ignore-certificate-errors-spki-list={base64.b64encode(hashlib.sha256(key).digest()).decode()}"

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start a process, and wait until it answers."""
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self.command, *arguments, env=self.environment, stdout=log, stderr=log
            )
        self.running.append(process)
        async with asyncio.timeout(PATIENCE):
            while await self._ask_status("/healthz") != 200:
                assert process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.05)
        return process

    async def reload(self) -> asyncio.subprocess.Process:
        """Start a new process that takes the port over; the old one keeps its streams. Return the new one."""
        old = self.running[-1].pid
        new = await self.start("-sf", str(old))
        # Until then the old one accepts clients, too.
        await until(lambda: f"({old}) : Proxy edge stopped" in self.log.read_text(), "the old process stops listening")
        return new

    async def stop(self) -> None:
        """End every process at once."""
        for process in self.running:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.wait()

    async def connect(self) -> Asked:
        """Connect with TLS for HTTP/1.1, with the certificate checked."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        context.set_alpn_protocols(["http/1.1"])
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname="edge.test", local_addr=(CLIENT, 0)
        )
        return Asked(reader, writer)

    async def ask(self, target: str, *headers: str, method: str = "GET") -> Asked:
        """Send a request on a connection of its own."""
        asked = await self.connect()
        lines = [f"{method} {target} HTTP/1.1", "Host: edge.test", *headers, "", ""]
        asked.writer.write("\r\n".join(lines).encode("latin-1"))
        return asked

    async def get(self, target: str, *headers: str, method: str = "GET") -> Response:
        """Send a request and return its response as soon as the head is there."""
        return await (await self.ask(target, *headers, method=method)).head()

    async def wait_for(self, target: str, status: int, *headers: str) -> None:
        """Ask until the answer has this status: the edge learns by checks and names who can answer."""
        async with asyncio.timeout(PATIENCE):
            while await self._ask_status(target, *headers) != status:  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.05)

    async def _ask_status(self, target: str, *headers: str) -> int:
        """Return the status of an answer; 0 if the connection is refused or cut."""
        try:
            response = await self.get(target, *headers)
        except (ConnectionError, asyncio.IncompleteReadError):
            return 0
        response.leave()
        return response.status


def login(password: str = PASSWORD) -> str:
    """Return the header of a user."""
    return f"Authorization: Basic {base64.b64encode(f'{USER}:{password}'.encode()).decode()}"


def _read_command(folder: Path) -> list[str]:
    """Return the command of the stack file with its files in a folder; arguments can be added."""
    stack = yaml.safe_load((CONFIGURATION.parent / "stack.yml").read_text())
    shell, options, script = stack["services"]["edge"]["entrypoint"]
    places = {"$$": "$", "/run/secrets": str(folder), "/usr/local/etc/haproxy/haproxy.cfg": str(CONFIGURATION)}
    for theirs, ours in places.items():
        assert theirs in script
        script = script.replace(theirs, ours)
    return [shell, options, script.rstrip() + ' "$@"', shell]


def _hash(password: str) -> str:
    done = subprocess.run(["openssl", "passwd", "-6", password], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@contextlib.asynccontextmanager
async def start_edge(
    haproxy: str,
    folder: Path,
    *,
    routing_layer: int,
    operator: int = 1,
    tokens: str | None = TOKENS,
    **limits: str,
) -> AsyncIterator[tuple[Edge, NameServer]]:
    """Run the edge before a routing layer and an operator on these ports of 127.0.0.1, until the end of the block."""
    names = await NameServer().start()
    names.addresses = {ROUTING_LAYER: ["127.0.0.1"], OPERATOR: ["127.0.0.1"]}
    places = {
        "NAMESERVER": f"127.0.0.1:{names.port}",
        "ROUTING_LAYER": f"{ROUTING_LAYER}:{routing_layer}",
        "OPERATOR": f"{OPERATOR}:{operator}",
    }
    edge = Edge(haproxy, folder / "edge", {**places, **limits}, tokens)
    try:
        await edge.start()
        yield edge, names
    finally:
        await edge.stop()
        names.stop()

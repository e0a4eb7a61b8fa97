"""What is around the proxy: services, an operator, a ksqlDB and clients, each a real server or socket of its own.

The proxy itself runs as a process, started the way a container starts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness.coroutines import PATIENCE
from tests.harness.ports import free_port
from tests.integration.routing_layer.fake_sources import FakeKsqldb, FakeOperator, registry
from tests.integration.routing_layer.quick_proxy import QUICK
from tests.integration.routing_layer.sse_parser import Event, EventParser

_METRICS_INTERVAL = "routing_layer.metrics:CachedExposition.INTERVAL_SECONDS"
ROOT = Path(__file__).resolve().parents[3]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(eq=False)
class Connection:
    """One connection that a service accepted, and the head of its request."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    request: bytes
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def target(self) -> str:
        """The request target."""
        return self.request.split(b" ")[1].decode()

    def header(self, name: str) -> list[str]:
        """Return the values of a header, in order."""
        lines = self.request.decode("latin-1").split("\r\n")[1:]
        pairs = [line.partition(":") for line in lines if ":" in line]
        return [value.strip() for key, _, value in pairs if key.lower() == name.lower()]

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def event(self, text: str) -> None:
        """Send one event as one chunk."""
        await self.send(chunk(f"data: {text}\n\n".encode()))


class Service:
    """A service whose every byte a test decides: it accepts, reads the head and does what ``answer`` says."""

    def __init__(self, answer: Callable[[Connection], Any] | None = None) -> None:
        """Answer each request with ``answer``; by default with the head of an event stream."""
        self.port = free_port()
        self.connections: list[Connection] = []
        self.answer = answer
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where the registry says it is."""
        return f"http://127.0.0.1:{self.port}/asset_stream"

    @property
    def open(self) -> list[Connection]:
        """The connections whose client is still there."""
        return [connection for connection in self.connections if not connection.left.is_set()]

    async def start(self) -> Service:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=4096)
        return self

    async def stop(self) -> None:
        """Stop listening; connections stay."""
        if self._server is not None:
            self._server.close()

    async def cut(self) -> None:
        """Break every connection."""
        for connection in self.open:
            connection.writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                connection = Connection(reader, writer, await reader.readuntil(b"\r\n\r\n"))
                self.connections.append(connection)
                if self.answer is None:
                    await connection.send(HEAD)
                else:
                    await self.answer(connection)
                if b"asset_state" not in connection.request:
                    await reader.read()
                    connection.left.set()
                    return
        for connection in self.connections:
            if connection.writer is writer:
                connection.left.set()


class Response:
    """A response as it comes in: the head at once, the body as it is asked for."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        """Read the head."""
        self.reader = reader
        self.writer = writer
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.lines = [line for line in lines[1:] if line]
        self._events = EventParser()
        self._pending: list[Event] = []
        self.complete = False

    def header(self, name: str) -> str | None:
        """Return a header's value."""
        for line in self.lines:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None

    @property
    def retry(self) -> int | None:
        """The reconnection time that the stream asked for."""
        return self._events.retry

    async def piece(self) -> bytes:
        """Return the next chunk; empty at the proper end.

        Raises:
            asyncio.IncompleteReadError: the connection was cut.
        """
        size = int((await self.reader.readuntil(b"\r\n"))[:-2], 16)
        data = await self.reader.readexactly(size + 2)
        assert data.endswith(b"\r\n")
        self.complete = size == 0
        return data[:-2]

    async def event(self) -> Event:
        """Return the next event."""
        while not self._pending:
            data = await self.piece()
            assert data, "the stream ended"
            self._pending += self._events.feed(data)
        return self._pending.pop(0)

    async def rest(self) -> bytes:
        """Return the body to its end."""
        length = self.header("Content-Length")
        if length is not None:
            return await self.reader.readexactly(int(length))
        pieces = []
        while piece := await self.piece():
            self._pending += self._events.feed(piece)
            pieces.append(piece)
        return b"".join(pieces)

    async def problem(self) -> dict[str, Any]:
        """Return the problem document."""
        assert self.header("Content-Type") == "application/problem+json"
        document: dict[str, Any] = json.loads(await self.rest())
        assert document["status"] == self.status
        return document

    def leave(self) -> None:
        """Close the connection at once."""
        self.writer.transport.abort()


@dataclass
class Asked:
    """A request that has been sent."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> Response:
        """Return its response as soon as the head is there."""
        async with asyncio.timeout(PATIENCE):
            return Response(self.reader, self.writer, await self.reader.readuntil(b"\r\n\r\n"))


class Proxy:
    """The proxy as a process."""

    def __init__(
        self,
        environment: dict[str, str],
        *,
        descriptors: int | None = None,
        errors: Path | None = None,
        constants: Mapping[str, Any] = QUICK,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare one with these variables, a limit of descriptors, a file for its standard error, and constants.

        With ``tls`` its clients speak TLS.
        """
        self.constants = constants
        self.tls = tls
        self.limit = descriptors
        self.errors = errors
        self.port = free_port()
        base = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        self.environment = {
            **base,
            "ROUTING_LAYER_PORT": str(self.port),
            "LOG_LEVEL": os.environ.get("PROXY_LOG_LEVEL", "critical"),
            **environment,
        }
        self.process: asyncio.subprocess.Process | None = None
        self._fresh_at = 0.0

    async def start(self) -> Proxy:
        """Start it and wait until it listens."""
        self.process = await self.spawn()
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(ConnectionError):
                    (await self.get("/healthz")).leave()
                    return self
                assert self.process.returncode is None, "the proxy did not start"
                await asyncio.sleep(0.05)

    async def spawn(self, *arguments: str, capture: bool = False) -> asyncio.subprocess.Process:
        """Start the program."""
        pipe = asyncio.subprocess.PIPE if capture else None
        module = "tests.integration.routing_layer.quick_proxy" if self.constants else "routing_layer"
        environment = {**self.environment, "TEST_CONSTANTS": json.dumps(self.constants)}
        command = [sys.executable, "-m", module, *arguments]
        if self.limit is not None:
            command = ["sh", "-c", f'ulimit -n {self.limit}; exec "$0" "$@"', *command]
        with contextlib.ExitStack() as stack:
            errors = stack.enter_context(self.errors.open("ab")) if self.errors is not None else pipe
            return await asyncio.create_subprocess_exec(*command, env=environment, cwd=ROOT, stdout=pipe, stderr=errors)

    async def stop(self) -> None:
        """End it at once."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def terminate(self) -> None:
        """Ask it to stop."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    async def closed(self) -> None:
        """Wait until the port is closed."""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionRefusedError):
                while True:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.transport.abort()
                    await asyncio.sleep(0.05)

    async def exit_code(self) -> int:
        """Wait for its end."""
        assert self.process is not None
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()

    async def get(self, target: str, *headers: str, method: str = "GET", version: str = "1.1") -> Response:
        """Send a request and return its response as soon as the head is there."""
        return await (await self.ask(target, *headers, method=method, version=version)).head()

    async def ask(self, target: str, *headers: str, method: str = "GET", version: str = "1.1") -> Asked:
        """Send a request."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=4 * 1024 * 1024, ssl=self.tls)
        lines = [f"{method} {target} HTTP/{version}", "Host: proxy.test:5555", *headers, "", ""]
        writer.write("\r\n".join(lines).encode("latin-1"))
        return Asked(reader, writer)

    def _processes(self) -> list[Path]:
        """The process and, if it has workers, those."""
        assert self.process is not None
        own = Path(f"/proc/{self.process.pid}")
        children = (own / "task" / own.name / "children").read_text().split()
        return [own, *(Path("/proc", child) for child in children)]

    def descriptors(self) -> int:
        """How many descriptors its processes have open."""
        return sum(self.descriptors_of_each())

    def descriptors_of_each(self) -> list[int]:
        """How many descriptors each of its processes has open, the workers' after the first."""
        return [len(list((process / "fd").iterdir())) for process in self._processes()]

    def memory(self) -> int:
        """Resident memory of its processes in KiB, what they share counted once."""
        rollups = [(process / "smaps_rollup").read_text() for process in self._processes()]
        return sum(int(kib) for rollup in rollups for kib in re.findall(r"^Pss:\s+(\d+) kB$", rollup, re.MULTILINE))

    async def metric(self, name: str) -> float:
        """Return the value of one series as it is now."""
        await self.stale()
        return (await self.metrics())[name]

    async def stale(self) -> None:
        """Wait until no answer for metrics is used again: each worker keeps its own, and what it tells the others."""
        await asyncio.sleep(self._fresh_at - time.monotonic())

    async def metrics(self) -> dict[str, float]:
        """Return the value of each series, as it was at most a second ago."""
        response = await self.get("/metrics")
        caches = 2 if "ROUTING_LAYER_WORKERS" in self.environment else 1
        self._fresh_at = time.monotonic() + caches * self.constants.get(_METRICS_INTERVAL, 1.0) + 0.05
        text = (await response.rest()).decode()
        response.leave()
        return {name: float(value) for name, value in re.findall(r"^([a-z]\S*) (\S+)$", text, re.MULTILINE)}

    async def ready(self) -> bool:
        """Whether it is ready."""
        response = await self.get("/readyz")
        response.leave()
        return response.status == 200

    async def wait_metric(self, name: str, least: float) -> None:
        """Wait until a counter has reached a value."""
        async with asyncio.timeout(PATIENCE):
            while (await self.metrics())[name] < least:  # noqa: ASYNC110 - it is another process that counts
                await asyncio.sleep(0.05)

    async def wait_current(self) -> None:
        """Wait until it follows changes: what the table holds by now is known."""
        await self.wait_metric("routing_layer_membership_relists_total", 1)

    async def wait_ready(self) -> None:
        """Wait until it is ready, with all of its workers."""
        if "ROUTING_LAYER_WORKERS" in self.environment:
            await self.wait_metric("routing_layer_ready", 1)
            return
        async with asyncio.timeout(PATIENCE):
            while not await self.ready():  # noqa: ASYNC110 - it is another process that gets ready
                await asyncio.sleep(0.02)


@dataclass
class ProxySystem:
    """All of it: two group services, Weld with asset A1 and Paint with asset A2."""

    proxy: Proxy
    ksql: FakeKsqldb
    operator: FakeOperator
    weld: Service
    paint: Service
    state: Service

    def publish(self, groups: dict[str, str] | None = None, **changes: Any) -> None:
        """Publish a registry; by default the usual two groups."""
        usual = {"Weld": self.weld.url, "Paint": self.paint.url}
        state = f"http://127.0.0.1:{self.state.port}/asset_state"
        self.operator.document = registry(usual if groups is None else groups, state, **changes)

    async def stream(self, asset: str, *headers: str) -> Response:
        """Open an asset's stream, which must succeed."""
        response = await self.proxy.get(f"/asset_stream?asset_uuid={asset}", *headers)
        assert response.status == 200, await response.rest()
        return response


@contextlib.asynccontextmanager
async def start_system(
    *,
    ready: bool = True,
    state: Callable[[Connection], Any] | None = None,
    ksql: FakeKsqldb | None = None,
    descriptors: int | None = None,
    errors: Path | None = None,
    constants: Mapping[str, Any] = QUICK,
    tls: ssl.SSLContext | None = None,
    **env: str,
) -> AsyncIterator[ProxySystem]:
    """Start everything, and end it."""
    ksql, operator = await (ksql or FakeKsqldb()).start(), await FakeOperator().start()
    weld, paint = await Service().start(), await Service().start()
    state_api = await Service(state).start()
    await ksql.put("A1", "Weld")
    await ksql.put("A2", "Paint")
    base = {
        "KSQLDB_URL": ksql.url,
        "RECONCILER_URL": operator.url,
        "REGISTRY_FILE": "/nonexistent",
        "REGISTRY_POLL": "0.1",
    }
    proxy = Proxy({**base, **env}, descriptors=descriptors, errors=errors, constants=constants, tls=tls)
    system = ProxySystem(proxy, ksql, operator, weld, paint, state_api)
    system.publish()
    try:
        await proxy.start()
        if ready:
            await proxy.wait_ready()
        yield system
    finally:
        await proxy.stop()
        await ksql.stop()
        await operator.stop()
        for service in (weld, paint, state_api):
            await service.cut()
            await service.stop()

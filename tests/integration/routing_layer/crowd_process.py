"""A crowd of clients in a process of its own, so that its descriptors are not those of the test.

``python -m tests.integration.routing_layer.crowd_process PORT`` takes one command a line: ``open N TARGET`` opens N
streams and answers with the number of those whose head was a 200, ``leave`` closes all of them at once, an empty line
or the end of input ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
from collections.abc import AsyncIterator

from tests.integration.routing_layer.proxy_system import ROOT

#: Connections that are being opened at the same time; more only wait in the kernel's queue.
_AT_ONCE = 200


class _Client(asyncio.Protocol):
    """One client that reads the head and then whatever comes."""

    def __init__(self) -> None:
        """Wait for the head."""
        self.head = asyncio.get_running_loop().create_future()
        self._data = b""

    def data_received(self, data: bytes) -> None:
        """Look for the end of the head; the body is dropped."""
        if not self.head.done():
            self._data += data
            if b"\r\n\r\n" in self._data:
                self.head.set_result(self._data)
                self._data = b""

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits."""
        if not self.head.done():
            self.head.set_exception(exc or ConnectionResetError("closed before the head"))


async def _open(port: int, target: str, turns: asyncio.Semaphore) -> asyncio.Transport | None:
    async with turns:
        transport, client = await asyncio.get_running_loop().create_connection(_Client, "127.0.0.1", port)
        transport.write(f"GET {target} HTTP/1.1\r\nHost: crowd\r\n\r\n".encode())
        head: bytes = await client.head
    return transport if head.startswith(b"HTTP/1.1 200 ") else None


async def _obey(port: int) -> None:
    loop, turns = asyncio.get_running_loop(), asyncio.Semaphore(_AT_ONCE)
    clients: list[asyncio.Transport] = []
    while command := (await loop.run_in_executor(None, sys.stdin.readline)).split():
        if command[0] == "open":
            opened = await asyncio.gather(*(_open(port, command[2], turns) for _ in range(int(command[1]))))
            clients += [client for client in opened if client is not None]
        else:
            for client in clients:
                client.abort()
            clients.clear()
        print(len(clients), flush=True)  # noqa: T201 - the answer to the command


class Crowd:
    """The crowd as a test sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Take a started process."""
        self._process = process

    async def open(self, count: int, target: str) -> int:
        """Open this many streams; return how many were served."""
        return await self._command(f"open {count} {target}")

    async def leave(self) -> None:
        """Close every connection at once."""
        assert await self._command("leave") == 0

    async def _command(self, line: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n".encode())
        return int(await self._process.stdout.readline())


@contextlib.asynccontextmanager
async def crowd(port: int) -> AsyncIterator[Crowd]:
    """Start a crowd for the proxy on this port; the clients that are left leave at the end."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "tests.integration.routing_layer.crowd_process", str(port))
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe)
    try:
        yield Crowd(process)
    finally:
        process.kill()
        await process.wait()


def raise_limit() -> int:
    """Allow this process as many descriptors as it may have; return how many."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


if __name__ == "__main__":
    raise_limit()
    asyncio.run(_obey(int(sys.argv[1])))

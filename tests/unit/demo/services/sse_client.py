"""What a client of server-sent events sees, and how tests end programs that they started."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).resolve().parents[4]


class SseStream:
    """One open stream, read block by block.

    Attributes:
        gaps: how many gaps it was told.
    """

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        """Read from ``response``."""
        self.response = response
        self.gaps = 0

    async def block(self) -> str:
        """Return the next block without its blank line, or an empty text at the clean end."""
        async with asyncio.timeout(20):
            try:
                return (await self.response.content.readuntil(b"\n\n")).decode().removesuffix("\n\n")
            except asyncio.IncompleteReadError as error:
                return error.partial.decode()

    async def event(self) -> dict[str, Any]:
        """Return the data of the next asset update, over any comments and gaps."""
        while "\nevent: asset_update\n" not in (block := await self.block()):
            assert block, "the stream ended"
            self.gaps += "event: gap\n" in block
        *_, name, data = block.split("\n")
        assert name == "event: asset_update"
        parsed = json.loads(data.removeprefix("data: "))
        assert isinstance(parsed, dict)
        return parsed


@asynccontextmanager
async def sse(url: str, **query: str) -> AsyncIterator[SseStream]:
    """Open ``/asset_stream`` with ``query`` and read past the first comment: the client is registered then."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
        session.get(f"{url}/asset_stream", params=query) as response,
    ):
        assert response.status == 200
        stream = SseStream(response)
        assert await stream.block() == ": ping"
        yield stream


async def status_of(url: str) -> int:
    """Return the status of a GET."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status


@asynccontextmanager
async def program(
    module: str, *arguments: str, output: int = asyncio.subprocess.PIPE, **environment: str
) -> AsyncIterator[Process]:
    """Run ``python -m module`` from the project's root; kill it if the test leaves it running.

    One that runs for long and that no one reads gets ``output=DEVNULL``: a full pipe would stop it.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        cwd=ROOT,
        env={**os.environ, "HOST": "127.0.0.1", **environment},
        stdout=output,
        stderr=output,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()

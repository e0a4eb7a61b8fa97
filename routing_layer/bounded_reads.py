"""Reads answers of other servers, with a limit of bytes."""

from __future__ import annotations

import aiohttp


async def read_response(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return at most ``limit`` bytes of a response's body."""
    body = bytearray()
    while len(body) < limit and (piece := await response.content.read(limit - len(body))):
        body += piece
    return bytes(body)

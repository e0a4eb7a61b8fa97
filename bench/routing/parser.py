"""The proxy's parser of responses beside httptools (llhttp): time for heads and chunks, memory, in one run.

``python bench/routing/parser.py [--rounds 9]`` prints medians of interleaved rounds and ratios. Both do the whole work
of the seam: from the bytes of a read to a ``ResponseHead``, or to the payload that is passed to the client. A head that
was seen before comes from a cache in ours; httptools has to read each byte for its own state, so that only what is made
of the fields can be cached. The adapter passes the fields through our rules, which reads their lines twice: a new head
would take httptools about 5 µs plus nine tenths of what it takes us.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
import tracemalloc
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import httptools

from routing_layer.upstream.connection import ResponseHead, _parse_cached, parse_head
from routing_layer.upstream.framing import ChunkedBody

_HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: Sat, 28 Nov 2026 10:15:%02d GMT\r\nServer: uvicorn\r\n"
    b"Content-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-OpenFactory-Group: Weld\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_EVENT = b'event: asset_update\ndata: {"id":"temperature","value":"21.5","tag":"Temperature","type":"Samples"}\n\n'
_SIZE = 200
_CHUNK = b"%x\r\n%b\r\n" % (_SIZE, _EVENT.ljust(_SIZE, b" "))
_REPEATS = 20_000
_CONNECTIONS = 2_000


class HttptoolsResponse:
    """One response read by httptools: the head with the same meaning as ours, and the pieces of the body."""

    __slots__ = ("done", "head", "parser", "payload", "pending", "reason")

    def __init__(self) -> None:
        """Start before the head."""
        self.reason = b""
        self.pending: list[tuple[bytes, bytes]] = []
        self.head: ResponseHead | None = None
        self.payload: list[bytes] = []
        self.done = False
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        """Nothing is known yet."""

    def on_status(self, reason: bytes) -> None:
        """Keep the phrase."""
        self.reason = reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field."""
        self.pending.append((name, value))

    def on_headers_complete(self) -> None:
        """Read the fields."""
        self.head = _cached_head(self.parser.get_status_code(), self.reason, tuple(self.pending))
        self.pending.clear()

    def on_body(self, data: bytes) -> None:
        """Keep a piece."""
        self.payload.append(data)

    def on_message_complete(self) -> None:
        """Note the end."""
        self.done = True

    def feed(self, data: bytes) -> bytes:
        """Return the payload of what was read."""
        self.parser.feed_data(data)
        pieces, self.payload = self.payload, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _make_head(status: int, reason: bytes, fields: tuple[tuple[bytes, bytes], ...]) -> ResponseHead:
    """Apply our rules to the fields that httptools found."""
    lines = [b"HTTP/1.1 %d %b" % (status, reason), *(b"%b: %b" % field for field in fields)]
    return parse_head(b"\r\n".join(lines))


_cached_head = lru_cache(256)(_make_head)


def time_each(action: Callable[[], object], repeats: int = _REPEATS) -> float:
    """Return the nanoseconds of CPU that one call takes."""
    gc.collect()
    gc.disable()
    started = time.process_time_ns()
    for _ in range(repeats):
        action()
    used = time.process_time_ns() - started
    gc.enable()
    return used / repeats


def our_head(data: bytes) -> ResponseHead:
    """Read a head the way a connection does."""
    buffer = bytearray(data)
    end = buffer.find(b"\r\n\r\n", 0)
    return _parse_cached(bytes(buffer[:end]))


def their_head(data: bytes) -> ResponseHead | None:
    """Read it with httptools; a response is one parser (a stream's connection carries one response)."""
    response = HttptoolsResponse()
    response.feed(data)
    return response.head


def _new_heads(read: Callable[[bytes], object]) -> Callable[[], object]:
    """Return an action that reads a head that no cache has."""
    template, _, rest = (_HEAD % 0).partition(b"uvicorn")
    numbers = iter(range(10**9))
    return lambda: read(template + b"%09d" % next(numbers) + rest)


def _streaming() -> tuple[ChunkedBody, HttptoolsResponse]:
    ours, theirs = ChunkedBody(), HttptoolsResponse()
    theirs.feed(_HEAD % 0)
    for body in (ours, theirs):
        assert len(body.feed(_CHUNK)) == _SIZE
    return ours, theirs


def _split(feed: Callable[[bytes], bytes], at: int) -> Callable[[], None]:
    first, second = _CHUNK[:at], _CHUNK[at:]

    def action() -> None:
        feed(first)
        feed(second)

    return action


def _bytes_each(make: Callable[[], object]) -> float:
    """Return the bytes of one connection's parsing state, in the middle of a stream."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [make() for _ in range(_CONNECTIONS)]
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return used / len(kept)


def _resident_each(make: Callable[[], object]) -> float:
    """Return the resident bytes of one (llhttp's own state is not all in Python's view)."""
    gc.collect()
    before = _resident()
    kept = [make() for _ in range(_CONNECTIONS * 10)]
    return (_resident() - before) / len(kept)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _their_stream() -> HttptoolsResponse:
    response = HttptoolsResponse()
    response.feed(_HEAD % 0)
    response.feed(_CHUNK)
    return response


def _our_stream() -> ChunkedBody:
    body = ChunkedBody()
    body.feed(_CHUNK)
    return body


def main(rounds: int) -> None:
    """Measure in turns and print the medians."""
    ours, theirs = _streaming()
    same = _HEAD % 1
    cases: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "head, seen before (ns)": (lambda: our_head(same), lambda: their_head(same)),
        "head, new (ns)": (_new_heads(our_head), _new_heads(their_head)),
        "event of 200 bytes in one read (ns)": (lambda: ours.feed(_CHUNK), lambda: theirs.feed(_CHUNK)),
        "event cut in its size (ns)": (_split(ours.feed, 1), _split(theirs.feed, 1)),
        "event cut in its content (ns)": (_split(ours.feed, 100), _split(theirs.feed, 100)),
        "four events in one read (ns)": (lambda: ours.feed(_CHUNK * 4), lambda: theirs.feed(_CHUNK * 4)),
    }
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in cases}
    for _ in range(rounds):
        for name, pair in cases.items():
            for values, action in zip(found[name], pair, strict=True):
                values.append(time_each(action))
    found["state of an idle stream (bytes, traced)"] = [_bytes_each(_our_stream)], [_bytes_each(_their_stream)]
    found["state of an idle stream (bytes, resident)"] = [_resident_each(_our_stream)], [_resident_each(_their_stream)]
    print(f"medians of {rounds} interleaved rounds, {time.strftime('%Y-%m-%d')}")
    print(f"{'':44}{'ours':>10}{'httptools':>11}{'ratio':>8}")
    for name, (mine, other) in found.items():
        left, right = statistics.median(mine), statistics.median(other)
        print(f"{name:44}{left:10.0f}{right:11.0f}{left / right:8.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    main(parser.parse_args().rounds)

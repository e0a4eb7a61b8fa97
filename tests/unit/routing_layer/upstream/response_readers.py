"""Three readers of a service's bytes: the proxy's connection, h11, and httptools (llhttp); what each makes of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import h11
import httptools

from routing_layer.upstream.connection import UpstreamConnection, UpstreamFailed

#: What frames the body or concerns only the connection; the proxy does not pass it on.
_HOP = {
    *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    *(b"content-length", b"x-accel-buffering"),
}
Fields = list[tuple[bytes, bytes]]


@dataclass
class Reading:
    """What became of the bytes of one connection, up to its end.

    Attributes:
        complete: a whole response was read; otherwise something was refused, or missing.
        fields: names and values of what is passed on, without blanks around the values.
        kept: the connection can carry another request; None where the reader never uses it again.
    """

    complete: bool = False
    status: int = 0
    reason: bytes = b""
    fields: Fields = field(default_factory=list)
    body: bytes = b""
    kept: bool | None = None


class _Wire(asyncio.Transport):
    """The sending side of a connection: keeps nothing, and knows whether it was aborted."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Drop it."""

    def abort(self) -> None:
        """Give it up."""
        self.closed = True

    def is_closing(self) -> bool:
        """Whether it was."""
        return self.closed

    def pause_reading(self) -> None:
        """Do nothing: the test feeds what it wants."""

    def resume_reading(self) -> None:
        """Do nothing."""


async def read_ours(pieces: list[bytes]) -> Reading:
    """Read the pieces as one read each, then the end of the connection."""
    connection, wire = UpstreamConnection(asyncio.get_running_loop()), _Wire()
    connection.connection_made(wire)
    asking = asyncio.create_task(connection.request(b"", limit=60, collect=True))
    await asyncio.sleep(0)
    reading, ended, content = Reading(), list[bool](), list[bytes]()
    answered = collected = reusable = False
    for piece in [*pieces, None]:
        if piece is None:
            reading.kept = reusable and connection.open if collected else None
            connection.connection_lost(None)
        elif not wire.closed:
            connection.data_received(piece)
        await asyncio.sleep(0)
        if answered or not asking.done():
            continue
        try:
            head, body = asking.result()
        except UpstreamFailed:
            return Reading()
        answered, reusable = True, head.reusable
        reading.status, reading.reason = head.status, head.reason
        split = [line.partition(b":") for line in head.fields]
        reading.fields = [(name, value.strip(b" \t")) for name, _, value in split]
        if body is not None:
            ended, content, collected = [True], [body], True
        else:
            connection.pass_body(head.body(), content.append, ended.append)
    reading.complete, reading.body = ended == [True], b"".join(content)
    return reading


def _end_to_end(fields: Fields) -> Fields:
    """Leave out what concerns only the connection."""
    lines = [value.lower().split(b",") for name, value in fields if name.lower() == b"connection"]
    dropped = _HOP | {token.strip() for token in itertools.chain(*lines)}
    return [(name, value.strip(b" \t")) for name, value in fields if name.lower() not in dropped]


def read_h11(data: bytes) -> Reading:
    """Read the bytes and the end with h11, in answer to a GET."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    reading = Reading()
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(b"")
            elif isinstance(event, h11.Response):
                reading.status, reading.reason = event.status_code, bytes(event.reason)
                reading.fields = _end_to_end([(bytes(name), bytes(value)) for name, value in event.headers.raw_items()])
            elif isinstance(event, h11.Data):
                reading.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                reading.complete = True
                reading.kept = connection.their_state is h11.DONE and not connection.trailing_data[0]
                return reading
            elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return reading
    except h11.RemoteProtocolError:
        return reading


class _Response:
    """What httptools calls back while it reads one connection."""

    def __init__(self) -> None:
        self.reason, self.body = b"", bytearray()
        self.fields: Fields = []
        self.headed = self.chunked = self.done = self.kept = False
        self.on_body: Callable[[bytes], None] = self.body.extend
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        """Forget the interim response."""
        self.headed, self.reason = False, b""
        self.fields.clear()

    def on_status(self, reason: bytes) -> None:
        """Add to the phrase."""
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field of the head, not one of the trailer."""
        if not self.headed:
            self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Note the end of the head."""
        self.headed = True

    def on_chunk_header(self) -> None:
        """Note that the body is chunked."""
        self.chunked = True

    def on_message_complete(self) -> None:
        """Note the end of a final response."""
        self.done = not 100 <= self.parser.get_status_code() < 200
        self.kept = self.parser.should_keep_alive()  # after this call it is about the next message

    def takes_anything(self) -> bool:
        """Whether it reads a body that ends with its connection: there is no call for the end of the bytes.

        The inside of a chunk and a body with a length take anything, too: `read_httptools` has excluded these.
        """
        size = len(self.body)
        try:
            self.parser.feed_data(b"\x00" * 3)
        except httptools.HttpParserError:
            return False
        taken = len(self.body) == size + 3
        del self.body[size:]
        return taken


def read_httptools(data: bytes) -> Reading:
    """Read the bytes and the end with httptools, byte by byte, so that the end of the response is known exactly."""
    response, position = _Response(), 0
    try:
        while position < len(data) and not response.done:
            response.parser.feed_data(data[position : position + 1])
            position += 1
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return Reading()
    if not response.headed:
        return Reading()
    reading = Reading(
        status=response.parser.get_status_code(),
        reason=response.reason,
        fields=_end_to_end(response.fields),
    )
    if response.done:
        reading.complete = True
        reading.kept = response.kept and position == len(data)
    elif not response.chunked and not any(name.lower() == b"content-length" for name, _ in response.fields):
        reading.complete, reading.kept = response.takes_anything(), False
    reading.body = bytes(response.body)
    return reading

"""From one sequence of events to many clients. Everything here runs in the event loop and never waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

import structlog

from group_service.events import Event, Reason, chunk, gap_frame
from group_service.history import History, Refill
from group_service.ids import Position, format_position
from group_service.metrics import Metrics

_log = structlog.get_logger()
#: Clients for which the source is read at once: each has a portion and the events that it got in memory, 10 MB at most.
_REPLAYS = 32


class Client:
    """One open stream.

    Attributes:
        asset: the asset whose events it receives; None for the whole group.
        item: the data item whose events it receives; None for all.
        ended: completes when the stream is to end cleanly.
        quiet: seconds since the last byte was written.
        since: time of the last event that it had before it went live, in milliseconds.
        cut: whether it was cut because it read too slowly.
    """

    def __init__(self, transport: asyncio.Transport, asset: str | None, item: str | None, limit: int) -> None:
        """Write to ``transport``, and cut it while more than ``limit`` bytes wait in it."""
        self.asset, self.item = asset, item
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.quiet = 0
        self.cut = False
        self.since = int(time.time() * 1000)
        self._transport, self._limit = transport, limit

    def write(self, data: bytes) -> bool:
        """Write a chunk; False if the client has left, or was too slow and is cut: it comes back and resumes.

        The limit is checked before the write, so that an event which is larger than the limit passes.
        """
        if self._transport.is_closing():  # its handler has not seen yet that the connection is lost
            return False
        if self._transport.get_write_buffer_size() > self._limit:
            self.cut = True
            self.abort()
            return False
        self._transport.write(data)
        self.quiet = 0
        return True

    def abort(self) -> None:
        """Close the connection, whatever waits in it."""
        self._transport.abort()

    def end(self) -> None:
        """End the stream cleanly."""
        if not self.ended.done():
            self.ended.set_result(None)


class Hub:
    """The history of the group and its clients.

    Attributes:
        slug: of the group.
        history: the last events.
        filled: whether the history has been read; before, no position is known.
        generation: counts how often the topic was made again.
        replays: the turns of clients that resume with what is not in memory.
        issues: why the service is not ready, by subject.
        metrics: of the process.
    """

    def __init__(self, slug: str, history_bytes: int, ping_seconds: float, metrics: Metrics) -> None:
        """Start without events, not ready."""
        self.slug, self.metrics = slug, metrics
        self.history = History(history_bytes)
        self.filled = False
        self.generation = 0
        self.replays = asyncio.Semaphore(_REPLAYS)
        self.issues: dict[str, str] = {"history": "the history is being read"}
        self._ping_seconds = ping_seconds
        self._refill = Refill(set(), {})
        self._closed = False
        self._clients: set[Client] = set()
        self._live: dict[str | None, set[Client]] = {}
        metrics.add_gauge("clients", "Open streams.", lambda: len(self._clients))
        metrics.add_gauge("history_bytes", "Bytes of the events in memory.", lambda: self.history.bytes)
        metrics.add_gauge("ready", "1 while /ready answers 200.", lambda: not self.issues)

    # ---- the source's side

    def set_issue(self, subject: str, text: str) -> None:
        """Say why the service is not ready; an empty text removes what was said about the subject."""
        if text:
            self.issues[subject] = text
        else:
            self.issues.pop(subject, None)

    def set_filled(self) -> None:
        """The history has everything that it can have."""
        self.filled = True
        self.set_issue("history", "")

    def restart(self, start: Position, whole: Iterable[int], reason: Reason | None) -> None:
        """Begin with an empty history at ``start``, and tell the clients of live events why, if they miss any.

        A topic that was made again can be filled again with events that the clients have: those are not live.
        """
        before = self.head()
        if reason is Reason.RECREATED:
            self.generation += 1
            self._refill = self.history.before_refill(self._refill)
        self.history.reset(start, whole)
        if reason is not None:
            data = chunk(gap_frame(before, format_position(self.slug, start), reason))
            for client in [client for clients in self._live.values() for client in clients]:
                self._write(client, data)
                self.metrics.gaps[reason].inc()

    def add_partition(self, partition: int, start: int) -> None:
        """Take a new partition, which begins at ``start``."""
        self.history.add_partition(partition, start)

    def publish(self, events: Sequence[Event], ends: Position) -> None:
        """Take the next events, and the positions after them."""
        position = dict(self.history.next)
        batches: dict[str, list[Event]] = {}
        live: list[Event] = []
        for event in events:
            if not self.history.add(event) or self._refill.repeats(event):
                self.metrics.repeated.inc()
            else:
                live.append(event)
                if event.asset in self._live:
                    batches.setdefault(event.asset, []).append(event)
        self.set_issue("records", "")  # only this takes back that none can be read
        self.history.next.update(ends)
        self.metrics.events.inc(len(events))
        for asset, batch in batches.items():
            self._deliver(asset, batch, [event.frame for event in batch])
        if None in self._live and live:
            self._deliver(None, live, frames(self.slug, live, position))

    def _deliver(self, asset: str | None, events: list[Event], framed: list[bytes]) -> None:
        everything = chunk(b"".join(framed))
        by_item: dict[str, tuple[bytes, int]] = {}
        delivered = 0
        for client in tuple(self._live[asset]):
            data, count = everything, len(events)
            if client.item is not None:
                if client.item not in by_item:
                    chosen = [one for event, one in zip(events, framed, strict=True) if event.item == client.item]
                    by_item[client.item] = (chunk(b"".join(chosen)), len(chosen))
                data, count = by_item[client.item]
            if count and self._write(client, data):
                delivered += count
        self.metrics.deliveries.inc(delivered)

    # ---- the clients' side

    def attach(self, client: Client) -> None:
        """Know a client; it gets pings, and no events before `go_live`."""
        self._clients.add(client)
        if self._closed:
            client.end()

    def detach(self, client: Client) -> None:
        """Forget a client."""
        self._clients.discard(client)
        live = self._live.get(client.asset, set())
        live.discard(client)
        if not live:
            self._live.pop(client.asset, None)

    def go_live(self, client: Client) -> None:
        """Let a client that has everything until now receive what comes."""
        if client in self._clients:
            self._live.setdefault(client.asset, set()).add(client)

    def head(self, client: Client | None = None) -> str:
        """Return the id that stands for everything until now, for one client or for all.

        The timestamp in it must be that of its record: it tells whether the topic is still the same. It is not the
        time from which a client goes on in another group: until a client is told that its asset has moved, records of
        other assets come here, and those of its own already there.
        """
        newest, position = self.history.newest, self.history.next
        since = None
        if client is not None and client.asset is not None:
            since = max(client.since, self.history.last_ms(client.asset))
        if newest is not None:
            position = {newest.partition: newest.offset + 1} if len(position) == 1 else position
            return format_position(self.slug, position, newest.ms, since)
        if any(position.values()):
            return format_position(self.slug, position, None, since)
        return f"@{int(time.time() * 1000) if since is None else since}"

    def tick(self) -> None:
        """Send a comment to each client that has received nothing for long; call it once a second.

        It carries the position for those who have everything until now. Without it, a client of a silent asset would
        resume at its last event, and all that the group had since then would be read again for it.
        """
        for client in tuple(self._clients):
            client.quiet += 1
            if client.quiet >= self._ping_seconds:
                is_live = client in self._live.get(client.asset, ())
                self._write(
                    client, chunk(f": ping\nid: {self.head(client)}\n\n".encode() if is_live else b": ping\n\n")
                )

    def close(self) -> None:
        """End all streams cleanly, and those that come from now on at once."""
        self._closed = True
        self.end_streams()

    def end_streams(self) -> None:
        """End all streams cleanly, without another event: each client comes back and resumes after its last one."""
        self._live.clear()
        for client in self._clients:
            client.end()

    def _write(self, client: Client, data: bytes) -> bool:
        """Write to a client; False if it is gone. What is wrong with one client must not cost the others events."""
        try:
            if client.write(data):
                return True
            self.metrics.cut.inc(client.cut)
        except Exception:  # noqa: BLE001 - whatever it is
            _log.exception("a client cannot be written to")
            client.end()
        self.detach(client)
        return False


def frames(slug: str, events: Iterable[Event], position: dict[int, int]) -> list[bytes]:
    """Return the frames of events for a client of the whole group, and advance its position over them.

    With several partitions, each id has the position in all of them: that of one record does not tell which records
    of the others were sent.
    """
    framed = []
    for event in events:
        position[event.partition] = event.offset + 1
        framed.append(event.frame if len(position) == 1 else event.frame_as(format_position(slug, position, event.ms)))
    return framed

"""From one stream of events to many clients: queues are bounded, and a slow client does not affect the others."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from demo.group_service.event import AssetEvent


class Subscription:
    """One client's view: the events of one asset, or of one of its data items, waiting to be sent."""

    def __init__(self, data_item: str | None, limit: int, cut: Callable[[], None]) -> None:
        """Hold at most ``limit`` events; ``cut`` breaks the client's connection at once."""
        self.data_item = data_item
        self._limit = limit
        self._cut = cut
        self._waiting: list[bytes] = []
        self._changed = asyncio.Event()
        self.ended = False
        self.was_cut = False

    def offer(self, event: AssetEvent) -> None:
        """Queue ``event`` if the client asked for it; a client that is ``limit`` events behind is cut instead.

        The queue of a cut client is dropped: it holds memory for a client that does not read. A clean end would
        look to the client as if it had received everything.
        """
        if self.was_cut or self.data_item not in (None, event.data_item):
            return
        if len(self._waiting) >= self._limit:
            self.was_cut = True
            self._waiting.clear()
            self._cut()
        else:
            self._waiting.append(event.frame)
        self._changed.set()

    def end(self) -> None:
        """Let the client's stream end cleanly after what is queued."""
        self.ended = True
        self._changed.set()

    async def next_frames(self, silence: float) -> bytes:
        """Return all that is queued, as soon as there is any; nothing after ``silence`` seconds or at the end."""
        try:
            async with asyncio.timeout(silence):
                await self._changed.wait()
        except TimeoutError:
            return b""
        self._changed.clear()
        frames, self._waiting = self._waiting, []
        return b"".join(frames)


class Fanout:
    """All clients of the process, found by the asset they follow."""

    def __init__(self, limit: int) -> None:
        """Give each client a queue of ``limit`` events."""
        self._limit = limit
        self._by_asset: dict[str, set[Subscription]] = defaultdict(set)
        self._closed = False

    def __len__(self) -> int:
        """Return the number of clients."""
        return sum(len(subscriptions) for subscriptions in self._by_asset.values())

    @contextmanager
    def subscribe(self, asset: str, data_item: str | None, cut: Callable[[], None]) -> Iterator[Subscription]:
        """Register a client for as long as the context is open."""
        subscription = Subscription(data_item, self._limit, cut)
        subscription.ended = self._closed
        self._by_asset[asset].add(subscription)
        try:
            yield subscription
        finally:
            self._by_asset[asset].discard(subscription)
            if not self._by_asset[asset]:
                del self._by_asset[asset]

    def publish(self, event: AssetEvent) -> None:
        """Queue ``event`` for those who follow its asset. Never waits."""
        for subscription in tuple(self._by_asset.get(event.asset, ())):
            subscription.offer(event)

    def close(self) -> None:
        """End all streams cleanly, and those that come from now on at once."""
        self._closed = True
        for subscriptions in self._by_asset.values():
            for subscription in subscriptions:
                subscription.end()

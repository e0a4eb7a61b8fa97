"""How many streams there may be, of all clients and of each. Pure."""

from __future__ import annotations

from enum import StrEnum


class StreamRefusal(StrEnum):
    """Which limit a further stream would exceed."""

    TOTAL = "total"
    CLIENT = "client"


class StreamLimits:
    """Counts streams against their limits.

    Attributes:
        admitted: streams at the moment, those that wait for their service included.
    """

    def __init__(self, most: int, most_per_client: int) -> None:
        """Allow ``most`` streams, and ``most_per_client`` of each client; 0: any number."""
        self.admitted = 0
        self._most = most
        self._most_per_client = most_per_client
        self._by_client: dict[str, int] = {}

    def enter(self, client: str) -> StreamRefusal | None:
        """Count one more stream of ``client``, unless it would exceed a limit: return which.

        Each stream that was counted must ``leave``. A client that has too many is told so even where all have.
        """
        own = self._by_client.get(client, 0)
        if 0 < self._most_per_client <= own:
            return StreamRefusal.CLIENT
        if 0 < self._most <= self.admitted:
            return StreamRefusal.TOTAL
        self.admitted += 1
        self._by_client[client] = own + 1
        return None

    def leave(self, client: str) -> None:
        """Count one stream of ``client`` less; one that was not counted changes nothing."""
        own = self._by_client.get(client, 0)
        if own == 0:
            return
        self.admitted -= 1
        if own == 1:
            del self._by_client[client]  # clients without a stream take no memory
        else:
            self._by_client[client] = own - 1

"""Keeps the process's one push query open and hands its events on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog

from demo.group_service.event import AssetEvent, event_of
from demo.ksql_rest import KsqlAway, KsqlError, KsqlRest

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 5.0
"""Seconds between attempts: short, because clients wait on open streams that are silent meanwhile."""


class StreamFollower:
    """Follows one ksqlDB stream for ever, from the present on, through all restarts of the server."""

    def __init__(self, ksql: KsqlRest, stream: str, publish: Callable[[AssetEvent], None]) -> None:
        """Follow ``stream``, a name already checked against the whitelist."""
        self._ksql = ksql
        self._sql = f"SELECT * FROM `{stream}` EMIT CHANGES;"  # noqa: S608 - whitelisted by the settings
        self._publish = publish
        self._pause = FIRST_PAUSE
        self._log = structlog.get_logger().bind(stream=stream)
        self.unhealthy_reason: str | None = "the push query has not been opened yet"

    async def run(self) -> None:
        """Open the query, pass on its events, and after any end open it again."""
        while True:
            try:
                await self._follow()
                self.unhealthy_reason = "ksqlDB completed the push query"
            except KsqlError as error:
                self.unhealthy_reason = str(error)
            except Exception as error:  # noqa: BLE001 - a bug must not leave a live service deaf for ever: say it, go on
                self.unhealthy_reason = f"bug: {error!r}"
                self._log.exception("following failed")
            pause = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, so that groups do not come at once
            self._log.warning("push query lost", reason=self.unhealthy_reason, again_in=round(pause, 1))
            await asyncio.sleep(pause)
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    async def _follow(self) -> None:
        async with self._ksql.push(self._sql) as rows:
            self.unhealthy_reason = None
            self._pause = FIRST_PAUSE
            self._log.info("push query open")
            async for row in rows:
                if "asset_uuid" not in row:
                    raise KsqlAway(f"the stream has no column asset_uuid, only {', '.join(row)}")
                if (event := event_of(row)) is not None:
                    self._publish(event)

"""Nothing is lost and nothing comes twice, whatever is replaced between Kafka and a client."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest

from tests.harness.coroutines import until
from tests.harness.kafka import KafkaBroker
from tests.integration.routing_layer.event_source_page import Page, browsing
from tests.kafka.reconnects import GROUPS, Torture, find_faults, run

# The first run installs a browser.
pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("numbers", "faults"),
    [
        ([], ["nothing received"]),
        ([3, 4, 5], []),
        ([3, 4], ["lost [5] (1)"]),
        ([3, 5], ["lost [4] (1)"]),
        ([3, 4, 4, 5], ["twice [4] (1)"]),
        ([3, 5, 5], ["lost [4] (1)", "twice [5] (1)"]),
        ([3, 5, 4], ["out of order"]),
    ],
)
def test_the_count_finds_what_is_wrong(numbers: list[int], faults: list[str]) -> None:
    """Lost, twice and out of order are told apart."""
    assert find_faults(numbers, 5) == faults


def test_every_event_arrives_once_over_a_hundred_reconnects(kafka: KafkaBroker) -> None:
    """Every cause at least once; `make soak` goes on to a thousand."""
    said: list[str] = []
    assert asyncio.run(run(kafka, seed=13, reconnects=100, say=said.append)) == [], said[-1]


def test_a_browser_receives_every_event_once(kafka: KafkaBroker, chromium: str, tmp_path: Path) -> None:
    """A real EventSource, over each cause: it does not know that anything happened."""

    def numbers(page: Page) -> list[int]:
        return [int(json.loads(data)["value"]) for data, _ in page.messages]

    async def follow() -> tuple[list[str], int, int]:
        torture = Torture(kafka, random.Random(3), clients=1)  # noqa: S311 - repeatable on purpose
        asset = "ASSET-00"
        try:
            await torture.start()
            url = f"http://127.0.0.1:{torture.proxy.port}/asset_stream?asset_uuid={asset}"
            # The page is of another origin, which the service does not let in.
            async with browsing(chromium, tmp_path, url, "--disable-web-security") as page:
                await until(lambda: bool(page.messages), "the first event is dispatched")
                for happen in (
                    *(lambda group=group: torture.replace_task(group) for group in GROUPS),
                    torture.restart_proxy,
                    lambda: torture.move(asset),
                    *(lambda group=group: torture.lose_replica(group) for group in GROUPS),
                    lambda: torture.change_definition(torture.events.group_of[asset]),
                ):
                    await happen()
                    seen = torture.events.sent[asset]
                    await until(lambda seen=seen: numbers(page)[-1] > seen, "it receives what comes afterwards")  # type: ignore[misc]
                await asyncio.to_thread(torture.events.stop)
                last = torture.events.sent[asset]
                await until(lambda: numbers(page)[-1] >= last, "the last event is dispatched")
                return find_faults(numbers(page), last), len(page.kinds("gap")), len(page.kinds("open"))
        finally:
            await torture.stop()

    faults, gaps, opened = asyncio.run(follow())
    assert (faults, gaps) == ([], 0)
    assert opened >= 5, "it was cut by most causes"

"""Requests that wait: for a new group's service, for the next task, for an asset that moves; and what they ask for."""

from __future__ import annotations

import asyncio
import re
import time

import pytest

from tests.harness.coroutines import until
from tests.integration.routing_layer.proxy_system import Connection, ProxySystem, Response, start_system

_EVENT_SOURCE = "Accept: text/event-stream"
_NEW = "/asset_stream?asset_uuid=A5"


def _publish_fit(system: ProxySystem) -> None:
    """Give the group of A5 a service: that of Weld."""
    system.publish({"Weld": system.weld.url, "Paint": system.paint.url, "Fit": system.weld.url})


async def _ask_new(
    system: ProxySystem, *headers: str, target: str = _NEW, method: str = "GET"
) -> asyncio.Task[Response]:
    """Ask for an asset of a new group; return when the request is held."""
    await system.proxy.wait_current()
    system.ksql.mute = True  # so that the request is what tells the proxy, and the operator, of the group
    await system.ksql.put("A5", "Fit")
    coming = asyncio.create_task(system.proxy.get(target, *headers, method=method))
    await until(lambda: system.operator.nudged > 0, "the request is held")
    assert not coming.done()
    system.ksql.mute = False
    return coming


async def _deploy_fit(system: ProxySystem, coming: asyncio.Task[Response]) -> Connection:
    """Deploy the service of the new group; return what the held request is for it."""
    _publish_fit(system)
    assert (await coming).status == 200
    return system.weld.connections[-1]


def _asked_from(connection: Connection) -> int:
    """The time from which on a held request asks for events, in milliseconds since 1970."""
    (value,) = connection.header("Last-Event-ID")
    found = re.fullmatch(r"@(\d+)", value)
    assert found is not None, value
    return int(found[1])


async def test_a_request_that_is_served_at_once_asks_for_nothing_more() -> None:
    """Its head is the client's."""
    async with start_system() as system:
        await system.stream("A1", _EVENT_SOURCE)
        assert system.weld.open[0].header("Last-Event-ID") == []


@pytest.mark.parametrize("headers", [(), (_EVENT_SOURCE,)], ids=["program", "event source"])
async def test_a_new_groups_first_client_misses_nothing_since_its_request(headers: tuple[str, ...]) -> None:
    """The service is asked for the events since the request came, whoever waited."""
    async with start_system() as system:
        before = int(time.time() * 1000)
        coming = await _ask_new(system, *headers)
        held = int(time.time() * 1000)
        await asyncio.sleep(0.1)
        assert before <= _asked_from(await _deploy_fit(system, coming)) <= held


@pytest.mark.parametrize(
    ("target", "header", "passed"),
    [
        (_NEW, "Last-Event-ID: Fit/0/4711@9", ["Fit/0/4711@9"]),
        (f"{_NEW}&lastEventId=Fit/0/4711", "X-Any: 1", []),
        (f"{_NEW}&since=2026-01-02T03:04:05Z", "X-Any: 1", []),
        (f"{_NEW}&since=15parsecs", "X-Any: 1", []),
        (f"{_NEW}&since={'9' * 400}", "X-Any: 1", []),
    ],
)
async def test_a_held_client_that_says_where_it_begins_is_believed(target: str, header: str, passed: list[str]) -> None:
    """Its own ID or time is passed on, and no other is added, which would win over the query."""
    async with start_system() as system:
        connection = await _deploy_fit(system, await _ask_new(system, header, target=target))
        assert connection.header("Last-Event-ID") == passed
        assert connection.target == target


@pytest.mark.parametrize(
    ("since", "milliseconds"), [("15m", 900_000), ("2", 2_000), ("100000d", None), ("2h&since=15m", 7_200_000)]
)
async def test_a_duration_counts_from_the_request(since: str, milliseconds: int | None) -> None:
    """The service counts from the time at which it gets the request, which is seconds later."""
    async with start_system() as system:
        before = int(time.time() * 1000)
        coming = await _ask_new(system, target=f"{_NEW}&since={since}")
        held = int(time.time() * 1000)
        await asyncio.sleep(0.1)
        asked = _asked_from(await _deploy_fit(system, coming))
        assert asked == 0 if milliseconds is None else before <= asked + milliseconds <= held


@pytest.mark.parametrize(
    ("target", "header"),
    [(_NEW, "last-event-id:"), (f"{_NEW}&lastEventId=", "X-Any: 1"), (f"{_NEW}&since=", "X-Any: 1")],
)
async def test_a_held_client_with_an_empty_position_has_none(target: str, header: str) -> None:
    """The service takes it for none, so the events since the request came are asked for."""
    async with start_system() as system:
        assert _asked_from(await _deploy_fit(system, await _ask_new(system, header, target=target))) > 0


async def test_the_head_of_a_held_stream_replays_nothing() -> None:
    """HEAD is answered with a head alone: the service is not asked for past events."""
    async with start_system() as system:
        connection = await _deploy_fit(system, await _ask_new(system, method="HEAD"))
        assert connection.header("Last-Event-ID") == []


async def test_an_event_source_outlasts_the_wait_of_other_clients() -> None:
    """A new group's service comes late: a program has its 503; an event source, which would not come back, waits."""
    async with start_system(LAZY_DEPLOY_WAIT="100ms") as system:
        coming = await _ask_new(system, _EVENT_SOURCE)
        refused = await system.proxy.get(_NEW)
        assert (refused.status, (await refused.problem())["type"].rpartition(":")[2]) == (503, "group-not-deployed")
        await asyncio.sleep(1.2)  # more than two attempts
        assert not coming.done()
        await _deploy_fit(system, coming)


async def test_an_event_source_for_a_new_group_is_not_held_for_ever() -> None:
    """After the wait for a replaced service it gets the same error as others."""
    async with start_system(LAZY_DEPLOY_WAIT="60s", REPLACE_WAIT="1s") as system:
        await system.ksql.put("A5", "Fit")
        refused = await system.proxy.get(_NEW, _EVENT_SOURCE)
        assert (refused.status, refused.header("Retry-After")) == (503, "5")


async def test_a_held_event_source_follows_its_asset_to_a_group_that_is_served() -> None:
    """It does not wait to the end for the service of the group that the asset has left."""
    async with start_system(LAZY_DEPLOY_WAIT="20s") as system:
        coming = await _ask_new(system, _EVENT_SOURCE)
        await system.ksql.put("A5", "Paint")
        assert (await asyncio.wait_for(coming, 10)).status == 200
        _asked_from(system.paint.open[-1])


async def test_the_clients_of_a_replaced_service_miss_nothing_since_their_request() -> None:
    """An event source that came while the next task was starting."""
    async with start_system() as system:
        await system.stream("A1")
        await system.weld.stop()
        await system.weld.cut()
        before = int(time.time() * 1000)
        coming = asyncio.create_task(system.proxy.get("/asset_stream?asset_uuid=A1", _EVENT_SOURCE))
        await system.proxy.wait_metric("routing_layer_streams_admitted", 1)
        assert (await system.proxy.get("/asset_stream?asset_uuid=A1")).status == 502
        assert not coming.done()
        asked = int(time.time() * 1000)
        await system.weld.start()
        assert (await coming).status == 200
        assert before <= _asked_from(system.weld.open[-1]) <= asked


@pytest.mark.parametrize("own", [None, "w1"])
async def test_a_request_whose_asset_moves_takes_its_place_along(own: str | None) -> None:
    """The new service is asked with the client's ID, as the old one was; without an ID, for the time of the request."""
    asked = asyncio.Event()

    async def never(_connection: object) -> None:
        asked.set()

    async with start_system() as system:
        system.weld.answer = never
        opening = asyncio.create_task(system.stream("A1", *([f"Last-Event-ID: {own}"] if own else [])))
        await asked.wait()
        await system.ksql.put("A1", "Paint")
        await opening
        assert system.weld.connections[0].header("Last-Event-ID") == ([own] if own else [])
        if own:
            assert system.paint.open[0].header("Last-Event-ID") == [own]
        else:
            _asked_from(system.paint.open[0])

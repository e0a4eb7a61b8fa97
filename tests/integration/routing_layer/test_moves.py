"""Which group an asset is in, while that changes."""

from __future__ import annotations

import asyncio
import contextlib

from tests.harness.coroutines import until
from tests.integration.routing_layer.proxy_system import Service, start_system


async def test_a_moved_assets_stream_ends_and_the_reconnect_lands_on_the_new_group() -> None:
    """The end is clean; streams of other assets stay; the next request goes to the new service."""
    async with start_system() as system:
        client, other = await system.stream("A1"), await system.stream("A2")
        await system.ksql.put("A1", "Paint")
        assert await client.rest() == b""
        assert client.complete
        await system.stream("A1")
        assert [connection.target for connection in system.paint.open][-1] == "/asset_stream?asset_uuid=A1"
        await system.paint.open[0].event("still here")
        assert (await other.event()).data == "still here"
        assert await system.proxy.metric('routing_layer_streams_ended_total{reason="moved"}') == 1


async def test_a_move_ends_the_stream_after_the_event_that_is_being_sent() -> None:
    """An event of which a part has been passed on is completed before the end."""
    async with start_system() as system:
        client = await system.stream("A1")
        (service,) = system.weld.connections
        await service.send(b"e\r\ndata: first ha\r\n")
        assert await client.piece() == b"data: first ha"
        await system.ksql.put("A1", "Paint")
        await service.send(b"4\r\nlf\n\n\r\n")
        assert await client.rest() == b"lf\n\n"
        assert client.complete


async def test_an_asset_that_moves_while_its_stream_is_opened_goes_to_the_new_group() -> None:
    """The request follows the asset: it is not answered by the service that it has left."""
    asked = asyncio.Event()

    async def never(_connection: object) -> None:
        asked.set()

    async with start_system() as system:
        system.weld.answer = never
        opening = asyncio.create_task(system.stream("A1"))
        await asked.wait()
        await system.ksql.put("A1", "Paint")
        await opening
        assert len(system.paint.open) == 1
        await until(lambda: not system.weld.open)


async def test_a_tombstone_ends_the_assets_stream_and_makes_it_unknown() -> None:
    """A deleted row is seen in the watch alone."""
    async with start_system() as system:
        client = await system.stream("A1")
        await system.ksql.drop("A1")
        assert await client.rest() == b""
        refused = await system.proxy.get("/asset_stream?asset_uuid=A1")
        assert refused.status == 404
        assert (await refused.problem())["type"].endswith(":unknown-asset")


async def test_an_asset_without_the_level_is_told_apart_from_an_unknown_one() -> None:
    """Both are 404; the document says which, and which level is missing."""
    async with start_system() as system:
        await system.ksql.put("A3", None)
        refused = await system.proxy.get("/asset_stream?asset_uuid=A3")
        assert refused.status == 404
        problem = await refused.problem()
        assert problem["type"].endswith(":asset-without-level")
        assert "level 'workcenter'" in problem["detail"]


async def test_a_hostile_asset_name_is_a_literal() -> None:
    """A quote does not end the literal; the name is found if it exists."""
    hostile = "x'; DROP TABLE asset_to_uns_map; --"
    async with start_system() as system:
        await system.proxy.wait_current()
        target = "/asset_stream?asset_uuid=x%27%3B%20DROP%20TABLE%20asset_to_uns_map%3B%20--"
        assert (await system.proxy.get(target)).status == 404
        assert system.ksql.questions[-1].endswith("WHERE `ASSET_UUID` = 'x''; DROP TABLE asset_to_uns_map; --';")
        await system.ksql.put(hostile, "Weld")
        await asyncio.sleep(0.1)
        assert (await system.proxy.get(target)).status == 200


async def test_a_miss_asks_once_and_remembers_the_answer() -> None:
    """Many requests for one unknown asset are one question, and none while the answer is fresh."""
    async with start_system(NEGATIVE_CACHE_SECONDS="60") as system:
        before = len(system.ksql.questions)
        answers = await asyncio.gather(*(system.proxy.get("/asset_stream?asset_uuid=unmapped") for _ in range(30)))
        assert {answer.status for answer in answers} == {404}
        assert (await system.proxy.get("/asset_stream?asset_uuid=unmapped")).status == 404
        assert len(system.ksql.questions) == before + 1


async def test_a_row_that_the_watch_has_not_shown_is_found_by_a_question() -> None:
    """The table knows it, the watch is late: the first client is served all the same."""
    async with start_system() as system:
        system.ksql.table["A9"] = "Paint"
        await system.stream("A9")
        assert len(system.paint.open) == 1


async def test_ksqldb_away_serves_the_last_known_and_says_so() -> None:
    """Known assets are served, unknown ones get a 503 with Retry-After, streams stay, the age grows."""
    async with start_system() as system:
        client = await system.stream("A1")
        await system.proxy.wait_current()
        await system.ksql.stop()
        await asyncio.sleep(0.3)
        await system.stream("A2")
        unknown = await system.proxy.get("/asset_stream?asset_uuid=A9")
        assert unknown.status == 503
        assert unknown.header("Retry-After") is not None
        assert await system.proxy.ready()
        assert await system.proxy.metric("routing_layer_membership_age_seconds") > 0
        await system.weld.open[0].event("alive")
        assert (await client.event()).data == "alive"


async def test_what_changed_while_ksqldb_was_away_is_made_up_for() -> None:
    """After a restart the whole table is listed again; its replayed history moves no stream back in between."""
    async with start_system() as system:
        await system.proxy.wait_current()
        await system.ksql.put("A2", "Weld")
        await system.ksql.put("A2", "Paint")
        moved, stays = await system.stream("A1"), await system.stream("A2")
        await system.ksql.stop()
        await system.ksql.put("A1", "Paint")
        system.ksql.table.pop("gone", None)
        await system.ksql.start()
        assert await moved.rest() == b""
        await system.proxy.wait_metric("routing_layer_membership_relists_total", 2)
        await system.paint.open[0].event("untouched")
        assert (await stays.event()).data == "untouched"


async def test_an_empty_list_after_a_restart_drops_no_asset() -> None:
    """A complete 200 without rows is what a real server answers for a moment; it is not believed."""
    async with start_system() as system:
        await system.proxy.wait_current()
        client = await system.stream("A1")
        system.ksql.lists_nothing = True
        await system.ksql.end_watches()
        await until(lambda: system.ksql.questions[-1].endswith("FROM `ASSET_TO_UNS_MAP`;"), "it lists again")
        await asyncio.sleep(0.5)
        await system.stream("A2")
        system.ksql.lists_nothing = False
        await system.proxy.wait_metric("routing_layer_membership_relists_total", 2)
        await system.weld.open[0].event("alive")
        assert (await client.event()).data == "alive"


async def test_it_starts_while_ksqldb_is_down() -> None:
    """Alive and not ready; as soon as ksqlDB is there, ready."""
    async with start_system(ready=False) as system:
        await system.ksql.stop()
        await system.proxy.stop()
        await system.proxy.start()
        assert not await system.proxy.ready()
        refused = await system.proxy.get("/asset_stream?asset_uuid=A1")
        assert refused.status == 503
        assert (await refused.problem())["type"].endswith(":not-ready")
        await system.ksql.start()
        await system.proxy.wait_ready()
        await system.stream("A1")


async def test_a_new_workcenters_first_client_waits_for_its_service() -> None:
    """The operator is nudged, and the request is served once the group is in the registry."""
    async with start_system() as system:
        fit = await Service().start()
        usual = {"Weld": system.weld.url, "Paint": system.paint.url}
        system.operator.on_nudge = lambda: system.publish({**usual, "Fit": fit.url})
        await system.ksql.put("A5", "Fit")
        clients = await asyncio.gather(*(system.stream("A5") for _ in range(10)))
        assert len(clients) == len(fit.open) == 10
        assert system.operator.nudged == 1
        await fit.stop()


async def test_a_service_that_does_not_come_in_time() -> None:
    """503, with the group's name and when to try again."""
    async with start_system(LAZY_DEPLOY_WAIT="200ms") as system:
        await system.ksql.put("A5", "Fit")
        refused = await system.proxy.get("/asset_stream?asset_uuid=A5")
        assert refused.status == 503
        assert refused.header("Retry-After") == "5"
        assert "'Fit'" in (await refused.problem())["detail"]


async def test_a_named_group_serves_its_own_assets_only() -> None:
    """/group/<Group>/asset_stream goes to that group, and refuses an asset of another."""
    async with start_system() as system:
        assert (await system.proxy.get("/group/Weld/asset_stream?asset_uuid=A1")).status == 200
        assert (await system.proxy.get("/group/Weld/asset_stream")).status == 200
        elsewhere = await system.proxy.get("/group/Weld/asset_stream?asset_uuid=A2")
        assert (await elsewhere.problem())["type"].endswith(":asset-elsewhere")
        assert (await system.proxy.get("/group/Unknown/asset_stream")).status == 404


async def test_redirect_mode_names_the_group() -> None:
    """307 to the group's own path with the query as it came; the group's name is escaped."""
    async with start_system(ROUTING_MODE="redirect") as system:
        await system.ksql.put("A 7", "O'Brien/2")
        await asyncio.sleep(0.1)
        answer = await system.proxy.get("/asset_stream?asset_uuid=A%207&id=%41")
        assert answer.status == 307
        assert answer.header("Location") == "/group/O%27Brien%2F2/asset_stream?asset_uuid=A%207&id=%41"


async def test_bad_queries_are_refused() -> None:
    """No asset, two assets, bytes that are no text: 400 each, and nothing is asked."""
    async with start_system() as system:
        for query in ("", "?asset_uuid=", "?asset_uuid=A1&asset_uuid=A2", "?asset_uuid=%ff"):
            refused = await system.proxy.get(f"/asset_stream{query}")
            assert refused.status == 400, query
        assert (await system.proxy.get("/nowhere")).status == 404
        with contextlib.suppress(ConnectionError):
            refused.leave()

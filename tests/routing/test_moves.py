"""Which group an asset is in, while that changes."""

from __future__ import annotations

import asyncio
import contextlib

from tests.routing.world import Service, until, world


async def test_a_moved_assets_stream_ends_and_the_reconnect_lands_on_the_new_group() -> None:
    """The end is clean; streams of other assets stay; the next request goes to the new service."""
    async with world() as around:
        client, other = await around.stream("A1"), await around.stream("A2")
        await around.ksql.put("A1", "Paint")
        assert await client.rest() == b""
        assert client.complete
        await around.stream("A1")
        assert [connection.target for connection in around.paint.open][-1] == "/asset_stream?asset_uuid=A1"
        await around.paint.open[0].event("still here")
        assert (await other.event()).data == "still here"
        assert await around.proxy.metric('routing_layer_streams_ended_total{reason="moved"}') == 1


async def test_a_move_ends_the_stream_after_the_event_that_is_being_sent() -> None:
    """An event of which a part has been passed on is completed before the end."""
    async with world() as around:
        client = await around.stream("A1")
        (service,) = around.weld.connections
        await service.send(b"e\r\ndata: first ha\r\n")
        assert await client.piece() == b"data: first ha"
        await around.ksql.put("A1", "Paint")
        await service.send(b"4\r\nlf\n\n\r\n")
        assert await client.rest() == b"lf\n\n"
        assert client.complete


async def test_an_asset_that_moves_while_its_stream_is_opened_goes_to_the_new_group() -> None:
    """The request follows the asset: it is not answered by the service that it has left."""
    asked = asyncio.Event()

    async def never(_connection: object) -> None:
        asked.set()

    async with world() as around:
        around.weld.answer = never
        opening = asyncio.create_task(around.stream("A1"))
        await asked.wait()
        await around.ksql.put("A1", "Paint")
        await opening
        assert len(around.paint.open) == 1
        await until(lambda: not around.weld.open)


async def test_a_tombstone_ends_the_assets_stream_and_makes_it_unknown() -> None:
    """A deleted row is seen in the watch alone."""
    async with world() as around:
        client = await around.stream("A1")
        await around.ksql.drop("A1")
        assert await client.rest() == b""
        refused = await around.proxy.get("/asset_stream?asset_uuid=A1")
        assert refused.status == 404
        assert (await refused.problem())["type"].endswith(":unknown-asset")


async def test_an_asset_without_the_level_is_told_apart_from_an_unknown_one() -> None:
    """Both are 404; the document says which, and which level is missing."""
    async with world() as around:
        await around.ksql.put("A3", None)
        refused = await around.proxy.get("/asset_stream?asset_uuid=A3")
        assert refused.status == 404
        problem = await refused.problem()
        assert problem["type"].endswith(":asset-without-level")
        assert "level 'workcenter'" in problem["detail"]


async def test_a_hostile_asset_name_is_a_literal() -> None:
    """A quote does not end the literal; the name is found if it exists."""
    hostile = "x'; DROP TABLE asset_to_uns_map; --"
    async with world() as around:
        await around.proxy.wait_current()
        target = "/asset_stream?asset_uuid=x%27%3B%20DROP%20TABLE%20asset_to_uns_map%3B%20--"
        assert (await around.proxy.get(target)).status == 404
        assert around.ksql.questions[-1].endswith("WHERE `ASSET_UUID` = 'x''; DROP TABLE asset_to_uns_map; --';")
        await around.ksql.put(hostile, "Weld")
        await asyncio.sleep(0.1)
        assert (await around.proxy.get(target)).status == 200


async def test_a_miss_asks_once_and_remembers_the_answer() -> None:
    """Many requests for one unknown asset are one question, and none while the answer is fresh."""
    async with world(NEGATIVE_CACHE_SECONDS="60") as around:
        before = len(around.ksql.questions)
        answers = await asyncio.gather(*(around.proxy.get("/asset_stream?asset_uuid=nobody") for _ in range(30)))
        assert {answer.status for answer in answers} == {404}
        assert (await around.proxy.get("/asset_stream?asset_uuid=nobody")).status == 404
        assert len(around.ksql.questions) == before + 1


async def test_a_row_that_the_watch_has_not_shown_is_found_by_a_question() -> None:
    """The table knows it, the watch is late: the first client is served all the same."""
    async with world() as around:
        around.ksql.table["A9"] = "Paint"
        await around.stream("A9")
        assert len(around.paint.open) == 1


async def test_ksqldb_away_serves_the_last_known_and_says_so() -> None:
    """Known assets are served, unknown ones are told to try again, streams stay, the age grows."""
    async with world() as around:
        client = await around.stream("A1")
        await around.proxy.wait_current()
        await around.ksql.stop()
        await asyncio.sleep(0.3)
        await around.stream("A2")
        unknown = await around.proxy.get("/asset_stream?asset_uuid=A9")
        assert unknown.status == 503
        assert unknown.header("Retry-After") is not None
        assert await around.proxy.ready()
        assert await around.proxy.metric("routing_layer_membership_age_seconds") > 0
        await around.weld.open[0].event("alive")
        assert (await client.event()).data == "alive"


async def test_what_changed_while_ksqldb_was_away_is_made_up_for() -> None:
    """After a restart the whole table is listed again; its replayed history moves nobody back in between."""
    async with world() as around:
        await around.proxy.wait_current()
        await around.ksql.put("A2", "Weld")
        await around.ksql.put("A2", "Paint")
        moved, stays = await around.stream("A1"), await around.stream("A2")
        await around.ksql.stop()
        await around.ksql.put("A1", "Paint")
        around.ksql.table.pop("gone", None)
        await around.ksql.start()
        assert await moved.rest() == b""
        await around.proxy.wait_metric("routing_layer_membership_relists_total", 2)
        await around.paint.open[0].event("untouched")
        assert (await stays.event()).data == "untouched"


async def test_an_empty_list_after_a_restart_drops_nobody() -> None:
    """A complete 200 without rows is what a real server answers for a moment; it is not believed."""
    async with world() as around:
        await around.proxy.wait_current()
        client = await around.stream("A1")
        around.ksql.lies = True
        await around.ksql.end_watches()
        await until(lambda: around.ksql.questions[-1].endswith("FROM `ASSET_TO_UNS_MAP`;"), "it lists again")
        await asyncio.sleep(0.5)
        await around.stream("A2")
        around.ksql.lies = False
        await around.proxy.wait_metric("routing_layer_membership_relists_total", 2)
        await around.weld.open[0].event("alive")
        assert (await client.event()).data == "alive"


async def test_it_starts_while_ksqldb_is_down() -> None:
    """Alive and not ready; as soon as ksqlDB is there, ready."""
    async with world(ready=False) as around:
        await around.ksql.stop()
        await around.proxy.stop()
        await around.proxy.start()
        assert not await around.proxy.ready()
        refused = await around.proxy.get("/asset_stream?asset_uuid=A1")
        assert refused.status == 503
        assert (await refused.problem())["type"].endswith(":not-ready")
        await around.ksql.start()
        await around.proxy.wait_ready()
        await around.stream("A1")


async def test_a_new_workcenters_first_client_waits_for_its_service() -> None:
    """The operator is nudged, and the request is served once the group is in the registry."""
    async with world() as around:
        fit = await Service().start()
        usual = {"Weld": around.weld.url, "Paint": around.paint.url}
        around.operator.on_nudge = lambda: around.publish({**usual, "Fit": fit.url})
        await around.ksql.put("A5", "Fit")
        clients = await asyncio.gather(*(around.stream("A5") for _ in range(10)))
        assert len(clients) == len(fit.open) == 10
        assert around.operator.nudged == 1
        await fit.stop()


async def test_a_service_that_does_not_come_in_time() -> None:
    """503, with the group's name and when to try again."""
    async with world(LAZY_DEPLOY_WAIT="200ms") as around:
        await around.ksql.put("A5", "Fit")
        refused = await around.proxy.get("/asset_stream?asset_uuid=A5")
        assert refused.status == 503
        assert refused.header("Retry-After") == "5"
        assert "'Fit'" in (await refused.problem())["detail"]


async def test_a_named_group_serves_its_own_assets_only() -> None:
    """/group/<Group>/asset_stream goes to that group, and refuses an asset of another."""
    async with world() as around:
        assert (await around.proxy.get("/group/Weld/asset_stream?asset_uuid=A1")).status == 200
        assert (await around.proxy.get("/group/Weld/asset_stream")).status == 200
        elsewhere = await around.proxy.get("/group/Weld/asset_stream?asset_uuid=A2")
        assert (await elsewhere.problem())["type"].endswith(":asset-elsewhere")
        assert (await around.proxy.get("/group/Nobody/asset_stream")).status == 404


async def test_redirect_mode_names_the_group() -> None:
    """307 to the group's own path with the query as it came; the group's name is escaped."""
    async with world(ROUTING_MODE="redirect") as around:
        await around.ksql.put("A 7", "O'Brien/2")
        await asyncio.sleep(0.1)
        answer = await around.proxy.get("/asset_stream?asset_uuid=A%207&id=%41")
        assert answer.status == 307
        assert answer.header("Location") == "/group/O%27Brien%2F2/asset_stream?asset_uuid=A%207&id=%41"


async def test_bad_queries_are_refused() -> None:
    """No asset, two assets, bytes that are no text: 400 each, and nothing is asked."""
    async with world() as around:
        for query in ("", "?asset_uuid=", "?asset_uuid=A1&asset_uuid=A2", "?asset_uuid=%ff"):
            refused = await around.proxy.get(f"/asset_stream{query}")
            assert refused.status == 400, query
        assert (await around.proxy.get("/nowhere")).status == 404
        with contextlib.suppress(ConnectionError):
            refused.leave()

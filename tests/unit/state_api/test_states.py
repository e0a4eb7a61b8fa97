"""Equal questions at one time are one pull query."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import pytest

from openfactory_common.errors import KsqlUnreachable
from state_api.metrics import Metrics
from state_api.states import AssetStates

BODY = (
    b'[{"header":{"queryId":"q","schema":"`A` STRING"}},\n'
    b'{"row":{"columns":["A1","temp","1","Samples","Temperature","2025"]}}]'
)


class Ksqldb:
    """Answers when the test lets it."""

    def __init__(self) -> None:
        """Wait at first."""
        self.statements: list[str] = []
        self.running = 0
        self.answers = asyncio.Event()
        self.fails = False
        self.content = self

    @asynccontextmanager
    async def query(self, statement: str, **_options: Any) -> AsyncIterator[Ksqldb]:
        """Note the query and wait."""
        self.statements.append(statement)
        self.running += 1
        try:
            await self.answers.wait()
            if self.fails:
                raise KsqlUnreachable("it is away")
            yield self
        finally:
            self.running -= 1

    async def iter_any(self) -> AsyncIterator[bytes]:
        """Give the answer in two chunks."""
        yield BODY[:70]
        yield BODY[70:]


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def _start() -> tuple[Ksqldb, AssetStates]:
    ksqldb = Ksqldb()
    return ksqldb, AssetStates(ksqldb, "assets", Metrics())  # type: ignore[arg-type]


def test_equal_questions_share_a_query_and_others_do_not() -> None:
    """Fifty clients of one asset cost one query; another asset, one of its items and a later client have their own."""

    async def play() -> None:
        ksqldb, states = _start()
        equal = [asyncio.create_task(states.ask("A1", None)) for _ in range(50)]
        others = [asyncio.create_task(states.ask(*question)) for question in (("A2", None), ("A1", "temp"))]
        await _settle()
        assert len(ksqldb.statements) == 3
        ksqldb.answers.set()
        answers = [await task for task in equal]
        assert [json.loads(answer.body)["dataItems"][0]["value"] for answer in answers] == ["1"] * 50
        assert all([(await task).status is HTTPStatus.OK for task in others])
        await states.ask("A1", None)
        assert len(ksqldb.statements) == 4

    asyncio.run(play())


def test_a_client_that_leaves_takes_no_answer_from_the_others() -> None:
    """The query goes on when the client that began it leaves."""

    async def play() -> None:
        ksqldb, states = _start()
        first, second = (asyncio.create_task(states.ask("A1", None)) for _ in range(2))
        await _settle()
        first.cancel()
        await _settle()
        ksqldb.answers.set()
        assert (await second).status is HTTPStatus.OK
        assert first.cancelled()
        assert len(ksqldb.statements) == 1

    asyncio.run(play())


def test_a_query_without_clients_ends() -> None:
    """The last client that leaves ends it, and who asks afterwards has a query of its own."""

    async def play() -> None:
        ksqldb, states = _start()
        clients = [asyncio.create_task(states.ask("A1", None)) for _ in range(2)]
        await _settle()
        for left in (1, 0):
            clients[left].cancel()
            await _settle()
            assert ksqldb.running == left
        ksqldb.answers.set()
        assert (await states.ask("A1", None)).status is HTTPStatus.OK
        assert len(ksqldb.statements) == 2

    asyncio.run(play())


def test_queries_are_bounded_and_the_wait_for_a_turn_is_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many assets are asked for, 64 queries run; those that get no turn in time are 503 like the others."""
    monkeypatch.setattr("state_api.states._PULL_SECONDS", 0.2)

    async def play() -> None:
        ksqldb, states = _start()
        clients = [asyncio.create_task(states.ask(f"A{number}", None)) for number in range(200)]
        await _settle()
        assert ksqldb.running == 64
        answers = await asyncio.gather(*clients)
        assert {answer.status for answer in answers} == {HTTPStatus.SERVICE_UNAVAILABLE}
        ksqldb.answers.set()
        await asyncio.gather(*(states.ask(f"A{number}", None) for number in range(200)))
        assert ksqldb.running == 0

    asyncio.run(play())


def test_a_failure_is_shared_and_not_kept() -> None:
    """All who asked get 503; whoever asks afterwards asks again."""

    async def play() -> None:
        ksqldb, states = _start()
        ksqldb.fails = True
        ksqldb.answers.set()
        answers = await asyncio.gather(states.ask("A1", None), states.ask("A1", None))
        assert [answer.status for answer in answers] == [HTTPStatus.SERVICE_UNAVAILABLE] * 2
        ksqldb.fails = False
        assert (await states.ask("A1", None)).status is HTTPStatus.OK
        assert len(ksqldb.statements) == 2

    asyncio.run(play())

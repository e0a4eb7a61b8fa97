"""What becomes of a statement: executed, refused, or unknown. Over real sockets; nothing is ever sent twice."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from openfactory_common.errors import (
    KsqlBadStatement,
    KsqlConflict,
    KsqlError,
    KsqlInBandFailure,
    KsqlRefused,
    KsqlTransient,
    KsqlUnknownOutcome,
)
from reconciler.ksqldb.client import KsqlClient
from reconciler.ksqldb.entities import Statement
from reconciler.ksqldb.transport import Timeouts
from tests.integration.ksqldb.bodies import command, command_status, error, listed
from tests.integration.ksqldb.server import Answer, Manner, Reply, Request, in_turn, serve, wait_until

LIMITS = Timeouts(connect=0.5, read=0.5, ddl=0.5, outcome=1.5)
CREATE = Statement("CREATE STREAM `X` AS ...;", {"a.b": 1}, "create", "X", "stream/`X`/create")
NOT_FOUND = Reply(error(40400, "Command not found"), 404)


def split(statement: Answer, status: Answer) -> Answer:
    """Answer statements with one, status questions with the other."""
    return lambda ask: status(ask) if ask.path.startswith("/status/") else statement(ask)


def test_an_executed_statement_is_one_request() -> None:
    """With its properties; its answer says that it was executed, so no status is asked."""
    with serve(in_turn(Reply(command("SUCCESS")))) as site, closing(KsqlClient(site.url, LIMITS)) as client:
        client.execute(CREATE)
        (request,) = site.requests
        assert json.loads(request.body) == {"ksql": CREATE.sql, "streamsProperties": {"a.b": 1}}


@pytest.mark.parametrize("status", ["QUEUED", "EXECUTING"])
def test_a_statement_in_progress_is_followed_to_its_end(status: str) -> None:
    """A 200 that says QUEUED is no outcome: the command's status is asked until it is final."""
    later = in_turn(Reply(command_status("EXECUTING")), Reply(status=503), Reply(command_status("SUCCESS")))
    with serve(split(in_turn(Reply(command(status))), later)) as site, closing(KsqlClient(site.url, LIMITS)) as client:
        client.execute(CREATE)
        assert site.count("/ksql") == 1
        assert site.count("/status/stream/%60X%60/create") == 3


FATES: dict[str, tuple[Reply, Reply, type[KsqlError]]] = {
    "queued for ever": (Reply(command("QUEUED")), Reply(command_status("QUEUED")), KsqlUnknownOutcome),
    "forgotten by a restart": (Reply(command("QUEUED")), NOT_FOUND, KsqlUnknownOutcome),
    "failed in execution": (Reply(command("ERROR")), NOT_FOUND, KsqlInBandFailure),
    "failed later": (Reply(command("QUEUED")), Reply(command_status("ERROR")), KsqlInBandFailure),
    "no answer, no trace": (Reply(manner=Manner.SILENT), NOT_FOUND, KsqlUnknownOutcome),
    "no answer, an old success": (
        Reply(manner=Manner.SILENT),
        Reply(command_status("SUCCESS")),
        KsqlUnknownOutcome,
    ),
    "the answer broke": (Reply(command("SUCCESS"), manner=Manner.RESET), NOT_FOUND, KsqlUnknownOutcome),
    "half an answer": (Reply(command("SUCCESS")[:-3]), NOT_FOUND, KsqlUnknownOutcome),
    "another answer": (Reply(listed("streams", [])), NOT_FOUND, KsqlUnknownOutcome),
    "a lost gateway": (Reply(b"<html>", 504, "text/html"), NOT_FOUND, KsqlUnknownOutcome),
    "fenced": (
        Reply(
            error(
                50000,
                "Producer with transactionalId 'd_' and (producerId=0, epoch=5) has been fenced by another producer",
            ),
            500,
        ),
        NOT_FOUND,
        KsqlConflict,
    ),
    "name taken": (
        Reply(b'[{"@type":"warning_entity","statementText":"","message":"Cannot add stream `X`.","warnings":[]}]'),
        NOT_FOUND,
        KsqlConflict,
    ),
    "readers": (
        Reply(error(40001, "Cannot drop X.\nThe following streams and/or tables read"), 400),
        NOT_FOUND,
        KsqlRefused,
    ),
    "wrong": (Reply(error(40001, "line 1:1: Syntax Error"), 400), NOT_FOUND, KsqlBadStatement),
    "blocked runner": (
        Reply(
            error(
                50000,
                "Could not write the statement 'CREATE' into the command topic.\nCaused by: Timeout while waiting for"
                " command topic consumer to process command\n\ttopic",
            ),
            500,
        ),
        NOT_FOUND,
        KsqlTransient,
    ),
}


@pytest.mark.parametrize("fate", FATES)
def test_the_fate_of_a_statement(fate: str) -> None:
    """Each way to fail has its class, and in none is the statement sent again."""
    reply, status, kind = FATES[fate]
    with serve(split(in_turn(reply), in_turn(status))) as site, closing(KsqlClient(site.url, LIMITS)) as client:
        with pytest.raises(KsqlError) as caught:
            client.execute(CREATE)
        assert type(caught.value) is kind
        assert site.count("/ksql") == 1


def test_a_statement_that_was_given_up_and_is_seen_in_progress_is_ours() -> None:
    """No answer in time, but the server is at it: then its end is the outcome."""
    status = in_turn(Reply(command_status("EXECUTING")), Reply(command_status("SUCCESS")))
    with serve(split(in_turn(Reply(manner=Manner.SILENT)), status)) as site:
        with closing(KsqlClient(site.url, LIMITS)) as client:
            client.execute(CREATE)
        assert (site.count("/ksql"), site.count("/status/stream/%60X%60/create")) == (1, 2)


def test_statements_go_one_at_a_time() -> None:
    """Of parallel statements ksqlDB executes one: several threads never have two on the way."""
    crowd = Crowd()
    with serve(crowd.answer) as site, closing(KsqlClient(site.url, LIMITS)) as client, ThreadPoolExecutor(4) as threads:
        for sent in [threads.submit(client.execute, CREATE) for _ in range(8)]:
            sent.result()
    assert site.count("/ksql") == 8
    assert crowd.most == 1


def test_closing_ends_the_wait_for_a_queued_statement() -> None:
    """A shutdown does not wait for a dead command runner; the outcome is unknown."""
    patient = Timeouts(connect=0.5, read=0.5, ddl=0.5, outcome=600.0)
    never = split(in_turn(Reply(command("QUEUED"))), in_turn(Reply(command_status("QUEUED"))))
    with serve(never) as site, ThreadPoolExecutor(1) as threads:
        client = KsqlClient(site.url, patient)
        waiting = threads.submit(client.execute, CREATE)
        wait_until(lambda: site.count("/status/stream/%60X%60/create") > 0)
        client.close()
        with pytest.raises(KsqlUnknownOutcome):
            waiting.result(timeout=30)


class Crowd:
    """Counts how many requests are being answered at once."""

    def __init__(self) -> None:
        """Start empty."""
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self._second = threading.Event()

    def answer(self, _: Request) -> Reply:
        """Stay for a moment, so that a second request would be seen."""
        self._count(1)
        self._second.wait(0.02)
        self._count(-1)
        return Reply(command("SUCCESS"))

    def _count(self, step: int) -> None:
        with self._lock:
            self._now += step
            self.most = max(self.most, self._now)

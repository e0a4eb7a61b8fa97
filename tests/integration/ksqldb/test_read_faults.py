"""Every way in which a read can fail, over real sockets: never an empty set, always an error of the right class."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from openfactory_common.errors import (
    KsqlBadStatement,
    KsqlError,
    KsqlInBandFailure,
    KsqlNotReady,
    KsqlRefused,
    KsqlTruncated,
    KsqlUnreachable,
    KsqlWrongShape,
)
from openfactory_common.ksqldb.wire import Column
from reconciler.ksqldb.client import READ_ATTEMPTS, KsqlClient
from reconciler.ksqldb.transport import Timeouts
from tests.integration.ksqldb.bodies import MEMBERS_SCHEMA, error, error_row, header, listed, row, rows
from tests.integration.ksqldb.server import Manner, Reply, in_turn, serve

ROWS = "application/vnd.ksql.v1+json"
SHORT = Timeouts(connect=0.5, read=0.4, ddl=0.4, outcome=0.4, direct=0.6, first_row=0.3, quiet=0.2)
GOOD = rows(header(), row("A1", "Weld"), row("A2", None))


def of_rows(*items: str, manner: Manner = Manner.CHUNKED) -> Reply:
    """Return an answer to a pull query."""
    return Reply(rows(*items), content_type=ROWS, manner=manner)


FAULTS = {
    "reset mid-body": (Reply(GOOD, content_type=ROWS, manner=Manner.RESET), KsqlTruncated),
    "cut between rows": (Reply(GOOD, content_type=ROWS, manner=Manner.CUT), KsqlTruncated),
    "slow drip": (Reply(manner=Manner.DRIP), KsqlUnreachable),
    "slow drip of the head": (Reply(manner=Manner.DRIP_HEAD), KsqlUnreachable),
    "no answer": (Reply(manner=Manner.SILENT), KsqlUnreachable),
    "401": (Reply(error(40100, "Unauthorized"), 401), KsqlRefused),
    "503 while starting": (Reply(error(50302, "KSQL is not yet ready to serve requests."), 503, ""), KsqlNotReady),
    "503 of a proxy": (Reply(b"<html>no server</html>", 503, "text/html"), KsqlNotReady),
    "502 of a proxy": (Reply(b"<html>bad gateway</html>", 502, "text/html"), KsqlUnreachable),
    "an error row after 10,000 good rows": (
        of_rows(header(), *(row(f"A{n}", "Weld") for n in range(10_000)), error_row()),
        KsqlInBandFailure,
    ),
    "an error object instead of rows": (Reply(error(50000, "failed"), content_type=ROWS), KsqlWrongShape),
    "an error object as an element": (
        Reply(b"[" + error(50000, "failed") + b"]", content_type=ROWS),
        KsqlInBandFailure,
    ),
    "missing bracket": (Reply(GOOD[:-1], content_type=ROWS), KsqlTruncated),
    "half a row": (Reply(GOOD[:-9], content_type=ROWS), KsqlTruncated),
    "empty body": (Reply(b"", content_type=ROWS), KsqlTruncated),
    "header only, unclosed": (Reply(("[" + header()).encode(), content_type=ROWS), KsqlTruncated),
    "an empty array": (Reply(b"[]", content_type=ROWS), KsqlWrongShape),
    "rows without a header": (of_rows(row("A1", "Weld")), KsqlWrongShape),
    "two headers": (of_rows(header(), header()), KsqlWrongShape),
    "another column": (of_rows(header("`ASSET_UUID` STRING KEY, `UNS_ID` STRING")), KsqlWrongShape),
    "another type": (of_rows(header("`ASSET_UUID` STRING KEY, `UNS_GROUP` BIGINT")), KsqlWrongShape),
    "another key": (of_rows(header("`ASSET_UUID` STRING, `UNS_GROUP` STRING")), KsqlWrongShape),
    "a column more": (of_rows(header(MEMBERS_SCHEMA + ", `X` STRING")), KsqlWrongShape),
    "a narrow row": (of_rows(header(), row("A1")), KsqlWrongShape),
    "duplicate keys": (of_rows(header(), row("A1", "Weld"), row("A1", "Paint")), KsqlWrongShape),
    "a row without its key": (of_rows(header(), row(None, "Weld")), KsqlWrongShape),
    "more after the end": (Reply(GOOD + b"[]", content_type=ROWS), KsqlWrongShape),
    "not JSON": (Reply(b"<html>hello</html>", content_type="text/html"), KsqlWrongShape),
    "not UTF-8": (Reply(b'[{"header":"\xff"}]', content_type=ROWS), KsqlWrongShape),
    "a redirect": (Reply(b"", 307, ""), KsqlWrongShape),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_read_of_the_members_is_an_error(fault: str) -> None:
    """Whatever breaks, no partial result comes out."""
    reply, kind = FAULTS[fault]
    with serve(in_turn(reply)) as site, closing(KsqlClient(site.url, SHORT)) as client:
        with pytest.raises(KsqlError) as caught:
            client.members("asset_to_uns_map", "asset_uuid", "workcenter")
        assert type(caught.value) is kind
        assert client.failures >= 1 or kind is KsqlWrongShape


def test_a_refused_connection_is_an_error() -> None:
    """No one listens on the port."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with closing(KsqlClient(f"http://127.0.0.1:{port}", SHORT)) as client, pytest.raises(KsqlUnreachable):
        client.members("asset_to_uns_map", "asset_uuid", "workcenter")


def test_a_complete_answer_is_read_whole() -> None:
    """The same request, answered well: assets with their groups, and those without."""
    with serve(in_turn(of_rows(header(), row("A1", "Weld"), row("A2", None)))) as site:
        with closing(KsqlClient(site.url, SHORT)) as client:
            assert client.members("asset_to_uns_map", "asset_uuid", "workcenter") == (("A1", "Weld"), ("A2", None))
            assert client.failures == 0
        (request,) = site.requests
        assert request.headers["accept"] == ROWS
        assert b"sessionVariables" not in request.body


PUSH = "`ASSET_UUID` STRING, `UNS_GROUP` STRING"
DIRECT = ("asset_to_uns_map", "asset_uuid", "workcenter")


def tombstone(asset: str) -> str:
    """Return the row of a deleted asset, as a push query shows it."""
    return f'{{"row":{{"columns":["{asset}",null],"tombstone":true}}}}'


def pushed(*items: str, manner: Manner = Manner.OPEN) -> Reply:
    """Return an answer to a push query: it has no end."""
    return Reply(("[" + "".join(f"{item},\n" for item in items)).encode(), content_type=ROWS, manner=manner)


WHOLE = (header(PUSH), row("A1", "Old"), row("A2", "Weld"), row("A3", "Weld"), row("A1", "Paint"), tombstone("A3"))


@pytest.mark.parametrize("at_least", [0, 2, 3])
def test_the_last_question_reads_the_whole_history(at_least: int) -> None:
    """The last row of a key counts; a deleted asset is none, and counts as one that was named."""
    with serve(in_turn(pushed(*WHOLE))) as site, closing(KsqlClient(site.url, SHORT)) as client:
        assert dict(client.members_directly(*DIRECT, at_least)) == {"A1": "Paint", "A2": "Weld"}
        (request,) = site.requests
        assert b"EMIT CHANGES;" in request.body
        assert b'"ksql.streams.cache.max.bytes.buffering": 0' in request.body


def test_the_last_question_of_an_empty_map_waits_for_the_first_row() -> None:
    """No row at all is an answer only where no asset was there."""
    with serve(in_turn(pushed(header(PUSH)))) as site, closing(KsqlClient(site.url, SHORT)) as client:
        assert client.members_directly(*DIRECT, 0) == ()
        with pytest.raises(KsqlTruncated, match="0 of 1 assets"):
            client.members_directly(*DIRECT, 1)


DOUBTFUL = {
    "fewer assets than there were": (pushed(*WHOLE), KsqlTruncated),
    "the server ends it": (pushed(*WHOLE, '{"finalMessage":"Query Completed"}'), KsqlTruncated),
    "the connection ends": (pushed(*WHOLE, manner=Manner.CUT), KsqlTruncated),
    "the answer ends": (pushed(*WHOLE, manner=Manner.CHUNKED), KsqlTruncated),
    "reset mid-body": (pushed(*WHOLE, manner=Manner.RESET), KsqlTruncated),
    "rows without end": (Reply(manner=Manner.DRIP), KsqlTruncated),
    "no answer": (Reply(manner=Manner.SILENT), KsqlUnreachable),
    "an error row": (pushed(header(PUSH), error_row()), KsqlInBandFailure),
    "another schema": (pushed(header(), row("A1", "Weld")), KsqlWrongShape),
    "rows without a header": (pushed(row("A1", "Weld")), KsqlWrongShape),
    "a row without its key": (pushed(header(PUSH), row(None, "Weld")), KsqlWrongShape),
    "a narrow row": (pushed(header(PUSH), row("A1")), KsqlWrongShape),
    "not rows": (Reply(b"<html>hello</html>", content_type="text/html"), KsqlWrongShape),
    "too many push queries": (Reply(error(40001, "Not executing statement(s) 'S'"), 400), KsqlBadStatement),
    "503": (Reply(error(50302, "KSQL is not yet ready to serve requests."), 503, ""), KsqlNotReady),
}


@pytest.mark.parametrize("fault", DOUBTFUL)
def test_a_last_question_that_is_not_answered_whole_is_an_error(fault: str) -> None:
    """Whatever breaks, no partial map comes out, within the limits."""
    reply, kind = DOUBTFUL[fault]
    with serve(in_turn(reply)) as site, closing(KsqlClient(site.url, SHORT)) as client:
        with pytest.raises(KsqlError) as caught:
            client.members_directly(*DIRECT, 4)
        assert type(caught.value) is kind


def test_a_brief_failure_is_read_again_and_counted() -> None:
    """A read survives one broken answer, and still shows that it happened."""
    seen: list[tuple[str, str]] = []
    answers = in_turn(Reply(GOOD[:-1], content_type=ROWS), of_rows(header(), row("A1", "Weld")))
    with serve(answers) as site:
        client = KsqlClient(site.url, SHORT, on_request=lambda label, code, _: seen.append((label, code)))
        with closing(client):
            assert len(client.members("asset_to_uns_map", "asset_uuid", "workcenter")) == 1
            assert client.failures == 1
    assert seen == [("pull", "200 KsqlTruncated"), ("pull", "200")]


def test_a_lasting_failure_is_not_hidden_by_retries() -> None:
    """A few attempts, then the error; what will never be accepted is asked once."""
    for reply, attempts in ((Reply(status=503), READ_ATTEMPTS), (Reply(error(40001, "line 1:1: Syntax"), 400), 1)):
        with serve(in_turn(reply)) as site, closing(KsqlClient(site.url, SHORT)) as client:
            with pytest.raises(KsqlError):
                client.streams()
            assert len(site.requests) == attempts
            assert client.failures == (attempts if attempts > 1 else 0)


@pytest.fixture
def stopping() -> Iterator[str]:
    """A server that ends its queries one by one: tables are listed, and are "not queryable" all the same."""
    refused = error(40001, "The `M` table isn't queryable. To derive a queryable table, you can do 'CREATE TABLE ...'")
    statement = "CREATE TABLE M WITH (KAFKA_TOPIC='M') AS SELECT *\nFROM R R\nEMIT CHANGES;"
    source = {
        "name": "M",
        "type": "TABLE",
        "topic": "M",
        "statement": statement,
        "writeQueries": [],
        "readQueries": [],
        "sourceConstraints": [],
        "fields": [],
        "partitions": 1,
    }
    described = listed("sourceDescription", source)
    with serve(lambda ask: Reply(refused, 400, "") if ask.path == "/query" else Reply(described)) as site:
        yield site.url


def test_a_table_that_stops_being_queryable_is_a_server_that_stops(stopping: str) -> None:
    """The text is the one for a plain table; the definition tells that it was made by a query."""
    with closing(KsqlClient(stopping, SHORT)) as client, pytest.raises(KsqlNotReady):
        client.members("m", "asset_uuid", "workcenter")


def test_a_list_with_a_warning_is_a_list() -> None:
    """A server whose command topic is corrupt adds a warning to each list; its status in GET /info is what counts."""
    text = "The server has detected corruption in the command topic due to modifications performed on it. \nDDL ..."
    answers = in_turn(Reply(listed("streams", [], (text,))))
    with serve(answers) as site, closing(KsqlClient(site.url, SHORT)) as client:
        assert client.streams() == ()


def test_connections_are_reused_and_credentials_are_sent() -> None:
    """One connection serves many requests, each with the credentials."""
    with serve(in_turn(Reply(listed("streams", [])))) as site:
        with closing(KsqlClient(site.url + "/", SHORT, auth=("reader", "secret"))) as client:
            for _ in range(5):
                client.streams()
        assert site.connections == 1
        assert {request.headers["authorization"] for request in site.requests} == {"Basic cmVhZGVyOnNlY3JldA=="}


WRONG_SERVERS = {
    "a web server": Reply(b"<html><title>404 Not Found</title></html>", 404, "text/html"),
    "a web server with one page for all": Reply(b"<!doctype html><html>hello</html>", 200, "text/html"),
    "an API of something else": Reply(b'{"name":"registry"}'),
    "one that answers with a list": Reply(b"[]"),
    "one that knows no such path": Reply(b'{"detail":"Not Found"}', 404),
    "one that wants another method": Reply(b"", 405),
    "one that takes it for a bad request": Reply(b"<html>bad request</html>", 400, "text/html"),
}


@pytest.mark.parametrize("kind", WRONG_SERVERS)
def test_a_server_that_is_not_ksqldb_names_the_variable(kind: str) -> None:
    """Whatever else listens at the address: the error says which variable leads there."""
    with serve(in_turn(WRONG_SERVERS[kind])) as site:
        client = KsqlClient(site.url, SHORT)
        with closing(client), pytest.raises(KsqlWrongShape, match="is not ksqlDB, correct KSQLDB_URL"):
            client.info()


EVENTS = (Column("UNS_GROUP", "STRING"),)
EVENT_SCHEMA = "`UNS_GROUP` STRING"


@pytest.mark.parametrize(
    "items",
    [
        (header(EVENT_SCHEMA), row("Weld"), row("Weld")),
        (header(EVENT_SCHEMA), row("Weld"), row("Weld"), '{"finalMessage":"Limit Reached"}'),
        (header(EVENT_SCHEMA), row("Weld"), tombstone("X").replace(",null", ""), row("Weld")),
    ],
)
def test_a_look_at_events_ends_in_time_or_with_its_limit(items: tuple[str, ...]) -> None:
    """What came until then is what there was to see."""
    with serve(in_turn(pushed(*items))) as site, closing(KsqlClient(site.url, SHORT)) as client:
        assert client.sample("SELECT UNS_GROUP FROM S EMIT CHANGES LIMIT 9;", EVENTS, 0.1) == [("Weld",), ("Weld",)]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (pushed(header(PUSH), row("A1", "Weld")), KsqlWrongShape),
        (pushed(header(EVENT_SCHEMA), error_row()), KsqlInBandFailure),
        (pushed(header(EVENT_SCHEMA), manner=Manner.CUT), KsqlTruncated),
        (Reply(manner=Manner.SILENT), KsqlUnreachable),
        (Reply(error(50302, "KSQL is not yet ready to serve requests."), 503, ""), KsqlNotReady),
    ],
)
def test_a_look_at_events_that_fails_is_an_error(reply: Reply, kind: type[KsqlError]) -> None:
    """No event seen is something else than nothing told."""
    with serve(in_turn(reply)) as site, closing(KsqlClient(site.url, SHORT)) as client:
        with pytest.raises(KsqlError) as caught:
            client.sample("SELECT UNS_GROUP FROM S EMIT CHANGES LIMIT 9;", EVENTS, 0.1)
        assert type(caught.value) is kind

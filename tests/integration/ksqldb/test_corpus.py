"""The recorded answers of a real ksqlDB 7.7: each has one reading, and the ones that matter have the right one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest

from openfactory_common.errors import KsqlError
from reconciler.ksqldb.entities import Command, Description, Entity, QueryInfo, StreamInfo
from reconciler.ksqldb.replies import parse_entities, parse_health, parse_info
from tests.integration.ksqldb.answers import answer
from tests.integration.ksqldb.classify import UNKNOWN, class_of, main
from tests.integration.ksqldb.corpus import Case, corpus_path, read_cases

if not corpus_path().exists() and os.environ.get("CI") != "true":
    pytest.skip("no recorded traffic; KSQLDB_CORPUS names the file", allow_module_level=True)

CASES: Mapping[str, Case] = {case.name: case for case in read_cases(corpus_path())}

READINGS = {
    "restart-10-info-503-3": "KsqlNotReady",
    "restart-100-query-stream-400-1": "KsqlNotReady",
    "pull-right-after-ctas": "KsqlNotReady",
    "parallel-two-0-1": "KsqlConflict",
    "kshort-create-0": "KsqlConflict",
    "create-existing": "KsqlConflict",
    "kdead-create": "KsqlTransient",
    "cor-twice-other-ddl": "KsqlTransient",
    "kdown-drop": "KsqlTransient",
    "csn-future": "KsqlTransient",
    "rate-2": "KsqlTransient",
    "drop-delete-topic-with-readers-create": "KsqlTransient",
    "kshort-ddl-10s-timeout": "KsqlUnknownOutcome",
    "kdown-list-topics": "KsqlUnreachable",
    "drop-with-readers": "KsqlRefused",
    "drop-delete-topic-with-readers": "KsqlRefused",
    "drop-with-insert-query": "KsqlRefused",
    "limit-persistent": "KsqlRefused",
    "limit-push": "KsqlRefused",
    "recreate-other-partitions": "KsqlRefused",
    "pull-table-scan-off": "KsqlRefused",
    "pull-not-queryable": "KsqlBadStatement",
    "pull-syntax": "KsqlBadStatement",
    "drop-missing": "KsqlBadStatement",
    "status-unknown": "KsqlBadStatement",
    "topic-slash": "KsqlBadStatement",
    "unknown-uri": "KsqlWrongShape",
    "inserts-stream-h2": "KsqlInBandFailure",
    "kdown-after-create": "currentStatus",
    "ine-other-filter": "warning_entity",
}


def read(name: str, kind: str) -> Any:
    """Return the value of the one entity of a case, which has this kind."""
    (entity,) = parse_entities(CASES[name].body)
    assert entity == Entity(kind, entity.value)
    return entity.value


def test_no_recorded_answer_is_without_a_reading() -> None:
    """Every case is a typed value or a leaf of the error tree."""
    assert [name for name, case in CASES.items() if class_of(case) == UNKNOWN] == []


@pytest.mark.parametrize(("name", "reading"), READINGS.items())
def test_the_answers_that_decide_something_are_read_right(name: str, reading: str) -> None:
    """What to do next depends on the class: wait, look, give up."""
    assert class_of(CASES[name]) == reading


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if b'"error_code"' in case.body])
def test_ksqldbs_own_code_is_kept(name: str) -> None:
    """The error carries the code that the body has."""
    with pytest.raises(KsqlError) as caught:
        answer(CASES[name])
    assert f'"error_code":{caught.value.code}'.encode() in CASES[name].body


def test_classify_prints_each_case_and_says_whether_all_are_known(
    capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The command exits with 0 for the recorded traffic, and with 1 for an answer that it cannot read."""
    assert main([str(corpus_path())]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(CASES)
    other = tmp_path_factory.mktemp("corpus") / "other.jsonl"
    other.write_text(
        '{"case": "odd", "request": {"method": "GET", "path": "/odd", "headers": {}, "body": null},'
        ' "response": {"status": 200, "headers": {"content-type": "text/html"}, "body": "<p>"}}\n'
    )
    assert main([str(other)]) == 1
    assert capsys.readouterr().out == "odd\t200\tunknown\n"
    assert main([]) == 2


def test_info_and_health_are_values() -> None:
    """Who answers, and how it judges itself; a sick server answers 200 as well."""
    info = parse_info(CASES["info"].body)
    assert (info.version, info.ksql_service_id, info.status) == ("7.7.0", "default_", "RUNNING")
    assert parse_info(CASES["kdead-info"].body).status == "ERROR"
    assert parse_health(CASES["healthcheck"].body).ready
    sick = parse_health(CASES["kdead-health"].body)
    assert (sick.kafka, sick.command_runner, sick.server_state, sick.ready) == (True, False, "READY", False)


def test_lists_are_values() -> None:
    """LIST STREAMS, LIST QUERIES and LIST TOPICS give names, topics, sinks and states."""
    streams: tuple[StreamInfo, ...] = read("topology-list-streams", "streams")
    assert {(one.name, one.topic) for one in streams} >= {("OFA_ASSETS_WITH_UNS", "ofa_assets_with_uns")}
    queries: tuple[QueryInfo, ...] = read("list-queries-paused", "queries")
    assert [query.sinks for query in queries if query.paused] == [("asset_stream_Weld",)]
    assert "asset_to_uns_map_topic" in read("list-topics", "kafka_topics")


def test_a_description_shows_who_reads_and_who_writes() -> None:
    """A terminated query leaves no writer; what was made from a source is named."""
    found: Description = read("describe-terminated", "sourceDescription")
    assert found.write_queries == ()
    found = read("describe-table", "sourceDescription")
    assert "OFA_ASSETS_WITH_UNS" in found.constraints


def test_a_command_says_whether_it_is_final() -> None:
    """QUEUED and EXECUTING are no outcome; a warning about an existing name is no command."""
    done: Command = read("topology-6", "currentStatus")
    assert done.status.final
    queued: Command = read("kdown-after-create", "currentStatus")
    assert not queued.status.final
    assert "already exists" in read("ine-other-filter", "warning_entity")

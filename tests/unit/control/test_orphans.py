"""Streams without a running query: which are asked about, and what is known afterwards; a line a case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openfactory_common.errors import KsqlBadStatement, KsqlRefused, KsqlTransient, KsqlTruncated, KsqlUnreachable
from openfactory_common.registry import Identity
from reconciler.control.orphans import OrphanStreams
from reconciler.domain.names import names_of
from reconciler.domain.observed import LiveStream, MapSnapshot, SourceState
from reconciler.ksqldb.entities import Description
from tests.unit.planning.tables import FOREIGN, rows, source, topology

ERRORS: dict[str, Exception] = {
    "timeout": KsqlUnreachable("timed out"),
    "torn": KsqlTruncated("torn"),
    "500": KsqlTransient("500"),
    "forbidden": KsqlRefused("forbidden"),
    "unknown": KsqlBadStatement("cannot be described"),
    "bug": KeyError("x"),
    "memory": MemoryError(),
}


class Asked:
    """A ksqlDB that answers about single sources, each in the way that a word names."""

    def __init__(self, answers: dict[str, str]) -> None:
        """Answer so; every question is noted."""
        self.answers = answers
        self.questions: list[str] = []

    def describe_or_none(self, name: str) -> Description | None:
        """Answer about one source."""
        self.questions.append(name)
        word = self.answers.get(name, "gone")
        if word in ERRORS:
            raise ERRORS[word]
        if word == "gone":
            return None
        group = name.removeprefix("ASSET_STREAM_").title()
        text = topology().create_group(names_of(group)).sql if word == "ours" else FOREIGN.format(name)
        return Description(name, "STREAM", name.lower(), text, (), (), ())


def world(streams: dict[str, str]) -> SourceState:
    """Streams by name, each ``running`` or ``silent``."""
    read = source({})
    running = {
        name: replace(next(iter(read.queries.values())), id=name) for name, word in streams.items() if word == "running"
    }
    return replace(read, streams={name: LiveStream(name, name.lower()) for name in streams}, queries=running)


ASKED = """
    # stream                        query    its group has assets  asked
    ASSET_STREAM_WELD               silent   no                    yes
    ASSET_STREAM_WELD               silent   yes                   yes   # a user may have made it over a topic
    ASSET_STREAM_WELD               running  yes                   no
    ASSET_STREAM_WELD               running  no                    no
    ASSET_STREAM_                   silent   no                    yes
    asset_stream_weld               silent   no                    no
    MY_ASSET_STREAM_WELD            silent   no                    no
    OTHER                           silent   no                    no
    OFA_ASSETS_WITH_UNS_0FA0FA00_0BADC0DE_1  silent   no           yes
    OFA_ASSETS_WITH_UNS_0FA0FA00_0BADC0DE_1  running  no           no
    OFA_ASSETS_WITH_UNS_99999999_0BADC0DE_1  silent   no           no
    OFA_ASSETS_WITH_UNS_0BADC0DE    silent   no                    no    # of before there were ids, not adopted
    OFA_ASSETS_WITH_UNS_REPORT      silent   no                    no
    OFB_ASSETS_WITH_UNS_0BADC0DE    silent   no                    no
"""


@pytest.mark.parametrize(("name", "query", "members", "asked"), rows(ASKED))
def test_who_is_asked_about(name: str, query: str, members: str, asked: str) -> None:
    """Only a stream that could be ours and has no query; today's shared one never."""
    ksqldb = Asked({name: "ours"})
    membership = MapSnapshot(1, {"Weld": 1} if members == "yes" else {"Paint": 1})
    streams = {name: query, topology().shared_name: "silent"}
    found = OrphanStreams(ksqldb, topology()).observe(world(streams), membership)  # type: ignore[arg-type]
    assert ksqldb.questions == ([name] if asked == "yes" else [])
    assert found.orphans.keys() == ({name} if asked == "yes" else set())


ANSWERS = """
    # answers     known  unknown, with the reason                                        asked at three looks
    ours          yes    -                                                               3
    theirs        yes    -                                                               1
    forbidden     yes    -                                                               3
    unknown       yes    -                                                               3
    gone          no     (not asked)                                                     3
    timeout       no     timed out                                                       3
    torn          no     torn                                                            3
    500           no     500                                                             3
    bug           no     internal error, please report it: KeyError: 'x'                 3
    memory        no     internal error, please report it: MemoryError:                  3
"""


@pytest.mark.parametrize(("answer", "known", "unknown", "times"), rows(ANSWERS))
def test_what_an_answer_means(answer: str, known: str, unknown: str, times: str) -> None:
    """One that is not answered stays unknown with its reason, which is told once; another's is asked about once."""
    ksqldb, told = Asked({"ASSET_STREAM_WELD": answer}), []
    orphans = OrphanStreams(ksqldb, topology(), lambda name, error: told.append((name, error)))  # type: ignore[arg-type]
    for _ in range(3):
        found = orphans.observe(world({"ASSET_STREAM_WELD": "silent"}), MapSnapshot(1, {"Paint": 1}))
    assert len(ksqldb.questions) == int(times)
    assert ("ASSET_STREAM_WELD" in found.orphans) == (known == "yes")
    expected = {} if not unknown else {"ASSET_STREAM_WELD": "" if unknown == "(not asked)" else unknown}
    assert {name: error.strip() for name, error in found.unknown_owners.items()} == expected
    assert told == ([("ASSET_STREAM_WELD", ERRORS[answer])] if unknown and answer != "gone" else [])


ORDER = """
    # answers of A, B and C       asked at five looks
    theirs theirs theirs          A B C
    ours theirs theirs            A B C A A
    timeout theirs theirs         A B C A A
    timeout ours theirs           A B C A A
    timeout timeout timeout       A B C A B
    bug timeout theirs            A B C A B
    forbidden theirs ours         A B C A C
"""


@pytest.mark.parametrize(("answers", "asked"), rows(ORDER))
def test_in_which_order(answers: str, asked: str) -> None:
    """One a look; a question that failed comes after the others, and what is ours is asked about again."""
    names = [f"ASSET_STREAM_{letter}" for letter in "ABC"]
    ksqldb = Asked(dict(zip(names, answers.split(), strict=True)))
    orphans = OrphanStreams(ksqldb, topology())  # type: ignore[arg-type]
    for _ in range(5):
        orphans.observe(world(dict.fromkeys(names, "silent")), MapSnapshot(1, {"Paint": 1}))
    assert [name[-1] for name in ksqldb.questions] == asked.split()


def test_a_new_reason_is_told_again_and_another_cluster_forgotten() -> None:
    """The same error once, another one once more; what another server said counts for nothing here."""
    ksqldb, told = Asked({"ASSET_STREAM_WELD": "timeout"}), []
    orphans = OrphanStreams(ksqldb, topology(), lambda _name, error: told.append(str(error)))  # type: ignore[arg-type]
    read, membership = world({"ASSET_STREAM_WELD": "silent"}), MapSnapshot(1, {"Paint": 1})
    for answer in ("timeout", "timeout", "torn", "torn", "timeout"):
        ksqldb.answers["ASSET_STREAM_WELD"] = answer
        orphans.observe(read, membership)
    assert told == ["timed out", "torn", "timed out"]
    ksqldb.answers["ASSET_STREAM_WELD"] = "theirs"
    assert orphans.observe(read, membership).orphans != {}
    ksqldb.answers["ASSET_STREAM_WELD"] = "timeout"
    other = replace(read, identity=Identity(kafka="k2", ksqldb="x"))
    assert orphans.observe(other, membership).orphans == {}


@pytest.mark.parametrize("answer", ["theirs", "timeout"])
def test_one_whose_group_has_assets_comes_last_and_suspends_nothing(answer: str) -> None:
    """It is no group that may be missing, so its owner is no question that removals wait for."""
    names = ["ASSET_STREAM_WELD", "ASSET_STREAM_X"]
    ksqldb = Asked(dict.fromkeys(names, answer))
    orphans = OrphanStreams(ksqldb, topology())  # type: ignore[arg-type]
    unknown = [
        set(orphans.observe(world(dict.fromkeys(names, "silent")), MapSnapshot(1, {"Weld": 1})).unknown_owners)
        for _ in range(2)
    ]
    assert ksqldb.questions == names[::-1]
    assert unknown == [set() if answer == "theirs" else {"ASSET_STREAM_X"}] * 2

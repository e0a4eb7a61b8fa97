"""Whose a source is: a table of names and statements, and what each is to us."""

from __future__ import annotations

import pytest

from reconciler.domain.installation import Installation
from reconciler.domain.names import LEGACY, SharedName, names_of
from reconciler.ksqldb.definition import sources_of, target_of, topic_of
from reconciler.ksqldb.ownership import Whose, ownership
from reconciler.ksqldb.statements import Topology

OURS = "OFA_ASSETS_WITH_UNS_1A2B3C4D_0F0F0F0F_3"
OLDER = "OFA_ASSETS_WITH_UNS_1A2B3C4D_AAAAAAAA_1"
THEIRS = "OFA_ASSETS_WITH_UNS_99999999_0F0F0F0F_1"
LEGACYS = "OFA_ASSETS_WITH_UNS_0F0F0F0F"
OTHER_OWNER = "PLANT_2_ASSETS_WITH_UNS_1A2B3C4D_0F0F0F0F_1"
COLUMNS = "ASSET_KEY, `asset_uuid`, `id`, `value`, `type`, `tag`, `timestamp`"


def group(
    name: str = "ASSET_STREAM_WELD",
    source: str = OURS,
    topic: str = "asset_stream_Weld",
    columns: str = COLUMNS,
    where: str = "UNS_GROUP = 'Weld'",
    rest: str = "EMIT CHANGES",
    more: str = "",
) -> tuple[str, str]:
    """Return a stream's name and statement, by default that of a group's stream of ours."""
    with_ = f"(KAFKA_TOPIC='{topic}', VALUE_FORMAT='JSON', RETENTION_MS=604800000{more})"
    return name, f"CREATE STREAM `{name}` WITH {with_} AS SELECT {columns} FROM `{source}` WHERE {where} {rest};"


def shared(
    name: str = OURS, topic: str = "", join: str = "JOIN M H ON S.ASSET_UUID = H.ASSET_UUID", last: str = "AS UNS_GROUP"
) -> tuple[str, str]:
    """Return a shared stream's name and statement."""
    columns = "S.ASSET_UUID AS ASSET_KEY, AS_VALUE(S.ASSET_UUID) AS `asset_uuid`, S.ID AS `id`, S.VALUE AS `value`, "
    columns += f"S.TYPE AS `type`, S.TAG AS `tag`, S.TIMESTAMP AS `timestamp`, H.UNS_LEVELS['area'] {last}"
    with_ = f"(KAFKA_TOPIC='{topic or name.lower()}', VALUE_FORMAT='JSON', RETENTION_MS=1)"
    return name, f"CREATE STREAM `{name}` WITH {with_} AS SELECT {columns} FROM E S {join} EMIT CHANGES;"


OLD_SYSTEMS = (
    "CREATE STREAM ASSET_STREAM_WELD WITH (KAFKA_TOPIC='asset_stream_Weld_topic') AS SELECT S.* FROM E S "
    "JOIN M H ON S.A = H.A WHERE (H.UNS_LEVELS['workcenter'] = 'Weld') EMIT CHANGES;"
)
CASES: dict[str, tuple[tuple[str, str], Whose]] = {
    "a group's stream": (group(), Whose.GROUP),
    "on an older shared stream": (group(source=OLDER), Whose.GROUP),
    "with what the server adds": (group(more=", PARTITIONS=3, REPLICAS=1, CLEANUP_POLICY='delete'"), Whose.GROUP),
    "with the key's format": (group(more=", KEY_FORMAT='KAFKA'"), Whose.GROUP),
    "with brackets": (group(where="((UNS_GROUP = 'Weld'))"), Whose.GROUP),
    "of a name that is no word": (
        group(names_of("Zelle 7").stream, topic=names_of("Zelle 7").topic, where="UNS_GROUP = 'Zelle 7'"),
        Whose.GROUP,
    ),
    "of an empty name, as an earlier version made": (
        group(names_of("").stream, topic=names_of("").topic, where="UNS_GROUP = ''"),
        Whose.GROUP,
    ),
    "another name": (group("ASSET_STREAM_ALARMS", topic="plant_alarms", where="`type` = 'Condition'"), Whose.READER),
    "our name, another topic": (group(topic="mine"), Whose.READER),
    "our name, the topic of another group": (group(topic="asset_stream_Paint"), Whose.READER),
    "our topic, another name": (group("ASSET_STREAM_WELD_2"), Whose.READER),
    "our topic, the name in lower case": (group("asset_stream_Weld"), Whose.READER),
    "the filter of another group": (group(where="UNS_GROUP = 'Paint'"), Whose.READER),
    "the filter in another case": (group(where="UNS_GROUP = 'WELD'"), Whose.READER),
    "no filter": (group(where="1 = 1"), Whose.READER),
    "a second condition": (group(where="UNS_GROUP = 'Weld' AND `id` = 'x'"), Whose.READER),
    "an alternative": (group(where="UNS_GROUP = 'Weld' OR UNS_GROUP = 'Paint'"), Whose.READER),
    "a pattern": (group(where="UNS_GROUP LIKE 'Weld'"), Whose.READER),
    "another column filtered": (group(where="`tag` = 'Weld'"), Whose.READER),
    "the sides swapped": (group(where="'Weld' = UNS_GROUP"), Whose.READER),
    "a column less": (group(columns=COLUMNS.replace("`tag`, ", "")), Whose.READER),
    "a column more": (group(columns=f"{COLUMNS}, UNS_GROUP"), Whose.READER),
    "columns in another order": (group(columns=COLUMNS.replace("`id`, `value`", "`value`, `id`")), Whose.READER),
    "a column renamed": (group(columns=COLUMNS.replace("`tag`", "`type` AS `tag`")), Whose.READER),
    "a column worked on": (group(columns=COLUMNS.replace("`value`", "UCASE(`value`) AS `value`")), Whose.READER),
    "every column": (group(columns="*"), Whose.READER),
    "partitioned": (group(rest="PARTITION BY `id` EMIT CHANGES"), Whose.READER),
    "limited": (group(rest="EMIT CHANGES LIMIT 5"), Whose.READER),
    "another format": ((group()[0], group()[1].replace("JSON", "AVRO")), Whose.READER),
    "another format of the key": (group(more=", KEY_FORMAT='JSON'"), Whose.READER),
    "a time of its own": (group(more=", TIMESTAMP='timestamp'"), Whose.READER),
    "joined": (
        ("ASSET_STREAM_WELD", f"CREATE STREAM ASSET_STREAM_WELD AS SELECT * FROM {OURS} S JOIN T ON S.A = T.A;"),
        Whose.READER,
    ),
    "a join whose other side is ours": (
        ("X", f"CREATE STREAM X AS SELECT * FROM E S JOIN {OURS} H WITHIN 1 HOURS ON S.A = H.A;"),
        Whose.READER,
    ),
    "a table": (("T", f"CREATE TABLE T AS SELECT A, COUNT(*) FROM {OURS} GROUP BY A;"), Whose.READER),
    "an insert": (("INSERTQUERY_5", f"INSERT INTO X SELECT * FROM {OURS};"), Whose.READER),
    "another statement for the name": (("OTHER", group()[1]), Whose.READER),
    "another installation's group": (group(source=THEIRS), Whose.OTHER),
    "a group from before there were ids": (group(source=LEGACYS), Whose.OTHER),
    "another owner's group": (group(source=OTHER_OWNER), Whose.OTHER),
    "a reader of another installation's": (group(source=THEIRS, where="`id` = 'x'"), Whose.FOREIGN),
    "the old system's": (
        (
            "ASSET_STREAM_WELD",
            OLD_SYSTEMS,
        ),
        Whose.FOREIGN,
    ),
    "declared over a topic": (
        ("ASSET_STREAM_WELD", "CREATE STREAM ASSET_STREAM_WELD (A STRING) WITH (KAFKA_TOPIC='asset_stream_Weld');"),
        Whose.FOREIGN,
    ),
    "of something else": (group(source="ENRICHED_ASSETS_STREAM"), Whose.FOREIGN),
    "of one named nearly as ours": (group(source=f"{OURS}_OLD"), Whose.FOREIGN),
    "of one whose number is none": (group(source="OFA_ASSETS_WITH_UNS_1A2B3C4D_0F0F0F0F_0"), Whose.FOREIGN),
    "of one named as ours in lower case": (group(source=OURS.lower()), Whose.FOREIGN),
    "our stream's name in a text": (
        ("X", f"CREATE STREAM X AS SELECT * FROM E WHERE A = 'FROM {OURS}' EMIT CHANGES;"),
        Whose.FOREIGN,
    ),
    "our stream's name in a comment": (("X", f"CREATE STREAM X AS SELECT * /* FROM {OURS} */ FROM E;"), Whose.FOREIGN),
    "nothing that is known": (("ASSET_STREAM_WELD", ""), Whose.FOREIGN),
    "a shared stream": (shared(), Whose.SHARED),
    "one of another definition": (shared(OLDER), Whose.SHARED),
    "one that has no column for the group": (shared(last="AS AREA"), Whose.FOREIGN),
    "one with another topic": (shared(topic="mine"), Whose.FOREIGN),
    "one joined in another way": (shared(join="LEFT JOIN M H ON S.ASSET_UUID = H.ASSET_UUID"), Whose.FOREIGN),
    "one joined on something else": (shared(join="JOIN M H ON S.ID = H.ASSET_UUID"), Whose.FOREIGN),
    "its name, but not joined": ((OURS, f"CREATE STREAM {OURS} AS SELECT * FROM E EMIT CHANGES;"), Whose.FOREIGN),
    "its name, and reads another of ours": ((OURS, f"CREATE STREAM {OURS} AS SELECT * FROM {OLDER};"), Whose.READER),
    "a shared stream of another installation": (shared(THEIRS), Whose.OTHER),
    "one from before there were ids": (shared(LEGACYS), Whose.OTHER),
    "one of another owner": (shared(OTHER_OWNER), Whose.OTHER),
}


@pytest.mark.parametrize("case", CASES)
def test_whose_a_source_is(case: str) -> None:
    """Form and lineage decide, never a name."""
    (name, text), whose = CASES[case]
    assert ownership(name, text, "ofa", Installation("1a2b3c4d")).whose is whose


@pytest.mark.parametrize(
    ("adopted", "source", "whose"),
    [
        ({LEGACY}, LEGACYS, Whose.GROUP),
        ({"99999999"}, THEIRS, Whose.GROUP),
        ({"99999999"}, LEGACYS, Whose.OTHER),
        ({LEGACY}, THEIRS, Whose.OTHER),
        ({LEGACY, "1a2b3c4d"}, OTHER_OWNER, Whose.OTHER),
    ],
)
def test_what_was_adopted_is_ours(adopted: set[str], source: str, whose: Whose) -> None:
    """Exactly the installations that a person named, of our owner id."""
    found = ownership(*group(source=source), "ofa", Installation("1a2b3c4d", frozenset(adopted)))
    assert (found.whose, found.group) == (whose, "Weld" if whose is Whose.GROUP else None)


@pytest.mark.parametrize(
    ("case", "users"),
    [
        ("no filter", True),
        ("of something else", True),
        ("a reader of another installation's", False),
        ("another installation's group", False),
        ("a group's stream", False),
    ],
)
def test_only_what_no_installation_has_a_part_in_is_a_users(case: str, users: bool) -> None:
    """What reads another installation's shared stream may be of that one, whatever its form."""
    (name, text), _ = CASES[case]
    assert ownership(name, text, "ofa", Installation("1a2b3c4d")).is_users is users


def test_another_installation_is_named() -> None:
    """So that a person can find it, or say that it is this one."""
    found = ownership(*group(source=THEIRS), "ofa", Installation("1a2b3c4d"))
    assert found.text == "belongs to installation 99999999 (--adopt 99999999 if it is this one)"
    old = ownership(*group(source=LEGACYS), "ofa", Installation("1a2b3c4d"))
    assert "before there were ids (--adopt legacy" in old.text


@pytest.mark.parametrize("name", [OURS, OLDER, THEIRS, LEGACYS, OTHER_OWNER])
def test_a_name_is_taken_apart_and_put_together(name: str) -> None:
    """One place reads and writes it."""
    parsed = SharedName.parse(name)
    assert parsed is not None
    assert parsed.text == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ENRICHED_ASSETS_STREAM",
        "OFA_ASSETS_WITH_UNS",
        "OFA_ASSETS_WITH_UNS_XYZ",
        f"{OURS}0123456789012345678",
        LEGACYS + "_1",
    ],
)
def test_other_names_are_no_shared_streams(name: str) -> None:
    """Neither half a name nor more than one; no number is too long to be read."""
    assert SharedName.parse(name) is None


TOPOLOGY = Topology("e", "m", "area", 1, 1, installation=Installation("1a2b3c4d"))


def made(generation: int, **changes: object) -> dict[str, str | None]:
    """Return a shared stream of today's definition with its statement."""
    found = Topology(**{**vars_of(TOPOLOGY), "generation": generation, **changes}).create_shared()  # type: ignore[arg-type]
    return {found.target: found.sql}


def vars_of(topology: Topology) -> dict[str, object]:
    """Return the fields of a topology."""
    return {name: getattr(topology, name) for name in topology.__dataclass_fields__}


def test_the_newest_of_todays_definition_is_read() -> None:
    """Whatever others there are, of earlier definitions, of other installations, or only named so."""
    others = made(7, level="workcenter") | made(8, installation=Installation("99999999")) | made(9, owner="x")
    lookalike: dict[str, str | None] = {next(iter(made(6))): "CREATE STREAM X AS SELECT * FROM E;"}
    assert TOPOLOGY.current(made(1) | made(2) | others | lookalike).generation == 2
    assert TOPOLOGY.current(dict.fromkeys(made(2)) | made(1)).generation == 2, "its query may only not be listed"
    assert TOPOLOGY.current(others).generation == 1
    assert TOPOLOGY.current({}) == TOPOLOGY


def test_the_next_has_a_number_that_neither_stream_nor_topic_has_had() -> None:
    """Topics outlive their streams, and others may have taken a name of ours."""
    names = [*made(3), next(iter(made(5))).lower(), *made(9, level="workcenter"), "x"]
    assert TOPOLOGY.after(names).generation == 6
    lookalike: dict[str, str | None] = {next(iter(made(4))): "CREATE STREAM X AS SELECT * FROM E;"}
    assert TOPOLOGY.current(lookalike).generation == 5


@pytest.mark.parametrize(
    ("text", "sources", "target"),
    [
        ("INSERT INTO `x` SELECT * FROM a JOIN `b` ON 1=1;", {"A", "b"}, "x"),
        ("CREATE TABLE t AS SELECT k FROM a GROUP BY k;", {"A"}, ""),
        ("INSERT", set(), ""),
        ("INSERT INTO", set(), ""),
        ("", set(), ""),
    ],
)
def test_what_a_statement_reads_and_writes(text: str, sources: set[str], target: str) -> None:
    """Whatever kind it is."""
    assert (set(sources_of(text)), target_of(text)) == (sources, target)


TOPICS: dict[str, str] = {
    group()[1]: "asset_stream_Weld",
    "CREATE OR REPLACE TABLE T WITH (PARTITIONS=1, kafka_topic = 'A''b') AS SELECT K FROM S GROUP BY K;": "A'b",
    "CREATE STREAM S WITH (VALUE_FORMAT='JSON') AS SELECT * FROM E;": "",
    "CREATE STREAM S AS SELECT * FROM E WHERE KAFKA_TOPIC = 'x';": "",
    "INSERT INTO S SELECT * FROM E;": "",
    "": "",
}


@pytest.mark.parametrize(("text", "topic"), TOPICS.items())
def test_the_topic_of_a_statement(text: str, topic: str) -> None:
    """It is that of the WITH clause, whatever kind of source is made; a condition names none."""
    assert topic_of(text) == topic

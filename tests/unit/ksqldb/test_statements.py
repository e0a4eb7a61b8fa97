"""The SQL of our streams, and what is read back from the texts that a server keeps of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.domain.installation import Installation
from reconciler.domain.names import SharedName, names_of
from reconciler.ksqldb.definition import Definition, definition_of
from reconciler.ksqldb.entities import Statement
from reconciler.ksqldb.ownership import Whose
from reconciler.ksqldb.statements import PROPERTIES, Topology

TOPOLOGY = Topology("enriched_assets_stream", "asset_to_uns_map", "workcenter", 3_600_000, 604_800_000)
WELD = names_of("Weld")

RENDERED_GROUP = """CREATE STREAM ASSET_STREAM_WELD WITH (CLEANUP_POLICY='delete', KAFKA_TOPIC='asset_stream_Weld', \
PARTITIONS=1, REPLICAS=1, RETENTION_MS=604800000, VALUE_FORMAT='JSON') AS SELECT
  {shared}.ASSET_KEY ASSET_KEY,
  {shared}.`asset_uuid` `asset_uuid`,
  {shared}.`id` `id`,
  {shared}.`value` `value`,
  {shared}.`type` `type`,
  {shared}.`tag` `tag`,
  {shared}.`timestamp` `timestamp`
FROM {shared} {shared}
WHERE ({shared}.UNS_GROUP = 'Weld')
EMIT CHANGES;"""

RENDERED_SHARED = """CREATE STREAM {shared} WITH (CLEANUP_POLICY='delete', KAFKA_TOPIC='{topic}', PARTITIONS=1, \
REPLICAS=1, RETENTION_MS=3600000, VALUE_FORMAT='JSON') AS SELECT
  S.ASSET_UUID ASSET_KEY,
  AS_VALUE(S.ASSET_UUID) `asset_uuid`,
  S.ID `id`,
  S.VALUE `value`,
  S.TYPE `type`,
  S.TAG `tag`,
  S.TIMESTAMP `timestamp`,
  (CASE WHEN (TRIM(H.UNS_LEVELS['workcenter']) <> '') THEN H.UNS_LEVELS['workcenter'] END) UNS_GROUP
FROM ENRICHED_ASSETS_STREAM S
INNER JOIN ASSET_TO_UNS_MAP H ON ((S.ASSET_UUID = H.ASSET_UUID))
EMIT CHANGES;"""


def rendered_group() -> str:
    """Return a group's definition as ksqlDB 7.7 shows it."""
    return RENDERED_GROUP.format(shared=TOPOLOGY.shared_name)


def rendered_shared() -> str:
    """Return the shared stream's definition as ksqlDB 7.7 shows it."""
    return RENDERED_SHARED.format(shared=TOPOLOGY.shared_name, topic=TOPOLOGY.shared_name.lower())


def read(text: str) -> Definition:
    """Take a text apart that must be of our form."""
    definition = definition_of(text)
    assert definition is not None
    return definition


def test_the_shared_stream_joins_once_and_names_every_column() -> None:
    """One statement, explicit aliases, explicit retention, no offset, with the measured properties."""
    statement = TOPOLOGY.create_shared()
    name = TOPOLOGY.shared_name
    assert statement.sql.replace(name, "SHARED").replace(name.lower(), "shared") == (
        "CREATE STREAM `SHARED` WITH (KAFKA_TOPIC='shared', "
        "VALUE_FORMAT='JSON', RETENTION_MS=3600000) AS SELECT S.ASSET_UUID AS ASSET_KEY, "
        "AS_VALUE(S.ASSET_UUID) AS `asset_uuid`, S.ID AS `id`, S.VALUE AS `value`, S.TYPE AS `type`, S.TAG AS `tag`, "
        "S.TIMESTAMP AS `timestamp`, CASE WHEN (TRIM(H.UNS_LEVELS['workcenter']) <> '') THEN "
        "H.UNS_LEVELS['workcenter'] END AS UNS_GROUP FROM `ENRICHED_ASSETS_STREAM` S "
        "JOIN `ASSET_TO_UNS_MAP` H ON S.ASSET_UUID = H.ASSET_UUID EMIT CHANGES;"
    )
    assert statement.properties == PROPERTIES
    assert (statement.verb, statement.target) == ("create", TOPOLOGY.shared_name)
    assert statement.command_id == f"stream/`{TOPOLOGY.shared_name}`/create"


def test_a_group_stream_filters_the_shared_one() -> None:
    """The stream upper-case in backticks, the topic as named, from the beginning: also the query that replaces one."""
    statement = TOPOLOGY.create_group(WELD)
    assert statement.sql.replace(TOPOLOGY.shared_name, "SHARED") == (
        "CREATE STREAM `ASSET_STREAM_WELD` WITH (KAFKA_TOPIC='asset_stream_Weld', VALUE_FORMAT='JSON', "
        "RETENTION_MS=604800000) AS SELECT ASSET_KEY, `asset_uuid`, `id`, `value`, `type`, `tag`, `timestamp` "
        "FROM `SHARED` WHERE UNS_GROUP = 'Weld' EMIT CHANGES;"
    )
    replaced = TOPOLOGY.replace_group(WELD, retention_ms=1)
    assert {one.properties["ksql.streams.auto.offset.reset"] for one in (statement, replaced)} == {"earliest"}
    assert replaced.sql.startswith("CREATE OR REPLACE STREAM `ASSET_STREAM_WELD` WITH (")
    assert "RETENTION_MS=1)" in replaced.sql


def test_drop_and_resume() -> None:
    """The topic stays unless asked; ids are those under which the server files the commands."""
    assert TOPOLOGY.drop("ASSET_STREAM_WELD") == Statement(
        "DROP STREAM `ASSET_STREAM_WELD`;", {}, "drop", "ASSET_STREAM_WELD", "stream/ASSET_STREAM_WELD/drop"
    )
    assert TOPOLOGY.drop("X", delete_topic=True).sql == "DROP STREAM `X` DELETE TOPIC;"
    assert TOPOLOGY.resume("CSAS_X_5").sql == "RESUME `CSAS_X_5`;"


def test_the_shared_name_says_what_the_stream_is() -> None:
    """Any part of the definition changes the hash, nothing else does; owner, installation and number are there."""
    assert re.fullmatch(r"OFA_ASSETS_WITH_UNS_00000000_[0-9A-F]{8}_1", TOPOLOGY.shared_name)
    others = [
        replace(TOPOLOGY, assets_stream="other"),
        replace(TOPOLOGY, join_table="asset_to_uns_map_raw"),
        replace(TOPOLOGY, level="area"),
        replace(TOPOLOGY, shared_retention_ms=1),
    ]
    assert len({one.shared_name for one in [TOPOLOGY, *others]}) == 5
    assert replace(TOPOLOGY, group_retention_ms=1).shared_name == TOPOLOGY.shared_name
    other = replace(TOPOLOGY, owner="plant-2.b", installation=Installation("1a2b3c4d"), generation=12)
    assert re.fullmatch(r"PLANT_2_B_ASSETS_WITH_UNS_1A2B3C4D_[0-9A-F]{8}_12", other.shared_name)
    assert SharedName.parse(other.shared_name) == SharedName("PLANT_2_B", "1a2b3c4d", other.shared_name[35:43], 12)


def test_our_definitions_are_recognised_as_the_server_shows_them() -> None:
    """Folded names, qualified columns, parentheses, added properties: still ours."""
    assert TOPOLOGY.group_differences(read(rendered_group()), WELD) == ()
    assert TOPOLOGY.ownership(WELD.stream, rendered_group()).group == "Weld"
    assert TOPOLOGY.shared_differences(read(rendered_shared())) == ()
    assert TOPOLOGY.ownership(TOPOLOGY.shared_name, rendered_shared()).whose is Whose.SHARED
    assert read(rendered_group()).filter_literal == "Weld"


LOOKS: Mapping[str, Callable[[str], str]] = {
    "as sent": lambda text: text,
    "on one line": lambda text: " ".join(text.split()),
    "with AS": lambda text: re.sub(r" (`\w+`|ASSET_KEY)(,|\n)", r" AS \1\2", text),
    "unquoted case": lambda text: text.replace("CREATE STREAM", "create stream").replace("SELECT", "select"),
    "quoted names": lambda text: text.replace(".UNS_GROUP", ".`UNS_GROUP`"),
    "no brackets": lambda text: text.replace("WHERE (", "WHERE ").replace("'Weld')", "'Weld'"),
    "more brackets": lambda text: text.replace("WHERE (", "WHERE (((").replace("'Weld')", "'Weld')))"),
    "commented": lambda text: text.replace("FROM", "/* the shared one */ FROM -- ours\n"),
    "replaced once": lambda text: text.replace("CREATE", "CREATE OR REPLACE"),
    "no semicolon": lambda text: text.rstrip(";"),
    "double quotes": lambda text: text.replace("`", '"'),
}


@pytest.mark.parametrize("look", LOOKS)
def test_the_look_of_a_text_does_not_matter(look: str) -> None:
    """Formatting, quoting, brackets and comments may differ between versions of the server."""
    text = LOOKS[look](rendered_group())
    assert TOPOLOGY.group_differences(read(text), WELD) == ()
    assert TOPOLOGY.ownership(WELD.stream, text).group == "Weld"


def test_another_source_is_found() -> None:
    """After a change of level the group's stream still reads from the shared stream of the old definition."""
    moved = replace(TOPOLOGY, level="area")
    assert moved.group_differences(read(rendered_group()), WELD) == ("source",)


def test_another_retention_is_no_drift_that_can_be_repaired() -> None:
    """The server refuses every statement that names another retention than the topic has."""
    kept = rendered_group().replace("604800000", "1000")
    assert TOPOLOGY.group_differences(read(kept), WELD) == ()
    assert TOPOLOGY.ownership(WELD.stream, kept).group == "Weld"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CREATE TABLE T AS SELECT * FROM S;",
        "CREATE STREAM S (A STRING KEY) WITH (KAFKA_TOPIC='s', VALUE_FORMAT='JSON');",
        "INSERT INTO X SELECT * FROM S;",
        "CREATE STREAM X AS SELECT",
        "CREATE STREAM X AS SELECT * FROM",
        "CREATE STREAM X WITH (KAFKA_TOPIC) AS SELECT * FROM S;",
        "CREATE STREAM X WITH (KAFKA_TOPIC='x'",
        "CREATE STREAM 'X' AS SELECT * FROM S;",
        "SELECT * FROM S EMIT CHANGES;",
    ],
)
def test_other_statements_are_not_of_our_form(text: str) -> None:
    """None for what is no CREATE STREAM ... AS SELECT."""
    assert definition_of(text) is None


@pytest.mark.parametrize("name", ["1ASSET", "ASSET_STREAM_A--B", "A-1"])
def test_a_name_that_lost_its_quotes_is_read(name: str) -> None:
    """The server shows names that begin with a digit or have two dashes bare (recorded)."""
    text = "CREATE STREAM NAME WITH (KAFKA_TOPIC='t') AS SELECT *\nFROM NAME NAME\nWHERE (NAME.UNS_GROUP = '1');"
    definition = read(text.replace("NAME", name))
    assert (definition.name, definition.source, definition.filter_literal) == (name, name, "1")


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=60))
def test_any_group_and_level_come_back_from_the_text_as_they_were(group: str, level: str) -> None:
    """Quotes, semicolons, comments, newlines, variables: a value stays one literal, the statement one statement."""
    topology = replace(TOPOLOGY, level=level)
    names = names_of(group)
    definition = read(topology.create_group(names).sql)
    assert definition.filter_literal == group
    assert definition.rest == ""
    assert topology.ownership(names.stream, topology.create_group(names).sql).group == group
    shared = topology.create_shared()
    assert topology.ownership(shared.target, shared.sql).whose is Whose.SHARED
    assert read(shared.sql).columns[-1].expression.endswith(f"THEN t.UNS_LEVELS [ {level!r} ] END")

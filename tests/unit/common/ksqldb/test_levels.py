"""By what assets are grouped: names in, SQL out, and nothing of a name gets out of its quotes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfactory_common.errors import ConfigurationError
from openfactory_common.ksqldb.levels import JoinedLevels, Level, WithFallback, group_sql, parse_level
from reconciler.ksqldb.definition import definition_of
from reconciler.ksqldb.statements import Topology

ONE = Topology("enriched_assets_stream", "asset_to_uns_map", "workcenter", 3_600_000, 604_800_000)
NAMES = st.text(min_size=1, max_size=40)


def test_one_level_is_its_value_where_that_is_not_blank() -> None:
    """Reads, streams and the proxy have the same expression, so an empty value is no group for any of them."""
    value = "UNS_LEVELS['work''center']"
    assert group_sql("work'center", "H.") == f"CASE WHEN (TRIM(H.{value}) <> '') THEN H.{value} END"


def test_several_are_joined_where_all_are_there() -> None:
    """Brackets stand where the server puts them, so its text is ours."""
    levels = JoinedLevels(("a", "b", "c"), "/")
    assert group_sql(levels, "H.") == (
        "CASE WHEN (((TRIM(H.UNS_LEVELS['a']) <> '') AND (TRIM(H.UNS_LEVELS['b']) <> '')) AND "
        "(TRIM(H.UNS_LEVELS['c']) <> '')) THEN "
        "CONCAT(H.UNS_LEVELS['a'], '/', H.UNS_LEVELS['b'], '/', H.UNS_LEVELS['c']) END"
    )


def test_what_lacks_a_level_is_in_the_fallback() -> None:
    """A blank value counts as none, as it does without a fallback."""
    value = "UNS_LEVELS['a']"
    assert group_sql(WithFallback("a", "it's")) == f"CASE WHEN (TRIM({value}) <> '') THEN {value} ELSE 'it''s' END"


PARSED: list[tuple[str, str, Level]] = [
    ("a", "", "a"),
    ("a/b", "", JoinedLevels(("a", "b"), "/")),
    ("a/b/c", "x", WithFallback(JoinedLevels(("a", "b", "c"), "/"), "x")),
    ("a", "x", WithFallback("a", "x")),
]


@pytest.mark.parametrize(("text", "fallback", "level"), PARSED)
def test_a_setting_names_one_level_or_several(text: str, fallback: str, level: Level) -> None:
    """Any number of levels; the statement of each is recognised again."""
    assert parse_level(text, fallback) == level
    topology = replace(ONE, level=level)
    found = definition_of(topology.create_shared().sql)
    assert found is not None
    assert topology.shared_differences(found) == ()
    assert topology.shared_name == replace(ONE, level=parse_level(text, fallback)).shared_name


@pytest.mark.parametrize("names", [(), ("area",), ("area", "")])
def test_what_joins_nothing_is_refused(names: tuple[str, ...]) -> None:
    """Fewer than two names, or one that is empty, is a mistake in a setting."""
    with pytest.raises(ConfigurationError, match="several UNS levels"):
        JoinedLevels(names)


@given(st.lists(NAMES, min_size=2, max_size=4), st.text(max_size=20))
def test_hostile_names_stay_literals(names: list[str], separator: str) -> None:
    """Quotes, comments, brackets, newlines: one statement with one more column, which the text gives back."""
    topology = replace(ONE, level=JoinedLevels(tuple(names), separator))
    found = definition_of(topology.create_shared().sql)
    assert found is not None
    assert found.rest == ""
    assert [column.name for column in found.columns][-1] == "UNS_GROUP"
    assert all(f"UNS_LEVELS [ {name!r} ]" in found.columns[-1].expression for name in names)
    assert topology.shared_differences(found) == ()


def test_a_text_rendered_by_the_server_is_ours() -> None:
    """Brackets around the whole, columns qualified, the alias without AS: the same definition."""
    topology = replace(ONE, level=JoinedLevels(("area", "workcenter")))
    text = topology.create_shared().sql
    expression = group_sql(topology.level, "H.")
    rendered = text.replace(f"{expression} AS UNS_GROUP", f"({expression}) UNS_GROUP")
    assert rendered != text
    found = definition_of(rendered)
    assert found is not None
    assert topology.shared_differences(found) == ()

"""Claims, and what they grant: a line a case."""

from __future__ import annotations

import fnmatch
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing_layer.access.grants import ALL, Grants, Names, parse_grants


@pytest.mark.parametrize(
    ("pattern", "covered", "others"),
    [
        ("WELD-1", ["WELD-1"], ["WELD-11", "weld-1", "", "WELD-", " WELD-1", "WELD-1\n"]),
        ("WELD-*", ["WELD-", "WELD-1", "WELD-*", "WELD-1\n2"], ["WELD", "AWELD-1", "weld-1", ""]),
        ("*-1", ["-1", "WELD-1"], ["1", "WELD-11"]),
        ("*", ["", "x", "\n", "*"], []),
        ("**", ["", "x"], []),
        ("A*B*C", ["ABC", "AxBxC", "ABBC", "ABCBC"], ["ACB", "ABxCx", "AC", "AB"]),
        ("A*B*B", ["ABB", "AxBxB"], ["AB", "AxB"]),
        ("AB*BA", ["ABBA", "ABxBA"], ["ABA"]),
        ("a.c", ["a.c"], ["abc"]),
        ("[ab]?", ["[ab]?"], ["a1"]),
        ("a\\*", ["a\\", "a\\x"], ["a*", "a"]),
        ("%", ["%"], ["x"]),
        ("", [""], ["x"]),
        ("Schweißen*", ["Schweißen 1"], ["Schweissen"]),
    ],
)
def test_a_pattern_covers(pattern: str, covered: list[str], others: list[str]) -> None:
    """`*` stands for any characters, all others for themselves."""
    names = Names.parse([pattern])
    assert [name for name in covered if name not in names] == []
    assert [name for name in others if name in names] == []


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_patterns_mean_what_those_of_a_shell_mean(pattern: str, name: str) -> None:
    """As far as these have only `*`."""
    assert (name in Names.parse([pattern])) is bool(re.match(fnmatch.translate(pattern), name))


def test_no_pattern_takes_long() -> None:
    """A regular expression would try every way to divide the name among the stars."""
    assert "a" * 32_000 not in Names.parse(["*a" * 2000 + "*b"])
    assert "a" * 32_000 + "b" in Names.parse(["*a" * 2000 + "*b"])


@pytest.mark.parametrize(
    ("claim", "assets", "groups"),
    [
        ({"assets": ["A1"], "groups": ["Weld"]}, ["A1"], ["Weld"]),
        ({"assets": ["A1"]}, ["A1"], []),
        ({"groups": ["Weld"]}, [], ["Weld"]),
        ({"assets": ["A1", 5, None, ["A2"], {"A3": 1}]}, ["A1"], []),
        ({"assets": "A1", "groups": {"Weld": True}}, [], []),
        ({"assets": None, "groups": ["Weld"]}, [], ["Weld"]),
        ({"Assets": ["A1"], "asset": ["A1"], "*": ["*"]}, [], []),
        ({"assets": [], "groups": []}, [], []),
        ({}, [], []),
        (None, [], []),
        ("*", [], []),
        (["*"], [], []),
        (True, [], []),
        (1, [], []),
    ],
    ids=str,
)
def test_a_claim_grants_what_it_names(claim: Any, assets: list[str], groups: list[str]) -> None:
    """What has another form grants nothing."""
    grants = parse_grants(claim)
    assert grants == Grants(Names.parse(assets), Names.parse(groups))
    assert bool(grants) is bool(assets or groups)


@pytest.mark.parametrize(
    ("claim", "asset", "group", "covered"),
    [
        ({"assets": ["A1"]}, "A1", None, True),
        ({"assets": ["A1"]}, "A1", "Weld", True),
        ({"assets": ["A1"]}, "A2", "Weld", False),
        ({"groups": ["Weld"]}, "A1", "Weld", True),
        ({"groups": ["Weld"]}, "A1", "Paint", False),
        ({"groups": ["Weld"]}, "Weld", "Paint", False),
        ({"groups": ["*"]}, "A1", "Weld", True),
        ({"groups": ["*"]}, "A1", None, False),
        ({"assets": ["Weld"]}, "A1", "Weld", False),
    ],
)
def test_an_asset_is_covered(claim: Any, asset: str, group: str | None, covered: bool) -> None:
    """By its name, or by the group that it is in."""
    assert parse_grants(claim).covers(asset, group) is covered


def test_everything_is_one_star() -> None:
    """Which also lets a client see that an asset does not exist."""
    assert ALL.covers("A1", None)
    assert ALL.groups.everything
    assert not Names.parse(["A*", "**"]).everything

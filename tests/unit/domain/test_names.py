"""Names: the table of the design, and the limits of both sides for anything a person may type."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.domain.names import assign, names_of, slug


def test_the_names_of_weld() -> None:
    """Every name of a plain group is the documented one."""
    names = names_of("Weld")
    assert (names.stream, names.topic) == ("ASSET_STREAM_WELD", "asset_stream_Weld")
    assert names.consumer_group == "asset_stream_Weld_consumer_group"
    assert names.service == "ofa_group_Weld"
    assert names.url(8000) == "http://ofa_group_Weld:8000/asset_stream"


@pytest.mark.parametrize("group", ["Weld", "CNC-01", "a", "A_b-c9", "x" * 40])
def test_a_legal_name_stays_itself(group: str) -> None:
    """What both sides accept is not changed."""
    assert slug(group) == group


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("Weld 2", "Weld_2_56677884"),
        ("-Weld", "Weld_b15af1f9"),
        ("x" * 41, "x" * 30 + "_3164596d"),
        ("O'Brien", "O_Brien_e6e62496"),
    ],
)
def test_anything_else_is_cut_and_hashed(group: str, expected: str) -> None:
    """T29: the result is fixed for ever: a changed rule would rename what is running."""
    assert slug(group) == expected


@given(st.text(max_size=400))
def test_every_name_is_legal_on_both_sides(group: str) -> None:
    """Whatever a person types gives names that Swarm and ksqlDB accept."""
    names = names_of(group, "p" * 12)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*[A-Za-z0-9]", names.service)
    assert len(names.service) <= 63
    assert re.fullmatch(r"[A-Z0-9_-]+", names.stream)
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,249}", names.topic)


@given(st.lists(st.text(max_size=60), max_size=20))
def test_assigned_names_are_unique_and_do_not_depend_on_order(groups: list[str]) -> None:
    """T29, T30: no two groups share a name in any case; every group has names or is told who holds them."""
    named, losers = assign(groups)
    assert (named, losers) == assign(reversed(groups))
    services = [names.service.casefold() for names in named.values()]
    assert len(services) == len(set(services))
    assert named.keys() | losers.keys() == set(groups)
    assert all(holder in named for holder in losers.values())

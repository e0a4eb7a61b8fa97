"""The registry document: canonical, content-addressed, refused when it is not what it should be."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import RegistryError
from reconciler.registry import LIMIT_BYTES, Identity, Membership, Registry, parse

LOOKUP = Membership(table="ASSET_TO_UNS_MAP", key="ASSET_UUID", group="UNS_LEVELS['workcenter']")
HERE = Identity(kafka="k", ksqldb="default_")


def document(groups: dict[str, str]) -> Registry:
    """Return a registry of these groups."""
    return Registry(identity=HERE, groups=groups, state_api="http://s:5555/asset_state", membership=LOOKUP)


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=40), max_size=10))
def test_what_is_published_is_read_back(groups: dict[str, str]) -> None:
    """Any document survives its canonical form, whatever is in the names."""
    registry = document(groups)
    assert parse(registry.canonical()) == registry


@given(st.dictionaries(st.text(max_size=20), st.just("u"), max_size=8))
def test_the_revision_does_not_depend_on_order(groups: dict[str, str]) -> None:
    """T30: equal content has equal bytes."""
    assert document(groups).revision == document(dict(reversed(groups.items()))).revision


def test_a_registry_that_no_config_can_hold_is_refused_with_its_size() -> None:
    """T28: the message has both numbers."""
    with pytest.raises(RegistryError, match=rf"\d+ bytes, a Swarm config takes {LIMIT_BYTES}"):
        document({f"g{n}": "u" * 1000 for n in range(1100)}).canonical()


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"groups": {"a": 1}},
        {"groups": None},
        {"identity": {"kafka": "k"}},
        {"surprise": 1},
        {"membership": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_shape_is_refused(change: dict[str, object]) -> None:
    """T25: a document that is not of this version is not half-used."""
    whole = json.loads(document({"a": "u"}).canonical())
    with pytest.raises(RegistryError):
        parse(json.dumps({**whole, **change}).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_what_is_not_a_document_is_refused(data: bytes) -> None:
    """Corrupt bytes are an error, never an empty registry."""
    with pytest.raises(RegistryError):
        parse(data)


def test_another_cluster_is_refused() -> None:
    """T34: a document of another cluster is named as such."""
    with pytest.raises(RegistryError, match="made from cluster"):
        parse(document({}).canonical(), expect=Identity(kafka="other", ksqldb="default_"))

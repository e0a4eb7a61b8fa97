"""The registry document: canonical, content-addressed, refused when it is not what it should be."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openfactory_common.errors import RegistryError
from openfactory_common.ksqldb.levels import JoinedLevels, Level, WithFallback, group_sql
from openfactory_common.registry import (
    LIMIT_BYTES,
    GroupLookup,
    Identity,
    OtherClusterError,
    Registry,
    list_replaced,
    parse,
    revision_of,
)

URL = "http://ofa_group_a:8000/asset_stream"
LOOKUP = GroupLookup(table="ASSET_TO_UNS_MAP", key="ASSET_UUID", levels=("workcenter",))
HERE = Identity(kafka="k", ksqldb="default_")
A, B, C = (Identity(kafka=name, ksqldb="default_") for name in "abc")


def document(groups: dict[str, str], **changes: Any) -> Registry:
    """Return a registry of these groups."""
    usual = {"identity": HERE, "state_api": "http://s:5555/asset_state", "membership": LOOKUP}
    return Registry(groups=groups, **{**usual, **changes})


def raw(**changes: Any) -> bytes:
    """Return the bytes of a good document with some fields changed."""
    return json.dumps({**json.loads(document({"a": URL}).canonical()), **changes}).encode()


@given(st.dictionaries(st.text(max_size=20), st.just(URL), max_size=10), st.lists(st.just(A), max_size=2))
def test_what_is_published_is_read_back(groups: dict[str, str], earlier: list[Identity]) -> None:
    """Any document survives its canonical form, whatever is in the names."""
    registry = document(groups, replaces=tuple(earlier))
    assert parse(registry.canonical()) == registry


LEVELS: list[tuple[Level, dict[str, object]]] = [
    ("a", {"levels": ["a"], "separator": "-"}),
    (JoinedLevels(("a", "b"), "/"), {"levels": ["a", "b"], "separator": "/"}),
    (WithFallback("a", "x"), {"levels": ["a"], "separator": "-", "fallback": "x"}),
    (WithFallback(JoinedLevels(("a", "b"), "/"), "x"), {"levels": ["a", "b"], "separator": "/", "fallback": "x"}),
]


@pytest.mark.parametrize(("level", "fields"), LEVELS)
def test_a_fallback_is_one_more_field_and_only_where_there_is_one(level: Level, fields: dict[str, object]) -> None:
    """Documents without one keep their bytes; a proxy of before it ignores the field."""
    made = document({"a": URL}, membership=GroupLookup.of("T", "K", level))
    assert json.loads(made.canonical())["membership"] == {"table": "T", "key": "K", **fields}
    assert parse(made.canonical()).membership.level == level


@given(st.dictionaries(st.text(max_size=20), st.just(URL), max_size=8))
def test_the_revision_does_not_depend_on_order(groups: dict[str, str]) -> None:
    """T30: equal content has equal bytes."""
    assert document(groups).revision == document(dict(reversed(groups.items()))).revision


def test_a_registry_that_no_config_can_hold_is_refused_with_its_size() -> None:
    """T28: the message has both numbers."""
    with pytest.raises(RegistryError, match=rf"\d+ bytes, a Swarm config takes {LIMIT_BYTES}"):
        document({f"g{n}": f"http://h/{'u' * 1000}" for n in range(1100)}).canonical()


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": "1"},
        {"groups": {"a": 1}},
        {"groups": None},
        {"groups": ["a"]},
        {"identity": {"kafka": "k"}},
        {"identity": {"kafka": 1, "ksqldb": "d"}},
        {"state_api": 5555},
        {"replaces": {"kafka": "k", "ksqldb": "d"}},
        {"replaces": [{"kafka": "k"}]},
        {"membership": None},
        {"membership": {"table": "T", "key": "K"}},
        {"membership": {"table": "T", "key": "K", "levels": "workcenter"}},
        {"membership": {"table": "T", "key": "K", "levels": [1]}},
        {"membership": {"table": "T", "key": "K", "levels": []}},
        {"membership": {"table": "T", "key": "K", "levels": [""]}},
        {"membership": {"table": "T", "key": "K", "levels": ["a"], "fallback": 1}},
        {"membership": {"table": "T", "key": "K", "levels": ["a"], "fallback": "x" * 256}},
        {"membership": {"table": "T", "key": "K", "levels": ["a"] * 9}},
        {"membership": {"table": "T", "key": "K", "levels": ["a", "b"], "separator": None}},
    ],
    ids=str,
)
def test_another_shape_is_refused(change: dict[str, object]) -> None:
    """T25: a known field of another type is not half-used."""
    with pytest.raises(RegistryError):
        parse(raw(**change))


def test_fields_of_a_newer_operator_are_ignored_at_every_level() -> None:
    """Proxy and operator are upgraded separately: what is not known changes nothing else."""
    whole = json.loads(document({"a": URL}, replaces=(A,)).canonical())
    for place in (whole, whole["identity"], whole["replaces"][0], whole["membership"]):
        place["new"] = {"deep": [1, None]}
    assert parse(json.dumps(whole).encode()) == document({"a": URL}, replaces=(A,))


def test_a_rendering_without_unknown_fields_has_an_address_of_its_own() -> None:
    """What an older operator publishes after a newer one is named after its own bytes, what it read after those."""
    newer = raw(new=1)
    read = parse(newer)
    assert revision_of(newer) != read.revision == hashlib.sha256(read.canonical()).hexdigest()[:12]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"null",
        b'{"version":NaN}',
        b"[" * 100_000,
        b'{"version":1,"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"version":' + b"1" * 5000 + b"}",
        raw(groups={"\ud800": URL}),
        raw(groups={"a": "http://\ud800/"}),
        raw(membership={"table": "T", "key": "K", "levels": ["\ud800"]}),
        raw(x="u" * 1149 * 1024),
    ],
    ids=range(13),
)
def test_what_is_not_a_document_is_refused(data: bytes) -> None:
    """Corrupt bytes are an error, never an empty registry; nor any other exception."""
    with pytest.raises(RegistryError) as refused:
        parse(data)
    assert len(str(refused.value)) < 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ["version", "identity", "replaces", "groups", "state_api", "membership", "table", "key", "levels", "kafka"]


@settings(max_examples=300)
@given(st.binary(max_size=80) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_document_or_refused(data: bytes) -> None:
    """Whatever comes, nothing but our own error does."""
    with pytest.raises(RegistryError):
        parse(data)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3), st.sampled_from(FIELDS), JSON)
@example({}, "membership", {"table": "T", "key": "K", "levels": ["x"], "group": 3})
def test_any_value_in_a_known_place_is_used_or_refused(change: dict[str, Any], inside: str, value: Any) -> None:
    """What is taken can be written again: its bytes have a revision."""
    membership = {"table": "T", "key": "K", "levels": ["workcenter"], inside: value}
    try:
        registry = parse(raw(**{"membership": membership, **change}))
    except RegistryError:
        return
    assert parse(registry.canonical()) == registry


SOURCES = [
    "x; DROP STREAM y",
    "x`",
    "x y",
    "x--",
    'x"',
    "x\n",
    "",
    "1x",
    "x" * 250,
    "(SELECT * FROM y)",
    "ä",
]


@pytest.mark.parametrize("field", ["table", "key"])
@pytest.mark.parametrize("name", SOURCES)
def test_a_table_or_key_that_is_no_name_is_refused(field: str, name: str) -> None:
    """It gets into a query of the proxy: anyone who answers as the operator chooses a name, never SQL."""
    wrong = {"table": "T", "key": "K", "levels": ["l"], field: name}
    with pytest.raises(RegistryError, match=f"membership.{field}"):
        parse(raw(membership=wrong))
    with pytest.raises(RegistryError, match=f"membership.{field}"):
        document({}, membership=GroupLookup(**{**wrong, "levels": ("l",)})).canonical()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "u",
        "ftp://h/",
        "file:///etc/passwd",
        "HTTP://h/",
        "http://",
        "http:///p",
        "http://a..b/",
        "http://.a/",
        "http://-a/",
        "http://user:pw@h/p",
        "http://user@h/p",
        "http://h#f",
        "http://h/p#f",
        "http://h/p?q=1",
        "http://h?q",
        "http://h:0/",
        "http://h:65536/",
        "http://h:99999999999999/",
        "http://h:/",
        "http://h:x/",
        "http://h/a b",
        "http://h/\r\nX: y",
        "http://h\n",
        "http://h/ä",
        "http://[::1/",
        "http://[:::]/",
        "http://[1]/",
        "http://::1/",
        "http://h\\@x/",
        f"http://{'a' * 64}/",
        f"http://h/{'p' * 2050}",
    ],
)
def test_what_is_not_the_url_of_a_service_is_refused(url: str) -> None:
    """No credentials, query, fragment or line end, a plausible host and port; in the groups and for the state."""
    for change in ({"groups": {"a": url}}, {"state_api": url}):
        with pytest.raises(RegistryError, match="not the URL of a service"):
            parse(raw(**change))
        with pytest.raises(RegistryError, match="not the URL of a service"):
            document({}, **change).canonical() if "state_api" in change else document({"a": url}).canonical()


@pytest.mark.parametrize(
    ("since", "fits"), [(0, True), (2**32 - 1, True), (-1, False), (2**32, False), (10**30, False)]
)
def test_since_when_a_group_sleeps_is_a_time(since: int, *, fits: bool) -> None:
    """Which programs can show; a group that has a URL does not sleep."""
    made = raw(groups={"Paint": "http://h/"}, asleep={"Weld": since})
    if fits:
        assert parse(made).asleep == {"Weld": since}
    else:
        with pytest.raises(RegistryError, match=r"asleep\.Weld"):
            parse(made)
    with pytest.raises(RegistryError, match=r"asleep\.Weld"):
        parse(raw(groups={"Weld": "http://h/"}, asleep={"Weld": 7}))


@pytest.mark.parametrize(
    "url",
    [
        "http://ofa_group_Weld:8000/asset_stream",
        "https://h.example.org/asset_stream",
        "http://127.0.0.1:65535/",
        "http://[::1]:8000/asset_stream",
        "http://h",
        "http://h/a%20b/c;d=e",
    ],
)
def test_the_url_of_a_service_is_taken(url: str) -> None:
    """Names of services, addresses of both kinds, with and without a port and a path."""
    assert parse(raw(groups={"a": url}, state_api=url)).groups == {"a": url}


OLD_AND = (
    "CASE WHEN ((UNS_LEVELS['a'] IS NOT NULL) AND (UNS_LEVELS['b'] IS NOT NULL)) THEN "
    "CONCAT(UNS_LEVELS['a'], '-', UNS_LEVELS['b']) END"
)
OLD_THREE = (
    "CASE WHEN (((UNS_LEVELS['a'] IS NOT NULL) AND (UNS_LEVELS['b'] IS NOT NULL)) AND (UNS_LEVELS['c'] IS NOT NULL)) "
    "THEN CONCAT(UNS_LEVELS['a'], ', ', UNS_LEVELS['b'], ', ', UNS_LEVELS['c']) END"
)
OLD_QUOTES = (
    "CASE WHEN ((UNS_LEVELS['it''s'] IS NOT NULL) AND (UNS_LEVELS['a''b'] IS NOT NULL)) THEN "
    "CONCAT(UNS_LEVELS['it''s'], '''', UNS_LEVELS['a''b']) END"
)
OLD: list[tuple[Level, str]] = [
    ("workcenter", "UNS_LEVELS['workcenter']"),
    ("o'brien", "UNS_LEVELS['o''brien']"),
    ("']; DROP", "UNS_LEVELS[''']; DROP']"),
    (JoinedLevels(("a", "b")), OLD_AND),
    (JoinedLevels(("a", "b", "c"), ", "), OLD_THREE),
    (JoinedLevels(("it's", "a'b"), "'"), OLD_QUOTES),
]
LEVELS: list[Level] = [level for level, _ in OLD]


@pytest.mark.parametrize(("level", "sql"), OLD, ids=[str(level) for level in LEVELS])
def test_the_older_form_of_the_membership_is_read(level: Level, sql: str) -> None:
    """A document of an operator from before levels were data: exactly the SQL that it wrote is turned into levels."""
    old = {"table": "T", "key": "K", "group": sql}
    assert parse(raw(membership=old)).membership.level == level


@pytest.mark.parametrize(
    "sql",
    [
        "UNS_LEVELS['a'] || 'x'",
        "UNS_LEVELS['a'], SECRET",
        "(SELECT 1)",
        "UNS_LEVELS['']",
        "",
        "CONCAT(UNS_LEVELS['a'], '-', UNS_LEVELS['b'])",
        OLD_AND + " ",
        group_sql("a"),
    ],
)
def test_any_other_sql_of_the_older_form_is_refused(sql: str) -> None:
    """It is compared with what our own levels give, not trusted."""
    with pytest.raises(RegistryError, match="levels"):
        parse(raw(membership={"table": "T", "key": "K", "group": sql}))


def test_levels_survive_the_document() -> None:
    """One level by its name, several with their separator."""
    for level in LEVELS:
        registry = document({}, membership=GroupLookup.of("T", "K", level))
        assert parse(registry.canonical()).membership.level == level


#: The clusters in use and replaced before; those of the offered document; whether it is followed.
CHANGES: list[tuple[tuple[Identity, tuple[Identity, ...]], tuple[Identity, tuple[Identity, ...]], bool]] = [
    ((A, ()), (A, ()), True),
    ((A, ()), (A, (B,)), True),
    ((A, (B,)), (A, ()), True),  # rolled back to an operator that does not write what was replaced
    ((A, ()), (B, ()), False),  # a foreign operator
    ((A, ()), (B, (C,)), False),  # a foreign operator with a history of its own
    ((A, ()), (B, (A,)), True),  # accepted
    ((B, (A,)), (A, ()), False),  # an operator that has not noticed
    ((B, (A,)), (A, (A, B)), True),  # and back, accepted
    ((A, (A, B)), (B, (A,)), False),  # a late answer from the time between
    ((A, ()), (C, (A, B)), True),  # two changes, one seen
    ((A, (A, B)), (C, (A, B, A)), True),
    ((C, (A, B)), (B, (A,)), False),
]


@pytest.mark.parametrize(("used", "offered", "followed"), CHANGES, ids=range(len(CHANGES)))
def test_another_cluster_is_followed_only_when_it_replaces_the_one_in_use(
    used: tuple[Identity, tuple[Identity, ...]], offered: tuple[Identity, tuple[Identity, ...]], *, followed: bool
) -> None:
    """T34: accepted by a person, and newer: an older or foreign operator's document is refused as such."""
    before = document({}, identity=used[0], replaces=used[1])
    data = document({}, identity=offered[0], replaces=offered[1]).canonical()
    if followed:
        assert parse(data, before=before).identity == offered[0]
    else:
        with pytest.raises(OtherClusterError, match="made from cluster"):
            parse(data, before=before)


def test_each_accepted_change_adds_the_cluster_before() -> None:
    """From the published document alone; the same cluster again adds nothing."""
    assert list_replaced(None, A) == ()
    assert list_replaced(document({}, identity=A), A) == ()
    assert list_replaced(document({}, identity=A), B) == (A,)
    assert list_replaced(document({}, identity=B, replaces=(A,)), B) == (A,)
    assert list_replaced(document({}, identity=B, replaces=(A,)), A) == (A, B)

"""Any world that two sides could ever show, legal or not, from one number.

Every value is one that some reply could carry: the adapters check shapes, not sense. Pieces of our own worlds are mixed
in, so that the usual paths are taken as well as the odd ones. A world comes from the dice of one number that Hypothesis
chooses: drawing every value of it through Hypothesis took 33 ms a world instead of 1, and the number is as good a way
to have the same world again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import TypeVar

from openfactory_common.registry import GroupLookup, Identity, Registry
from reconciler.app import topology_of
from reconciler.domain.installation import sift
from reconciler.domain.names import LEGACY, SharedName, names_of
from reconciler.domain.observed import LiveQuery, LiveStream, MapSnapshot, Observed, SourceState
from reconciler.domain.services import (
    ConfigMount,
    Kind,
    LiveRegistry,
    LiveService,
    PlatformState,
    Port,
    Publish,
    ServiceSpec,
)
from reconciler.ksqldb.statements import Topology
from reconciler.planning.guards import Absence, GuardMemory, Overrides
from reconciler.planning.specs import group_spec, routing_layer_spec, state_api_spec
from reconciler.settings import Settings
from tests.harness.fake_platform import INSTALLATION

T = TypeVar("T")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LOOKUP = GroupLookup.of("ASSET_TO_UNS_MAP", "ASSET_UUID", "workcenter")
HERE = Identity(kafka="kafka-1", ksqldb="default_")
GROUPS = (
    "Weld",
    "WELD",
    "Paint",
    "CNC-01",
    "a b",
    "ä",
    "",
    " ",
    "\t\n",
    "'; DROP STREAM x; --",
    "`b`",
    "{{.Node.Hostname}}",
    "\x00\x1b[31m",
    "\u202eevil",
    "\ud800",
    "x" * 10_000,
    "🏭",
    "%s{0}",
    "..",
)
#: Another installation with our owner id.
THEIRS = "99999999"
OPTIONS: tuple[dict[str, object], ...] = (
    {},
    {"environment": "production"},
    {"environment": "local"},
    {"reconcile_policy": "upsert-only"},
    {"reconcile_policy": "create-only"},
    {"delete_topics": True, "prune_max_fraction": 1.0},
    {"prune_reads": 1, "prune_grace": 0.0, "drain_seconds": 0.0, "prune_max_fraction": 1.0},
)


@cache
def settings_of(number: int) -> Settings:
    """One of some settings, by its number."""
    given = {"kafka_broker": "k:9092", "ksqldb_url": "http://k:8088", "environment": "devswarm", **OPTIONS[number]}
    return Settings(_env_file=None, **given)  # type: ignore[call-arg, arg-type]


@cache
def topology() -> Topology:
    """Our own streams; no option above changes them."""
    return replace(topology_of(settings_of(0)), installation=INSTALLATION)


def topology_of_now(source: SourceState) -> Topology:
    """The same with the shared stream that there is."""
    return topology().current({name: q.text if (q := source.queries.get(name)) else None for name in source.streams})


def _older(installation: str = INSTALLATION.id) -> str:
    return SharedName("OFA", installation, "0BADC0DE", 1).text


@cache
def document(groups: tuple[str, ...], kafka: str = HERE.kafka) -> bytes:
    """A registry of these groups."""
    urls = {group: f"http://{names_of(group).service}:8000/asset_stream" for group in groups}
    identity = Identity(kafka=kafka, ksqldb=HERE.ksqldb)
    made = Registry(
        identity=identity,
        groups=urls,
        state_api="http://ofa_state_api:8000/asset_state",
        membership=LOOKUP,
        installation=INSTALLATION.id,
    )
    return made.canonical()


@cache
def _statements() -> tuple[str, ...]:
    ours = topology()
    shared = ours.create_shared().sql
    others = (_older(), _older(THEIRS), _older(LEGACY), replace(ours, generation=2).shared_name)

    def made(text: str, name: str, *, topic: bool = False) -> str:
        text = text.replace(ours.shared_name, name)
        return text.replace(ours.shared_name.lower(), name.lower()) if topic else text

    groups = [ours.create_group(names_of(group)).sql for group in GROUPS if group != "\ud800"]
    return (
        shared,
        *(made(shared, other, topic=True) for other in others),
        *groups,
        *(made(text, other) for text in groups[:3] for other in others),
        *(text.replace(" EMIT CHANGES", " AND type = 'Condition' EMIT CHANGES") for text in groups[:3]),
        groups[0].replace("= 'Weld'", "= NULL"),
        groups[0].replace("WHERE", "WINDOW TUMBLING (SIZE 1 SECOND) WHERE"),
        groups[0][:40],
        groups[0]
        .replace("UNS_GROUP = 'Weld'", "type = 'Condition'")
        .replace("ASSET_STREAM_WELD", "ASSET_STREAM_ALARMS"),
        "CREATE STREAM X AS SELECT * FROM S JOIN T ON S.A = T.A JOIN U ON T.B = U.B EMIT CHANGES;",
        "INSERT INTO X SELECT 1;",
        "",
        "(" * 500,
        "CREATE STREAM `",
        "CREATE STREAM X WITH (RETENTION_MS=99999999999999999999999) AS SELECT * FROM Y EMIT CHANGES;",
        groups[0].replace("RETENTION_MS=604800000", f"RETENTION_MS={'9' * 5000}"),
        "CREATE STREAM X WITH (RETENTION_MS='oops') AS SELECT * FROM Y EMIT CHANGES;",
        "CREATE STREAM X WITH (RETENTION_MS) AS SELECT FROM WHERE",
    )


ODD_TEXT = "aZ0_-'`\"\\;{}$%\x00\n\x7f\u202e\ud800\udfff\U0001f3edäß\u2028 "
NUMBERS = (0, 1, 2, 3, 3, 7, -1, 10**18, -(10**30), 10**30)
MOMENTS = (0.0, 900.0, 990.0, 1000.0, 2000.0, -1e300, 1e300)


def group(dice: Random) -> str:
    """A group's value, one of a few so that they meet, or any text."""
    return dice.choice(GROUPS) if dice.random() < 0.85 else _text(dice)


def _text(dice: Random) -> str:
    return "".join(dice.choices(ODD_TEXT, k=dice.randrange(12)))


def _statement(dice: Random) -> str:
    text = dice.choice(_statements()) if dice.random() < 0.9 else _text(dice)
    if dice.random() < 0.1:  # torn, or with something in the middle
        at = dice.randrange(len(text) + 1)
        text = text[:at] + _text(dice) + (text[at:] if dice.random() < 0.5 else "")
    return text


def _stream_name(dice: Random) -> str:
    if dice.random() < 0.2:
        return topology().shared_name
    others = (
        "ASSET_STREAM_ALARMS",
        "ASSET_STREAM_",
        _older(),
        _older(THEIRS),
        _older(LEGACY),
        replace(topology(), generation=2).shared_name,
        "OFA_ASSETS_WITH_UNS_",
        "X",
        "",
    )
    return names_of(dice.choice(GROUPS)).stream if dice.random() < 0.8 else dice.choice(others)


def _topic(dice: Random) -> str:
    return dice.choice([*(names_of(one).topic for one in GROUPS[:6]), "", "plant"])


def _several(dice: Random, most: int, make: Callable[[Random], T]) -> list[T]:
    return [make(dice) for _ in range(dice.randrange(most + 1))]


def _source(dice: Random) -> SourceState:
    """What ksqlDB says: streams with and without queries, queries without streams, text that is no statement."""
    streams = {name: LiveStream(name, _topic(dice)) for name in _several(dice, 8, _stream_name)}
    writers = [name for name in (*streams, "GONE") if dice.random() < 0.7]
    queries = {
        name: LiveQuery(f"CSAS_{name}", _own_or_other(dice, name), dice.random() < 0.2, dice.random() < 0.2)
        for name in writers
    }
    without = streams.keys() - queries.keys()
    return SourceState(
        identity=dice.choice((HERE, HERE, HERE, HERE, Identity(kafka="", ksqldb=""), Identity(kafka="k", ksqldb="x"))),
        version=dice.choice(("7.7.0", "")),
        unhealthy_reason=dice.choice(("", "", "", "", "its status is ERROR")),
        streams=streams,
        queries=queries,
        topics=dice.choice((None, None, dict.fromkeys(_several(dice, 5, _topic), 1))),
        inserts={"INSERT_1": _statement(dice)} if dice.random() < 0.1 else {},
        orphans={name: _own_or_other(dice, name) for name in sorted(without) if dice.random() < 0.5},
        unknown_owners={_stream_name(dice): dice.choice(("", "refused"))} if dice.random() < 0.1 else {},
    )


def _own_or_other(dice: Random, name: str) -> str:
    """The statement that we would have made it with, or any."""
    own = {names_of(one).stream: one for one in GROUPS if one != "\ud800"}
    if dice.random() < 0.6:
        shared = SharedName.parse(name)
        if shared is not None:
            ours = topology().create_shared().sql
            return ours.replace(topology().shared_name, name).replace(topology().shared_name.lower(), name.lower())
        if name in own:
            return topology().create_group(names_of(own[name])).sql
    return _statement(dice)


def _service(dice: Random, settings: Settings) -> LiveService:
    """A service of ours, of others, of another mode, changed, doubled under another name."""
    mount = dice.choice(("ofa_registry-0", "ofa_registry-1", "gone"))
    spec: ServiceSpec | None = dice.choice(
        (
            None,
            group_spec(names_of(group(dice)), settings, None),
            group_spec(names_of(group(dice)), settings, dice.choice((6000, 70000, -1))),
            state_api_spec(settings, None),
            routing_layer_spec(settings, mount),
            routing_layer_spec(settings, mount),
        )
    )
    if spec is not None and dice.random() < 0.4:
        spec = replace(
            spec,
            kind=dice.choice(tuple(Kind)),
            group=dice.choice((None, group(dice))),
            replicas=dice.choice(NUMBERS),
            configs=dice.choice(((), (ConfigMount(mount, "/x"),), (ConfigMount("a", "/a"), ConfigMount("b", "")))),
            ports=dice.choice(((), (Port(8000, 6001, Publish.HOST), Port(8000, 6001, Publish.HOST)))),
            env=dice.choice(({}, {"": ""}, {"PASSWORD": "\ud800"})),
        )
    installation = dice.choice((INSTALLATION.id,) * 6 + ("", THEIRS))
    spec = replace(spec, installation=installation) if spec is not None else None
    names = (names_of(dice.choice(GROUPS)).service, "ofa_routing_layer", "OFA_State_API", "ofa_group_", "other", "")
    return LiveService(
        id=dice.choice(("1", "2", "")),
        version=dice.choice(NUMBERS),
        name=spec.name if spec is not None and dice.random() < 0.7 else dice.choice(names),
        owner=dice.choice(("ofa", "ofa", "ofa", "ofa", None, "other", "")),
        spec=spec,
        running=dice.choice(NUMBERS),
        update_state=dice.choice(("", "", "updating", "paused", "rollback_completed", "nonsense")),
        error=dice.choice(("", "no such image", "\x1b")),
        updated_at=dice.choice((None, NOW, NOW.replace(tzinfo=None))),
        installation=installation,
    )


@cache
def _documents() -> tuple[bytes, ...]:
    weld = document(("Weld",))
    return (
        document(()),
        weld,
        document(("Weld", "Paint", "Gone", "a b")),
        document(("Weld", "Paint", "Gone", "a b")),
        document(("Weld",), "kafka-2"),
        weld.replace(b'"version":1', b'"version":9'),
        weld[:-20],
        weld.replace(b'"Weld":', b'"\\ud800":'),
        b'{"a":' * 2000,
        b"",
        b"\xff\xfe",
    )


@cache
def _large() -> bytes:
    return document(("Weld",)).replace(b"Weld", b"W" * 600_000)


def _registry(dice: Random) -> LiveRegistry:
    """A document: ours, of another cluster, of another version, torn, too large; any number, any age."""
    return LiveRegistry(
        id="1",
        version=dice.choice(NUMBERS),
        name=dice.choice(("ofa_registry-0", "ofa_registry-1", "ofa_registry-2", "")),
        sequence=dice.choice(NUMBERS),
        data=_large() if dice.random() < 0.005 else dice.choice(_documents()),
        updated_at=dice.choice((NOW, NOW.replace(tzinfo=None), NOW.replace(year=1), NOW.replace(year=9999))),
        mounted=dice.random() < 0.5,
    )


def world(dice: Random, settings: Settings) -> Observed:
    """Everything at once."""
    found = _several(dice, 6, lambda dice: _service(dice, settings))
    groups = {group(dice): dice.choice(NUMBERS) for _ in range(dice.randrange(7))}
    platform = PlatformState(
        services={dice.choice((live.name.casefold(), live.name.casefold(), live.name)): live for live in found},
        registries=tuple(_several(dice, 5, _registry)),
    )
    return Observed(
        source=_source(dice),
        platform=sift(platform, settings.reconciler_owner, INSTALLATION),
        membership=MapSnapshot(dice.choice(NUMBERS), groups, fresh=dice.random() < 0.8),
    )


def memory(dice: Random) -> GuardMemory:
    """What an operator could remember, also of another world."""

    def absences(dice: Random) -> dict[str, Absence]:
        names = [group(dice) if dice.random() < 0.7 else _stream_name(dice) for _ in range(dice.randrange(6))]
        return {name: Absence(dice.choice(NUMBERS), dice.choice(MOMENTS)) for name in names}

    return GuardMemory(
        missing=absences(dice),
        silent=absences(dice),
        unregistered={group(dice): dice.choice(MOMENTS) for _ in range(dice.randrange(4))},
        counts=tuple((dice.choice(MOMENTS), dice.choice(NUMBERS)) for _ in range(dice.randrange(3))),
        servers=dice.choice((0, 0, 1, 2)),
        queries=dice.choice(NUMBERS),
        approved=frozenset(_several(dice, 2, group)),
    )


def overrides(dice: Random) -> Overrides:
    """What a person could allow."""
    return Overrides(dice.random() < 0.5, dice.random() < 0.5, dice.choice(("", "x", "deadbeef")))

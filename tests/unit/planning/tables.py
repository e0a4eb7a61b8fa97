"""What table tests are made of: worlds in a few words, and tables of one line a case."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

from openfactory_common.registry import GroupLookup, Identity, Registry
from reconciler.app import topology_of
from reconciler.domain.installation import sift
from reconciler.domain.names import LEGACY, SharedName, names_of
from reconciler.domain.observed import LiveQuery, LiveStream, MapSnapshot, Observed, SourceState
from reconciler.domain.services import LiveRegistry, LiveService, PlatformState, ServiceSpec
from reconciler.ksqldb.statements import Topology
from reconciler.planning.inputs import PlanInputs
from reconciler.planning.specs import group_spec, routing_layer_spec, state_api_spec
from reconciler.planning.survey import Survey, make_survey
from reconciler.settings import Settings
from tests.harness.fake_platform import INSTALLATION

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HERE = Identity(kafka="kafka-1", ksqldb="default_")
LOOKUP = GroupLookup.of("ASSET_TO_UNS_MAP", "ASSET_UUID", "workcenter")
#: The shared stream that a group's stream reads.
READ = re.compile(r"(?<=FROM `)\w+(?=`)")
#: Another installation with our owner id.
THEIRS = "99999999"
FOREIGN = "CREATE STREAM {} WITH (KAFKA_TOPIC='theirs') AS SELECT * FROM THEIRS EMIT CHANGES;"


def rows(table: str) -> list[tuple[str, ...]]:
    """Split a table into its cells: columns are two blanks or more apart, ``#`` begins a comment, ``-`` is empty."""
    lines = (line.partition("#")[0].strip() for line in table.strip().splitlines())
    cells = ([cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines if line)
    return [tuple("" if cell == "-" else cell for cell in row) for row in cells]


@cache
def _settings(options: tuple[tuple[str, object], ...]) -> Settings:
    given: dict[str, object] = {"kafka_broker": "k:9092", "ksqldb_url": "http://k:8088", "environment": "devswarm"}
    return Settings(_env_file=None, **{**given, **dict(options)})  # type: ignore[call-arg, arg-type]


def settings(**options: object) -> Settings:
    """Settings with these options."""
    return _settings(tuple(sorted(options.items())))


@cache
def topology() -> Topology:
    """What our streams are, with the first shared stream."""
    return replace(topology_of(settings()), installation=INSTALLATION)


def plan_inputs(options: Settings | None = None, ours: Topology | None = None, **more: object) -> PlanInputs:
    """What a plan depends on besides survey and verdict."""
    return PlanInputs(options or settings(), ours or topology(), LOOKUP, **more)  # type: ignore[arg-type]


def topology_of_now(read: SourceState) -> Topology:
    """What our streams are, with the shared stream that there is."""
    return topology().current(
        {name: query.text if (query := read.queries.get(name)) else None for name in read.streams}
    )


def older_shared(installation: str = INSTALLATION.id) -> str:
    """Name of a shared stream of another definition."""
    return SharedName("OFA", installation, "0BADC0DE", 1).text


def source(streams: Mapping[str, str], shared: str = "ok", **more: object) -> SourceState:
    """What ksqlDB says: the state of each group's stream and of the shared one, each in a word."""
    ours = replace(topology(), generation=2) if shared == "followed" else topology()
    words = {
        names_of(group).stream: (word, names_of(group).topic, ours.create_group(names_of(group)).sql)
        for group, word in streams.items()
    }
    words[ours.shared_name] = (shared, ours.shared_name.lower(), ours.create_shared().sql)
    if shared == "followed":
        words[topology().shared_name] = ("silent", topology().shared_name.lower(), "")
    found = {name: LiveStream(name, topic) for name, (word, topic, _) in words.items() if word != "absent"}
    queries = {
        name: LiveQuery(
            f"CSAS_{name}", _text(word.partition("-")[0], name, text), word.endswith("paused"), word == "failed"
        )
        for name, (word, _, text) in words.items()
        if word not in ("absent", "silent")
    }
    topics = {topic: 1 for word, topic, _ in words.values() if not word.startswith("topicless")}
    return replace(SourceState(HERE, "7.7.0", "", found, queries, topics), **more)  # type: ignore[arg-type]


def _text(word: str, name: str, text: str) -> str:  # noqa: C901 - one case a word
    match word:
        case "foreign":
            return FOREIGN.format(name)
        case "filter":
            return text.replace("UNS_GROUP = '", "UNS_GROUP = 'not ")
        case "reader":
            return text.replace(" EMIT CHANGES", " AND type = 'Condition' EMIT CHANGES")
        case "other":
            return READ.sub(older_shared(THEIRS), text)
        case "other, one more column":
            return READ.sub(older_shared(THEIRS), text).replace("`timestamp` FROM", "`timestamp`, 1 AS `more` FROM")
        case "joins ours and theirs":
            return FOREIGN.format(name).replace(
                "THEIRS", f"`{topology().shared_name}` S JOIN `{older_shared(THEIRS)}` T WITHIN 1 HOURS ON S.A = T.A"
            )
        case "legacy":
            return READ.sub(older_shared(LEGACY), text)
        case "moved":
            return READ.sub(older_shared(), text)
        case "behind":
            return READ.sub(topology().shared_name, text)
        case "twin":
            return text.replace("Weld'", "weld'")
    return text


def service(spec: ServiceSpec, word: str) -> LiveService | None:  # noqa: C901 - one case a word
    """A service in the state that a word names."""
    spec = replace(spec, installation=INSTALLATION.id)
    live = LiveService("id", 1, spec.name, "ofa", spec, spec.replicas, installation=INSTALLATION.id)
    match word:
        case "absent":
            return None
        case "unlabelled":
            return replace(live, owner=None, spec=None)
        case "other's":
            return replace(live, owner="other")
        case "theirs":
            return replace(live, installation=THEIRS, spec=replace(spec, installation=THEIRS))
        case "global":
            return replace(live, spec=None)
        case "drifted":
            return replace(live, spec=replace(spec, image="old:1", replicas=7), running=7)
        case "starting":
            return replace(live, running=0)
        case "broken":
            return replace(live, running=0, error="no such image")
        case "paused":
            return replace(live, update_state="paused")
        case "updating":
            return replace(live, update_state="updating")
    return live


def document(groups: Iterable[str], identity: Identity = HERE) -> Registry:
    """A registry of these groups."""
    urls = {group: names_of(group).url(settings().fastapi_group_port) for group in groups}
    state_api = f"http://ofa_state_api:{settings().state_api_port}/asset_state"
    return Registry(
        identity=identity, groups=urls, state_api=state_api, membership=LOOKUP, installation=INSTALLATION.id
    )


def live_registry(made: Registry | bytes, sequence: int, *, mounted: bool = False, name: str = "") -> LiveRegistry:
    """A document as the platform keeps it."""
    data = made if isinstance(made, bytes) else made.canonical()
    named = name or f"ofa_registry-{made.revision if isinstance(made, Registry) else sequence}"
    return LiveRegistry(named, 1, named, sequence, data, NOW, mounted)


def observed(
    members: Mapping[str, int],
    read: SourceState,
    services: Iterable[LiveService | None] = (),
    registries: Iterable[LiveRegistry] = (),
    *,
    assets: int | None = None,
    fresh: bool = True,
) -> Observed:
    """One full read."""
    found = {live.name.casefold(): live for live in services if live is not None}
    count = sum(members.values()) if assets is None else assets
    platform = sift(PlatformState(found, tuple(registries)), "ofa", INSTALLATION)
    return Observed(read, platform, MapSnapshot(count, members, fresh))


def seen(world: Observed, options: Settings | None = None) -> Survey:
    """The world, understood."""
    return make_survey(world, topology_of_now(world.source), options or settings())


def spec_of(group: str) -> ServiceSpec:
    """A group's service as it should be."""
    return group_spec(names_of(group), settings(), None)


def state_api(word: str = "ok") -> LiveService | None:
    """The state API's service."""
    return service(state_api_spec(settings(), None), word)


def routing_layer(word: str = "ok", mounted: str = "") -> LiveService | None:
    """The routing layer's service."""
    return service(routing_layer_spec(settings(), mounted), word)

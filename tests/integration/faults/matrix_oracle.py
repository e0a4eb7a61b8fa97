"""What must hold at every write, whatever went wrong before it, and what the end is compared by."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from openfactory_common.ksqldb.wire import literal
from openfactory_common.registry import Registry, parse
from reconciler.domain.names import STREAM_PREFIX, SharedName, names_of
from reconciler.domain.services import Kind, LiveRegistry, LiveService, ServiceSpec
from reconciler.ksqldb.entities import Statement
from reconciler.ksqldb.statements import Topology
from tests.harness.fakes import Stage
from tests.integration.faults.matrix_scenarios import FOREIGN, THEIRS
from tests.integration.faults.matrix_seam import Call

OURS = "ofa"


def _is_foreign(live: LiveService) -> bool:
    """Another party made it, whatever its labels say."""
    return live.owner != OURS or live.id.startswith(FOREIGN)


def _has_our_lineage(sql: str) -> bool:
    """It reads from a shared stream of this owner, or is one."""
    return "FROM `OFA_ASSETS_WITH_UNS_" in sql or (" JOIN " in sql and "UNS_GROUP" in sql)


def current(stage: Stage) -> Registry | None:
    """Return the registry document that is current."""
    newest = max(stage.platform.registries.values(), key=lambda one: one.sequence, default=None)
    return parse(newest.data) if newest is not None else None


@dataclass
class Watch:
    """Judges every write by the truth of the two sides, which the operator itself may have misread.

    Attributes:
        stage: the truth.
        wrong: what should never have happened, in words.
        theirs: names of streams and tables that others made.
        created: what came into being, and how often.
        deleted: what went, and how often.
    """

    stage: Stage
    wrong: list[str] = field(default_factory=list)
    theirs: set[str] = field(default_factory=set)
    created: Counter[str] = field(default_factory=Counter)
    deleted: Counter[str] = field(default_factory=Counter)
    _out: dict[str, float] = field(default_factory=dict)
    _foreign: Any = None
    _there: bool = True
    _ready: tuple[frozenset[str], ...] = ()

    def __post_init__(self) -> None:
        """Remember what belongs to others: what was planted as theirs, whatever it looks like."""
        made = self.stage.ksqldb.made
        self.theirs |= {name for name in made if name in THEIRS or not _has_our_lineage(made[name][1])}
        self.note_others()

    def note_others(self) -> None:
        """Take what belongs to others for as it should be: they may change it, this operator may not."""
        self._foreign = self._others()

    @property
    def wanted(self) -> set[str]:
        """The groups that the map names now."""
        level = self.stage.settings.uns_fastapi_group_grouping_level
        source = self.stage.ksqldb.assets if level == "workcenter" else self.stage.ksqldb.levels[level]
        return {group for group in source.values() if group is not None}

    @property
    def topology(self) -> Topology:
        """What streams should be."""
        return self.stage.topology.current({name: text for name, (_, text) in self.stage.ksqldb.made.items()})

    def before(self, call: Call, args: tuple[Any, ...]) -> None:
        """Judge a write that is about to take effect."""
        judge = getattr(self, f"_{call.name}", None)
        if judge is not None:  # records are not of the world that is judged here
            judge(*args)

    def after(self, call: Call, args: tuple[Any, ...]) -> None:
        """Count what it did, and look whether others were touched."""
        match call.name, args[0]:
            case "create_service", spec:
                self.created[f"service {spec.name}"] += 1
            case "remove_service", live if self._there:
                self.deleted[f"service {live.name}"] += 1
            case "execute", Statement(verb="create" | "create_table") as statement:
                offset = statement.properties.get("ksql.streams.auto.offset.reset", "where the server begins")
                self.created[f"{statement.summary} from {offset}"] += 1
            case "execute", Statement(verb="drop" | "drop_table") as statement:
                self.deleted[f"{statement.verb} {statement.target}"] += 1
        if self._others() != self._foreign:
            self._say(f"{call}: something of others was touched")

    def observe(self) -> None:
        """Remember which groups are ready now: a stale read may show it for a few cycles more."""
        ready = frozenset(group for group in self.wanted if self._is_ready(group))
        self._ready = (*self._ready[-3:], ready)

    def _say(self, text: str) -> None:
        self.wrong.append(text)

    def _others(self) -> Any:
        platform, ksqldb = self.stage.platform, self.stage.ksqldb
        services = {name: live for name, live in platform.services.items() if _is_foreign(live)}
        registries = {name: one for name, one in platform.registries.items() if one.id.startswith(FOREIGN)}
        streams = {name: made for name, made in ksqldb.made.items() if name in self.theirs}
        topics = {topic for topic, _ in streams.values()} & ksqldb.kept_topics
        stopped = self.theirs & (ksqldb.paused | ksqldb.terminated)
        return services, registries, streams, topics, stopped, platform.strangers

    def _is_ours(self, stream: str) -> bool:
        """By who made it: what others made may look exactly like ours."""
        return stream not in self.theirs

    def _is_recorded(self, installation: str) -> None:
        record = self.stage.platform.kept_records.get("installation")
        if record is None or record.fields["id"] != installation:
            self._say(f"installation {installation} is written into an object and stands in no record")

    def _create_service(self, spec: ServiceSpec) -> None:
        self._is_recorded(spec.installation)
        if spec.group is None or self._is_served(spec.group):
            return
        if names_of(spec.group).stream not in self.stage.ksqldb.made:
            self._say(f"service {spec.name} comes before its stream")

    def _update_service(self, live: LiveService, _spec: ServiceSpec, *_marks: str) -> None:
        there = self.stage.platform.services.get(live.name.casefold())
        if there is not None and _is_foreign(there):
            self._say(f"service {live.name} of {there.owner} is changed")

    def _remove_service(self, live: LiveService) -> None:
        there = {one.id: one for one in self.stage.platform.services.values()}.get(live.id)
        self._there = there is not None
        if there is None:
            return
        if _is_foreign(there) or there.spec is None or there.spec.kind is not Kind.GROUP:
            self._say(f"service {live.name} is removed, and is no group service of ours")
        elif there.spec.group in self.wanted:
            self._say(f"service {live.name} of a wanted group is removed")
        elif self._is_served(there.spec.group):
            self._say(f"service {live.name} is removed while the registry names it")
        elif self.stage.now - self._out.get(str(there.spec.group), -1e9) < self.stage.settings.drain_seconds:
            self._say(f"service {live.name} is removed before it is drained")

    def _is_served(self, group: str | None) -> bool:
        document = current(self.stage)
        return document is not None and group in document.groups

    def _publish_registry(self, data: bytes, _revision: str, _sequence: int) -> None:
        document, before = parse(data), current(self.stage)
        served = set(before.groups) if before else set()
        for group in document.groups.keys() - served:
            if not self._is_ready(group) and not any(group in ready for ready in self._ready):
                self._say(f"the registry names {group} before it is ready")
        for group in document.groups:
            self._out.pop(group, None)
        for group in served - document.groups.keys():
            self._out[group] = self.stage.now
            if group in self.wanted:
                self._say(f"wanted group {group} leaves the registry")
        if (document.identity.kafka, document.identity.ksqldb) != self.stage.ksqldb.identity:
            self._say("the registry is of another cluster")

    def _is_ready(self, group: str) -> bool:
        names = names_of(group)
        live = self.stage.platform.services.get(names.service.casefold())
        there = names.stream in self.stage.ksqldb.made and self._is_ours(names.stream)
        return there and live is not None and live.owner == OURS and self.stage.platform.healthy(live.name)

    def _remove_registry(self, registry: LiveRegistry) -> None:
        mounted = {
            mount.name for live in self.stage.platform.services.values() if live.spec for mount in live.spec.configs
        }
        newest = max(self.stage.platform.registries.values(), key=lambda one: one.sequence)
        if registry.name in mounted or registry.name == newest.name:
            self._say(f"config {registry.name} is removed and still needed")

    def _execute(self, statement: Statement) -> None:
        made = SharedName.parse(statement.target)
        if statement.verb == "create" and made is not None:
            self._is_recorded(made.installation)
        if statement.verb == "drop" and statement.target in self.stage.ksqldb.made:
            self._drop(statement)

    def _drop(self, statement: Statement) -> None:
        name, ksqldb = statement.target, self.stage.ksqldb
        if not self._is_ours(name):
            self._say(f"stream {name} of others is dropped")
        if ksqldb.readers_of(name):
            self._say(f"stream {name} is dropped while it is read")
        if not name.startswith(STREAM_PREFIX):
            if name == self.topology.shared_name:
                self._say(f"the shared stream {name} is dropped")
            return
        if self._must_be_created_again(name):
            return
        text = ksqldb.made[name][1]  # a group's twin in another case may have left the stream, with its own filter
        if any(names_of(group).stream == name and literal(group) in text for group in self.wanted):
            self._say(f"stream {name} of a wanted group is dropped")
        elif any(names_of(group).stream == name for group in self._with_service()):
            self._say(f"stream {name} is dropped before its service")

    def _with_service(self) -> set[str]:
        services = self.stage.platform.services.values()
        return {live.spec.group for live in services if not _is_foreign(live) and live.spec and live.spec.group}

    def _must_be_created_again(self, name: str) -> bool:
        """Its source is not the shared stream of today, or its query or that of its source has ended."""
        ksqldb, shared = self.stage.ksqldb, self.topology.shared_name
        moved = f"FROM `{shared}`" not in ksqldb.made[name][1]
        return moved or bool({name, shared} & ksqldb.terminated)


@dataclass(frozen=True)
class End:
    """What two runs are compared by."""

    services: dict[str, Any]
    streams: dict[str, tuple[str, str]]
    topics: frozenset[str]
    stopped: frozenset[str]
    registry: bytes
    mounted: bool
    created: Counter[str]
    deleted: Counter[str]


def end_of(stage: Stage, watch: Watch) -> End:
    """Take down how a run ended.

    Which document the proxy mounts to start from depends on when groups became ready; that one is mounted does not.
    """
    platform, ksqldb = stage.platform, stage.ksqldb
    specs = {name: replace(live.spec, configs=()) if live.spec else live for name, live in platform.services.items()}
    router = platform.services.get("ofa_routing_layer")
    proxy = router.spec if router is not None else None
    newest = max(platform.registries.values(), key=lambda one: one.sequence, default=None)
    made = ksqldb.made.items()
    return End(
        services=specs,
        streams={name: (topic, sql.replace("CREATE OR REPLACE ", "CREATE ")) for name, (topic, sql) in made},
        topics=frozenset(ksqldb.kept_topics),
        stopped=frozenset(ksqldb.terminated | ksqldb.paused),
        registry=newest.data if newest is not None else b"",
        mounted=proxy is not None and proxy.configs[0].name in platform.registries,
        created=watch.created,
        deleted=watch.deleted,
    )


def differences(end: End, expected: End) -> list[str]:
    """Say in which parts two ends differ."""
    return [
        f"{name}: {_apart(getattr(end, name), getattr(expected, name))}"
        for name in End.__dataclass_fields__
        if getattr(end, name) != getattr(expected, name)
    ]


def _apart(one: Any, other: Any) -> str:
    if isinstance(one, dict):
        keys = [key for key in sorted(one.keys() | other.keys()) if one.get(key) != other.get(key)]
        return ", ".join(f"{key}: {one.get(key)!r} instead of {other.get(key)!r}" for key in keys)
    return f"{one!r} instead of {other!r}"

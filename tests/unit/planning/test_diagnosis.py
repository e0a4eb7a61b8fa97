"""What `doctor` concludes: a working installation has nothing to complain of, and each fault has its own line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.domain.facts import EngineFacts, KsqldbFacts, NetworkFacts, SourceFacts
from reconciler.domain.observed import MapSnapshot
from reconciler.domain.services import Kind, LiveService, PlatformState
from reconciler.planning.diagnosis import (
    Finding,
    Level,
    check_addresses,
    check_engine,
    check_ksqldb,
    check_names,
    check_registry,
    list_images,
)
from reconciler.planning.options import GroupOptions, parse_groups_file, read_variables
from tests.unit.planning.tables import LOOKUP, settings

OK, WARN, FAIL = Level
NETWORK = NetworkFacts("overlay", "swarm", 253, 10)
ENGINE = EngineFacts(
    version="20.10.24",
    api=(1, 41),
    oldest_api=(1, 12),
    managers=(3, 3),
    nodes=3,
    cores=12.0,
    memory=4 << 30,
    network=NETWORK,
    ports={80: "web"},
    images=dict.fromkeys(list_images(settings()), ""),
)
KEY = {"ASSET_UUID": "STRING"}
MADE = "CREATE TABLE X AS SELECT 1"
EVENTS = SourceFacts("STREAM", KEY, "events")
MAP = SourceFacts("TABLE", KEY, "map", MADE)
ASSETS = SourceFacts("TABLE", {"KEY": "STRING"}, "assets", MADE)
SOURCES = {"ENRICHED_ASSETS_STREAM": EVENTS, "ASSET_TO_UNS_MAP": MAP, "ASSETS": ASSETS}
KSQLDB = KsqldbFacts(
    version="7.7.0",
    sources=SOURCES,
    partitions={"events": 4, "map": 4},
    queries=3,
    limit=20,
    membership=MapSnapshot(5, {"Weld": 3, "Paint": 1}),
)


def groups(**options: object) -> list[GroupOptions]:
    """What the services of two groups have."""
    return [read_variables(settings(**options), Kind.GROUP)] * 2


def bad(findings: object) -> list[Finding]:
    """Return what is not ok; what is has nothing to be done."""
    found = list(findings)  # type: ignore[call-overload]
    assert not any(one.cure for one in found if one.level is OK)
    assert all(one.cure for one in found if one.level is not OK)
    return [one for one in found if one.level is not OK]


def test_an_installation_that_will_work_has_no_complaint() -> None:
    """On both platforms; each check has a line all the same."""
    assert bad(check_engine(ENGINE, settings(), groups())) == []
    assert bad(check_ksqldb(KSQLDB, settings())) == []
    assert bad(check_addresses({"k:9092": ""}, settings())) == []
    plain = replace(ENGINE, managers=(0, 0), nodes=0, network=None)
    docker = list(check_engine(plain, settings(deployment_platform="docker"), groups()))
    assert bad(docker) == []
    assert any("not checked" in one.what for one in docker)
    told = [one.what for one in check_ksqldb(KSQLDB, settings())]
    assert "level workcenter: 2 groups of 5 assets, 1 without a value: Paint, Weld" in told


ENGINES: list[tuple[dict[str, object], dict[str, object], Level, str, str, str]] = [
    # facts, settings, level, text, variable, cure
    ({"api": (1, 40)}, {}, FAIL, "API 1.40", "DOCKER_HOST", "1.41"),
    ({"oldest_api": (1, 45)}, {}, WARN, "oldest 1.45", "", "versions"),
    ({"managers": (3, 2)}, {}, WARN, "2 of 3 managers", "", "docker node ls"),
    ({"nodes": 0}, {}, FAIL, "0 nodes take tasks", "", "docker node ls"),
    ({"cores": 1.0}, {}, FAIL, "1.75 cores", "FASTAPI_GROUP_CPU_RESERVATION", "pending"),
    ({"cores": 4.0, "reserved": 3.0}, {}, FAIL, "1 of 4", "FASTAPI_GROUP_CPU_RESERVATION", "add nodes"),
    (
        {"memory": 1 << 30, "memory_reserved": 256 << 20},
        {"fastapi_group_memory_reservation": "512m", "state_api_memory_reservation": "128m"},
        *(FAIL, "1152 MiB are reserved by the services, 768 are", "FASTAPI_GROUP_MEMORY_RESERVATION", "add nodes"),
    ),
    (
        {"memory": 1 << 30},
        {"fastapi_group_memory_limit": "512m", "routing_layer_memory_limit": "256m"},
        *(WARN, "may use 1280 MiB together, the nodes have 1024", "FASTAPI_GROUP_MEMORY_LIMIT", "kills tasks"),
    ),
    ({"configs": frozenset({"ofa_lease"})}, {}, FAIL, "config ofa_lease is not ours", "RESOURCE_PREFIX", "remove"),
    (
        {"limits_memory": False, "network": NetworkFacts("bridge", "local", 9, 0)},
        {"deployment_platform": "docker", "state_api_memory_limit": "64m"},
        *(WARN, "no memory cgroup", "FASTAPI_GROUP_MEMORY_LIMIT", "cgroup_enable=memory"),
    ),
    ({"network": None}, {}, FAIL, "does not exist", "DOCKER_NETWORK", "--driver overlay --attachable factory-net"),
    ({"network": NetworkFacts("bridge", "local", 9, 0)}, {}, FAIL, "bridge of one node", "DOCKER_NETWORK", "overlay"),
    ({"network": NetworkFacts("overlay", "swarm", 5, 2)}, {}, FAIL, "3 of 5 addresses", "DOCKER_NETWORK", "--subnet"),
    ({"network": NetworkFacts("overlay", "swarm", 9, 6)}, {}, WARN, "3 of 9 addresses", "DOCKER_NETWORK", "--subnet"),
    ({"network": NetworkFacts("overlay", "swarm", None, 2)}, {}, WARN, "no IPv4", "DOCKER_NETWORK", "check"),
    ({"ports": {5555: "web"}}, {}, FAIL, "port 5555 is published by web", "ROUTING_LAYER_PORT", "another port"),
    ({"ports": {8080: "web"}}, {}, FAIL, "port 8080 is published by web", "RECONCILER_PORT", "another port"),
    ({"images": {settings().state_api_image: "denied: no"}}, {}, FAIL, "denied", "STATE_API_IMAGE", "docker login"),
    ({"images": {settings().state_api_image: "odd"}}, {}, FAIL, "odd", "STATE_API_IMAGE", "push it"),
    ({}, {"deployment_platform": "docker"}, WARN, "of a Swarm", "DOCKER_NETWORK", "bridge"),
]


@pytest.mark.parametrize(("facts", "options", "level", "text", "variable", "cure"), ENGINES)
def test_a_fault_of_the_engine_has_one_line(
    facts: dict[str, object], options: dict[str, object], level: Level, text: str, variable: str, cure: str
) -> None:
    """Its level, what was found, the variable and what helps."""
    changed = replace(ENGINE, **facts)  # type: ignore[arg-type]
    (found,) = bad(check_engine(changed, settings(**options), groups(**options)))
    assert (found.level, found.variable) == (level, variable)
    assert text in found.what
    assert cure in found.cure


@pytest.mark.parametrize(
    ("ports", "options"),
    [
        ({5555: "ofa_routing_layer", 8080: "ofa_reconciler"}, {}),
        ({5555: "web"}, {"routing_layer_publish": "none"}),
        ({80: "web"}, {}),
    ],
)
def test_a_port_that_is_ours_or_not_used_is_no_fault(ports: dict[int, str], options: dict[str, object]) -> None:
    """The same command can be run after the deployment."""
    assert bad(check_engine(replace(ENGINE, ports=ports), settings(**options), groups(**options))) == []


def test_a_program_of_this_host_at_a_port_is_a_warning() -> None:
    """It may be this operator; the engine knows nothing of it."""
    (found,) = bad(check_engine(ENGINE, settings(), groups(), [5555, 22]))
    assert (found.level, found.variable) == (WARN, "ROUTING_LAYER_PORT")
    assert bad(check_engine(replace(ENGINE, ports={5555: "ofa_routing_layer"}), settings(), groups(), [5555])) == []


def change(name: str, **facts: object) -> dict[str, object]:
    """Return the sources with one of them changed."""
    return {"sources": {**SOURCES, name: replace(SOURCES[name], **facts)}}  # type: ignore[arg-type]


MANY: dict[str, object] = {"membership": MapSnapshot(30, {f"g{n:02}": 1 for n in range(30)})}
KSQLDBS: list[tuple[dict[str, object], Level, str, str, str]] = [
    ({"unhealthy": "not healthy: kafka"}, FAIL, "not healthy: kafka", "KSQLDB_URL", "Kafka"),
    ({"errors": {"the UNS map": "no answer"}}, FAIL, "the UNS map cannot be read: no answer", "KSQLDB_URL", ""),
    ({"offset": "latest"}, FAIL, "auto.offset.reset is latest", "", "remove"),
    ({"sources": {**SOURCES, "ENRICHED_ASSETS_STREAM": None}}, FAIL, "does not exist", "KSQLDB_ASSETS_STREAM", ""),
    ({"sources": {**SOURCES, "ASSET_TO_UNS_MAP": None}}, FAIL, "table asset_to_uns_map", "KSQLDB_UNS_MAP", ""),
    ({"sources": {**SOURCES, "ASSETS": None}}, FAIL, "table assets does not exist", "KSQLDB_ASSETS_TABLE", ""),
    (change("ASSETS", kind="STREAM"), FAIL, "is a stream, no table", "KSQLDB_ASSETS_TABLE", ""),
    (change("ASSET_TO_UNS_MAP", statement="CREATE TABLE X"), FAIL, "cannot be queried", "KSQLDB_UNS_MAP", "AS SELECT"),
    (change("ASSET_TO_UNS_MAP", keys={"ID": "STRING"}), FAIL, "has the key ID STRING", "KSQLDB_UNS_MAP", "ASSET_UUID"),
    (change("ENRICHED_ASSETS_STREAM", keys={"ASSET_UUID": "INTEGER"}), FAIL, "INTEGER", "KSQLDB_ASSETS_STREAM", ""),
    ({"partitions": {"events": 4, "map": 1}}, FAIL, "have 4 and 1 partitions", "KSQLDB_ASSETS_STREAM", "equally"),
    ({"limit": 5}, FAIL, "allows 5 queries: 3 queries of others and 3 of ours", "UNS_FASTAPI_GROUP_GROUPING_LEVEL", ""),
    (MANY, FAIL, "31 of ours", "UNS_FASTAPI_GROUP_GROUPING_LEVEL", "ksql.query.persistent.active.limit"),
    ({"membership": MapSnapshot(0, {})}, FAIL, "0 assets", "KSQLDB_UNS_MAP", "map assets"),
    (
        {"membership": MapSnapshot(2, {}, unknown_level="no asset has level 'x'; levels seen: area")},
        *(FAIL, "levels seen: area", "UNS_FASTAPI_GROUP_GROUPING_LEVEL", "correct"),
    ),
    (
        {"membership": MapSnapshot(2, {"Rest": 2}, unknown_level="no asset has level 'x'", fallback="Rest")},
        *(WARN, "no asset has level 'x'; all are in group Rest", "UNS_FASTAPI_GROUP_GROUPING_LEVEL", "other groups"),
    ),
    (
        {
            "membership": MapSnapshot(2, {"Rest": 2}, unknown_level="no asset has level 'x'", fallback="Rest"),
            "served": frozenset({"Rest", "Weld", "Paint"}),
        },
        *(FAIL, "stops every write beside Paint, Weld", "UNS_FASTAPI_GROUP_GROUPING_LEVEL", "correct the name"),
    ),
    (
        {"membership": MapSnapshot(2, {"Rest": 2}, fallback="Rest"), "served": frozenset({"Weld"}), "moves": True},
        *(FAIL, "no asset has a value at the level; all", "UNS_FASTAPI_GROUP_GROUPING_LEVEL", "correct the name"),
    ),
    (
        {"membership": MapSnapshot(2, {"Weld": 1, "weld": 1})},
        *(WARN, "group weld cannot be served beside Weld", "UNS_FASTAPI_GROUP_GROUPING_LEVEL", "rename"),
    ),
    (
        {"membership": MapSnapshot(2, {"A": 1, "B/C": 1}, ambiguous={"B/C": "change it"})},
        *(WARN, "group B/C cannot be served", "UNS_FASTAPI_GROUP_GROUPING_LEVEL", "change it"),
    ),
]


@pytest.mark.parametrize(("facts", "level", "text", "variable", "cure"), KSQLDBS)
def test_a_fault_of_ksqldb_has_one_line(
    facts: dict[str, object], level: Level, text: str, variable: str, cure: str
) -> None:
    """Its level, what was found, the variable and what helps."""
    (found,) = bad(check_ksqldb(replace(KSQLDB, **facts), settings()))  # type: ignore[arg-type]
    assert (found.level, found.variable) == (level, variable)
    assert text in found.what
    assert cure in found.cure


@pytest.mark.parametrize(("served", "moves"), [("Rest", True), ("Weld", False)])
def test_an_asset_need_have_no_level_where_nothing_would_move(served: str, moves: bool) -> None:
    """In a new plant; and at the level of the shared stream, where the other groups have lost their assets."""
    found = MapSnapshot(2, {"Rest": 2}, fallback="Rest")
    facts = replace(KSQLDB, membership=found, served=frozenset({served}), moves=moves)
    assert bad(check_ksqldb(facts, settings())) == []


def test_what_is_not_known_is_not_judged() -> None:
    """No keys, no statement, no partitions, no map: a server of another version, or a read that failed."""
    bare = {name: SourceFacts(one.kind, {}, one.topic) for name, one in SOURCES.items() if one}
    assert bad(check_ksqldb(KsqldbFacts("0.29.0", sources=bare), settings())) == []


ADDRESSES: list[tuple[dict[str, str], dict[str, object], Level, str]] = [
    ({"k:9092": "Name or service not known"}, {}, WARN, "KAFKA_BROKER"),
    ({"localhost:9092": ""}, {}, FAIL, "KAFKA_BROKER"),
    ({"127.0.0.1:9092": ""}, {}, FAIL, "KAFKA_BROKER"),
    ({"[::1]:9092": ""}, {}, FAIL, "KAFKA_BROKER"),
    ({"k:9092": ""}, {"ksqldb_url": "http://localhost:8088"}, FAIL, "KSQLDB_SERVICE_URL"),
    ({"k:9092": ""}, {"ksqldb_url": "http://[::1]:8088"}, FAIL, "KSQLDB_SERVICE_URL"),
]


@pytest.mark.parametrize(("reached", "options", "level", "variable"), ADDRESSES)
def test_an_address_that_services_cannot_use(
    reached: dict[str, str], options: dict[str, object], level: Level, variable: str
) -> None:
    """An address of the container itself fails; one that is not reached from here may still be right."""
    (found,) = bad(check_addresses(reached, settings(**options)))
    assert (found.level, found.variable) == (level, variable)


def test_objects_of_others() -> None:
    """A user's service with a name of ours fails; another installation gives a warning; ours is neither."""
    services = {
        "ofa_group_weld": LiveService("1", 1, "ofa_group_Weld", None, None, 1),
        "ofa_group_other": LiveService("2", 1, "ofa_group_other", "acme", None, 1),
        "ofa_state_api": LiveService("3", 1, "ofa_state_api", "ofa", None, 1),
    }
    found = bad(check_names(PlatformState(services, (), {}), settings(), {"Weld": 1}))
    assert [one.level for one in found] == [FAIL, WARN]
    assert "service ofa_group_Weld belongs to no owner" in found[0].what
    assert "services of acme" in found[1].what
    assert bad(check_names(PlatformState({}, (), {}), settings(), {"Weld": 1})) == []


def test_what_single_groups_have_counts() -> None:
    """A group of the file asks for more memory and more tasks than the variables give to all."""
    text = '[groups.Weld]\nmemory_reservation = "3g"\nreplicas = 2\n'
    own = [parse_groups_file(text).of_service(group, settings()) for group in ("Weld", "Paint")]
    (found,) = bad(check_engine(ENGINE, settings(), own))
    assert found.what == "6144 MiB are reserved by the services, 4096 are not reserved by others"


def test_other_configs_and_limits_that_are_not_set_are_no_fault() -> None:
    """A config of others under a name that the operator does not use; a kernel without limits where none is asked."""
    assert bad(check_engine(replace(ENGINE, configs=frozenset({"ofa_x", "lease"})), settings(), groups())) == []
    plain = replace(ENGINE, limits_memory=False, network=None)
    assert bad(check_engine(plain, settings(deployment_platform="docker"), groups())) == []


@pytest.mark.parametrize(("number", "fits"), [(2, True), (20_000, False)])
def test_the_registry_has_to_fit_into_a_config(number: int, fits: bool) -> None:
    """Both sizes are said."""
    (found,) = check_registry(settings(), [f"group {index}" for index in range(number)], LOOKUP)
    assert (found.level is OK) is fits
    assert "1024000" in found.what
    assert bool(found.cure) is not fits

"""Every variable does what it says: each is changed in the environment and its effect is looked at."""

from __future__ import annotations

import base64
import http
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from openfactory_common import logs
from openfactory_common.errors import ConfigurationError, KsqlError
from openfactory_common.registry import Registry, parse
from reconciler.app import build_dependencies, registry_file
from reconciler.cli.run import make_loop
from reconciler.control.controller import Dependencies
from reconciler.control.loop import Loop
from reconciler.control.readiness import ReadinessProber
from reconciler.domain.demand import DemandReport, TaskDemand
from reconciler.domain.names import names_of
from reconciler.domain.services import Healthcheck, LiveService, Publish, ServiceSpec
from reconciler.domain.status import Condition
from reconciler.leadership.elector import Elector
from reconciler.metrics import Metrics
from reconciler.planning.guards import Overrides
from reconciler.planning.sleep import GroupState, decide_sleep
from reconciler.planning.specs import group_spec, routing_layer_spec, state_api_spec
from reconciler.platforms.swarm.platform import SwarmPlatform
from reconciler.settings import Settings, load
from reconciler.web.csrf import allowed_hosts, is_allowed
from reconciler.web.server import Server
from tests.harness.fakes import FakeKsqldb, Stage
from tests.harness.ports import free_port
from tests.harness.rollouts import STEP, Rollout
from tests.harness.tasks import READY, task
from tests.integration.ksqldb.tls import Authority, Guarded, ksqldb
from tests.integration.web.operator import operating

FOUR = {"a1": "Weld", "a2": "Paint", "a3": "Fit", "a4": "Pack"}
USER = ("alice", "open sesame")


@dataclass(frozen=True)
class Places:
    """What rows may refer to in braces: servers, and files in a directory of the test's own."""

    first: Guarded
    second: Guarded
    guarded: Guarded
    secure: Guarded
    directory: Path

    def fill(self, text: str) -> str:
        """Put addresses and paths in."""
        named = {name: f"127.0.0.1:{getattr(self, name).port}" for name in ("first", "second", "guarded", "secure")}
        return text.format(**named, dir=self.directory)


Observe = Callable[[Settings, Places], object]


@dataclass(frozen=True)
class Effect:
    """One variable changed from its default: what is seen before and after.

    Attributes:
        also: other variables that have to be set for it to have an effect, before and after.
    """

    variable: str
    value: str
    observe: Observe
    before: object
    after: object
    also: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Name the row."""
        return f"{self.variable}={self.value}"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Four ksqlDB servers: two open ones, one with a password, one with TLS; and the files that belong to them."""
    directory = tmp_path_factory.mktemp("settings")
    authority = Authority.make(directory / "ca")
    (directory / "groups.toml").write_text('[groups."Weld"]\nmemory_limit = "2g"\n')
    (directory / "user").write_text(f"{USER[0]}\n")
    (directory / "token").write_text(f"{'a' * 32}\n")
    (directory / "password").write_text(f"{USER[1]}\n")
    pair = authority.sign("IP:127.0.0.1")
    with ksqldb(None) as first, ksqldb(None) as second, ksqldb(None, USER) as guarded, ksqldb(pair) as secure:
        yield Places(first, second, guarded, secure, directory)


# ---- how effects are looked at


def world(settings: Settings) -> Dependencies:
    """What the operator works with."""
    return build_dependencies(settings, Metrics(CollectorRegistry()))


def group(settings: Settings) -> ServiceSpec:
    """The service of group Weld."""
    return group_spec(names_of("Weld", settings.resource_prefix), settings, None)


def answer(settings: Settings, places: Places) -> tuple[object, ...]:
    """Who was asked for /info, and what came: the status, or the HTTP status, or the kind of failure."""
    asked = {name: getattr(places, name) for name in ("first", "second", "guarded", "secure")}
    before = {name: len(server.authorizations) for name, server in asked.items()}
    with closing(world(settings).ksqldb) as client:
        try:
            said: object = client.info().status
        except KsqlError as error:
            said = error.status or type(error).__name__
    return (*(name for name, server in asked.items() if len(server.authorizations) > before[name]), said)


def user(settings: Settings, places: Places) -> str | None:
    """As whom the operator presents itself to ksqlDB."""
    answer(settings, places)
    sent = places.first.authorizations[-1]
    return sent and base64.b64decode(sent.removeprefix("Basic ")).decode().partition(":")[0]


def stage(settings: Settings, assets: Mapping[str, str] = FOUR) -> Stage:
    """An operator with these settings between two fakes, settled."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    made = Stage(ksqldb=FakeKsqldb(assets=dict(assets)), options=given)
    made.settle(made.controller())
    return made


def published(settings: Settings) -> Registry:
    """The registry of a settled installation."""
    documents = stage(settings).platform.registries.values()
    return parse(max(documents, key=lambda live: live.sequence).data)


def gone_after(settings: Settings, places: Places) -> float | None:
    """Seconds from a group's last asset to the removal of its service, in steps of 10."""
    del places
    made = stage(settings)
    controller = made.controller()
    made.run(controller, 2)
    del made.ksqldb.assets["a1"]
    start = made.now
    for _ in range(60):
        controller.cycle()
        if "ofa_group_weld" not in made.platform.services:
            return made.now - start
        made.now += 10
    return None


def removed(settings: Settings, places: Places) -> int:
    """How many of two groups that lose their assets at once are removed in the end, of four."""
    del places
    made = stage(settings)
    controller = made.controller()
    made.run(controller, 2)
    del made.ksqldb.assets["a1"], made.ksqldb.assets["a2"]
    made.run(controller, 40)
    return sum(name not in made.platform.services for name in ("ofa_group_weld", "ofa_group_paint"))


def dropped(settings: Settings, places: Places) -> bool:
    """Whether a removed group's topic goes with its stream."""
    del places
    made = stage(settings)
    controller = made.controller()
    made.run(controller, 2)
    del made.ksqldb.assets["a1"]
    made.run(controller, 40)
    [drop] = [each for each in made.ksqldb.statements if each.verb == "drop"]
    return "DELETE TOPIC" in drop.sql


def repaired(settings: Settings, places: Places) -> bool:
    """Whether a hand-made change of a service is undone."""
    del places
    made = stage(settings)
    made.platform.touch("ofa_group_weld", image="other:1")
    made.run(made.controller(), 3)
    spec = made.platform.services["ofa_group_weld"].spec
    return spec is not None and spec.image == settings.fastapi_group_image


def topic_lists(settings: Settings, places: Places) -> int:
    """How often topics, which only a full look reads, are listed in ten cycles 10 s apart."""
    del places
    made = stage(settings)
    controller = made.controller()
    made.run(controller, 1)
    made.ksqldb.calls.clear()
    made.run(controller, 10)
    return made.ksqldb.calls["topics"]


def flow_checks(settings: Settings, _places: Places) -> float | None:
    """Seconds between two checks whether events come through; None where nothing is checked."""
    _, loop, _, _ = make_loop(settings, Overrides(), Metrics(CollectorRegistry()))
    return loop.controller.memory.flow.interval if loop.controller.memory.flow else None


def probe(settings: Settings, moments: Iterable[float]) -> list[str]:
    """Ask a task of group Weld at these seconds; return the heads of its requests."""
    live = LiveService("id", 1, "ofa_group_Weld", "ofa", group(settings), 1)
    with task(READY, port=settings.fastapi_group_port) as one:
        prober = ReadinessProber(settings, resolve=lambda _host, _port: ("127.0.0.1",))
        for now in moments:
            prober.probe({"ofa_group_weld": live}, now)
        return one.requests


def asked_path(settings: Settings, _: Places) -> str:
    """What a group service's task is asked."""
    (request,) = probe(settings.model_copy(update={"fastapi_group_port": free_port()}), [0])
    return request.split(" ")[1]


def probes_in_a_minute(settings: Settings, _: Places) -> int:
    """How often a task that is ready is asked, with a cycle every 5 seconds."""
    return len(probe(settings.model_copy(update={"fastapi_group_port": free_port()}), range(0, 61, 5)))


def sleeps_after_an_hour(settings: Settings, _: Places) -> bool:
    """Whether a group for which nobody has asked for an hour falls asleep."""
    task = TaskDemand("r", complete=True, uptime=3600.0)
    state = GroupState(registered=True, replicas=1, unchanged=3600.0)
    report = DemandReport(0, (task,), complete=True)
    return decide_sleep("Weld", state, report, "r", idle_after=settings.idle_after) is not None


def kept_documents(settings: Settings, places: Places) -> int:
    """How many registry documents there are after ten changes, with the mounted one and the one after it."""
    del places
    made = stage(settings)
    controller = made.controller()
    for number in range(10):
        made.ksqldb.assets[f"n{number}"] = f"New{number}"
        made.settle(controller)
    return len(made.platform.registries)


def rolled(settings: Settings, places: Places) -> bool:
    """Whether a change of the registry is in the routing layer's boot copy ten minutes later."""
    del places
    made = stage(settings)
    controller = made.controller()
    made.ksqldb.assets["n"] = "New"
    made.settle(controller)
    made.wall += timedelta(minutes=10)
    made.settle(controller)
    newest = max(made.platform.registries.values(), key=lambda live: live.sequence)
    spec = made.platform.services["ofa_routing_layer"].spec
    return spec is not None and spec.configs[0].name == newest.name


def stuck(settings: Settings, places: Places) -> bool:
    """Whether a group whose task does not come up, without an error, is degraded six minutes later."""
    del places
    made = stage(settings)
    made.platform.healthy = lambda name: name != "ofa_group_Weld"
    controller = made.controller()
    for _ in range(5):
        controller.cycle()
    made.wall += timedelta(minutes=6)
    plan = controller.cycle().plan
    assert plan is not None
    (item,) = (item for item in plan.items if item.group == "Weld")
    return item.condition is Condition.DEGRADED and item.detail.startswith("no progress since 2026-01-01")


def rollout_of(settings: Settings) -> Rollout:
    """Four groups that are served, with these settings of rollouts."""
    names = ("rollout_bake", "rollout_max_parallel", "rollout_timeout", "rollout_on_failure")
    made = Rollout(4)
    made.stage.options |= {name: getattr(settings, name) for name in names}
    return made


def second_update(settings: Settings, _: Places) -> float | None:
    """Seconds from the first group's update to the next one, in steps of `STEP`."""
    made = rollout_of(settings)
    controller, start = made.roll("good:2"), made.stage.now
    for _ in range(10):
        made.run(controller, 1)
        if sum(made.image(name) == "good:2" for name in made.names) > 1:
            return made.stage.now - start - STEP
    return None


def at_once(settings: Settings, _: Places) -> int:
    """The most groups that are updated in one cycle."""
    made = rollout_of(settings)
    made.run(made.roll("good:2"), 12)
    return made.at_once


def taken_back(settings: Settings, _: Places) -> float | None:
    """Seconds until a group gets its image back after a bad one; None where it does not."""
    made = rollout_of(settings)
    controller, start = made.roll("bad:2"), made.stage.now
    made.run(controller, 1)
    for _ in range(8):
        made.run(controller, 1)
        if not [name for name in made.names if made.image(name) == "bad:2"]:
            return made.stage.now - start - STEP
    return None


def log_levels(settings: Settings, places: Places) -> tuple[object, ...]:
    """The level of this process, and of each service."""
    del places
    logs.configure(settings.log_level)
    specs = (group(settings), state_api_spec(settings, None), routing_layer_spec(settings, "r"))
    return (logging.getLevelName(logging.getLogger().level), *(spec.env["LOG_LEVEL"] for spec in specs))


def loop_of(settings: Settings) -> tuple[float, int]:
    """The loop's interval and its server's port."""
    parts = make_loop(settings, Overrides(), Metrics(CollectorRegistry()))
    [interval] = [part.interval for part in parts if isinstance(part, Loop)]
    [port] = [part.port for part in parts if isinstance(part, Server)]
    return interval, port


def refused(settings: Settings, _: Places) -> tuple[str, ...]:
    """What a program without a token gets 401 for."""
    stage = Stage(options={name: getattr(settings, name) for name in settings.model_fields_set})
    with operating(stage) as operator, httpx.Client(base_url=operator.url) as client:
        answers = {"/pause": client.post("/pause"), "/status": client.get("/status"), "/readyz": client.get("/readyz")}
    return tuple(path for path, answer in answers.items() if answer.status_code == http.HTTPStatus.UNAUTHORIZED)


def pins(settings: Settings, places: Places) -> bool:
    """Whether images are run by digest."""
    del places
    platform = world(settings).platform
    assert isinstance(platform, SwarmPlatform)
    return platform._digests is not None


def of_platform(settings: Settings, places: Places) -> str:
    """What kind of platform is used."""
    del places
    return type(world(settings).platform).__name__


def of_strategy(settings: Settings, places: Places) -> str:
    """What kind of strategy is used, or why none."""
    del places
    try:
        return type(world(settings).strategy).__name__
    except ConfigurationError as error:
        return str(error).partition(":")[0]


def routing(read: Callable[[ServiceSpec], object]) -> Observe:
    """Look at the routing layer's service."""
    return lambda settings, _: read(routing_layer_spec(settings, "registry"))


def routing_env(variable: str) -> Observe:
    """Look at a variable of the routing layer's service."""
    return routing(lambda spec: spec.env.get(variable))


def routing_secret(variable: str) -> Observe:
    """Look at the secret that is mounted where a variable of the routing layer says."""
    return routing(lambda spec: find_secret(spec, variable))


def find_secret(spec: ServiceSpec, variable: str) -> str | None:
    """Return the secret that is mounted where a variable of a service says."""
    path = spec.env.get(f"{variable}_FILE")
    return next((mount.name for mount in spec.secrets if mount.path == path), None)


def lease_seconds(settings: Settings, places: Places) -> float:
    """How long the loop's lease lasts."""
    del places
    parts = make_loop(settings, Overrides(), Metrics(CollectorRegistry()))
    [seconds] = [part.me.seconds for part in parts if isinstance(part, Elector)]
    return seconds


def state(read: Callable[[ServiceSpec], object]) -> Observe:
    """Look at the state API's service."""
    return lambda settings, _: read(state_api_spec(settings, None))


def groups(read: Callable[[ServiceSpec], object]) -> Observe:
    """Look at a group's service."""
    return lambda settings, _: read(group(settings))


def shared_sql(settings: Settings, _: Places) -> str:
    """The statement that makes the shared stream, without the hash in its name."""
    topology = world(settings).topology
    return (
        topology.create_shared().sql.replace(topology.shared_name, "SHARED").replace(topology.shared_name.lower(), "")
    )


def has(text: str) -> Observe:
    """Whether the shared stream's statement contains a text."""
    return lambda settings, places: text.lower() in shared_sql(settings, places).lower()


def group_sql_has(text: str) -> Observe:
    """Whether a group stream's statement contains a text."""
    return lambda settings, _: text in world(settings).topology.create_group(names_of("Weld")).sql


LOCAL = {"ENVIRONMENT": "local"}
ISSUED = {"ROUTING_LAYER_AUTH_ISSUER": "https://a", "ROUTING_LAYER_AUTH_AUDIENCE": "plant"}
CHECKED = {"ROUTING_LAYER_AUTH_JWKS_URL": "https://a/keys", **ISSUED}
WITH_TLS = {"ROUTING_LAYER_TLS_CERT_SECRET": "c-1", "ROUTING_LAYER_TLS_KEY_SECRET": "k-1"}
TO_GUARDED = {"KSQLDB_URL": "http://{guarded}"}
EFFECTS = (
    Effect("KAFKA_BROKER", "k1:9092,k2:9092", groups(lambda s: s.env["KAFKA_BROKER"]), "b:9092", "k1:9092,k2:9092"),
    Effect("KSQLDB_URL", "http://{second}", answer, ("first", "RUNNING"), ("second", "RUNNING")),
    Effect(
        "KSQLDB_SERVICE_URL",
        "http://ksqldb:8088",
        lambda s, _: (group(s).env["KSQLDB_URL"], routing_layer_spec(s, "r").env["KSQLDB_URL"]),
        ("http://inside", "http://inside"),
        ("http://ksqldb:8088", "http://ksqldb:8088"),
        {"KSQLDB_URL": "http://user:password@inside"},
    ),
    Effect(
        "KSQLDB_USERNAME",
        USER[0],
        user,
        None,
        USER[0],
    ),
    Effect(
        "KSQLDB_PASSWORD",
        USER[1],
        answer,
        ("guarded", 401),
        ("guarded", "RUNNING"),
        {**TO_GUARDED, "KSQLDB_USERNAME": USER[0]},
    ),
    Effect(
        "KSQLDB_USERNAME_FILE",
        "{dir}/user",
        user,
        None,
        USER[0],
    ),
    Effect(
        "KSQLDB_PASSWORD_FILE",
        "{dir}/password",
        answer,
        ("guarded", 401),
        ("guarded", "RUNNING"),
        {**TO_GUARDED, "KSQLDB_USERNAME": USER[0]},
    ),
    Effect(
        "KSQLDB_CA_FILE",
        "{dir}/ca/ca.pem",
        answer,
        ("KsqlUnreachable",),
        ("secure", "RUNNING"),
        {"KSQLDB_URL": "https://{secure}"},
    ),
    Effect("KSQLDB_ASSETS_STREAM", "my_events", has("FROM `MY_EVENTS`"), False, True),
    Effect("KSQLDB_ASSETS_TABLE", "my_states", state(lambda s: s.env["KSQLDB_ASSETS_TABLE"]), "assets", "my_states"),
    Effect("KSQLDB_UNS_MAP", "my_map", lambda s, _: world(s).strategy.lookup().table, "ASSET_TO_UNS_MAP", "MY_MAP"),
    Effect("KSQLDB_UNS_MAP", "my_map", has("JOIN `MY_MAP`"), False, True),
    Effect("KSQLDB_UNS_JOIN_TABLE", "raw_map", has("JOIN `RAW_MAP`"), False, True),
    Effect(
        "DOCKER_NETWORK",
        "plant-net",
        lambda s, _: {group(s).network, state_api_spec(s, None).network, routing_layer_spec(s, "r").network},
        {"factory-net"},
        {"plant-net"},
    ),
    Effect(
        "SWARM_NODE_HOST",
        "node7",
        lambda s, _: published(s).groups["Fit"],
        "http://localhost:6001/asset_stream",
        "http://node7:6001/asset_stream",
        LOCAL,
    ),
    Effect(
        "ROUTING_LAYER_IMAGE", "r:2", routing(lambda s: s.image), "ghcr.io/openfactoryio/routing-layer:latest", "r:2"
    ),
    Effect("ROUTING_LAYER_REPLICAS", "3", routing(lambda s: s.replicas), 1, 3),
    Effect("ROUTING_LAYER_CPU_LIMIT", "2", routing(lambda s: s.cpu_limit), 1.0, 2.0),
    Effect("ROUTING_LAYER_CPU_RESERVATION", "0.1", routing(lambda s: s.cpu_reservation), 0.5, 0.1),
    Effect(
        "ROUTING_LAYER_PORT",
        "80",
        routing(lambda s: (s.env["ROUTING_LAYER_PORT"], s.ports[0].target, s.ports[0].published)),
        ("5555", 5555, 5555),
        ("80", 80, 80),
    ),
    Effect("ROUTING_LAYER_PUBLISH", "HOST", routing(lambda s: s.ports[0].mode), Publish.INGRESS, Publish.HOST),
    Effect("ROUTING_LAYER_PUBLISH", "none", routing(lambda s: len(s.ports)), 1, 0),
    Effect("ROUTING_LAYER_WORKERS", "4", routing_env("ROUTING_LAYER_WORKERS"), None, "4"),
    Effect("ROUTING_MODE", "redirect", routing_env("ROUTING_MODE"), None, "redirect"),
    Effect("ROUTING_LAYER_CONNECT_TIMEOUT", "3s", routing_env("CONNECT_TIMEOUT"), None, "3"),
    Effect("ROUTING_LAYER_HEAD_TIMEOUT", "1m", routing_env("HEAD_TIMEOUT"), None, "60"),
    Effect("ROUTING_LAYER_IDLE_TIMEOUT", "90", routing_env("IDLE_TIMEOUT"), None, "90"),
    Effect("ROUTING_LAYER_LAZY_DEPLOY_WAIT", "500ms", routing_env("LAZY_DEPLOY_WAIT"), None, "0.5"),
    Effect("ROUTING_LAYER_REPLACE_WAIT", "2m", routing_env("REPLACE_WAIT"), None, "120"),
    Effect("ROUTING_LAYER_DRAIN_SECONDS", "1m", routing_env("DRAIN_SECONDS"), None, "60"),
    Effect("ROUTING_LAYER_DRAIN_SECONDS", "1m", routing(lambda s: s.stop_grace), 30.0, 70.0),
    Effect("ROUTING_LAYER_METRICS_PORT", "9100", routing_env("METRICS_PORT"), None, "9100"),
    Effect("ROUTING_LAYER_CLIENT_HEAD_TIMEOUT", "5s", routing_env("CLIENT_HEAD_TIMEOUT"), None, "5"),
    Effect("ROUTING_LAYER_CLIENT_IDLE_TIMEOUT", "30", routing_env("CLIENT_IDLE_TIMEOUT"), None, "30"),
    Effect("ROUTING_LAYER_CONNECTIONS_PER_ADDRESS", "50", routing_env("CONNECTIONS_PER_ADDRESS"), None, "50"),
    Effect("ROUTING_LAYER_MAX_STREAMS", "50", routing_env("MAX_STREAMS"), None, "50"),
    Effect("ROUTING_LAYER_MAX_STREAMS_PER_CLIENT", "6", routing_env("MAX_STREAMS_PER_CLIENT"), None, "6"),
    Effect("ROUTING_LAYER_TRUSTED_PROXIES", "10.0.0.0/8, ::1", routing_env("TRUSTED_PROXIES"), None, "10.0.0.0/8, ::1"),
    Effect("ROUTING_LAYER_CORS_ORIGINS", "https://a.example", routing_env("CORS_ORIGINS"), None, "https://a.example"),
    Effect(
        "ROUTING_LAYER_AUTH_JWKS_URL",
        "https://b/k?p=1",
        routing_env("AUTH_JWKS_URL"),
        "https://a/keys",
        "https://b/k?p=1",
        CHECKED,
    ),
    Effect(
        "ROUTING_LAYER_AUTH_KEYS_SECRET",
        "keys-2",
        routing_secret("AUTH_KEYS"),
        "keys-1",
        "keys-2",
        {"ROUTING_LAYER_AUTH_KEYS_SECRET": "keys-1", **ISSUED},
    ),
    Effect("ROUTING_LAYER_AUTH_CA_SECRET", "ca-2", routing_secret("AUTH_CA"), None, "ca-2", CHECKED),
    Effect("ROUTING_LAYER_AUTH_ISSUER", "https://b", routing_env("AUTH_ISSUER"), "https://a", "https://b", CHECKED),
    Effect("ROUTING_LAYER_AUTH_AUDIENCE", "hall-2", routing_env("AUTH_AUDIENCE"), "plant", "hall-2", CHECKED),
    Effect("ROUTING_LAYER_AUTH_COOKIE", "__Host-t", routing_env("AUTH_COOKIE"), None, "__Host-t", CHECKED),
    Effect("ROUTING_LAYER_AUTH_CLAIM", "https://c", routing_env("AUTH_CLAIM"), None, "https://c", CHECKED),
    Effect("ROUTING_LAYER_TLS_CERT_SECRET", "c-2", routing_secret("TLS_CERT"), "c-1", "c-2", WITH_TLS),
    Effect("ROUTING_LAYER_TLS_KEY_SECRET", "k-2", routing_secret("TLS_KEY"), "k-1", "k-2", WITH_TLS),
    Effect("RECONCILER_TOKEN_SECRET", "t-1", routing_secret("RECONCILER_TOKEN"), None, "t-1"),
    Effect("RECONCILER_TOKEN_FILE", "{dir}/token", refused, (), ("/pause",)),
    Effect(
        "RECONCILER_PROTECT",
        "All",
        refused,
        ("/pause",),
        ("/pause", "/status"),
        {"RECONCILER_TOKEN_FILE": "{dir}/token"},
    ),
    Effect("KSQLDB_USERNAME_SECRET", "user-1", routing_secret("KSQLDB_USERNAME"), None, "user-1"),
    Effect(
        "KSQLDB_PASSWORD_SECRET",
        "password-1",
        routing_secret("KSQLDB_PASSWORD"),
        None,
        "password-1",
        {"KSQLDB_USERNAME_SECRET": "user-1"},
    ),
    Effect("KSQLDB_CA_SECRET", "ca-1", routing_secret("KSQLDB_CA"), None, "ca-1"),
    Effect("KSQLDB_CA_SECRET", "ca-1", state(lambda spec: find_secret(spec, "KSQLDB_CA")), None, "ca-1"),
    Effect("KAFKA_CA_SECRET", "c-1", groups(lambda spec: find_secret(spec, "KAFKA_CA")), None, "c-1"),
    Effect("FASTAPI_GROUP_PORT", "5555", groups(lambda spec: spec.env.get("PORT")), None, "5555"),
    Effect("STATE_API_PORT", "8080", state(lambda spec: spec.env.get("PORT")), None, "8080"),
    Effect("KAFKA_CONFIG_SECRET", "k-1", groups(lambda spec: find_secret(spec, "KAFKA_CONFIG")), None, "k-1"),
    Effect("GROUPING_STRATEGY", "mine", of_strategy, "UNSLevelGroupingStrategy", "GROUPING_STRATEGY='mine'"),
    Effect("DEPLOYMENT_PLATFORM", "docker", of_platform, "SwarmPlatform", "DockerPlatform"),
    Effect(
        "FASTAPI_GROUP_IMAGE",
        "g:2",
        groups(lambda s: s.image),
        "ghcr.io/openfactoryio/stream-api-non-replicated:latest",
        "g:2",
    ),
    Effect("ROUTING_LAYER_HARDENED", "false", routing(lambda s: s.hardened), True, False),
    Effect("FASTAPI_GROUP_HARDENED", "true", groups(lambda s: s.hardened), False, True),
    Effect("STATE_API_HARDENED", "true", state(lambda s: s.hardened), False, True),
    Effect("ROUTING_LAYER_MEMORY_LIMIT", "2g", routing(lambda s: s.memory_limit), 0, 1 << 31),
    Effect("ROUTING_LAYER_MEMORY_RESERVATION", "512m", routing(lambda s: s.memory_reservation), 0, 1 << 29),
    Effect(
        "ROUTING_LAYER_CONSTRAINTS", "node.role==worker", routing(lambda s: s.constraints), (), ("node.role==worker",)
    ),
    Effect("ROUTING_LAYER_LABELS", "a=b,c=d", routing(lambda s: s.labels), {}, {"a": "b", "c": "d"}),
    Effect(
        "ROUTING_LAYER_ENV",
        "A=b,C=d=e",
        routing(lambda s: [s.env.get(name) for name in "AC"]),
        [None, None],
        ["b", "d=e"],
    ),
    Effect("ROUTING_LAYER_NETWORKS", "b-net, a-net", routing(lambda s: s.networks), (), ("a-net", "b-net")),
    Effect("ROUTING_LAYER_LOG_DRIVER", "journald", routing(lambda s: s.log_driver), "", "journald"),
    Effect(
        "ROUTING_LAYER_LOG_OPTIONS",
        "max-size=10m",
        routing(lambda s: s.log_options),
        {},
        {"max-size": "10m"},
        {"ROUTING_LAYER_LOG_DRIVER": "json-file"},
    ),
    Effect("ROUTING_LAYER_HEALTHCHECK", "true", routing(lambda s: s.healthcheck), None, Healthcheck("true")),
    Effect("FASTAPI_GROUP_MEMORY_LIMIT", "2g", groups(lambda s: s.memory_limit), 0, 1 << 31),
    Effect("FASTAPI_GROUP_MEMORY_RESERVATION", "512m", groups(lambda s: s.memory_reservation), 0, 1 << 29),
    Effect(
        "FASTAPI_GROUP_CONSTRAINTS", "node.role==worker", groups(lambda s: s.constraints), (), ("node.role==worker",)
    ),
    Effect("FASTAPI_GROUP_LABELS", "a=b,c=d", groups(lambda s: s.labels), {}, {"a": "b", "c": "d"}),
    Effect(
        "FASTAPI_GROUP_ENV",
        "A=b,C=d=e",
        groups(lambda s: [s.env.get(name) for name in "AC"]),
        [None, None],
        ["b", "d=e"],
    ),
    Effect("FASTAPI_GROUP_NETWORKS", "b-net, a-net", groups(lambda s: s.networks), (), ("a-net", "b-net")),
    Effect("FASTAPI_GROUP_LOG_DRIVER", "journald", groups(lambda s: s.log_driver), "", "journald"),
    Effect(
        "FASTAPI_GROUP_LOG_OPTIONS",
        "max-size=10m",
        groups(lambda s: s.log_options),
        {},
        {"max-size": "10m"},
        {"FASTAPI_GROUP_LOG_DRIVER": "json-file"},
    ),
    Effect("FASTAPI_GROUP_HEALTHCHECK", "true", groups(lambda s: s.healthcheck), None, Healthcheck("true")),
    Effect("STATE_API_MEMORY_LIMIT", "2g", state(lambda s: s.memory_limit), 0, 1 << 31),
    Effect("STATE_API_MEMORY_RESERVATION", "512m", state(lambda s: s.memory_reservation), 0, 1 << 29),
    Effect("STATE_API_CONSTRAINTS", "node.role==worker", state(lambda s: s.constraints), (), ("node.role==worker",)),
    Effect("STATE_API_LABELS", "a=b,c=d", state(lambda s: s.labels), {}, {"a": "b", "c": "d"}),
    Effect(
        "STATE_API_ENV", "A=b,C=d=e", state(lambda s: [s.env.get(name) for name in "AC"]), [None, None], ["b", "d=e"]
    ),
    Effect("STATE_API_NETWORKS", "b-net, a-net", state(lambda s: s.networks), (), ("a-net", "b-net")),
    Effect("STATE_API_LOG_DRIVER", "journald", state(lambda s: s.log_driver), "", "journald"),
    Effect(
        "STATE_API_LOG_OPTIONS",
        "max-size=10m",
        state(lambda s: s.log_options),
        {},
        {"max-size": "10m"},
        {"STATE_API_LOG_DRIVER": "json-file"},
    ),
    Effect("STATE_API_HEALTHCHECK", "true", state(lambda s: s.healthcheck), None, Healthcheck("true")),
    Effect(
        "GROUPS_FILE",
        "{dir}/groups.toml",
        lambda s, _: world(s).groups_file.current.of_service("Weld", s).memory_limit,
        0,
        1 << 31,
    ),
    Effect("PROGRESS_DEADLINE", "5m", stuck, False, True),
    Effect("ROLLOUT_BAKE", "3m", second_update, 60.0, 180.0),
    Effect("ROLLOUT_MAX_PARALLEL", "1", at_once, 1, 3),
    Effect("ROLLOUT_TIMEOUT", "5m", taken_back, 180.0, 360.0),
    Effect("ROLLOUT_ON_FAILURE", "halt", taken_back, 180.0, None),
    # The default image is not asked.
    Effect("FASTAPI_GROUP_READY_PATH", "/health?deep=1", asked_path, "/", "/health?deep=1"),
    Effect("FASTAPI_GROUP_READY_PATH", "", asked_path, "/ready", "/", {"FASTAPI_GROUP_IMAGE": "group-service:1"}),
    Effect("FASTAPI_GROUP_REPLICAS", "2", groups(lambda s: s.replicas), 1, 2),
    Effect("FASTAPI_GROUP_CPU_LIMIT", "0.3", groups(lambda s: s.cpu_limit), 1.0, 0.3),
    Effect("FASTAPI_GROUP_CPU_RESERVATION", "0", groups(lambda s: s.cpu_reservation), 0.5, 0.0),
    Effect(
        "FASTAPI_GROUP_PORT",
        "5555",
        lambda s, _: published(s).groups["Weld"],
        "http://ofa_group_Weld:8000/asset_stream",
        "http://ofa_group_Weld:5555/asset_stream",
    ),
    Effect(
        "FASTAPI_GROUP_PORT_BASE",
        "7000",
        lambda s, _: published(s).groups["Fit"],
        "http://localhost:6001/asset_stream",
        "http://localhost:7000/asset_stream",
        LOCAL,
    ),
    Effect(
        "UNS_FASTAPI_GROUP_GROUPING_LEVEL",
        "area",
        lambda s, _: world(s).strategy.lookup().levels,
        ("workcenter",),
        ("area",),
    ),
    Effect("UNS_FASTAPI_GROUP_GROUPING_LEVEL", "area", has("UNS_LEVELS['area']"), False, True),
    Effect("UNS_FALLBACK_GROUP", "Rest", has("ELSE 'Rest' END"), False, True),
    Effect("STATE_API_IMAGE", "s:2", state(lambda s: s.image), "ghcr.io/openfactoryio/state-api:latest", "s:2"),
    Effect("STATE_API_REPLICAS", "2", state(lambda s: s.replicas), 1, 2),
    Effect("STATE_API_CPU_LIMIT", "1", state(lambda s: s.cpu_limit), 0.5, 1.0),
    Effect("STATE_API_CPU_RESERVATION", "0.1", state(lambda s: s.cpu_reservation), 0.25, 0.1),
    Effect(
        "STATE_API_PORT",
        "80",
        lambda s, _: published(s).state_api,
        "http://ofa_state_api:5555/asset_state",
        "http://ofa_state_api:80/asset_state",
    ),
    Effect("ENVIRONMENT", "devswarm", pins, True, False),
    Effect("ENVIRONMENT", "Local", lambda s, _: "ofa_routing_layer" in stage(s).platform.services, True, False),
    Effect("LOG_LEVEL", "DEBUG", log_levels, ("INFO", *["info"] * 3), ("DEBUG", *["debug"] * 3)),
    Effect(
        "RECONCILER_OWNER",
        "plant-2",
        lambda s, _: (world(s).platform.owner, world(s).topology.shared_name[:24]),  # type: ignore[attr-defined]  # Swarm's
        ("ofa", "OFA_ASSETS_WITH_UNS_0000"),
        ("plant-2", "PLANT_2_ASSETS_WITH_UNS_"),
    ),
    Effect(
        "RESOURCE_PREFIX",
        "p2",
        lambda s, _: (world(s).platform.prefix, group(s).name, routing_layer_spec(s, "r").name),  # type: ignore[attr-defined]  # Swarm's
        ("ofa", "ofa_group_Weld", "ofa_routing_layer"),
        ("p2", "p2_group_Weld", "p2_routing_layer"),
    ),
    Effect("RECONCILE_INTERVAL", "500ms", lambda s, _: loop_of(s)[0], 10.0, 0.5),
    Effect("RESYNC_INTERVAL", "20s", topic_lists, 0, 5),
    Effect("FLOW_INTERVAL", "0s", flow_checks, 60.0, None),
    Effect("IDLE_AFTER", "10m", sleeps_after_an_hour, False, True),
    Effect("READY_INTERVAL", "10s", probes_in_a_minute, 3, 7),
    Effect("RECONCILE_POLICY", "upsert-only", gone_after, 80.0, None),
    Effect("RECONCILE_POLICY", "create-only", repaired, True, False),
    Effect("LEASE_SECONDS", "1m", lease_seconds, 15.0, 60.0),
    Effect("RECONCILER_PORT", "9090", lambda s, _: loop_of(s)[1], 8080, 9090),
    Effect(
        "RECONCILER_URL",
        "http://op:1",
        routing(lambda s: s.env["RECONCILER_URL"]),
        "http://ofa_reconciler:8080",
        "http://op:1",
    ),
    Effect(
        "RECONCILER_ALLOWED_HOSTS",
        "op.plant.example",
        lambda s, _: is_allowed("op.plant.example:8080", allowed_hosts(s)),
        False,
        True,
    ),
    Effect("PRUNE_READS", "20", gone_after, 80.0, 210.0),
    Effect("PRUNE_GRACE", "2m", gone_after, 80.0, 140.0),
    Effect("PRUNE_MAX_FRACTION", "0.5", removed, 0, 2),
    Effect("DRAIN_SECONDS", "1m", gone_after, 80.0, 130.0),
    Effect("DELETE_TOPICS", "true", dropped, False, True),
    Effect("SHARED_RETENTION", "2h", has("RETENTION_MS=7200000"), False, True),
    Effect("GROUP_RETENTION", "1d", group_sql_has("RETENTION_MS=86400000"), False, True),
    Effect("REGISTRY_KEEP", "6", kept_documents, 5, 8),
    Effect("REGISTRY_ROLL_AFTER", "5m", rolled, False, True),
    Effect(
        "REGISTRY_DIR",
        "/srv/ofa",
        lambda s, _: str(registry_file(s)).startswith("/srv/ofa/"),
        False,
        True,
        {"DEPLOYMENT_PLATFORM": "docker"},
    ),
)


def settings_with(monkeypatch: pytest.MonkeyPatch, places: Places, variables: Mapping[str, str]) -> Settings:
    """Read the settings from an environment with these variables."""
    for name, value in {"KAFKA_BROKER": "b:9092", "KSQLDB_URL": "http://{first}", **variables}.items():
        monkeypatch.setenv(name, places.fill(value))
    return load()


@pytest.mark.parametrize("effect", EFFECTS, ids=str)
def test_a_variable_has_its_effect(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, places: Places, effect: Effect
) -> None:
    """What is seen with the default is not what is seen with the value, and both are as documented."""
    monkeypatch.chdir(tmp_path)
    assert effect.observe(settings_with(monkeypatch, places, effect.also), places) == effect.before
    changed = settings_with(monkeypatch, places, {**effect.also, effect.variable: effect.value})
    assert effect.observe(changed, places) == effect.after
    assert effect.before != effect.after


def test_every_variable_is_in_the_table() -> None:
    """A setting that the operator gains has to show its effect here."""
    assert {effect.variable for effect in EFFECTS} == {name.upper() for name in Settings.model_fields}

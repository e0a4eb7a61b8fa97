"""The whole loop on a real engine: a ksqlDB in memory on the one side, Swarm services and configs on the other.

The engine is asked through another connection than the operator's, so nothing rests on the operator's own word.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from openfactory_common.errors import GuardRefusal
from reconciler.app import topology_of
from reconciler.control.controller import Controller, Dependencies
from reconciler.control.converge import Exit, converge
from reconciler.control.groups_file import GroupsFile
from reconciler.control.teardown import prove, remove_records, teardown
from reconciler.domain.actions import Result, RollBackService
from reconciler.domain.status import Condition, ObjectStatus
from reconciler.grouping.unslevel import UNSLevelGroupingStrategy
from reconciler.metrics import Metrics
from reconciler.platforms.swarm.platform import SwarmPlatform
from reconciler.settings import Settings
from tests.harness.fakes import FakeKsqldb

from .sandbox import Sandbox, docker, eventually, remove_network

pytestmark = pytest.mark.engine
GROUPS = {"a": "Weld", "b": "Weld", "c": "Paint", "d": "O'Brien & Söhne"}


class Crash(BaseException):
    """The process ends here; nothing may catch it."""


class Scene:
    """One operator's world: a map in memory, a sandbox of the engine."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Three groups, nothing deployed."""
        self.ksqldb = FakeKsqldb(assets=dict(GROUPS))
        self.sandbox = sandbox
        self.options: dict[str, object] = {}
        self.platforms: list[SwarmPlatform] = []

    def world(self) -> Dependencies:
        """Return a world as a freshly started process would make it."""
        box = self.sandbox
        given: dict[str, object] = {
            "kafka_broker": "k:9092",
            "ksqldb_url": "http://k:8088",
            "environment": "devswarm",
            "reconciler_owner": box.owner,
            "resource_prefix": box.owner,
            "docker_network": box.network,
            "routing_layer_publish": "none",
            "prune_grace": 0.5,
            "prune_reads": 2,
            "drain_seconds": 0.5,
        }
        for part in ("routing_layer", "fastapi_group", "state_api"):
            given |= {f"{part}_image": box.image, f"{part}_cpu_reservation": 0.01}
        settings = Settings(_env_file=None, **{**given, **self.options})  # type: ignore[arg-type]
        platform = SwarmPlatform(box.owner, box.owner, pin_digests=False)
        self.platforms.append(platform)
        strategy = UNSLevelGroupingStrategy(settings, self.ksqldb)
        file = GroupsFile(settings.groups_file)
        return Dependencies(settings, self.ksqldb, platform, strategy, topology_of(settings), groups_file=file)

    def controller(self) -> Controller:
        """Start an operator."""
        return Controller(self.world(), Metrics(CollectorRegistry()))

    def names(self, kind: str) -> list[str]:
        """Ask the engine itself for what carries our label."""
        label = f"label=org.openfactory.owner={self.sandbox.owner}"
        return sorted(docker(kind, "ls", "--format", "{{.Name}}", "--filter", label).split())

    def versions(self) -> dict[str, int]:
        """Ask the engine itself for the version of everything of ours: a write of any kind raises one."""
        ids = [f"{kind}:{name}" for kind in ("service", "config") for name in self.names(kind)]
        read = (one.split(":") for one in ids)
        return {name: int(docker(kind, "inspect", "--format", "{{.Version.Index}}", name)) for kind, name in read}


@pytest.fixture
def scene(sandbox: Sandbox) -> Iterator[Scene]:
    """A scene, with its connections closed afterwards."""
    made = Scene(sandbox)
    yield made
    for platform in made.platforms:
        platform.close()


def test_once_twice(scene: Scene, sent: list[str]) -> None:
    """The first run makes everything; the second writes nothing, and one look costs at most 8 requests."""
    code, _ = converge(scene.controller(), 60)
    assert code is Exit.OK
    own = scene.sandbox.owner
    assert len(scene.names("service")) == 5
    assert f"{own}_group_Weld" in scene.names("service")
    before, statements = scene.versions(), scene.ksqldb.writes
    second = scene.controller()
    sent.clear()
    scene.ksqldb.calls.clear()
    code, outcome = converge(second, 60)
    assert (code, outcome.results) == (Exit.OK, ())
    assert [request for request in sent if not request.startswith("GET ")] == []
    assert len(sent) + sum(scene.ksqldb.calls.values()) <= 5 + 4, "the first look of a process"
    sent.clear()
    scene.ksqldb.calls.clear()
    second.cycle()
    assert len(sent) + sum(scene.ksqldb.calls.values()) <= 8
    assert (scene.versions(), scene.ksqldb.writes) == (before, statements)


def test_killed_in_the_middle_of_the_first_convergence(scene: Scene) -> None:
    """After every single write of a first convergence: the end is the same and nothing is made twice."""
    deaths = 0
    while True:
        controller = scene.controller()
        done = 0

        def die_after_one(limit: int = 1) -> None:
            nonlocal done
            done += 1
            if done >= limit:
                raise Crash

        controller.on_step = die_after_one
        try:
            code, _ = converge(controller, 60)
        except Crash:
            deaths += 1
            continue
        break
    assert code is Exit.OK
    assert deaths >= 10
    assert len(scene.names("service")) == 5
    assert [statement.verb for statement in scene.ksqldb.statements] == ["create"] * 4


def test_a_removed_and_a_changed_service_are_repaired(scene: Scene) -> None:
    """What a user does with the engine's own command is undone: at once, or when the new service is ready."""
    controller = scene.controller()
    converge(controller, 60)
    own = scene.sandbox.owner
    docker("service", "rm", f"{own}_group_Weld")
    docker("service", "update", "--detach", "--env-add", "X=1", "--limit-cpu", "0.1", f"{own}_group_Paint")

    def repair() -> str:
        controller.cycle()
        return docker("service", "inspect", "--format", "{{json .Spec.TaskTemplate}}", f"{own}_group_Paint")

    # The engine writes the state of that update at the same moment; who loses the race looks again.
    shown = eventually(repair, lambda template: '"X=1"' not in template)
    assert f"{own}_group_Weld" in scene.names("service")
    assert '"NanoCPUs":1000000000' in shown


def test_a_group_leaves_in_order(scene: Scene) -> None:
    """Registry, then service, then stream; the others keep their tasks."""
    controller = scene.controller()
    converge(controller, 60)
    own = scene.sandbox.owner
    before = {name: index for name, index in scene.versions().items() if "_group_Weld" in name}
    del scene.ksqldb.assets["c"]
    order: list[str] = []

    def note(result: Result) -> str:
        return f"{result.action.verb} {result.action.group or ''}".strip()

    deadline = time.monotonic() + 60
    while "ASSET_STREAM_PAINT" in scene.ksqldb.made and time.monotonic() < deadline:
        order += [note(result) for result in controller.cycle().results]
        time.sleep(0.2)
    assert order == ["publish_registry", "remove_service Paint", "drop_stream Paint"]
    assert f"{own}_group_Paint" not in scene.names("service")
    assert {name: index for name, index in scene.versions().items() if "_group_Weld" in name} == before


def test_what_a_group_has_of_its_own_reaches_its_service(scene: Scene, tmp_path: Path) -> None:
    """Memory, a node, labels, a network, a log driver and a healthcheck, by groups.toml: and then nothing is to do.

    A person's label beside ours stays, another group has nothing of it, and what is taken out of the file goes.
    """
    node = docker("info", "--format", "{{.Swarm.NodeID}}")
    network = docker("network", "create", "--driver", "overlay", f"{scene.sandbox.owner}-more")
    name = f"{scene.sandbox.owner}_group_Weld"
    file = tmp_path / "groups.toml"
    file.write_text(
        f"""[groups."Weld"]
        memory_limit = "64m"
        memory_reservation = "8m"
        constraints = ["node.id == {node}"]
        labels = {{team = "welders"}}
        env = {{OWN = "{{{{.Node.ID}}}}"}}
        networks = ["{scene.sandbox.owner}-more"]
        log_driver = "json-file"
        log_options = {{max-size = "1m"}}
        healthcheck = "true"
        """
    )
    scene.options["groups_file"] = file
    try:
        controller = scene.controller()
        assert converge(controller, 60)[0] is Exit.OK
        spec = json.loads(docker("service", "inspect", name))[0]["Spec"]
        task = spec["TaskTemplate"]
        assert task["Resources"]["Limits"]["MemoryBytes"] == 64 << 20
        assert task["Resources"]["Reservations"]["MemoryBytes"] == 8 << 20
        assert task["Placement"]["Constraints"] == [f"node.id=={node}"]
        assert (spec["Labels"]["team"], task["ContainerSpec"]["Labels"]) == ("welders", {"team": "welders"})
        assert task["LogDriver"] == {"Name": "json-file", "Options": {"max-size": "1m"}}
        assert task["ContainerSpec"]["Healthcheck"]["Test"] == ["CMD-SHELL", "true"]
        container = docker("ps", "--quiet", "--filter", f"name={name}.1")
        shown = json.loads(docker("inspect", container))[0]
        assert {scene.sandbox.network, f"{scene.sandbox.owner}-more"} <= shown["NetworkSettings"]["Networks"].keys()
        assert shown["State"]["Health"]["Status"] == "healthy"
        assert "OWN={{.Node.ID}}" in shown["Config"]["Env"]
        other = json.loads(docker("service", "inspect", f"{scene.sandbox.owner}_group_Paint"))[0]["Spec"]
        assert "Constraints" not in other["TaskTemplate"].get("Placement", {})
        assert len(other["TaskTemplate"]["Networks"]) == 1

        docker("service", "update", "--detach", "--label-add", "theirs=1", name)
        before = scene.versions()
        assert controller.cycle().sentence.endswith("in sync")
        assert scene.versions() == before
        file.write_text("")
        assert converge(scene.controller(), 90)[0] is Exit.OK
        spec = json.loads(docker("service", "inspect", name))[0]["Spec"]
        assert spec["Labels"]["theirs"] == "1"
        assert "team" not in spec["Labels"]
        assert len(spec["TaskTemplate"]["Networks"]) == 1
    finally:
        scene.sandbox.clean_up()
        remove_network(network)


def test_a_bad_image_is_at_one_group_and_is_taken_back(scene: Scene) -> None:
    """T22: the old tasks serve on, the reason is in the engine's words, nothing is written again; then a good image."""
    converge(scene.controller(), 60)
    image = scene.sandbox.image
    scene.options["fastapi_group_image"] = "openfactory/no-such-image:1"
    controller = scene.controller()
    _until(lambda: any(isinstance(result.action, RollBackService) for result in controller.cycle().results))
    _until(
        lambda: sum(item.condition is Condition.HELD for item in _items(controller)) == len(set(GROUPS.values())) - 1
    )
    _until(lambda: controller.cycle().results == ())
    before = scene.versions()
    for _ in range(3):
        assert controller.cycle().results == ()
    assert scene.versions() == before
    held = [item for item in _items(controller) if item.group is not None]
    assert all(item.running == 1 for item in held)
    assert all("no-such-image" in item.detail or "No such image" in item.detail for item in held)
    scene.options |= {"fastapi_group_image": image, "log_level": "debug", "rollout_bake": 0}
    assert converge(scene.controller(), 90)[0] is Exit.OK


def test_teardown_leaves_nothing_of_ours_and_everything_of_others(scene: Scene) -> None:
    """All services, configs and streams of the owner go, if it is its cluster; a service of another owner stays."""
    converge(scene.controller(), 60)
    own, scene.ksqldb.identity = scene.ksqldb.identity, ("another-cluster", "default_")
    with pytest.raises(GuardRefusal, match="ksqlDB default_ instead of kafka-1, default_"):
        prove(scene.world())
    scene.ksqldb.identity = own
    scene.ksqldb.made["FOREIGN"] = ("x", "CREATE STREAM FOREIGN (A STRING) WITH (KAFKA_TOPIC='x');")
    stranger = f"{scene.sandbox.owner}x"
    docker("service", "create", "--detach", "--name", stranger, "--replicas", "0", scene.sandbox.image)
    try:
        assert all(result.outcome == "ok" for result in teardown(scene.world()))
        remove_records(scene.world().platform, streams_left=False)
        assert scene.names("service") == []
        assert scene.names("config") == []
        assert list(scene.ksqldb.made) == ["FOREIGN"]
        assert docker("service", "ls", "--quiet", "--filter", f"name={stranger}")
    finally:
        docker("service", "rm", stranger)


def _items(controller: Controller) -> tuple[ObjectStatus, ...]:
    plan = controller.cycle().plan
    assert plan is not None
    return plan.items


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.5)

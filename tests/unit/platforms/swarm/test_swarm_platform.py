"""Which requests an observation of a Swarm takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from openfactory_common.errors import PlatformRefused
from reconciler.domain.services import LiveService
from reconciler.platforms.swarm import platform as swarm
from tests.unit.platforms.swarm.test_swarm_state import service, task


class CannedEngine:
    """An engine with one service that runs as it should; the task before its present one failed a moment ago."""

    def __init__(self) -> None:
        """Nothing was requested yet."""
        self.requested: list[str] = []
        self.first: dict[str, Any] | None = None

    def get(self, path: str, *_names: str, **_options: Any) -> Any:
        """Return a list."""
        self.requested.append(path)
        now = datetime.now(UTC)
        failed, running = task("failed", "shutdown", "task: non-zero exit (1)"), task("running", "running", created=2)
        failed["Status"]["Timestamp"] = (now - timedelta(seconds=4)).isoformat()
        running["Status"]["Timestamp"] = (now - timedelta(seconds=1)).isoformat()
        lists = {
            "/services": [{**service(1), "UpdatedAt": "2026-01-02T03:04:00Z"}],
            "/tasks": [self.first or failed, running],
        }
        states = _options.get("params", {}).get("filters", {}).get("desired-state")
        return [one for one in lists.get(path, []) if states is None or one["DesiredState"] in states]


def test_the_tasks_of_a_suspect_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a service that runs as it should costs no request, and nobody knows that it has just failed."""
    engine = CannedEngine()
    monkeypatch.setattr(swarm, "Engine", lambda *_: engine)
    platform = swarm.SwarmPlatform("ofa", "ofa", pin_digests=False)
    assert platform.observe().services["ofa_group_weld"].error == ""
    assert engine.requested == ["/services", "/configs", "/nodes"]
    engine.requested.clear()
    found = platform.observe({"ofa_group_weld", "ofa_group_other"}).services["ofa_group_weld"]
    assert (found.running, found.error) == (1, "task: non-zero exit (1)")
    assert engine.requested == ["/services", "/configs", "/tasks"]
    assert platform.observe({"ofa_group_other"}).services["ofa_group_weld"].error == ""


def test_the_tasks_that_have_ended_are_read_periodically(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that failed and was replaced at once is known within a minute; no observation has a fourth request for it."""
    engine = CannedEngine()
    monkeypatch.setattr(swarm, "Engine", lambda *_: engine)
    monkeypatch.setattr(swarm, "ENDS_EVERY", 0.0)
    platform = swarm.SwarmPlatform("ofa", "ofa", pin_digests=False)
    state = platform.observe()
    assert engine.requested == ["/services", "/configs", "/tasks"]
    assert [one.reason for one in state.ended] == ["task: non-zero exit (1)"]
    assert state.services["ofa_group_weld"].error == "", "it runs"
    monkeypatch.setattr(swarm, "ENDS_EVERY", 3600.0)
    platform.observe()
    engine.requested.clear()
    assert platform.observe().ended == ()
    assert engine.requested == ["/services", "/configs", "/nodes"]


def test_a_task_whose_node_was_drained_is_known_when_its_successor_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no observation saw the service without a task."""
    engine = CannedEngine()
    engine.first = task("shutdown", "shutdown")
    engine.first["Status"]["Timestamp"] = datetime.now(UTC).isoformat()
    monkeypatch.setattr(swarm, "Engine", lambda *_: engine)
    monkeypatch.setattr(swarm, "ENDS_EVERY", 0.0)
    (end,) = swarm.SwarmPlatform("ofa", "ofa", pin_digests=False).observe().ended
    assert end.reason == "stopped by the engine, not by an update: a node was drained, or lost"


class Writing(CannedEngine):
    """The same, whose tasks have written two lines, and one line of a task that is no longer listed."""

    def get(self, path: str, *names: str, **options: Any) -> Any:
        """Return a list; tasks have ids here."""
        found = super().get(path, *names, **options)
        return [{**task, "ID": f"t{number}", "Slot": number} for number, task in enumerate(found)]

    def read_output(self, path: str, *ids: str, tail: int, follow: bool, details: bool) -> Iterator[str]:
        """Return what the engine sends (measured: with details, the ids stand before each line)."""
        assert (path, ids, tail, follow, details) == ("/services/{}/logs", ("s1",), 7, False, True)
        for identity, text in (("t0", "starts"), ("t1", "a b=c, d"), ("t9", "")):
            label = "com.docker.swarm"
            yield f"{label}.node.id=n1,{label}.service.id=s1,{label}.task.id={identity} {text}"


def test_each_line_of_a_services_log_has_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the number of its slot; of one that is no longer listed, by its id."""
    monkeypatch.setattr(swarm, "Engine", lambda *_: Writing())
    platform = swarm.SwarmPlatform("ofa", "ofa", pin_digests=False)
    lines = platform.task_logs(LiveService("s1", 1, "ofa_group_Weld", "ofa", None, 1), 7, follow=False)
    assert [(line.task, line.text) for line in lines] == [
        ("ofa_group_Weld.0", "starts"),
        ("ofa_group_Weld.1", "a b=c, d"),
        ("ofa_group_Weld t9", ""),
    ]


class Placing(CannedEngine):
    """An engine whose one node has no label, or that does not tell; it keeps what is written."""

    api_version = (1, 41)

    def __init__(self, *, tells: bool) -> None:
        """Nothing was written yet."""
        super().__init__()
        self.tells = tells
        self.written: list[Any] = []

    def get(self, path: str, *names: str, **options: Any) -> Any:
        """Return the node, or refuse to; else the service."""
        if path == "/nodes":
            if not self.tells:
                raise PlatformRefused("403: not allowed here")
            return [{"ID": "n1", "Status": {"State": "ready"}, "Spec": {"Role": "manager"}}]
        return service(1) if path == "/services/{}" else super().get(path, *names, **options)

    def credentials(self, _image: str) -> dict[str, str]:
        """Return none."""
        return {}

    def post(self, _path: str, *_names: str, body: Any, **_options: Any) -> None:
        """Keep what is written."""
        self.written.append(body["TaskTemplate"].get("Placement"))


@pytest.mark.parametrize(
    ("tells", "had", "wanted", "refused"),
    [
        (True, (), ("node.labels.gpu==yes",), True),
        (False, (), ("node.labels.gpu==yes",), False),
        (True, ("node.labels.gpu==yes",), ("node.labels.gpu==yes",), False),
        (True, ("node.labels.gpu==yes",), (), False),
        (True, (), ("node.role==manager",), False),
    ],
    ids=["no node", "not told", "as before", "taken away", "a node"],
)
def test_new_constraints_that_no_node_fulfils_are_not_written(
    monkeypatch: pytest.MonkeyPatch, *, tells: bool, had: tuple[str, ...], wanted: tuple[str, ...], refused: bool
) -> None:
    """The engine would end the tasks that run."""
    engine = Placing(tells=tells)
    monkeypatch.setattr(swarm, "Engine", lambda *_: engine)
    platform = swarm.SwarmPlatform("ofa", "ofa", pin_digests=False)
    live = platform.observe().services["ofa_group_weld"]
    spec = live.spec
    assert spec is not None
    live = replace(live, spec=replace(spec, constraints=had))
    with (
        pytest.raises(PlatformRefused, match="none of the 1 nodes that may have tasks fulfils")
        if refused
        else nullcontext()
    ):
        platform.update_service(live, replace(spec, constraints=wanted))
    assert len(engine.written) == (not refused)


class Foreign(CannedEngine):
    """The same, whose service has none of our labels and is in two networks."""

    mode = "Replicated"

    def get(self, path: str, *names: str, **options: Any) -> Any:
        """Return the service as a user made it, and the networks."""
        if path == "/networks":
            return [{"Id": "n1", "Name": "factory-net"}, {"Id": "n2", "Name": "more"}]
        if path != "/services/{}":
            return super().get(path, *names, **options)
        spec: dict[str, Any] = service(1)["Spec"]
        task = spec["TaskTemplate"]
        container = {**task["ContainerSpec"], "Args": ["--all"], "Env": ["A=1"]}
        networks = [{"Target": "n1"}, {"Target": "n2"}]
        mode = {self.mode: {"Replicas": 3} if self.mode == "Replicated" else {}}
        task = {**task, "ContainerSpec": container, "Networks": networks}
        return {"Spec": {**spec, "Labels": {"team": "x"}, "Mode": mode, "TaskTemplate": task}}


@pytest.mark.parametrize("mode", ["Replicated", "Global"])
def test_a_service_of_a_user_is_read_as_if_it_were_a_groups(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """With the names of its networks; one of another mode can be none."""
    engine = Foreign()
    engine.mode = mode
    monkeypatch.setattr(swarm, "Engine", lambda *_: engine)
    live = LiveService("s1", 1, "ofa_group_Weld", None, None, 1)
    found = swarm.SwarmPlatform("ofa", "ofa", pin_digests=False).read_foreign(live)
    if mode == "Global":
        assert found is None
        return
    assert found is not None
    assert (found.kind, found.group, found.replicas, found.env) == ("group", None, 3, {"A": "1"})
    assert (found.network, found.networks) == ("factory-net", ("more",))
    assert "args" in found.unexpected

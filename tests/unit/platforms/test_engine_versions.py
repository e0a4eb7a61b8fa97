"""In which version of its API an engine is asked, and what is asked again after a refusal."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest

from openfactory_common.errors import PlatformError
from reconciler.platforms.engine import Engine
from reconciler.platforms.swarm.platform import NODES_EVERY, SwarmPlatform, _Digests, _Nodes
from reconciler.platforms.swarm.spec import to_engine
from tests.unit.platforms.test_engine import SPEC, ScriptedEngine, engine

__all__ = ["engine"]
DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def asked(engine: ScriptedEngine) -> Iterator[Engine]:
    """A connection to the scripted engine."""
    made = Engine(f"http://127.0.0.1:{engine.server_port}", 2.0, None)
    yield made
    made.close()


VERSIONS = [
    ({"ApiVersion": "1.41", "MinAPIVersion": "1.12"}, "1.41"),
    ({"ApiVersion": "1.41"}, "1.41"),
    ({"ApiVersion": "1.44", "MinAPIVersion": "1.24"}, "1.44"),
    ({"ApiVersion": "1.52", "MinAPIVersion": "1.44"}, "1.44"),
    ({"ApiVersion": "1.54", "MinAPIVersion": "1.40"}, "1.44"),
    ({"ApiVersion": "1.60", "MinAPIVersion": "1.50"}, "1.50"),
    ({"ApiVersion": "1.52", "MinAPIVersion": None}, "1.44"),
    ({"ApiVersion": "2.0", "MinAPIVersion": "2.0"}, "2.0"),
]


@pytest.mark.parametrize(("said", "version"), VERSIONS)
def test_an_engine_is_asked_in_a_version_that_both_know(
    engine: ScriptedEngine, asked: Engine, said: dict[str, Any], version: str
) -> None:
    """Never below its oldest, never above its newest, and not above the one that the reader was written for."""
    engine.version = said
    assert asked.get("/services") == []
    assert engine.seen == [f"GET /v{version}/services"]


@pytest.mark.parametrize("said", [{}, {"ApiVersion": 1}, {"ApiVersion": "new"}, [], None, {"ApiVersion": "9" * 5000}])
def test_an_engine_without_a_version_is_not_used(engine: ScriptedEngine, asked: Engine, said: Any) -> None:
    """Whatever answers there is none."""
    engine.version = said
    with pytest.raises(PlatformError, match=r"GET /version: .* ApiVersion"):
        asked.get("/services")


def test_nodes_are_asked_about_again_after_a_refusal(
    engine: ScriptedEngine, asked: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Later and later while it lasts, said once, and as before once it is over."""
    now = [0.0]
    nodes = _Nodes(asked, lambda: now[0])
    engine.says(403, {"message": "the socket proxy does not allow GET /nodes"})
    for _ in range(200):
        assert not nodes.are_down()
        now[0] += NODES_EVERY
    assert 6 <= len(engine.seen) <= 10
    assert len([record for record in caplog.records if "the nodes' states" in record.message]) == 1
    engine.says(200, [{"Status": {"State": "down"}}])
    now[0] += 3600
    assert nodes.are_down()
    before = len(engine.seen)
    for _ in range(4):
        now[0] += NODES_EVERY
        assert nodes.are_down()
    assert len(engine.seen) == before + 4


def test_a_manager_that_restarts_is_asked_again(engine: ScriptedEngine, asked: Engine) -> None:
    """One refusal of `GET /nodes` does not hide a lost node for good."""
    now = [0.0]
    nodes = _Nodes(asked, lambda: now[0])
    engine.says(503, {"message": "This node is not a swarm manager."})
    assert not nodes.are_down()
    engine.says(200, [{"Status": {"State": "down"}}])
    now[0] += NODES_EVERY
    assert nodes.are_down()


def test_a_digest_that_cannot_be_had_is_asked_for_less_and_less(engine: ScriptedEngine, asked: Engine) -> None:
    """Each question may cost the whole time limit; a known one is asked for again every five minutes."""
    now = [0.0]
    digests = _Digests(asked, lambda: now[0])
    engine.says(500, {"message": "Get https://r/v2/: i/o timeout"})
    for _ in range(24 * 60):
        assert digests.pin("a:1") == "a:1"
        now[0] += 60
    assert len(engine.seen) < 30
    engine.says(200, {"Descriptor": {"digest": DIGEST}})
    now[0] += 3600
    assert digests.pin("a:1") == f"a:1@{DIGEST}"


@pytest.mark.parametrize(("pins", "known", "drifts"), [(True, True, True), (True, False, False), (False, True, False)])
def test_a_service_that_lost_its_digest_is_put_right(
    engine: ScriptedEngine, pins: bool, known: bool, drifts: bool
) -> None:
    """In production, where the digest is to be had; otherwise an update would change nothing, each cycle again."""
    spec = dataclasses.replace(SPEC, replicas=0)
    body = to_engine(spec, "t", {}, spec.image)
    engine.lists["services"] = [{"ID": "id1", "Version": {"Index": 7}, "Spec": body}]
    engine.lists["networks"] = [{"Id": SPEC.network, "Name": SPEC.network, "Scope": "swarm"}]
    engine.lists["json"] = {"Descriptor": {"digest": DIGEST}} if known else {"no": "digest"}
    platform = SwarmPlatform("t", "t", pin_digests=pins, base_url=f"http://127.0.0.1:{engine.server_port}")
    live = platform.observe().services["t_group_weld"]
    assert live.spec is not None
    assert live.spec.unexpected == (("unpinned_image",) if drifts else ())
    if drifts:
        engine.lists["id1"] = engine.lists["services"][0]
        platform.update_service(live, spec)
        sent = json.loads(engine.bodies[-1])["TaskTemplate"]["ContainerSpec"]["Image"]
        assert sent == f"{SPEC.image}@{DIGEST}"
    platform.close()


@pytest.mark.parametrize("failed", ["", "0123456789ab"])
def test_a_rollback_runs_the_digest_of_before(engine: ScriptedEngine, failed: str) -> None:
    """The tag may be that of another image by now; what failed and why stand in labels until the next update."""
    spec = dataclasses.replace(SPEC, replicas=0)
    before = to_engine(spec, "t", {}, f"{spec.image}@{DIGEST}")
    now = to_engine(dataclasses.replace(spec, image="bad:2"), "t", {}, "bad:2")
    now["Labels"]["org.openfactory.failure"] = "of an earlier update"
    engine.lists["services"] = [{"ID": "id1", "Version": {"Index": 7}, "Spec": now, "PreviousSpec": before}]
    engine.lists["id1"] = engine.lists["services"][0]
    engine.lists["networks"] = [{"Id": SPEC.network, "Name": SPEC.network, "Scope": "swarm"}]
    platform = SwarmPlatform("t", "t", pin_digests=False, base_url=f"http://127.0.0.1:{engine.server_port}")
    live = platform.observe().services["t_group_weld"]
    assert live.previous == spec
    platform.update_service(live, spec, failed, "it ended" if failed else "")
    sent = json.loads(engine.bodies[-1])
    image = sent["TaskTemplate"]["ContainerSpec"]["Image"]
    marks = {name: text for name, text in sent["Labels"].items() if "fail" in name}
    assert image == (f"{spec.image}@{DIGEST}" if failed else spec.image)
    assert marks == ({"org.openfactory.failed": failed, "org.openfactory.failure": "it ended"} if failed else {})
    platform.close()


def test_configs_of_other_names_are_neither_records_nor_documents(engine: ScriptedEngine) -> None:
    """A copy of the lease, or of a registry document, with all its labels; and labels with any text."""
    labels = {"org.openfactory.owner": "t", "org.openfactory.kind": "record", "org.openfactory.record.holder": "x"}
    registry = {
        "org.openfactory.owner": "t",
        "org.openfactory.kind": "registry",
        "org.openfactory.sequence": "9" * 5000,
    }

    def config(name: str, labels: dict[str, str]) -> dict[str, Any]:
        data = base64.b64encode(b"{}").decode()
        spec = {"Name": name, "Labels": labels, "Data": data}
        return {"ID": name, "Version": {"Index": 1}, "UpdatedAt": "2026-01-02T03:04:05Z", "Spec": spec}

    names = ("t_lease", "lease", "copy_lease", "T_lease")
    engine.lists["configs"] = [config(name, labels) for name in names]
    engine.lists["configs"] += [config(name, registry) for name in ("t_registry-abc", "copy", "t_registry-abc.bak")]
    platform = SwarmPlatform("t", "t", pin_digests=False, base_url=f"http://127.0.0.1:{engine.server_port}")
    state = platform.observe()
    assert set(state.records) == set(platform.records()) == {"lease"}
    assert [(live.name, live.sequence) for live in state.registries] == [("t_registry-abc", 0)]
    platform.close()

"""Plain containers against an engine that answers as told: what only a registry or a broken engine can cause."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openfactory_common.errors import PlatformError, PlatformRefused, PlatformUnreachable
from reconciler.domain.services import Kind, LiveService, ServiceSpec
from reconciler.platforms.docker.platform import DockerPlatform
from reconciler.platforms.docker.spec import RegistryLocation, to_engine
from tests.unit.platforms.test_engine import ScriptedEngine, engine

__all__ = ["engine"]

PROGRESS = b'{"status":"Pulling from library/x","id":"1"}\r\n{"status":"Downloading","progressDetail":{}}\r\n'


@pytest.fixture
def platform(engine: ScriptedEngine, tmp_path: Path) -> Iterator[DockerPlatform]:
    """A platform that asks the scripted engine."""
    made = DockerPlatform("t", "t", tmp_path, base_url=f"tcp://127.0.0.1:{engine.server_address[1]}", timeout=0.5)
    yield made
    made.close()


def test_a_pull_asks_for_one_tag(engine: ScriptedEngine, platform: DockerPlatform) -> None:
    """Without a tag the engine would fetch every tag that there is; a port is none."""
    engine.says(200, PROGRESS)
    for image in ("me/x", "host:5000/me/x", "me/x:1", "me/x@sha256:ab"):
        platform._engine.pull(image, 1.0)
    asked = [request.partition("?")[2] for request in engine.seen]
    assert [text.rpartition("tag=")[2] for text in asked] == ["latest", "latest", "", ""]


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (
            200,
            PROGRESS + b'{"errorDetail":{"message":"x"},"error":"toomanyrequests: slow down"}\r\n',
            "toomanyrequests",
        ),
        (404, {"message": "pull access denied for me/x"}, "pull access denied"),
        (500, {"message": "Get https://r/v2/: dial tcp: connection refused"}, "connection refused"),
    ],
)
def test_an_image_that_cannot_be_pulled_is_refused(
    engine: ScriptedEngine, platform: DockerPlatform, status: int, answer: Any, said: str
) -> None:
    """Also where the engine answered 200 before it knew; the engine's own words say why."""
    engine.says(status, answer)
    with pytest.raises(PlatformRefused, match=f"me/x:1 is not here and cannot be pulled: .*{said}"):
        platform._engine.pull("me/x:1", 1.0)


@pytest.mark.parametrize(
    "answer",
    [
        {"message": "not a list"},
        [{"Names": ["/t_group_A"]}],
        [{"Id": "1", "Names": ["/x"], "Labels": {"org.openfactory.owner": "t", "org.openfactory.service": "s"}}],
        [None],
        b"[",
    ],
)
def test_an_incomplete_answer_is_an_error_and_not_an_empty_set(
    engine: ScriptedEngine, platform: DockerPlatform, answer: Any
) -> None:
    """Whatever is missing in it: every service would be created again beside the ones that are there."""
    engine.says(200, answer)
    with pytest.raises(PlatformError):
        platform.observe()


def test_a_limit_is_believed_from_the_label_only_where_the_engine_can_have_none(
    platform: DockerPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine discarded it; started again with the cgroup, it shows that the container has none."""
    answers: list[Any] = [{"MemoryLimit": False}, PlatformRefused("filtered"), {}, {"MemoryLimit": True}]
    raws = {}
    for group in ("A", "B"):
        spec = ServiceSpec(f"t_{group}", Kind.GROUP, group, "i", {}, 1, 0.5, 0.1, "net", memory_limit=64 << 20)
        body = to_engine(spec, "t", RegistryLocation("/r"))
        raws[group] = {
            "Id": group,
            "Name": f"/t_{group}",
            "Image": "i",
            "Created": "2026-01-01T12:00:00Z",
            "Config": {"Image": "i", "Labels": body["Labels"]},
            "HostConfig": {**body["HostConfig"], "Memory": 0},
            "NetworkSettings": {"Networks": {"net": {"Aliases": [f"t_{group}"]}}},
            "State": {"Status": "running", "StartedAt": "2026-01-01T12:00:00Z"},
        }

    def get(path: str, *names: str, **_: Any) -> Any:
        if path == "/info":
            said = answers.pop(0)
            if isinstance(said, PlatformRefused):
                raise said
            return said
        if path == "/containers/json":
            return [
                {"Id": one["Id"], "Names": [one["Name"]], "Labels": one["Config"]["Labels"]} for one in raws.values()
            ]
        return raws[names[0]] if path.startswith("/containers") else {"Config": {}}

    monkeypatch.setattr(platform._engine, "get", get)
    for limit in (64 << 20, 64 << 20, 64 << 20, 0):
        found = platform.observe().services
        assert [live.spec and live.spec.memory_limit for live in found.values()] == [limit, limit]
    assert answers == [], "it is asked once an observation"
    for one in raws.values():
        one["HostConfig"]["Memory"] = 64 << 20
    assert [live.spec and live.spec.memory_limit for live in platform.observe().services.values()] == [64 << 20] * 2


def test_an_engine_that_does_not_answer_is_unreachable(engine: ScriptedEngine, platform: DockerPlatform) -> None:
    """The next cycle tries again."""
    platform.observe()
    engine.silent.set()
    with pytest.raises(PlatformUnreachable):
        platform.observe()


@pytest.mark.parametrize("labels", [None, {}, {"org.openfactory.owner": "t"}, {"org.openfactory.owner": "u"}])
def test_a_container_that_does_not_say_itself_that_it_is_ours_is_not(
    platform: DockerPlatform, monkeypatch: pytest.MonkeyPatch, labels: dict[str, str] | None
) -> None:
    """Whatever a list said of it: it is passed over, and never removed."""
    row = {"Id": "1", "Names": ["/t_x"], "Labels": {"org.openfactory.owner": "t", "org.openfactory.service": "t_x"}}
    raw = {"Id": "1", "Name": "/t_x", "Config": {"Image": "i", "Labels": labels}, "State": {"Status": "exited"}}

    def get(path: str, *_: Any, **__: Any) -> Any:
        return [row] if path == "/containers/json" else raw

    monkeypatch.setattr(platform._engine, "get", get)
    monkeypatch.setattr(platform._engine, "delete", lambda *_: pytest.fail("it is removed"))
    assert platform.observe().services == {}
    live = LiveService(id="1", version=1, name="t_x", owner="t", spec=None, running=0)
    platform.remove_service(live)

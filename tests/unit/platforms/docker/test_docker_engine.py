"""Plain containers against an engine that answers as told: what only a registry or a broken engine can cause."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openfactory_common.errors import PlatformError, PlatformRefused, PlatformUnreachable
from reconciler.domain.services import LiveService
from reconciler.platforms.docker.platform import DockerPlatform
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

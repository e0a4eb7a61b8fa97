"""What is missing in an engine's answer is an error of its own; a bug of ours is not taken for one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from openfactory_common.errors import PlatformError
from reconciler.platforms.answers import check_answer
from reconciler.platforms.swarm import platform as swarm
from reconciler.platforms.swarm.platform import SwarmPlatform
from tests.unit.platforms.test_engine import ScriptedEngine, engine

__all__ = ["engine"]

SERVICE = {
    "ID": "s1",
    "Version": {"Index": 7},
    "UpdatedAt": "2026-01-02T03:04:05.123456789Z",
    "Spec": {
        "Name": "t_group_Weld",
        "Labels": {"org.openfactory.owner": "t", "org.openfactory.kind": "group", "org.openfactory.group": "Weld"},
        "TaskTemplate": {"ContainerSpec": {"Image": "a:1", "Env": ["A=1"]}, "Resources": {"Limits": {"NanoCPUs": 1}}},
        "Mode": {"Replicated": {"Replicas": 1}},
        "EndpointSpec": {"Mode": "dnsrr"},
    },
    "ServiceStatus": {"RunningTasks": 1},
}
TASK = {
    "ServiceID": "s1",
    "CreatedAt": "2026-01-02T03:04:05Z",
    "DesiredState": "running",
    "Spec": {},
    "Status": {"State": "running"},
    "NetworksAttachments": [{"Network": {"ID": "n1", "Spec": {"Name": "net"}}}],
}
CONFIG = {
    "ID": "c1",
    "Version": {"Index": 1},
    "UpdatedAt": "2026-01-02T03:04:05Z",
    "Spec": {"Name": "t_registry-a", "Labels": {}, "Data": "e30="},
}
CONTAINER = {
    "Id": "1",
    "Name": "/t_group_Weld",
    "Created": "2026-01-02T03:04:05Z",
    "Image": "sha256:a",
    "State": {"Status": "running", "StartedAt": "0001-01-01T00:00:00Z", "Health": {"Status": "healthy", "Log": None}},
    "Config": {"Image": "a:1", "Labels": None, "Env": None},
    "HostConfig": {"NanoCpus": 0, "PortBindings": {"80/tcp": [{"HostPort": "80"}]}, "Mounts": None},
    "NetworkSettings": {"Networks": {"net": {"NetworkID": "n", "Aliases": None}}},
}
GOOD = {
    "GET /services": [SERVICE],
    "GET /services/{}": SERVICE,
    "GET /tasks": [TASK],
    "GET /configs": [CONFIG],
    "GET /secrets": [{"ID": "x", "Spec": {"Name": "pw"}}],
    "GET /nodes": [{"Status": {"State": "ready"}}],
    "GET /networks": [{"Id": "n1", "Name": "net", "Scope": "swarm"}],
    "GET /containers/json": [{"Id": "1", "Names": ["/x"], "Labels": {}}],
    "GET /containers/{}/json": CONTAINER,
    "GET /images/{}/json": {"Config": {"Env": ["A=1"]}},
    "GET /distribution/{}/json": {"Descriptor": {"digest": "sha256:a"}},
    "POST /containers/create": {"Id": "1"},
    "POST /networks/create": {"Id": "1"},
}


@pytest.mark.parametrize("request_", GOOD)
def test_a_complete_answer_stays_as_it_came(request_: str) -> None:
    """Fields that nothing reads are allowed: a later engine has more of them."""
    answer = copy.deepcopy(GOOD[request_])
    one: Any = answer[0] if isinstance(answer, list) else answer
    one["BrandNew"] = {"Of": ["a later", "engine"]}
    before = copy.deepcopy(answer)
    assert check_answer(request_, answer) is answer
    assert answer == before


def _spoiled(value: Any) -> Iterator[Any]:
    """Yield the value with each of its parts replaced by something of another type."""
    yield 5.5
    if isinstance(value, dict):
        for key, part in value.items():
            yield from ({**value, key: other} for other in _spoiled(part))
    if isinstance(value, list):
        for index, part in enumerate(value):
            yield from ([*value[:index], other, *value[index + 1 :]] for other in _spoiled(part))


SPOILED = [(request_, bad) for request_, good in GOOD.items() for bad in _spoiled(good)]


def refusal(request_: str, answer: Any) -> str:
    """Return why an answer is refused, ``""`` where it is not."""
    try:
        check_answer(request_, answer)
    except PlatformError as error:
        return str(error)
    return ""


def test_an_answer_with_anything_else_in_its_place_raises_or_can_be_used() -> None:
    """Whatever part it is: the edge finds it, or nothing reads it."""
    said = [refusal(request_, bad) for request_, bad in SPOILED]
    refused = [text for text in said if text]
    assert all("the Docker engine sent an incomplete answer: " in text for text in refused)
    assert len(refused) > len(said) / 2


@pytest.mark.parametrize(
    ("request_", "path", "may_be_missing", "may_be_null"),
    [
        ("GET /services/{}", ("Spec", "Name"), False, False),
        ("GET /services/{}", ("Spec", "Labels"), True, True),
        ("GET /services/{}", ("Spec", "TaskTemplate", "ContainerSpec"), True, True),
        ("GET /services/{}", ("Spec", "TaskTemplate", "Resources", "Limits", "NanoCPUs"), True, False),
        ("GET /services/{}", ("Spec", "Mode", "Replicated", "Replicas"), True, False),
        ("GET /services/{}", ("ServiceStatus", "RunningTasks"), True, False),
        ("GET /services/{}", ("Version", "Index"), False, False),
        ("GET /services/{}", ("UpdatedAt",), True, True),
        ("GET /containers/{}/json", ("NetworkSettings", "Networks"), False, True),
        ("GET /containers/{}/json", ("NetworkSettings", "Networks", "net", "NetworkID"), True, True),
        ("GET /containers/{}/json", ("HostConfig", "PortBindings", "80/tcp"), True, True),
        ("GET /containers/{}/json", ("State", "StartedAt"), False, False),
        ("GET /containers/{}/json", ("State", "Health", "Status"), False, False),
        ("GET /containers/{}/json", ("Config", "Image"), False, False),
        ("GET /distribution/{}/json", ("Descriptor", "digest"), False, False),
    ],
)
def test_what_may_be_missing_or_null(
    request_: str, path: tuple[str, ...], may_be_missing: bool, may_be_null: bool
) -> None:
    """What engines leave out or send as null is accepted; a part that every engine sends is required."""
    missing, null = copy.deepcopy(GOOD[request_]), copy.deepcopy(GOOD[request_])
    for answer, change in ((missing, dict.pop), (null, lambda part, name: part.update({name: None}))):
        part: Any = answer
        for name in path[:-1]:
            part = part[name]
        change(part, path[-1])
    assert (refusal(request_, missing) == "", refusal(request_, null) == "") == (may_be_missing, may_be_null)


@pytest.mark.parametrize("lists", ["services", "configs", "tasks"])
def test_no_answer_of_a_wrong_shape_ends_in_a_bug(engine: ScriptedEngine, lists: str) -> None:
    """The whole way through the platform: a state, or an error of the engine's; nothing else comes out."""
    platform = SwarmPlatform("t", "t", pin_digests=False, base_url=f"http://127.0.0.1:{engine.server_port}")
    good: dict[str, Any] = {
        name: GOOD[f"GET /{name}"] for name in ("services", "configs", "tasks", "nodes", "networks")
    }
    good["services"] = [{**SERVICE, "ServiceStatus": {"RunningTasks": 0}}]
    engine.lists.update(good)
    assert set(platform.observe().services) == {"t_group_weld"}
    for bad in _spoiled(good[lists]):
        engine.lists[lists] = bad
        try:
            platform.observe()
        except PlatformError:
            continue
    platform.close()


def test_a_bug_of_ours_is_not_the_engines(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What our own code looks up and does not find comes out as it is, and counts as a bug."""
    platform = SwarmPlatform("t", "t", pin_digests=False, base_url=f"http://127.0.0.1:{engine.server_port}")
    engine.lists["services"] = [SERVICE]
    monkeypatch.setattr(swarm, "read_service", lambda *_: {}["ours"])
    with pytest.raises(KeyError, match="ours"):
        platform.observe()
    platform.close()

"""Durations and sizes with fractions: what an engine keeps of them is what was asked, on both platforms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.domain.names import names_of
from reconciler.domain.services import ServiceSpec, drift
from reconciler.planning.options import parse_groups_file
from reconciler.planning.specs import group_spec, routing_layer_spec
from reconciler.platforms.docker import spec as docker
from reconciler.platforms.swarm import spec as swarm
from routing_layer.settings import Settings as ProxySettings
from tests.unit.planning.tables import rows, settings

HERE = docker.RegistryLocation("/state/ofa", "ofa_registry-1")


def read_swarm(spec: ServiceSpec) -> ServiceSpec | None:
    """Write to a Swarm and read back; the engine's JSON keeps whole numbers of 64 bits."""
    ids = {mount.name: mount.name for mount in spec.configs}
    return swarm.from_engine(json.loads(json.dumps(swarm.to_engine(spec, "ofa", ids))), {})


def read_docker(spec: ServiceSpec) -> ServiceSpec | None:
    """Write a container and read back."""
    body: dict[str, Any] = json.loads(json.dumps(docker.to_engine(spec, "ofa", HERE)))
    joined = body["NetworkingConfig"]["EndpointsConfig"]
    raw = {"Config": body, "State": {"Status": "running"}, "NetworkSettings": {"Networks": joined}}
    return docker.from_engine({**raw, "HostConfig": body["HostConfig"]}, {"Config": {}}, HERE)


FRACTIONS = """
    # key of groups.toml             value
    cpu_limit                        0.333333333333333
    cpu_limit                        0.01000000000001
    cpu_limit                        4095.9999999999
    cpu_reservation                  0.1
    memory_limit                     "6.000001m"
    memory_limit                     "1.1g"
    memory_limit                     "1023.999999t"
    memory_reservation               "7.7m"
    healthcheck                      {command = "x", interval = "1.0000000001s"}
    healthcheck                      {command = "x", interval = "1.5ms", timeout = 0.0010000001}
    healthcheck                      {command = "x", start_period = "0.0333333333333m"}
    healthcheck                      {command = "x", interval = 86399.123456789012, start_period = "23.99999999h"}
"""


@pytest.mark.parametrize(("key", "value"), rows(FRACTIONS))
@pytest.mark.parametrize("read", [read_swarm, read_docker])
def test_a_fraction_of_a_group_is_no_drift(read: Any, key: str, value: str) -> None:
    """An engine counts in 1e-9 seconds and cores, and in bytes."""
    options = parse_groups_file(f"[groups.Weld]\n{key} = {value}\n").of_service("Weld", settings())
    spec = group_spec(names_of("Weld"), settings(), None, options)
    assert spec != group_spec(names_of("Weld"), settings(), None)
    live = read(spec)
    assert live is not None
    assert drift(live, spec) == ()


@pytest.mark.parametrize("drain", ["0", "1ms", "0.00000001s", "20.000000001", "33.3", "1.0001m", "0.9999999h", "1d"])
@pytest.mark.parametrize("read", [read_swarm, read_docker])
def test_a_fraction_of_the_drain_time_is_no_drift(read: Any, drain: str) -> None:
    """A container is stopped after whole seconds, never before its streams have ended."""
    spec = routing_layer_spec(settings(routing_layer_drain_seconds=drain), HERE.current)
    live = read(spec)
    assert live is not None
    assert drift(live, spec) == ()
    assert live.stop_grace >= settings(routing_layer_drain_seconds=drain).routing_layer_drain_seconds + 10


TIMES = [name for name in ProxySettings.model_fields if f"routing_layer_{name}" in type(settings()).model_fields]


@pytest.mark.parametrize("value", ["0.001ms", "0.00000012", "1.23456789", "86399.95", "23.999999h"])
def test_a_time_reaches_the_routing_layer_as_it_is(value: str) -> None:
    """In a form that it reads: a variable that it refuses would end each of its tasks."""
    times = [name for name in TIMES if "timeout" in name or "wait" in name or name == "drain_seconds"]
    options = settings(**{f"routing_layer_{name}": value for name in times})
    env = routing_layer_spec(options, HERE.current).env
    read = ProxySettings(_env_file=None, ksqldb_url="http://k:1", **{name: env[name.upper()] for name in times})  # type: ignore[call-arg, arg-type]
    assert {name: getattr(read, name) for name in times} == {
        name: getattr(options, f"routing_layer_{name}") for name in times
    }
    assert len(times) > 5

"""Which host ports services get with `ENVIRONMENT=local`: never one that browsers refuse to ask."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from reconciler.domain.services import Kind, LiveService, Port, Publish, ServiceSpec
from reconciler.planning.specs import REFUSED_BY_BROWSERS, assign_ports
from tests.harness.fakes import Stage


def holding(name: str, port: int) -> LiveService:
    """Return a live service with a port of the host."""
    ports = (Port(8000, port, Publish.HOST),)
    spec = ServiceSpec(name, Kind.GROUP, name, "a:1", {}, 1, 1.0, 0.5, network="net", ports=ports)
    return LiveService(name, 1, name, "ofa", spec, 1)


TABLE: list[tuple[str, int, list[str], Mapping[str, int], Mapping[str, int]]] = [
    ("the first of all", 6000, ["a", "b"], {}, {"a": 6001, "b": 6002}),
    ("another base", 7000, ["a", "b"], {}, {"a": 7000, "b": 7001}),
    ("over a refused range", 6664, ["a", "b"], {}, {"a": 6664, "b": 6670}),
    ("over one alone", 10079, ["a", "b"], {}, {"a": 10079, "b": 10081}),
    ("a held port stays", 6000, ["a", "b"], {"b": 6001}, {"a": 6002, "b": 6001}),
    ("a held port that is refused moves", 6000, ["a", "b"], {"a": 6000, "b": 6001}, {"a": 6002, "b": 6001}),
    ("a held port below the base moves", 7000, ["a"], {"a": 6001}, {"a": 7000}),
    ("one that goes keeps its port until then", 6000, ["a"], {"z": 6001}, {"a": 6002}),
]


@pytest.mark.parametrize(("name", "base", "wanted", "held", "given"), TABLE, ids=[row[0] for row in TABLE])
def test_ports_are_stable_and_usable(
    name: str, base: int, wanted: list[str], held: Mapping[str, int], given: Mapping[str, int]
) -> None:
    """The lowest that is free and that a browser asks; what a service has stays, where it can be asked."""
    del name
    settings = Stage(options={"environment": "local", "fastapi_group_port_base": base}).settings
    live = {service: holding(service, port) for service, port in held.items()}
    assert assign_ports(wanted, live, settings).by_service == given


def test_a_thousand_services_have_ports_that_browsers_ask() -> None:
    """From the default base on."""
    settings = Stage(options={"environment": "local"}).settings
    ports = set(assign_ports([f"s{number}" for number in range(1000)], {}, settings).by_service.values())
    assert len(ports) == 1000
    assert not ports & REFUSED_BY_BROWSERS

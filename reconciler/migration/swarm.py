"""The old system's services in a Docker Swarm: found by name, changed only if they have the exact shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openfactory_common.errors import PlatformConflict
from reconciler.migration.legacy import PORT, VARIABLES, OldNames, OldRole, OldService, topic_of
from reconciler.platforms.engine import Engine, NotFound, OnRequest
from reconciler.platforms.swarm.spec import network_ids

Raw = Mapping[str, Any]

#: Settings of a container that clients set by default and that change nothing.
_HARMLESS = frozenset({"Image", "Env", "Isolation", "Init", "DNSConfig", "StopGracePeriod"})


class SwarmOldServices:
    """The services of the old system in one Swarm."""

    def __init__(
        self,
        *,
        names: OldNames | None = None,
        base_url: str | None = None,
        timeout: float = 10.0,
        on_request: OnRequest | None = None,
    ) -> None:
        """Set up; nothing is sent before the first call.

        Args:
            names: of the services; by default the old system's own.
            base_url: of a manager's engine; None for Docker's usual variables.
            timeout: seconds for a connection and for each part of an answer.
            on_request: called after every request.
        """
        self._names = names or OldNames()
        self._engine = Engine(base_url, timeout, on_request)

    def observe(self) -> tuple[OldService, ...]:
        """Read all services at once.

        Raises:
            PlatformError: a read failed or was not complete.
        """
        raws = self._engine.get("/services", params={"status": "true"})
        networks = {raw["Id"]: raw["Name"] for raw in self._engine.get("/networks")}
        found = [self._read(raw, role, networks) for raw in raws if (role := self._names.role(raw["Spec"]["Name"]))]
        return tuple(sorted(found, key=lambda one: (list(OldRole).index(one.role), one.name)))

    def publish(self, service: OldService, port: int | None) -> None:
        """Publish the service's port, or none, at the version that was read.

        Swarm replaces the tasks of a service whose ports change (measured on 20.10), so its streams end once.

        Raises:
            PlatformConflict: it changed or was removed since it was read, or no longer has the exact shape.
            PlatformRefused: the engine does not accept it, for example because another service has the port.
        """
        raw = self._engine.get("/services/{}", service.id)
        if raw["Version"]["Index"] != service.version or self._read(raw, service.role).deviation:
            raise PlatformConflict(f"service {service.name} changed since it was read: run it again")
        ports = [] if port is None else [{"Protocol": "tcp", "TargetPort": PORT, "PublishedPort": port}]
        body = {**raw["Spec"], "EndpointSpec": {"Mode": "vip", "Ports": ports}}
        self._engine.post("/services/{}/update", service.id, body=body, version=service.version)

    def remove(self, service: OldService) -> None:
        """Remove it by id, after another check of its shape; one that is already gone is no error.

        Raises:
            PlatformConflict: it no longer has the exact shape.
        """
        try:
            odd = self._read(self._engine.get("/services/{}", service.id), service.role).deviation
            if odd:
                raise PlatformConflict(f"service {service.name} changed since it was read ({odd}): not removed")
            self._engine.delete("/services/{}", service.id)
        except NotFound:
            return

    def close(self) -> None:
        """Close the connections to the engine."""
        self._engine.close()

    def _read(self, raw: Raw, role: OldRole, networks: Mapping[str, str] | None = None) -> OldService:
        spec, endpoint = raw["Spec"], raw["Spec"].get("EndpointSpec") or {}
        container = spec["TaskTemplate"].get("ContainerSpec") or {}
        pairs = (item.partition("=") for item in container.get("Env") or ())
        variables = {name: value for name, _, value in pairs}
        group = _find_group(variables) if role is OldRole.GROUP else None
        return OldService(
            id=raw["ID"],
            version=raw["Version"]["Index"],
            name=spec["Name"],
            role=role,
            group=group,
            ports=tuple(sorted(int(port.get("PublishedPort", 0)) for port in endpoint.get("Ports") or ())),
            running=int((raw.get("ServiceStatus") or {}).get("RunningTasks", 0)),
            wanted=int((spec["Mode"].get("Replicated") or {}).get("Replicas", 0)),
            deviation=self._find_deviation(spec, container, variables, role, group),
            networks=tuple(sorted((networks or {}).get(target, target) for target in network_ids(spec))),
            variables=variables,
        )

    def _find_deviation(
        self, spec: Raw, container: Raw, variables: Mapping[str, str], role: OldRole, group: str | None
    ) -> str:
        extra = [name for name, value in container.items() if name not in _HARMLESS and value]
        if spec.get("Labels") or container.get("Labels"):
            return "it has labels"
        if "Replicated" not in spec["Mode"]:
            return "it is not replicated"
        if variables.keys() != VARIABLES[role]:
            return "its variables are " + ", ".join(sorted(variables))
        if role is OldRole.GROUP and (group is None or spec["Name"] != self._names.of_group(group)):
            return f"its topic {variables['KAFKA_TOPIC']} is not that of its name"
        if extra:
            return f"it has {', '.join(sorted(extra))}"
        published = self._names.port if role is OldRole.ROUTER else None
        return _find_endpoint_deviation(spec.get("EndpointSpec") or {}, published)


def _find_endpoint_deviation(endpoint: Raw, published: int | None) -> str:
    """Return the difference from what `SwarmOldServices.publish` writes, which would be lost.

    Args:
        endpoint: as the engine has it.
        published: the only port that it may publish, None for any.
    """
    if published is not None and endpoint.get("Mode") not in (None, "", "vip"):
        return f"its endpoint mode is {endpoint['Mode']}"
    for port in endpoint.get("Ports") or ():
        outside, target = port.get("PublishedPort"), port.get("TargetPort")
        kind = port.get("Protocol") or "tcp", port.get("PublishMode") or "ingress"
        if target != PORT or (published is not None and (outside, *kind) != (published, "tcp", "ingress")):
            return f"it publishes {outside} for {target} ({', '.join(kind)})"
    return ""


def _find_group(variables: Mapping[str, str]) -> str | None:
    """Return the group that both of a service's variables have."""
    consumer = variables.get("KAFKA_CONSUMER_GROUP_ID", "")
    group = consumer.removeprefix("asset_stream_").removesuffix("_consumer_group")
    consistent = consumer == f"asset_stream_{group}_consumer_group" and variables.get("KAFKA_TOPIC") == topic_of(group)
    return group if consistent else None

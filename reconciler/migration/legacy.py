"""The objects of the 0.4 system: names, shapes and the statement of its streams. Pure.

Source: the public repository of the OpenFactory asset API (routing layer, releases 0.4.x): one service and one join for
each group, a router on port 5555, a state API, no labels on any of them. A service or stream that differs in anything
belongs to others, or was changed by a user: it is shown and never changed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from openfactory_common.ksqldb.wire import fold_name, identifier, literal
from openfactory_common.settings_types import mask, strip_user
from reconciler.domain.observed import LiveQuery
from reconciler.ksqldb.definition import Definition, definition_of
from reconciler.ksqldb.entities import Statement
from reconciler.ksqldb.statements import create_statement
from reconciler.settings import Settings

#: Of every service, inside the network; published by the router.
PORT = 5555
#: The table that the old statement joins with, whatever the settings were.
UNS_MAP = "asset_to_uns_map"
_TOPIC = re.compile(r"asset_stream_(.+)_topic", re.DOTALL)


class OldRole(StrEnum):
    """The kinds of services of the old system."""

    ROUTER = "router"
    GROUP = "group"
    STATE_API = "state API"


@dataclass(frozen=True)
class OldNames:
    """The names of the old system's services, and the port that its router publishes."""

    router: str = "serving_layer_router"
    state_api: str = "openfactory-state-api"
    group_prefix: str = "stream-api-group-"
    port: int = PORT

    def role(self, service: str) -> OldRole | None:
        """Return the role of a service with this name, None where it is not a name of the old system."""
        if service == self.router:
            return OldRole.ROUTER
        if service == self.state_api:
            return OldRole.STATE_API
        return OldRole.GROUP if service.startswith(self.group_prefix) else None

    def of_group(self, group: str) -> str:
        """Return the name of a group's service."""
        return self.group_prefix + re.sub(r"[^a-z0-9]+", "-", group.lower()).strip("-")


VARIABLES: Mapping[OldRole, frozenset[str]] = {
    OldRole.ROUTER: frozenset(
        {"KSQLDB_URL", "KAFKA_BROKER", "KSQLDB_ASSETS_STREAM", "KSQLDB_UNS_MAP", "LOG_LEVEL", "ENVIRONMENT"}
    ),
    OldRole.GROUP: frozenset({"KAFKA_BROKER", "KAFKA_TOPIC", "KAFKA_CONSUMER_GROUP_ID"}),
    OldRole.STATE_API: frozenset({"KSQLDB_URL", "KSQLDB_ASSETS_TABLE", "LOG_LEVEL", "DEPLOYMENT_PLATFORM"}),
}
"""All variables of each kind of service."""


@dataclass(frozen=True)
class OldService:
    """One service with a name of the old system.

    Attributes:
        id: of the platform.
        version: for a write.
        name: of the service.
        role: by its name.
        group: the value of its group, None for the others.
        ports: published ports.
        running: tasks that run.
        wanted: tasks asked for.
        deviation: the difference from the old system's service, ``""`` for none; only a service without one is changed.
        networks: by name.
        variables: of its environment.
    """

    id: str
    version: int
    name: str
    role: OldRole
    group: str | None
    ports: tuple[int, ...]
    running: int
    wanted: int
    deviation: str = ""
    networks: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


def find_mismatch(service: OldService, settings: Settings, groups: Collection[str] | None) -> str:
    """Return why a service belongs to the old system of another plant; ``""`` where it belongs to ours.

    Args:
        service: with a name of the old system.
        settings: of the new system.
        groups: of the UNS map; None where it was not read.
    """
    variables = service.variables
    if settings.docker_network not in service.networks:
        return f"its network is {', '.join(service.networks) or 'none'}, not {settings.docker_network} (DOCKER_NETWORK)"
    if variables.get("KAFKA_BROKER", settings.kafka_broker) != settings.kafka_broker:
        return f"its KAFKA_BROKER is {mask(variables['KAFKA_BROKER'])}, not {settings.kafka_broker}"
    ksqldb = variables.get("KSQLDB_URL", settings.url_for_services)
    if _address(ksqldb) not in (_address(settings.url_for_services), _address(settings.ksqldb_url)):
        return f"its KSQLDB_URL is {mask(ksqldb)}, not {settings.url_for_services}"
    if groups is not None and service.group is not None and service.group not in groups:
        return f"the UNS map has no group {service.group!r}"
    return ""


def _address(url: str) -> str:
    return strip_user(url).rstrip("/")


class OldServices(Protocol):
    """The old system's services on a platform; methods raise `PlatformError` and nothing else on purpose."""

    def observe(self) -> tuple[OldService, ...]:
        """Every service with a name of the old system, those with deviations too."""

    def publish(self, service: OldService, port: int | None) -> None:
        """Publish a service's port through the ingress network, None for no port; its tasks are replaced."""

    def remove(self, service: OldService) -> None:
        """Remove it; one that is already gone is no error."""


@dataclass(frozen=True)
class OldStream:
    """A stream exactly as the old system defines it.

    Attributes:
        name: as stored.
        group: the value of its filter.
        stand_in: it is ours: the same definition under another name, so that the topic keeps receiving data.
    """

    name: str
    group: str
    stand_in: bool

    @property
    def topic(self) -> str:
        """The topic that the old group service reads."""
        return topic_of(self.group)


def topic_of(group: str) -> str:
    """Return the topic of a group's old stream."""
    return f"asset_stream_{group}_topic"


def original_name(group: str) -> str:
    """Return the name of a group's old stream as stored: written without quotes, so in upper case."""
    return f"asset_stream_{group}".upper()


def stand_in_name(group: str, settings: Settings) -> str:
    """Return the name of the stream with the same definition that replaces the original when its name is needed."""
    return re.sub(r"[^A-Z0-9_]", "_", settings.reconciler_owner.upper()) + "_STANDIN_" + original_name(group)


def find_old_streams(queries: Mapping[str, LiveQuery], settings: Settings) -> tuple[OldStream, ...]:
    """Find the old system's streams and their stand-ins among all queries, by definition and name."""
    found = []
    for name, query in sorted(queries.items()):
        definition = definition_of(query.text)
        topic = _TOPIC.fullmatch(definition.topic) if definition else None
        if definition is None or topic is None:
            continue
        group = topic[1]
        names = original_name(group), stand_in_name(group, settings)
        if name in names and _has_old_form(definition, group, settings):
            found.append(OldStream(name, group, stand_in=name != names[0]))
    return tuple(found)


def is_old_stream(statement: str, stream: OldStream, settings: Settings) -> bool:
    """Whether a stream's statement is the old system's for its group."""
    definition = definition_of(statement)
    if definition is None or definition.name != stream.name:
        return False
    return _has_old_form(definition, stream.group, settings)


def _has_old_form(definition: Definition, group: str, settings: Settings) -> bool:
    wanted = definition_of(create_old_stream(group, "X", settings).sql)
    return wanted is not None and _relevant_parts(definition) == _relevant_parts(wanted)


def _relevant_parts(definition: Definition) -> tuple[object, ...]:
    shape = definition.source, definition.topic, definition.columns, definition.filter, definition.join
    return (*shape, definition.rest, definition.properties.get("VALUE_FORMAT"))


def create_old_stream(group: str, name: str, settings: Settings, retention_ms: int | None = None) -> Statement:
    """Return the statement that makes a group's old stream under a name, over its topic as it is.

    It has no offset: then it begins with the present events, because earlier ones are in the topic already, and with
    the whole map. An explicit ``latest`` would apply to the map too, which would then be empty (measured).
    """
    retention = "" if retention_ms is None else f", RETENTION_MS={retention_ms}"
    source, table = identifier(fold_name(settings.ksqldb_assets_stream)), identifier(fold_name(UNS_MAP))
    level = literal(settings.uns_fastapi_group_grouping_level)
    text = (
        f"CREATE STREAM {identifier(name)} "
        f"WITH (KAFKA_TOPIC={literal(topic_of(group))}, VALUE_FORMAT='JSON'{retention}) "
        f"AS SELECT S.* FROM {source} S JOIN {table} H ON S.ASSET_UUID = H.ASSET_UUID "
        f"WHERE H.UNS_LEVELS[{level}] = {literal(group)} EMIT CHANGES;"
    )
    return create_statement(text, "create", name)

"""The system before this one, as it left its objects behind: names, shapes and the statement of its streams. Pure.

Source: the public repository of the OpenFactory asset API (routing layer, releases 0.4.x): one service and one join for
each group, a router on port 5555, a state API, no labels on any of them. What differs from that in anything is somebody
else's, or was changed by somebody: it is shown and never touched.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from openfactory_common.ksqldb.wire import identifier, literal, stored
from openfactory_common.settings_types import masked, without_user
from reconciler.domain.observed import LiveQuery
from reconciler.ksqldb.definition import Definition, definition_of
from reconciler.ksqldb.entities import Statement
from reconciler.ksqldb.statements import PROPERTIES
from reconciler.settings import Settings

#: Inside and outside, of the router and of every other service.
PORT = 5555
#: The table that the old statement joins with, whatever its settings said.
UNS_MAP = "asset_to_uns_map"
_TOPIC = re.compile(r"asset_stream_(.+)_topic", re.DOTALL)


class Role(StrEnum):
    """What a service of the old system is for."""

    ROUTER = "router"
    GROUP = "group"
    STATE_API = "state API"


@dataclass(frozen=True)
class Names:
    """How the old system names its services, and the one port that its router publishes."""

    router: str = "serving_layer_router"
    state_api: str = "openfactory-state-api"
    group_prefix: str = "stream-api-group-"
    port: int = PORT

    def role(self, service: str) -> Role | None:
        """Return what a service of this name would be for, None where it is no name of the old system."""
        if service == self.router:
            return Role.ROUTER
        if service == self.state_api:
            return Role.STATE_API
        return Role.GROUP if service.startswith(self.group_prefix) else None

    def of_group(self, group: str) -> str:
        """Return the name of a group's service."""
        return self.group_prefix + re.sub(r"[^a-z0-9]+", "-", group.lower()).strip("-")


VARIABLES: Mapping[Role, frozenset[str]] = {
    Role.ROUTER: frozenset(
        {"KSQLDB_URL", "KAFKA_BROKER", "KSQLDB_ASSETS_STREAM", "KSQLDB_UNS_MAP", "LOG_LEVEL", "ENVIRONMENT"}
    ),
    Role.GROUP: frozenset({"KAFKA_BROKER", "KAFKA_TOPIC", "KAFKA_CONSUMER_GROUP_ID"}),
    Role.STATE_API: frozenset({"KSQLDB_URL", "KSQLDB_ASSETS_TABLE", "LOG_LEVEL", "DEPLOYMENT_PLATFORM"}),
}
"""Every variable of each kind of service, no more and no fewer."""


@dataclass(frozen=True)
class OldService:
    """One service with a name of the old system.

    Attributes:
        id: of the platform.
        version: that a write must carry.
        name: of the service.
        role: what its name says that it is for.
        group: the value of its group, None for the others.
        ports: published ports.
        running: tasks that run.
        wanted: tasks asked for.
        odd: in what it is not the old system's; ``""`` where it is in everything. Only such a one is ever written.
        networks: names of those that it is in.
        variables: of its environment.
    """

    id: str
    version: int
    name: str
    role: Role
    group: str | None
    ports: tuple[int, ...]
    running: int
    wanted: int
    odd: str = ""
    networks: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


def elsewhere(service: OldService, settings: Settings, groups: Collection[str] | None) -> str:
    """Say in what a service is of another plant's old system; ``""`` where it is of ours.

    Args:
        service: with a name of the old system.
        settings: of the new system.
        groups: that the UNS map names; None where it was not asked.
    """
    said = service.variables
    if settings.docker_network not in service.networks:
        return f"its network is {', '.join(service.networks) or 'none'}, not {settings.docker_network} (DOCKER_NETWORK)"
    if said.get("KAFKA_BROKER", settings.kafka_broker) != settings.kafka_broker:
        return f"its KAFKA_BROKER is {masked(said['KAFKA_BROKER'])}, not {settings.kafka_broker}"
    ksqldb = said.get("KSQLDB_URL", settings.url_for_services)
    if _address(ksqldb) not in (_address(settings.url_for_services), _address(settings.ksqldb_url)):
        return f"its KSQLDB_URL is {masked(ksqldb)}, not {settings.url_for_services}"
    if service.role is Role.GROUP and groups is not None and service.group is not None and service.group not in groups:
        return f"the UNS map names no group {service.group!r}"
    return ""


def _address(url: str) -> str:
    return without_user(url).rstrip("/")


class OldServices(Protocol):
    """The old system's services on a platform; every method raises `PlatformError` and nothing else on purpose."""

    def observe(self) -> tuple[OldService, ...]:
        """Every service with a name of the old system, the odd ones too."""

    def publish(self, service: OldService, port: int | None) -> None:
        """Publish a service's port through the ingress network, None for not at all; its tasks are replaced."""

    def remove(self, service: OldService) -> None:
        """Remove it; one that is already gone is no error."""


@dataclass(frozen=True)
class OldStream:
    """A stream exactly as the old system defines it.

    Attributes:
        name: as stored.
        group: the value that it filters by.
        stand_in: it is ours: the same definition under another name, so that the topic stays fed.
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
    """Return the name under which the same definition goes on when the original's name is needed."""
    return re.sub(r"[^A-Z0-9_]", "_", settings.reconciler_owner.upper()) + "_STANDIN_" + original_name(group)


def old_streams(queries: Mapping[str, LiveQuery], settings: Settings) -> tuple[OldStream, ...]:
    """Find the old system's streams and their stand-ins among all queries, by definition and name."""
    found = []
    for name, query in sorted(queries.items()):
        definition = definition_of(query.text)
        topic = _TOPIC.fullmatch(definition.topic) if definition else None
        if definition is None or topic is None or not _is_old(definition, topic[1], settings):
            continue
        if name in (original_name(topic[1]), stand_in_name(topic[1], settings)):
            found.append(OldStream(name, topic[1], name != original_name(topic[1])))
    return tuple(found)


def is_old(statement: str, stream: OldStream, settings: Settings) -> bool:
    """Whether a stream's own statement is the old system's for its group."""
    definition = definition_of(statement)
    return definition is not None and definition.name == stream.name and _is_old(definition, stream.group, settings)


def _is_old(definition: Definition, group: str, settings: Settings) -> bool:
    wanted = definition_of(_select(group, "X", settings))
    return wanted is not None and _parts(definition) == _parts(wanted)


def _parts(definition: Definition) -> tuple[object, ...]:
    shape = definition.source, definition.topic, definition.columns, definition.filter, definition.join
    return (*shape, definition.rest, definition.properties.get("VALUE_FORMAT"))


def _select(group: str, name: str, settings: Settings, retention_ms: int | None = None) -> str:
    kept = "" if retention_ms is None else f", RETENTION_MS={retention_ms}"
    source, table = identifier(stored(settings.ksqldb_assets_stream)), identifier(stored(UNS_MAP))
    level = literal(settings.uns_fastapi_group_grouping_level)
    return (
        f"CREATE STREAM {identifier(name)} WITH (KAFKA_TOPIC={literal(topic_of(group))}, VALUE_FORMAT='JSON'{kept}) "
        f"AS SELECT S.* FROM {source} S JOIN {table} H ON S.ASSET_UUID = H.ASSET_UUID "
        f"WHERE H.UNS_LEVELS[{level}] = {literal(group)} EMIT CHANGES;"
    )


def create(group: str, name: str, settings: Settings, retention_ms: int | None = None) -> Statement:
    """Return the statement that makes a group's old stream under a name, over its topic as it is.

    It names no offset: then it begins with the events of now, for what came before is in the topic already, and with
    the whole map. An explicit ``latest`` would count for the map too, which would be empty to it (measured).
    """
    text = _select(group, name, settings, retention_ms)
    return Statement(text, dict(PROPERTIES), "create", name, f"stream/`{name}`/create")

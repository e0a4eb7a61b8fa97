"""What helps against an error that repetition does not cure: the one table of error texts. Pure.

An engine's texts differ between versions (a missing image is ``No such image`` until 29.5 and ``failed to resolve
reference`` from 29.6 on), so an entry may have several, and nothing but advice depends on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum, auto

from reconciler.domain.services import Kind, LiveService, Publish, ServiceSpec


class _Source(Enum):
    """Where a text comes from."""

    KSQLDB = auto()
    ENGINE = auto()
    TASK_STATE = auto()


_ASSETS = "{KSQLDB_ASSETS_STREAM} (KSQLDB_ASSETS_STREAM)"
_MAP = "{join_table} (KSQLDB_UNS_JOIN_TABLE or KSQLDB_UNS_MAP)"
_DELETE = "`kafka-topics --bootstrap-server {KAFKA_BROKER} --delete --topic {topic}`"
_SMALL_NETWORK = "no address is free in the network {network} (DOCKER_NETWORK{}): create one with a larger subnet"

#: Regular expressions for a text, without regard to case and line ends, and what helps. The names in braces are
#: settings, what `_names` returns, or groups of the expression.
_TABLE: Mapping[_Source, Mapping[str, str]] = {
    _Source.KSQLDB: {
        r"kafka topic with the name '(?P<topic>[^']*)' already exists, with different ": (
            f"the topic {{topic}} has other settings than its stream needs and must be deleted: {_DELETE}; "
            "the operator then creates both again"
        ),
        r"number of partitions don't match": (
            f"the topics of {_ASSETS} and of {_MAP} must have equally many partitions: create one of them again"
        ),
        r"not authorized|authorization|unauthorized|forbidden": (
            "grant the ksqlDB server in Kafka and in the schema registry, or KSQLDB_USERNAME, what it needs"
        ),
        r"topic\(s\): \[(?P<topic>[^\]]*)\]": (
            f"the topic {{topic}} is gone from Kafka: create it again, or correct the names of {_ASSETS} and {_MAP}"
        ),
        r"\b(does not exist\b|could not find stream/table)": f"{_ASSETS} or {_MAP} does not exist: correct the names",
        r"column .* cannot be resolved": (
            f"{_ASSETS} or {_MAP} lacks a column: docs/ksqldb.md lists those that are read"
        ),
        r"active, persistent queries to exceed": (
            "raise ksql.query.persistent.active.limit in the server's settings, or group by a coarser level"
        ),
        r"corruption in the command topic": "restart the ksqlDB server: it executes no statement until then",
        r"replication factor: \d+ larger than available brokers": (
            "Kafka has fewer brokers than replicas are wanted: lower ksql.internal.topic.replicas in the server's "
            "settings, or start the other brokers"
        ),
        r"PolicyViolation|policy violation": (
            "a policy of Kafka refuses the topic: compare it with SHARED_RETENTION and GROUP_RETENTION"
        ),
        r"collides with existing topic": "Kafka has a topic that differs in . and _ only: delete or rename that one",
        r"refusing to delete topic": "set DELETE_TOPICS=false, or drop what else uses the topic",
        r"overrides set locally are prohibited": (
            "take the properties that the message names out of ksql.properties.overrides.denylist of the server"
        ),
        r"isn't queryable|not a materialized table|table is not materialized": (
            "KSQLDB_UNS_MAP and KSQLDB_ASSETS_TABLE must be made by CREATE TABLE ... AS SELECT"
        ),
        r"missing where clause|where clause missing key": (
            "set ksql.query.pull.table.scan.enabled=true in the server's settings"
        ),
        r"pull queries are disabled|ksql\.pull\.queries\.enable": (
            "set ksql.pull.queries.enable=true in the server's settings"
        ),
        r"max(imum)? (number of )?(concurrent )?push queries|ksql\.max\.push\.queries": (
            "raise ksql.max.push.queries in the server's settings: each routing layer process needs one"
        ),
        r"schema registry": (
            "the ksqlDB server does not reach its schema registry, or has none: ksql.schema.registry.url of the server"
        ),
        r"is read by |read from this source|reads it, is in the way": "drop what reads it: it is kept until then",
    },
    _Source.ENGINE: {
        r"port ('?\d+'? )?(is )?already (in use|allocated)|address already in use|ports are not available": (
            "port {port} ({port_variable}) is taken on the node: free it, or publish another one"
        ),
        r"insufficient resources": "add cores to the Swarm, or lower {reservation_variable}",
        r"range of cpus is from": "the node has fewer cores: lower {limit_variable}",
        r"no space left on device": "the disk of the node is full: `docker system df` there shows by what",
        r"exit \(137\)(?!: dockerexec)|exit code 137|out of memory|oom": (
            "its task was killed: it needs more memory than it may have, or the node has too little"
        ),
        r"no such image|failed to resolve reference|manifest (unknown|for \S+ not found)|image \S+ is not here": (
            "push the image, or correct {image_variable} ({image})"
        ),
        r"pull access denied|unauthorized|authentication required|no basic auth credentials|denied:|is denied|"
        r"insufficient_scope": (
            "the repository of {image} ({image_variable}) requires a login: `docker login` where the operator runs"
        ),
        r"toomanyrequests|rate limit": "the repository of {image} limits pulls: log in, or use a mirror",
        r"(registry|/v2/|pull|image).*(i/o timeout|connection refused|no such host|TLS handshake|deadline exceeded)": (
            "the node does not reach the repository of {image} ({image_variable})"
        ),
        r"x509|certificate signed by unknown authority|HTTP response to HTTPS client": (
            "the node does not trust the repository of {image} ({image_variable}): give its engine the certificate "
            "(/etc/docker/certs.d), or insecure-registries"
        ),
        r"executable file not found|exec:? .*no such file or directory": (
            "{image} ({image_variable}) has no such program: is it the image for this service?"
        ),
        r"no suitable node|scheduling constraints|not available for new tasks|unsupported platform": (
            "check `docker node ls`, and the labels in `docker node inspect NODE`: no node meets its requirements"
        ),
        r"unhealthy": "its healthcheck fails: `docker inspect` shows its output; does the image listen on its port?",
        r"exec format error|no matching manifest for|no match for platform": (
            "{image} ({image_variable}) is of another processor than the node"
        ),
        r"read-only file system|operation not permitted|permission denied": (
            "the program writes files, or needs a capability: {hardened_variable}=false"
        ),
        r"no such network|network \S+ not found|could not find network": (
            "the network {network} (DOCKER_NETWORK) is gone"
        ),
        r"cannot be used with services|swarm-scoped network|not manually attachable": (
            "create the network {network} (DOCKER_NETWORK) for this platform: "
            "`docker network create --driver overlay --attachable` for swarm, `--driver bridge` for docker"
        ),
        r"error creating vxlan interface|subnet sandbox join failed|no chain/target/match by that name": (
            "the network on the node is broken: restart its engine"
        ),
        r"non-overlapping ipv4 address pool|predefined address pools|pool overlaps": (
            "the engine has no free subnet: `docker network prune`, or create {network} (DOCKER_NETWORK) with --subnet"
        ),
        r"network attachments|addresses? .*exhausted|no available (ipv4 |ip )?address|could not find an available ip": (
            _SMALL_NETWORK.replace("{}", "")
        ),
        r"(secret|config) reference|(secret|config)s?( \S+)? not found": "a secret or config that it mounts is gone",
        r"(minimum|maximum) supported api version": (
            "this engine is too old or too new (docs/versions.md): unset DOCKER_API_VERSION, or use another one"
        ),
        r"not a swarm manager|not part of a swarm": "run `docker swarm init` there, or set DOCKER_HOST to a manager",
        r"does not have a leader|no elected cluster leader": (
            "more than half of the Swarm's managers must run: check `docker node ls` at one of them"
        ),
        r"bind source path does not exist|mount source path": (
            "the engine needs REGISTRY_DIR under the same path as the operator"
        ),
        r"exit code 0": "its program ends: check its log",
    },
    #: The states in which tasks may stay without an error, and the likely causes.
    _Source.TASK_STATE: {
        r"\bstate new\b": _SMALL_NETWORK.replace("{}", "; a /24 has some 250"),
        r"\bstate allocated\b": "the Swarm's scheduler makes no progress: check `docker node ls`",
        r"\bstate pending\b": "no node accepts it: check `docker node ls`, and {reservation_variable}",
        r"\bstate assigned\b": "the engine of its node does not answer: check `docker node ls`",
        r"\bstate accepted\b": "the engine of its node makes no progress: check the engine's log there",
        r"\bstate preparing\b": (
            "its node pulls {image} ({image_variable}): is the repository reachable, has the node space?"
        ),
        r"\bstate ready\b": "a previous task does not end: check `docker service ps`",
        r"\bstate starting\b": "its healthcheck does not succeed: does the image listen on its port?",
        r"\bstate created\b": "the engine did not start it: check the engine's log",
        r"\bstate restarting\b": "its program ends: check its log",
        r"\bstate paused\b": "it was paused by hand: `docker unpause`",
    },
}
_PREFIX = {Kind.GROUP: "FASTAPI_GROUP", Kind.ROUTING_LAYER: "ROUTING_LAYER", Kind.STATE_API: "STATE_API"}


def statement_advice(error: str, names: Mapping[str, str]) -> str | None:
    """Return what to do about a statement's error that repetition does not cure; None where waiting may help.

    Args:
        error: of a statement.
        names: what the braces of the table stand for.
    """
    return next(_find_advice(_Source.KSQLDB, error, names), None)


def service_advice(live: LiveService) -> tuple[str, ...]:
    """Return what helps a service that does not run: by its error or, without one, by what its tasks wait for."""
    source, text = (_Source.ENGINE, live.error) if live.error else (_Source.TASK_STATE, live.waits)
    return tuple(_find_advice(source, text, _names(live.spec)))


def engine_advice(error: str, spec: ServiceSpec | None, **names: str) -> tuple[str, ...]:
    """Return what helps against the engine's refusal of a write, or of a request about the service ``spec``.

    Args:
        error: in the engine's words.
        spec: of the service that it is about; None for none.
        names: what braces of the table stand for, where ``spec`` does not say it.
    """
    return tuple(_find_advice(_Source.ENGINE, error, {**_names(spec), **names}))


def _find_advice(source: _Source, text: str, names: Mapping[str, str]) -> Iterator[str]:
    text = " ".join(text.split())
    for pattern, helps in _TABLE[source].items():
        found = re.search(pattern, text, re.IGNORECASE)
        if found is not None:
            yield helps.format_map({**found.groupdict(), **names})


def _names(spec: ServiceSpec | None) -> dict[str, str]:
    prefix = _PREFIX[spec.kind] if spec else "FASTAPI_GROUP"
    ports = [port.published for port in spec.ports if port.mode is not Publish.NONE] if spec else []
    routing = spec is not None and spec.kind is Kind.ROUTING_LAYER
    return {
        "port": ", ".join(map(str, ports)) or "of the service",
        "port_variable": "ROUTING_LAYER_PORT" if routing else "FASTAPI_GROUP_PORT_BASE",
        "image": spec.image if spec else "its image",
        "image_variable": f"{prefix}_IMAGE",
        "reservation_variable": f"{prefix}_CPU_RESERVATION",
        "limit_variable": f"{prefix}_CPU_LIMIT",
        "hardened_variable": f"{prefix}_HARDENED",
        "network": spec.network if spec else "of the service",
    }

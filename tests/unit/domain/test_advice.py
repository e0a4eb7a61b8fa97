"""What helps against errors that repetition does not cure: texts as real servers and engines send them."""

from __future__ import annotations

import pytest

from reconciler.domain.advice import engine_advice, service_advice, statement_advice
from reconciler.domain.services import Kind, LiveService, Port, Publish, ServiceSpec

NAMES = {"KAFKA_BROKER": "kafka:9092", "KSQLDB_ASSETS_STREAM": "events", "join_table": "map"}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            "500: A Kafka topic with the name 'asset_stream_Weld' already exists, with different partition\n\t/",
            "`kafka-topics --bootstrap-server kafka:9092 --delete --topic asset_stream_Weld`",
        ),
        (
            "Could not determine output schema: Can't join `S` with `H` since the number of partitions\n\tdon't match.",
            "the topics of events (KSQLDB_ASSETS_STREAM) and of map",
        ),
        ("Failed to Describe Kafka Topic(s): [x_topic]", "the topic x_topic is gone"),
        ("Exception while preparing statement: EVENTS does not exist.", "events (KSQLDB_ASSETS_STREAM) or map"),
        ("Line: 1, Col: 9: Column 'S.TAG' cannot be resolved.", "lacks a column"),
        (
            "as it would cause the number of active, persistent queries to exceed the configured limit",
            "group by a coarser",
        ),
        ("The server has detected corruption in the command topic due to modifications", "restart the ksqlDB server"),
        ("User is not authorized", "KSQLDB_USERNAME"),
        ("Authorization denied to Write on topic(s): [asset_stream_Weld]", "grant the ksqlDB server in Kafka"),
        ("TopicAuthorizationException: Not authorized to access topics: [x]", "grant the ksqlDB server in Kafka"),
        ("HTTP 401 Unauthorized", "KSQLDB_USERNAME"),
        ("Replication factor: 3 larger than available brokers: 1.", "ksql.internal.topic.replicas"),
        ("The target replication factor of 3 cannot be reached: Policy Violation", "GROUP_RETENTION"),
        (
            "Failed to guarantee existence of topic a_b: Topic 'a_b' collides with existing topic: a.b",
            "delete or rename",
        ),
        ("Refusing to delete topic. Found other data sources (X) using topic t", "DELETE_TOPICS=false"),
        (
            "One or more properties overrides set locally are prohibited by the KSQL server",
            "denylist",
        ),
        ("The `MAP` table isn't queryable. To derive a queryable table, you can", "CREATE TABLE ... AS SELECT"),
        ("Can't pull from `MAP` as it's not a materialized table.", "CREATE TABLE ... AS SELECT"),
        (
            "Missing WHERE clause.  See https://cnfl.io/queries for more info.",
            "ksql.query.pull.table.scan.enabled=true",
        ),
        ("Pull queries are disabled. See https://cnfl.io/queries", "ksql.pull.queries.enable=true"),
        (
            "cause the number of active, push queries to exceed the configured limit: 'ksql.max.push.queries'",
            "raise ksql.max.push.queries",
        ),
        ("Schema registry fetch for topic value request failed. Topic: events", "ksql.schema.registry.url"),
        ("stream X is read by THEIRS: drop those first", "drop what reads it"),
    ],
)
def test_a_statements_error_has_its_advice(error: str, expected: str) -> None:
    """Each text has its advice, with the names that are configured, whatever its line ends."""
    found = statement_advice(error, NAMES)
    assert found is not None
    assert expected in found


@pytest.mark.parametrize(
    "error",
    [
        "",
        "no answer",
        "Producer has been fenced by another producer",
        "503: not yet ready",
        "not final after 30 s",
        "{x}",
    ],
)
def test_an_error_that_waiting_may_cure_has_no_advice(error: str) -> None:
    """Nothing has to be done where waiting may help."""
    assert statement_advice(error, NAMES) is None


PREFIX = {Kind.GROUP: "FASTAPI_GROUP", Kind.ROUTING_LAYER: "ROUTING_LAYER", Kind.STATE_API: "STATE_API"}


def live(kind: Kind = Kind.GROUP, error: str = "", waits: str = "") -> LiveService:
    """Return a service that does not run."""
    ports = (Port(8000, 6042, Publish.HOST),)
    spec = ServiceSpec("s", kind, None, "acme/x:1", {}, 1, 1.0, 0.5, network="net-a", ports=ports)
    return LiveService("1", 1, "s", "o", spec, 0, error=error, waits=waits)


ERRORS = [
    ("No such image: acme/x:1", "push the image, or correct {p}_IMAGE (acme/x:1)"),
    ('failed to resolve reference "docker.io/acme/x:1": docker.io/acme/x:1: not found', "correct {p}_IMAGE"),
    ("POST /images/create: manifest for acme/x:1 not found: manifest unknown (HTTP 404)", "correct {p}_IMAGE"),
    ("image acme/x:1 is not here and cannot be pulled: x", "correct {p}_IMAGE"),
    ("pull access denied for acme/x, repository does not exist or may require 'docker login'", "docker login"),
    ("toomanyrequests: You have reached your pull rate limit", "limits pulls"),
    ('Get "https://r/v2/": dial tcp: lookup r: no such host', "does not reach the repository of acme/x:1 ({p}_IMAGE)"),
    ('Get "https://r/v2/": net/http: TLS handshake timeout', "does not reach the repository"),
    ("no suitable node (insufficient resources on 2 nodes)", "lower {p}_CPU_RESERVATION"),
    ("no suitable node (host-mode port already in use on 1 node)", "port 6042"),
    ("driver failed: Bind for 0.0.0.0:6042 failed: port is already allocated", "port 6042"),
    ("listen tcp4 0.0.0.0:6042: bind: address already in use", "port 6042"),
    ("no suitable node (scheduling constraints not satisfied on 1 node)", "docker node ls"),
    ("no suitable node (1 node not available for new tasks)", "docker node ls"),
    ("node is missing network attachments, ip addresses may be exhausted", "no address is free in the network net-a"),
    ("could not find an available IP while allocating VIP", "no address is free in the network net-a"),
    ("no available IPv4 addresses on this network's address pools: net-a", "no address is free in the network net-a"),
    ("task: non-zero exit (137): dockerexec: unhealthy container", "healthcheck fails"),
    ("exec /x: exec format error", "of another processor"),
    ("OSError: [Errno 30] Read-only file system: '/app/x'", "{p}_HARDENED=false"),
    ("network net-a not found", "net-a (DOCKER_NETWORK) is gone"),
    ("port '6042' is already in use by service 'web' (1x) as an ingress port", "port 6042"),
    ("Ports are not available: exposing port TCP 0.0.0.0:6042 -> 0.0.0.0:0: listen tcp", "port 6042"),
    ("Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", "lower {p}_CPU_LIMIT"),
    ("failed to register layer: write /usr/lib/x: no space left on device", "the disk of the node is full"),
    ("task: non-zero exit (137)", "more memory than it may have"),
    ("requested access to the resource is denied", "docker login"),
    ("failed to authorize: insufficient_scope: authorization failed", "docker login"),
    ('Get "https://r/v2/": x509: certificate signed by unknown authority', "/etc/docker/certs.d"),
    ('Get "https://r/v2/": http: server gave HTTP response to HTTPS client', "insecure-registries"),
    ('starting container failed: exec: "app": executable file not found in $PATH', "has no such program"),
    ("no matching manifest for linux/arm64/v8 in the manifest list entries", "of another processor"),
    ("no match for platform in manifest: not found", "of another processor"),
    ("The network net-a cannot be used with services. Only networks scoped to the swarm", "--driver overlay"),
    ("Could not attach to network net-a: network net-a not manually attachable", "--attachable"),
    ("network sandbox join failed: error creating vxlan interface: file exists", "restart its engine"),
    ("iptables failed: iptables: No chain/target/match by that name.", "restart its engine"),
    ("could not find an available, non-overlapping IPv4 address pool among the defaults", "docker network prune"),
    ("all predefined address pools have been fully subnetted", "docker network prune"),
    ("rpc error: code = InvalidArgument desc = secret not found: key-1", "a secret or config that it mounts is gone"),
    ("configs not found: a, b", "a secret or config that it mounts is gone"),
    ("client version 1.40 is too old. Minimum supported API version is 1.44", "docs/versions.md"),
    ("client version 1.51 is too new. Maximum supported API version is 1.41", "docs/versions.md"),
    ("This node is not a swarm manager. Use docker swarm init", "docker swarm init"),
    ("rpc error: The swarm does not have a leader. It's possible that too few managers", "more than half"),
    ("invalid mount config for type bind: bind source path does not exist: /x", "REGISTRY_DIR"),
]


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(("error", "told"), ERRORS)
def test_an_engines_error_has_its_advice(kind: Kind, error: str, told: str) -> None:
    """Whatever engine says it, the variable of that service is named."""
    assert told.format(p=PREFIX[kind]) in " | ".join(service_advice(live(kind, error)))


ONE_CAUSE = [
    "task: non-zero exit (137): dockerexec: unhealthy container",
    "could not find an available, non-overlapping IPv4 address pool among the defaults",
    "port '6042' is already in use by service 'web' (1x) as an ingress port",
]


@pytest.mark.parametrize("error", ONE_CAUSE)
def test_a_text_that_resembles_another_has_its_own_advice_alone(error: str) -> None:
    """A check that fails ends with 137 too; a full list of subnets is not a full network."""
    assert len(service_advice(live(error=error))) == 1


def test_a_refused_write_has_advice_before_there_is_a_service() -> None:
    """Without a spec the variable is that of groups, and nothing else is claimed."""
    refused = "POST /services/create: rpc error: network net-a not found (HTTP 404)"
    assert engine_advice(refused, live().spec) == ("the network net-a (DOCKER_NETWORK) is gone",)
    assert engine_advice(refused, None) == ("the network of the service (DOCKER_NETWORK) is gone",)


def test_a_taken_port_names_its_variable() -> None:
    """The engine names neither: the port is the service's, the variable depends on what it is for."""
    taken = "no suitable node (host-mode port already in use on 1 node)"
    assert "(FASTAPI_GROUP_PORT_BASE)" in service_advice(live(Kind.GROUP, taken))[0]
    assert "(FASTAPI_GROUP_PORT_BASE)" in service_advice(live(Kind.STATE_API, taken))[0]
    assert "(ROUTING_LAYER_PORT)" in service_advice(live(Kind.ROUTING_LAYER, taken))[0]


STATES = [
    ("new", "no address is free in the network net-a (DOCKER_NETWORK"),
    ("allocated", "docker node ls"),
    ("pending", "FASTAPI_GROUP_CPU_RESERVATION"),
    ("assigned", "the engine of its node does not answer"),
    ("accepted", "log"),
    ("preparing", "pulls acme/x:1 (FASTAPI_GROUP_IMAGE)"),
    ("ready", "a previous task does not end"),
    ("starting", "healthcheck"),
    ("created", "log"),
    ("restarting", "log"),
    ("paused", "docker unpause"),
]


@pytest.mark.parametrize(("state", "told"), STATES)
def test_a_state_that_lasts_has_its_likely_cause(state: str, told: str) -> None:
    """Where the engine gives no error."""
    assert told in " | ".join(service_advice(live(waits=f"1 task in state {state}")))


@pytest.mark.parametrize("error", ["", "an unknown text", "{0} {x} {{"])
def test_what_is_not_known_has_no_advice(error: str) -> None:
    """Rather nothing than something wrong; a text is never a format."""
    assert service_advice(live(error=error)) == ()
    assert service_advice(LiveService("1", 1, "s", "o", None, 0, error=error, waits="1 task in state odd")) == ()

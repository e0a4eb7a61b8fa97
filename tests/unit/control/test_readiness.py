"""What the probes of a service's tasks find: every kind of answer, over real sockets."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest
import structlog
from structlog.testing import capture_logs

from reconciler.control import readiness
from reconciler.control.memory import find_suspects
from reconciler.control.readiness import Endpoint, ReadinessProber, ask_task, find_endpoint, judge_answers, resolve_host
from reconciler.domain.readiness import ProbeResult, Readiness, ReadyState
from reconciler.domain.services import Kind, LiveService, PlatformState, Port, Publish, ServiceSpec
from reconciler.planning.specs import routing_layer_spec, state_api_spec
from tests.harness.ports import free_port
from tests.harness.tasks import CLOSES, NO_HTTP, NOT_FOUND, READY, Behaviour, answer, issues, task
from tests.integration.ksqldb.tls import Authority
from tests.unit.planning.tables import settings

NAME = "ofa_group_Weld"
#: Not the default, which is asked at no path.
IMAGE = {"fastapi_group_image": "group-service:1"}
STATE_READY, NOT_READY, UNREACHABLE = ReadyState.READY, ReadyState.NOT_READY, ReadyState.UNREACHABLE


def live(
    name: str = NAME,
    replicas: int = 1,
    version: int = 1,
    running: int | None = None,
    ports: tuple[Port, ...] = (),
    kind: Kind = Kind.GROUP,
    **more: str,
) -> LiveService:
    """Return a service of ours whose tasks run."""
    group = name.removeprefix("ofa_group_") if kind is Kind.GROUP else None
    spec = ServiceSpec(name, kind, group, "a:1", {}, replicas, 0, 0, "n", ports)
    return LiveService(name, version, name, "ofa", spec, replicas if running is None else running, **more)  # type: ignore[arg-type]


def as_mapping(*services: LiveService) -> Mapping[str, LiveService]:
    """Return services as a platform does."""
    return {one.name.lower(): one for one in services}


def drip(connection: socket.socket) -> None:
    """Send a head slowly: no pause is long, and the whole takes several times as long as a task may take."""
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n":
        connection.sendall(bytes([byte]))
        threading.Event().wait(0.1)


def endless(connection: socket.socket) -> None:
    """Send a body without an end."""
    connection.sendall(b'HTTP/1.1 200 OK\r\n\r\n{"group": "')
    while True:
        connection.sendall(b"x" * 65536)


LONG = "x" * 400
LISTENS = "what listens on port {port} (FASTAPI_GROUP_PORT) does not speak HTTP"
NO_ANSWER = "no answer within 1 s on port {port}"
NOTE = "no readiness endpoint at /ready (404): any answer to HTTP counts"
ANSWERS: Sequence[tuple[str, Behaviour | None, ProbeResult, str]] = [
    ("ready", READY, ProbeResult.READY, ""),
    ("ready, not JSON", answer("200 OK", "ok"), ProbeResult.READY, ""),
    ("ready, no object", answer("200 OK", [1]), ProbeResult.READY, ""),
    ("ready, an odd group", answer("200 OK", {"group": 7}), ProbeResult.READY, ""),
    ("ready, nested too deeply", answer("200 OK", "[" * 60000), ProbeResult.READY, ""),
    ("issues", issues(["no partition assigned", "no Kafka"]), ProbeResult.NOT_READY, "no partition assigned; no Kafka"),
    ("one issue", issues("Kafka: broker:9092 refused"), ProbeResult.NOT_READY, "Kafka: broker:9092 refused"),
    ("no issue", issues([]), ProbeResult.NOT_READY, "answers 503 to GET /ready"),
    ("hostile", issues(["\x1b[31mred\u202e"]), ProbeResult.NOT_READY, "\\x1b[31mred\\u202e"),
    ("long", issues([LONG]), ProbeResult.NOT_READY, f"{LONG[:300]}..."),
    ("503 in words", answer("503 No", "warming\n up"), ProbeResult.NOT_READY, "warming up"),
    ("503, empty", answer("503 No"), ProbeResult.NOT_READY, "answers 503 to GET /ready"),
    ("500", answer("500 Oops", "Traceback"), ProbeResult.NOT_READY, "answers 500 to GET /ready"),
    ("401", answer("401 Who"), ProbeResult.NOT_READY, "answers 401 to GET /ready"),
    ("redirect", answer("302 Found", "", "Location: /"), ProbeResult.NOT_READY, "answers 302 to GET /ready"),
    (
        "another group",
        answer("200 OK", {"group": "Paint"}),
        ProbeResult.OTHER_GROUP,
        'answers for group "Paint": a stale address',
    ),
    (
        "another group, not ready",
        answer("503 No", {"group": "Paint", "issues": ["x"]}),
        ProbeResult.OTHER_GROUP,
        'answers for group "Paint": a stale address',
    ),
    ("no HTTP", NO_HTTP, ProbeResult.NO_HTTP, LISTENS),
    ("closes", CLOSES, ProbeResult.NO_HTTP, LISTENS),
    ("deaf", None, ProbeResult.NO_ANSWER, NO_ANSWER),
    ("a slow head", drip, ProbeResult.NO_ANSWER, NO_ANSWER),
]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a task have one second instead of two."""
    monkeypatch.setattr(readiness, "ANSWER_SECONDS", 1.0)


def endpoint(port: int, path: str = "/ready") -> Endpoint:
    """Return how group Weld is asked."""
    return Endpoint(NAME, NAME, 1, port, "FASTAPI_GROUP_PORT", path, "Weld")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("name", "behaviour", "result", "text"), ANSWERS, ids=[row[0] for row in ANSWERS])
def test_every_answer_has_its_meaning(name: str, behaviour: Behaviour | None, result: ProbeResult, text: str) -> None:
    """Only 200 is ready; everything else says why not."""
    del name
    with task(behaviour) as one:
        assert ask_task("127.0.0.1", endpoint(one.port)) == (result, text.format(port=one.port))
        assert len(one.requests) == 1, "a redirect was followed, or the probe repeated"
    assert one.requests[0].startswith("GET /ready HTTP/1.1\r\n")
    assert f"\r\nHost: {NAME}\r\n" in one.requests[0]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """TLS with a certificate of an authority that the operator does not know, for another name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority.make(tmp_path_factory.mktemp("tls") / "ca").sign("DNS:plant.example"))
    return context


TLS_ANSWERS = [row for row in ANSWERS if row[0] in ("ready", "issues", "deaf", "a slow head", "no HTTP", "closes")]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("name", "behaviour", "result", "text"), TLS_ANSWERS, ids=[row[0] for row in TLS_ANSWERS])
def test_a_task_with_tls_is_asked_by_https(
    tls: ssl.SSLContext, name: str, behaviour: Behaviour | None, result: ProbeResult, text: str
) -> None:
    """The same answers mean the same, and have the same time."""
    del name
    with task(behaviour, tls=tls) as one:
        asked = endpoint(one.port)._replace(tls=True)
        assert ask_task("127.0.0.1", asked) == (result, text.format(port=one.port))
    assert f"\r\nHost: {NAME}\r\n" in one.requests[0]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("behaviour", "result", "text"),
    [
        (READY, ProbeResult.NO_HTTP, "what listens on port {port} (FASTAPI_GROUP_PORT) does not speak TLS"),
        (None, ProbeResult.NO_ANSWER, NO_ANSWER),  # no handshake ever ends
    ],
)
def test_a_task_that_should_have_tls_and_has_not(behaviour: Behaviour | None, result: ProbeResult, text: str) -> None:
    """It is not ready: no client could read from it."""

    def answer_anything(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n") if behaviour else connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
        thread = threading.Thread(target=lambda: answer_anything(listener.accept()[0]), daemon=True)
        thread.start()
        assert ask_task("127.0.0.1", endpoint(port)._replace(tls=True)) == (result, text.format(port=port))
        thread.join(10)


def test_a_routing_layer_with_a_certificate_is_asked_by_https() -> None:
    """What its service has counts, and no other service has one."""
    secrets = {"routing_layer_tls_cert_secret": "cert-1", "routing_layer_tls_key_secret": "key-1"}
    given = settings(**secrets)
    assert find_endpoint(routing_layer_spec(given, "r"), given).tls
    assert not find_endpoint(state_api_spec(given, None), given).tls
    assert not find_endpoint(routing_layer_spec(settings(), "r"), given).tls


NO_SERVICE = "answers 404 to GET /ready and to GET /asset_stream: it is no group service"


@pytest.mark.parametrize(
    ("streams", "expected"),
    [
        (answer("422 Unprocessable Entity", {"detail": []}), (ProbeResult.READY, NOTE)),
        (endless, (ProbeResult.READY, NOTE)),
        (lambda connection: connection.recv(1), (ProbeResult.READY, NOTE)),  # its head comes with the first event
        (CLOSES, (ProbeResult.READY, NOTE)),
        (NOT_FOUND, (ProbeResult.NOT_READY, NO_SERVICE)),
    ],
)
@pytest.mark.usefixtures("quick")
def test_without_a_readiness_endpoint_the_streams_are_looked_for(
    streams: Behaviour, expected: tuple[ProbeResult, str]
) -> None:
    """An older image has none; a web server that knows neither path is no group service."""
    with task(NOT_FOUND) as one:
        one.streams = streams
        assert ask_task("127.0.0.1", endpoint(one.port)) == expected
        assert [request.split()[1] for request in one.requests] == ["/ready", "/asset_stream"]


def test_a_service_of_no_group_needs_no_streams() -> None:
    """The state API of the 0.4 system has no readiness endpoint."""
    with task(NOT_FOUND) as one:
        assert ask_task("127.0.0.1", endpoint(one.port)._replace(group=None)) == (ProbeResult.READY, NOTE)
        assert len(one.requests) == 1


def test_where_nothing_listens_the_variable_of_the_port_is_named() -> None:
    """The usual mistake: the image listens on another port."""
    port = free_port()
    text = f"nothing listens on port {port} (FASTAPI_GROUP_PORT)"
    assert ask_task("127.0.0.1", endpoint(port)) == (ProbeResult.REFUSED, text)


def test_of_a_body_only_the_beginning_is_read() -> None:
    """One without an end takes neither memory nor time: the status counts."""
    with task(endless) as one:
        assert ask_task("127.0.0.1", endpoint(one.port)).result is ProbeResult.READY
        assert one.broken.wait(20), "the connection is still read from"


@pytest.mark.parametrize("behaviour", [READY, NOT_FOUND, answer("500 Oops"), issues(["x"]), endless])
def test_with_an_empty_path_any_answer_to_http_counts(behaviour: Behaviour) -> None:
    """The existing system's image has no readiness endpoint."""
    with task(behaviour) as one:
        assert ask_task("127.0.0.1", endpoint(one.port, "")) == (ProbeResult.READY, "")
    assert one.requests[0].startswith("GET / HTTP/1.1\r\n")


def test_with_an_empty_path_a_deaf_task_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something must speak HTTP."""
    monkeypatch.setattr(readiness, "ANSWER_SECONDS", 0.5)
    with task(NO_HTTP) as one, task(None) as deaf:
        assert ask_task("127.0.0.1", endpoint(one.port, "")).result is ProbeResult.NO_HTTP
        assert ask_task("127.0.0.1", endpoint(deaf.port, "")).result is ProbeResult.NO_ANSWER


R, N = (ProbeResult.READY, ""), (ProbeResult.NOT_READY, "starts")
TOGETHER = [
    (1, [("10.0.0.1", R)], ProbeResult.READY, ""),
    (1, [("10.0.0.1", N)], ProbeResult.NOT_READY, "starts"),
    (2, [("10.0.0.1", R), ("10.0.0.2", R)], ProbeResult.READY, ""),
    (2, [("10.0.0.1", R), ("10.0.0.2", N)], ProbeResult.NOT_READY, "10.0.0.2: starts"),
    (2, [("10.0.0.1", N), ("10.0.0.2", N)], ProbeResult.NOT_READY, "10.0.0.1: starts; 10.0.0.2: starts"),
    (2, [("10.0.0.1", R)], ProbeResult.NOT_READY, "1 of 2 tasks has an address"),
    (3, [("10.0.0.1", R), ("10.0.0.2", R)], ProbeResult.NOT_READY, "2 of 3 tasks have an address"),
    (1, [("10.0.0.1", R), ("10.0.0.9", N)], ProbeResult.NOT_READY, "starts"),
    (1, [], ProbeResult.NO_NAME, f"its name {NAME} does not resolve"),
    (5, [(f"10.0.0.{i}", N) for i in range(5)], ProbeResult.NOT_READY, "10.0.0.2: starts; 2 more tasks"),
]


@pytest.mark.parametrize(("tasks", "answers", "result", "text"), TOGETHER)
def test_all_tasks_must_be_ready(
    tasks: int, answers: list[tuple[str, tuple[ProbeResult, str]]], result: ProbeResult, text: str
) -> None:
    """Clients come to each address; the ones that are not ready are named."""
    each = [(address, readiness.Answer(*one)) for address, one in answers]
    found = judge_answers(endpoint(8000)._replace(tasks=tasks), each)
    assert found.result is result
    assert found.text.endswith(text)
    assert bool(found.text) == bool(text)


def with_image(image: str) -> LiveService:
    """Return the service of a group with another image than the others."""
    made = live()
    assert made.spec is not None
    return replace(made, spec=replace(made.spec, image=image))


INGRESS, HOST = (Port(5555, 5555, Publish.INGRESS),), (Port(5555, 5555, Publish.HOST),)
LOCAL = (Port(8000, 6001, Publish.HOST),)
ROUTING, STATE = Kind.ROUTING_LAYER, Kind.STATE_API
ENDPOINTS = [
    (live(), {}, (NAME, NAME, 1, 8000, "FASTAPI_GROUP_PORT", "/ready", "Weld")),
    (live(replicas=3), {"fastapi_group_port": 5555, "fastapi_group_ready_path": ""}, (NAME, NAME, 3, 5555)),
    # A group may have the existing system's image alone: it hangs when it is asked at /ready.
    (with_image("acme/stream-api-x:1"), {}, (NAME, NAME, 1, 8000, "FASTAPI_GROUP_PORT", "", "Weld")),
    (live("s", kind=STATE), {"state_api_port": 80}, ("s", "s", 1, 80, "STATE_API_PORT", "/ready", None)),
    (live("r", kind=ROUTING, ports=HOST), {}, ("r", "r", 1, 5555, "ROUTING_LAYER_PORT", "/ready", None)),
    (live("r", kind=ROUTING, ports=INGRESS), {}, ("r", "tasks.r", 1, 5555)),
    (live("r", kind=ROUTING, ports=INGRESS), {"deployment_platform": "docker"}, ("r", "r", 1, 5555)),
    (live(ports=LOCAL), {"environment": "local", "swarm_node_host": "node"}, (NAME, "node", 1, 6001)),
]


@pytest.mark.parametrize(("service", "options", "expected"), ENDPOINTS)
def test_tasks_are_asked_where_they_listen(
    service: LiveService, options: dict[str, object], expected: tuple[object, ...]
) -> None:
    """By the service's name; behind a virtual IP by that of its tasks, and from outside at the published port."""
    assert service.spec is not None
    assert find_endpoint(service.spec, settings(**IMAGE, **options))[: len(expected)] == expected


def make_prober(port: int, addresses: Mapping[str, Sequence[str]], **options: object) -> ReadinessProber:
    """Return a prober for group services on a port, with a DNS of the test's own."""

    def resolve(host: str, _port: int) -> Sequence[str]:
        if host not in addresses:
            raise socket.gaierror(-2, "Name or service not known")
        return addresses[host]

    return ReadinessProber(settings(**IMAGE, fastapi_group_port=port, **options), resolve=resolve)


def states(found: Mapping[str, Readiness]) -> dict[str, ReadyState]:
    """Return the states alone."""
    return {name: one.state for name, one in found.items()}


def test_each_address_of_a_service_is_asked() -> None:
    """One task that is not ready among two is enough."""
    with task(READY) as good, task(issues(["starts"]), "127.0.0.2", good.port) as bad:
        prober = make_prober(good.port, {NAME: ("127.0.0.1", "127.0.0.2")})
        found = prober.probe(as_mapping(live(replicas=2)), 100.0)
        assert found == {NAME.lower(): Readiness(NOT_READY, "127.0.0.2: starts")}
        bad.behaviour = READY
        assert states(prober.probe(as_mapping(live(replicas=2)), 101.0)) == {NAME.lower(): STATE_READY}


def test_ready_is_lost_by_two_failures_in_a_row() -> None:
    """One lost answer is none; after it, the next probe is due at once."""
    with task(READY) as one:
        prober, services = make_prober(one.port, {NAME: ("127.0.0.1",)}), as_mapping(live())

        def probe(now: float, behaviour: Behaviour) -> Readiness:
            one.behaviour = behaviour
            return prober.probe(services, now)[NAME.lower()]

        assert (probe(0, READY).state, len(one.requests)) == (STATE_READY, 1)
        assert (probe(29, READY).state, len(one.requests)) == (STATE_READY, 1)
        assert (probe(30, issues(["x"])).state, len(one.requests)) == (STATE_READY, 2)
        assert (probe(31, READY).state, len(one.requests)) == (STATE_READY, 3)
        assert probe(61, issues(["x"])).state is STATE_READY
        assert (probe(62, issues(["x"])).state, probe(62, issues(["x"])).since) == (NOT_READY, 62)
        assert (probe(70, issues(["y"])).text, probe(70, issues(["y"])).since) == ("y", 62)
        assert (probe(71, READY).state, probe(72, READY).since, len(one.requests)) == (STATE_READY, 71, 9)


def test_a_result_is_of_one_version_of_a_service_that_runs() -> None:
    """After an update, and after its tasks were gone, a service begins anew: one failure is enough."""
    with task(READY) as one:
        prober = make_prober(one.port, {NAME: ("127.0.0.1",)})
        assert states(prober.probe(as_mapping(live()), 0)) == {NAME.lower(): STATE_READY}
        one.behaviour = issues(["x"])
        assert states(prober.probe(as_mapping(live(version=2)), 1)) == {NAME.lower(): NOT_READY}
        one.behaviour = READY
        assert states(prober.probe(as_mapping(live(version=2)), 2)) == {NAME.lower(): STATE_READY}
        for gone in (live(version=2, running=0), live(version=2, replicas=0), live("other")):
            assert prober.probe(as_mapping(gone), 3) == {}
        one.behaviour = issues(["x"])
        assert states(prober.probe(as_mapping(live(version=2)), 4)) == {NAME.lower(): NOT_READY}


def test_tasks_are_asked_also_while_an_update_is_in_progress() -> None:
    """Those of before serve until it is over, or for ever where it is stuck."""
    with task(READY) as one:
        for found in (live(update_state="updating"), live(update_state="paused", error="x"), live(running=2)):
            prober = make_prober(one.port, {NAME: ("127.0.0.1",)})
            assert states(prober.probe(as_mapping(found), 0)) == {NAME.lower(): STATE_READY}


OTHER = "ofa_group_Paint"


def test_a_name_that_does_not_resolve_is_a_failure_where_another_does() -> None:
    """The operator is in the network: clients do not find the service either."""
    with task(answer("200 OK")) as one:
        addresses = {OTHER: ("127.0.0.1",)}
        prober, both = make_prober(one.port, addresses), as_mapping(live(), live(OTHER))
        found = prober.probe(both, 0)
        assert found[NAME.lower()] == Readiness(NOT_READY, f"its name {NAME} does not resolve")
        assert found[OTHER.lower()].state is STATE_READY
        addresses.clear()  # inside once is inside: that no name resolves any more is a failure, too
        assert states(prober.probe(both, 100)) == {NAME.lower(): NOT_READY, OTHER.lower(): STATE_READY}
        assert states(prober.probe(both, 101)) == {NAME.lower(): NOT_READY, OTHER.lower(): NOT_READY}


def test_outside_of_the_network_the_engines_view_counts() -> None:
    """That is said once, and not before a name had time to appear; once a name resolves, tasks are asked."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    with task(READY) as one, capture_logs() as lines:
        addresses: dict[str, Sequence[str]] = {}
        prober, services = make_prober(one.port, addresses), as_mapping(live())
        assert [prober.probe(services, now) for now in (0, 4.9)] == [{}, {}]
        assert not lines
        assert prober.probe(services, 5) == {NAME.lower(): Readiness(UNREACHABLE)}
        assert prober.probe(services, 60) == {NAME.lower(): Readiness(UNREACHABLE)}
        assert [line["event"] for line in lines] == ["readiness is not probed"]
        addresses[NAME] = ("127.0.0.1",)
        assert states(prober.probe(services, 61)) == {NAME.lower(): UNREACHABLE}, "it is not asked for in each cycle"
        assert states(prober.probe(services, 90)) == {NAME.lower(): STATE_READY}


def test_a_cycle_does_not_wait_for_all_that_are_deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ones for which there was no time come first in the next cycle."""
    monkeypatch.setattr(readiness, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(readiness, "CYCLE_SECONDS", 0.4)
    names = [f"ofa_group_G{number:03}" for number in range(8 * readiness.AT_ONCE)]
    with task(None) as deaf:
        prober = make_prober(deaf.port, dict.fromkeys(names, ("127.0.0.1",)))
        services = as_mapping(*(live(name) for name in names))
        first = prober.probe(services, 0)
        assert 0 < len(first) < len(names)
        second = prober.probe(services, 1)
        assert len(second) > len(first)
        assert set(states(second).values()) == {NOT_READY}


def test_the_local_environment_is_asked_at_the_published_port() -> None:
    """No name is resolved for it."""
    with task(READY) as one:
        prober = make_prober(8000, {}, environment="local", swarm_node_host="127.0.0.1")
        services = as_mapping(live(ports=(Port(8000, one.port, Publish.HOST),)))
        assert states(prober.probe(services, 0)) == {NAME.lower(): STATE_READY}


def test_every_answer_is_counted() -> None:
    """One for each task, or one for a name that does not resolve."""
    counted: list[ProbeResult] = []
    with task(READY) as one:
        addresses = {NAME: ("127.0.0.1", "127.0.0.2")}

        def resolve(host: str, _port: int) -> Sequence[str]:
            return addresses.get(host, ())

        options = settings(**IMAGE, fastapi_group_port=one.port)
        ReadinessProber(options, counted.append, resolve).probe(as_mapping(live(), live(OTHER)), 0)
    assert sorted(counted) == [ProbeResult.NO_NAME, ProbeResult.READY, ProbeResult.REFUSED]


def test_a_lookup_that_does_not_end_is_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator on a machine without DNS must get to know that it is outside."""
    monkeypatch.setattr(readiness, "CYCLE_SECONDS", 0.1)
    monkeypatch.setattr(readiness, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(readiness, "DNS_SECONDS", 0.1)
    over = threading.Event()

    def resolve(_host: str, _port: int) -> Sequence[str]:
        over.wait(60)
        return ("127.0.0.1",)

    prober = ReadinessProber(settings(), resolve=resolve)
    assert [prober.probe(as_mapping(live()), now) for now in (0, 6)][1] == {NAME.lower(): Readiness(UNREACHABLE)}
    over.set()


def test_after_a_task_that_does_not_answer_no_other_of_its_service_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service with many tasks that hang would take the time of all others."""
    monkeypatch.setattr(readiness, "ANSWER_SECONDS", 0.5)
    with task(None) as deaf, task(READY, "127.0.0.2", deaf.port) as other:
        prober = make_prober(deaf.port, {NAME: ("127.0.0.1", "127.0.0.2")})
        found = prober.probe(as_mapping(live(replicas=2)), 0)
        assert found[NAME.lower()].text == f"127.0.0.1: no answer within 0.5 s on port {deaf.port}"
    assert other.requests == []


def ask_slowly(monkeypatch: pytest.MonkeyPatch, seconds: float) -> ReadinessProber:
    """Return a prober for a service with three tasks, each of which takes its time for a good answer."""

    def ask(_address: str, _endpoint: Endpoint) -> readiness.Answer:
        threading.Event().wait(seconds)
        return readiness.Answer(ProbeResult.READY)

    monkeypatch.setattr(readiness, "ask_task", ask)
    return make_prober(1, {NAME: ("127.0.0.1", "127.0.0.2", "127.0.0.3")})


def test_tasks_for_which_there_is_no_time_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is said of the first of them: the service's name does resolve."""
    monkeypatch.setattr(readiness, "CYCLE_SECONDS", 0.2)
    found = ask_slowly(monkeypatch, 0.3).probe(as_mapping(live(replicas=3)), 0)
    assert found == {NAME.lower(): Readiness(NOT_READY, "127.0.0.2: the tasks before it took too long")}


def test_a_service_that_is_still_asked_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left out, however often: nothing is known of it, and the operator is not outside."""
    for name in ("CYCLE_SECONDS", "ANSWER_SECONDS", "DNS_SECONDS"):
        monkeypatch.setattr(readiness, name, 0.1)
    prober = ask_slowly(monkeypatch, 5)
    assert [prober.probe(as_mapping(live(replicas=3)), now) for now in (0, 6)] == [{}, {}]


def test_addresses_are_those_of_ipv4_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that listens on 0.0.0.0 refuses connections by IPv6."""
    assert resolve_host("::1", 80) == ["::1"]
    four, six = socket.getaddrinfo("127.0.0.1", 80), socket.getaddrinfo("::1", 80)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **_options: [*six, *four, *four])
    assert resolve_host("ofa_group_Weld", 80) == ["127.0.0.1"]
    monkeypatch.undo()
    with pytest.raises(OSError, match=r"not known|failure"):
        resolve_host("no-such-name.invalid", 80)


READINESS = {"ready": Readiness(STATE_READY), "not": Readiness(NOT_READY), "far": Readiness(UNREACHABLE)}
SUSPECTS: Sequence[tuple[LiveService, bool, bool]] = [
    # the service, whether it is a suspect by what the probes say, and where nothing is probed
    (live("ready"), False, False),
    (live("not"), True, False),
    (live("far"), False, False),
    (live("unknown"), True, False),
    (live("ready", running=0), True, True),
    (live("ready", error="task: non-zero exit (1)"), True, True),
    (live("ready", update_state="updating"), True, True),
    (live("ready", replicas=0), False, False),
]


@pytest.mark.parametrize(("service", "probed", "unprobed"), SUSPECTS)
def test_the_tasks_of_whatever_is_not_ready_are_read(service: LiveService, probed: bool, unprobed: bool) -> None:
    """One that crashes in a loop looks as it should between two ends; zero tasks are as they should be."""
    state = PlatformState({service.name: service})
    assert find_suspects(state, READINESS) == ({service.name} if probed else set())
    assert find_suspects(state, None) == ({service.name} if unprobed else set())


def test_a_probe_that_raises_is_a_bug_of_the_prober(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for an answer: the caller isolates it."""

    def fail(_address: str, _endpoint: Endpoint) -> readiness.Answer:
        raise KeyError("bug")

    monkeypatch.setattr(readiness, "ask_task", fail)
    with pytest.raises(KeyError):
        make_prober(1, {NAME: ("127.0.0.1",)}).probe(as_mapping(live()), 0)


def test_services_are_asked_side_by_side() -> None:
    """Each waits for the other's request: one after the other they would both be late."""
    met = threading.Barrier(2)

    def meet(connection: socket.socket) -> None:
        with suppress(threading.BrokenBarrierError):
            met.wait(10)
            answer("200 OK")(connection)

    with ExitStack() as stack:
        one = stack.enter_context(task(meet))
        stack.enter_context(task(meet, "127.0.0.2", one.port))
        prober = make_prober(one.port, {NAME: ("127.0.0.1",), OTHER: ("127.0.0.2",)})
        found = prober.probe(as_mapping(live(), live(OTHER)), 0)
        assert set(states(found).values()) == {STATE_READY}

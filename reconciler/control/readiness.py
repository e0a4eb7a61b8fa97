"""Asks the tasks of services whether they serve: the engine only knows that a process runs.

Every task's address is asked, because clients come to each of them. Measured with 20 images: an image that listens on
another port, one that hangs, and one that waits for Kafka all "run" for the engine.
"""

from __future__ import annotations

import http.client
import json
import math
import socket
import ssl
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import structlog

from openfactory_common.text import printable
from reconciler.domain.readiness import ProbeResult, Readiness, ReadyState
from reconciler.domain.services import Kind, LiveService, Publish, ServiceSpec
from reconciler.planning.specs import is_ours
from reconciler.settings import Environment, Settings

T = TypeVar("T")

#: Seconds that a task has for its whole answer.
ANSWER_SECONDS = 2.0
#: What a group service serves.
STREAM_PATH = "/asset_stream"
#: Tasks that are asked at once.
AT_ONCE = 32
#: Seconds after which a cycle, and each service in it, begins no other probe: 64 tasks that do not answer take 4 s. The
#: rest is asked first in the next cycle.
CYCLE_SECONDS = 3.0
#: Seconds without the address of any service after which the operator counts as outside of their network. A name
#: resolves a moment after the first task runs.
OUTSIDE_AFTER = 5.0
#: Seconds after which a name that is still being looked up counts as one that does not resolve.
DNS_SECONDS = 1.0
#: Bytes of a body that are read, and characters of what it says that are shown.
_MAX_BODY, _SHOWN = 64 * 1024, 300
#: Failing tasks that are named.
_NAMED = 3

log = structlog.get_logger()


class Prober(Protocol):
    """Finds out which services are ready."""

    def probe(self, services: Mapping[str, LiveService], now: float) -> Mapping[str, Readiness]:
        """Probe what is due.

        Args:
            services: all of the platform, by the name in lower case.
            now: monotonic seconds.

        Returns:
            What is known, by the same names. A service whose tasks the engine does not count as running, or that was
            not probed yet, is not in it.
        """


class Answer(NamedTuple):
    """What one task answered, and why it is not ready, or a note."""

    result: ProbeResult
    text: str = ""


class Endpoint(NamedTuple):
    """How the tasks of a service are asked.

    Attributes:
        name: of the service.
        host: resolves to the addresses of all tasks.
        tasks: how many addresses there must be.
        port: that they listen on.
        variable: the setting of the port.
        path: of the readiness endpoint; ``""`` where there is none, and any answer to HTTP counts.
        group: that they serve, None for none.
        tls: whether the port speaks TLS.
    """

    name: str
    host: str
    tasks: int
    port: int
    variable: str
    path: str
    group: str | None
    tls: bool = False


@dataclass
class _Track:
    """One version of a service over its probes.

    Attributes:
        readiness: None before the first probe.
        probed: monotonic seconds of the last probe.
        failed: the last probe failed, and it is still ready: one lost answer is no failure.
    """

    readiness: Readiness | None = None
    probed: float = -math.inf
    failed: bool = False

    def update(self, state: ReadyState, text: str, now: float) -> None:
        """Add a probe's result; a service that was ready loses that by two failures in a row."""
        before = self.readiness.state if self.readiness is not None else None
        self.failed = before is ReadyState.READY and state is ReadyState.NOT_READY and not self.failed
        if not self.failed:
            since = self.readiness.since if self.readiness is not None and before is state else now
            self.readiness = Readiness(state, text, since)


class ReadinessProber:
    """Probes the tasks of services of ours that run, by HTTP."""

    def __init__(
        self,
        settings: Settings,
        on_probe: Callable[[ProbeResult], object] = lambda _result: None,
        resolve: Callable[[str, int], Sequence[str]] | None = None,
    ) -> None:
        """Prepare to probe; nothing is sent yet.

        Args:
            settings: ports, paths, and how often a service that is ready is probed.
            on_probe: called with the result for each task.
            resolve: returns the addresses of a host; raises `OSError` where it has none.
        """
        self._settings = settings
        self._on_probe = on_probe
        self._resolve = resolve or resolve_host
        self._tracks: dict[tuple[str, str, int], _Track] = {}
        self._pool = ThreadPoolExecutor(AT_ONCE, "probe")
        self._inside = False
        self._began = math.inf
        self._told = False

    def probe(self, services: Mapping[str, LiveService], now: float) -> Mapping[str, Readiness]:
        """Probe the services that are not ready, and those that were ready `READY_INTERVAL` ago; see `Prober`.

        Also those whose update is in progress: as long as enough tasks run, those of before serve.
        """
        running = {
            (key, live.id, live.version): live.spec
            for key, live in services.items()
            if live.spec is not None and live.running >= live.spec.replicas > 0 and is_ours(live, self._settings)
        }
        tracks = self._tracks = {version: self._tracks.get(version, _Track()) for version in running}
        due = [version for version, track in tracks.items() if self._is_due(track, now)]
        answers = self._run({version: running[version] for version in sorted(due, key=lambda one: tracks[one].probed)})
        outside = self._is_outside(answers.values(), now)
        for version, answer in answers.items():
            tracks[version].probed = now
            if outside:
                tracks[version].update(ReadyState.UNREACHABLE, "", now)
            elif outside is not None:
                is_ready = answer.result is ProbeResult.READY
                tracks[version].update(ReadyState.READY if is_ready else ReadyState.NOT_READY, answer.text, now)
        return {version[0]: track.readiness for version, track in tracks.items() if track.readiness is not None}

    def _is_due(self, track: _Track, now: float) -> bool:
        known = track.readiness.state if track.readiness is not None else None
        waits = known is ReadyState.READY or (known is ReadyState.UNREACHABLE and not self._inside)
        return not waits or track.failed or now - track.probed >= self._settings.ready_interval

    def _is_outside(self, answers: Collection[Answer], now: float) -> bool | None:
        """Whether the operator is outside of the services' network; None while that is not known.

        It is inside for good once one name has resolved: after that, a name that does not is a failure.
        """
        self._inside |= any(answer.result is not ProbeResult.NO_NAME for answer in answers)
        if self._inside or not answers:
            return False
        self._began = min(self._began, now)
        if now - self._began < OUTSIDE_AFTER:
            return None
        if not self._told:
            self._told = True
            log.warning(
                "readiness is not probed",
                reason="no service's name resolves: the operator is not in the services' network (DOCKER_NETWORK), so "
                "a service counts as ready when the engine says that its tasks run",
            )
        return True

    def _run(self, specs: Mapping[T, ServiceSpec]) -> Mapping[T, Answer]:
        """Ask services side by side; one for which there was no time is left out."""
        endpoints = {key: find_endpoint(spec, self._settings) for key, spec in specs.items()}
        resolved: set[str] = set()
        futures = {key: self._pool.submit(self._ask_tasks, endpoint, resolved) for key, endpoint in endpoints.items()}
        _, late = wait(futures.values(), timeout=CYCLE_SECONDS)
        wait([future for future in late if not future.cancel()], timeout=ANSWER_SECONDS + DNS_SECONDS)
        found = {
            key: one.result() if one.done() else ()  # what still waits for DNS has no name
            for key, one in futures.items()
            if not one.cancelled() and (one.done() or endpoints[key].name not in resolved)
        }
        for each in found.values():
            for result in [answer.result for _, answer in each] or [ProbeResult.NO_NAME]:
                self._on_probe(result)
        return {key: judge_answers(endpoints[key], each) for key, each in found.items()}

    def _ask_tasks(self, endpoint: Endpoint, resolved: set[str]) -> Sequence[tuple[str, Answer]]:
        """Ask every task of a service that there is time for; after one that takes its time for nothing, no other."""
        began = time.monotonic()
        answers: list[tuple[str, Answer]] = []
        addresses: Sequence[str] = (endpoint.host,)
        if self._settings.environment is not Environment.LOCAL:
            try:
                addresses = self._resolve(endpoint.host, endpoint.port)
            except OSError:
                return ()
        resolved.add(endpoint.name)
        for address in addresses:
            if time.monotonic() - began >= CYCLE_SECONDS:
                answers.append((address, Answer(ProbeResult.NO_ANSWER, "the tasks before it took too long")))
                break
            answers.append((address, ask_task(address, endpoint)))
            if answers[-1][1].result is ProbeResult.NO_ANSWER:
                break
        return answers


def find_endpoint(spec: ServiceSpec, settings: Settings) -> Endpoint:
    """Return how the tasks of a service are asked. Pure.

    A virtual IP, which a port published through the Swarm's ingress network needs, hides the tasks: their addresses
    have a name of their own.
    """
    port, variable, path = {
        Kind.GROUP: (settings.fastapi_group_port, "FASTAPI_GROUP_PORT", settings.ready_path(spec.image)),
        Kind.STATE_API: (settings.state_api_port, "STATE_API_PORT", "/ready"),
        Kind.ROUTING_LAYER: (settings.routing_layer_port, "ROUTING_LAYER_PORT", "/ready"),
    }[spec.kind]
    host, tasks = spec.name, spec.replicas
    if settings.environment is Environment.LOCAL:
        published = [each.published for each in spec.ports if each.target == port]
        host, tasks, port = settings.swarm_node_host, 1, published[0] if published else port
    elif any(each.mode is Publish.INGRESS for each in spec.ports) and settings.deployment_platform == "swarm":
        host = f"tasks.{spec.name}"
    return Endpoint(spec.name, host, tasks, port, variable, path, spec.group, tls="TLS_CERT_FILE" in spec.env)


def resolve_host(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host, of IPv4 where it has any: not every image listens on IPv6.

    Raises:
        OSError: it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    chosen = [one for one in found if one[0] is socket.AF_INET] or found
    return sorted({str(one[4][0]) for one in chosen})


def ask_task(address: str, endpoint: Endpoint) -> Answer:
    """Ask one task whether it is ready; this takes 2 s at most.

    One of a group that has no readiness endpoint is asked for a stream without an asset: 404 to that too is no group
    service.
    """
    deadline = time.monotonic() + ANSWER_SECONDS
    try:
        status, body = send_get(
            address, endpoint, endpoint.path or "/", deadline, limit=_MAX_BODY if endpoint.path else 0
        )
        if status == HTTPStatus.NOT_FOUND and endpoint.path and endpoint.group is not None:
            streams = 0
            with suppress(OSError, http.client.HTTPException):  # a stream's head may come with its first event
                streams, _ = send_get(address, endpoint, STREAM_PATH, deadline, limit=0)
            if streams == HTTPStatus.NOT_FOUND:
                text = f"answers 404 to GET {endpoint.path} and to GET {STREAM_PATH}: it is no group service"
                return Answer(ProbeResult.NOT_READY, text)
        return judge_response(status, body, endpoint)
    except TimeoutError:
        return Answer(ProbeResult.NO_ANSWER, f"no answer within {ANSWER_SECONDS:g} s on port {endpoint.port}")
    except ConnectionRefusedError:
        return Answer(ProbeResult.REFUSED, f"nothing listens on port {endpoint.port} ({endpoint.variable})")
    except ssl.SSLError:
        text = f"what listens on port {endpoint.port} ({endpoint.variable}) does not speak TLS"
        return Answer(ProbeResult.NO_HTTP, text)
    except (http.client.HTTPException, ConnectionError):  # also: closed without an answer
        text = f"what listens on port {endpoint.port} ({endpoint.variable}) does not speak HTTP"
        return Answer(ProbeResult.NO_HTTP, text)
    except OSError as error:
        return Answer(ProbeResult.NO_ANSWER, f"port {endpoint.port} cannot be reached: {error.strerror or error}")


def send_get(address: str, endpoint: Endpoint, path: str, deadline: float, *, limit: int) -> tuple[int, bytes]:
    """Return status and up to ``limit`` bytes of the body of one request; ``deadline`` in monotonic seconds.

    Raises:
        OSError: there is no answer in time.
        http.client.HTTPException: the answer is no HTTP.
    """
    connection = http.client.HTTPConnection(address, endpoint.port, timeout=ANSWER_SECONDS)
    headers = {"Host": endpoint.name, "Accept": "application/json", "Connection": "close"}
    try:
        connection.connect()
        connection.sock = (_secure if endpoint.tls else _DeadlineSocket)(connection.sock, deadline)
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, _read_body(response, limit) if limit else b""
    finally:
        connection.close()


def _read_body(response: http.client.HTTPResponse, limit: int) -> bytes:
    """Return the beginning of the body; of one that does not end in time, nothing: the status counts."""
    try:
        return response.read(limit)
    except (OSError, http.client.HTTPException):
        return b""


class _DeadlineSocket(socket.socket):
    """A socket whose reads end at one moment, however slowly bytes come: the limit of a socket is for each read."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        """Take over a connection; ``deadline`` in seconds of `time.monotonic`."""
        super().__init__(connected.family, connected.type, connected.proto, connected.detach())
        self._deadline = deadline
        self.settimeout(ANSWER_SECONDS)

    def recv_into(self, *args: Any, **options: Any) -> int:
        """Receive, until the deadline."""
        self.settimeout(max(0.001, self._deadline - time.monotonic()))
        return super().recv_into(*args, **options)


class _DeadlineTlsSocket(ssl.SSLSocket):
    """The same over TLS."""

    deadline: float

    def recv_into(self, *args: Any, **options: Any) -> int:
        """Receive, until the deadline."""
        self.settimeout(max(0.001, self.deadline - time.monotonic()))
        return super().recv_into(*args, **options)


def _secure(connected: socket.socket, deadline: float) -> _DeadlineTlsSocket:
    """Begin TLS on a connection; ``deadline`` in seconds of `time.monotonic`.

    The certificate is not verified: a task is asked by its address, which is in no certificate, and the authority may
    be one that only clients know. Nothing secret is sent, and who can answer in the task's place can also say 200.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.sslsocket_class = _DeadlineTlsSocket
    connected.settimeout(max(0.001, deadline - time.monotonic()))  # of the whole handshake
    secure = cast("_DeadlineTlsSocket", context.wrap_socket(connected))
    secure.deadline = deadline
    return secure


def judge_response(status: int, body: bytes, endpoint: Endpoint) -> Answer:
    """Return what an answer means. Pure."""
    if not endpoint.path:
        return Answer(ProbeResult.READY)
    document: Any = None
    with suppress(ValueError, RecursionError):
        document = json.loads(body)
    fields = document if isinstance(document, dict) else {}
    group = fields.get("group")
    says_group = status in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE) and isinstance(group, str)
    if endpoint.group is not None and says_group and group != endpoint.group:
        return Answer(ProbeResult.OTHER_GROUP, f'answers for group "{_show(str(group))}": a stale address')
    if status == HTTPStatus.OK:
        return Answer(ProbeResult.READY)
    if status == HTTPStatus.NOT_FOUND:
        return Answer(ProbeResult.READY, f"no readiness endpoint at {endpoint.path} (404): any answer to HTTP counts")
    said = ""
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        issues = fields.get("issues", "" if fields else body.decode(errors="replace"))
        said = _show("; ".join(map(str, issues)) if isinstance(issues, list) else str(issues))
    return Answer(ProbeResult.NOT_READY, said or f"answers {status} to GET {endpoint.path}")


def _show(text: str) -> str:
    text = printable(" ".join(text.split()))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def judge_answers(endpoint: Endpoint, answers: Sequence[tuple[str, Answer]]) -> Answer:
    """Return what the answers of all tasks mean together, by address: all must be ready. Pure."""
    if not answers:
        return Answer(ProbeResult.NO_NAME, f"its name {endpoint.host} does not resolve")
    failed = [(address, answer) for address, answer in answers if answer.result is not ProbeResult.READY]
    if failed:
        named = [text if endpoint.tasks == 1 else f"{address}: {text}" for address, (_, text) in failed[:_NAMED]]
        more = [f"{len(failed) - _NAMED} more tasks"] if len(failed) > _NAMED else []
        return Answer(failed[0][1].result, "; ".join([*named, *more]))
    if len(answers) < endpoint.tasks:
        verb = "has" if len(answers) == 1 else "have"
        return Answer(ProbeResult.NOT_READY, f"{len(answers)} of {endpoint.tasks} tasks {verb} an address")
    return answers[0][1]

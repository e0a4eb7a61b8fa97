"""Asks the tasks of services whether they serve: the engine only knows that a process runs.

Every task's address is asked, because clients come to each of them. Measured with 20 images: an image that listens on
another port, one that hangs, and one that waits for Kafka all "run" for the engine.
"""

from __future__ import annotations

import http.client
import json
import math
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol, TypeVar

import structlog

from openfactory_common.text import printable
from reconciler.domain.readiness import ProbeResult, Readiness, ReadyState
from reconciler.domain.services import Kind, LiveService, Publish
from reconciler.planning.specs import is_ours
from reconciler.settings import Environment, Settings

T = TypeVar("T")

#: Seconds that a task has for its whole answer.
ANSWER_SECONDS = 2.0
#: Tasks that are asked at once.
AT_ONCE = 32
#: Seconds after which a cycle begins no other probe: 64 tasks that do not answer take 4 s. The rest is asked first in
#: the next cycle.
CYCLE_SECONDS = 3.0
#: Seconds without the address of any service after which the operator counts as outside of their network. A name
#: resolves a moment after the first task runs.
OUTSIDE_AFTER = 5.0
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
    """

    name: str
    host: str
    tasks: int
    port: int
    variable: str
    path: str
    group: str | None


@dataclass
class _Track:
    """One version of a service over its probes.

    Attributes:
        version: id and version of the service.
        readiness: None before the first probe.
        probed: monotonic seconds of the last probe.
        failed: the last probe failed, and it is still ready: one lost answer is no failure.
    """

    version: tuple[str, int]
    readiness: Readiness | None = None
    probed: float = -math.inf
    failed: bool = False


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
        self._tracks: dict[str, _Track] = {}
        self._pool = ThreadPoolExecutor(AT_ONCE, "probe")
        self._inside = False
        self._began: float | None = None
        self._told = False

    def probe(self, services: Mapping[str, LiveService], now: float) -> Mapping[str, Readiness]:
        """Probe the services that are not ready, and those that were ready `READY_INTERVAL` ago; see `Prober`."""
        running = {key: live for key, live in services.items() if live.converged and is_ours(live, self._settings)}
        before, self._tracks = self._tracks, {}
        for key, live in running.items():
            track, version = before.get(key), (live.id, live.version)
            self._tracks[key] = track if track is not None and track.version == version else _Track(version)
        due = sorted((key for key in running if self._is_due(self._tracks[key], now)), key=self._last_probe)
        answers = self._ask({key: running[key] for key in due})
        unresolved = self._is_outside(answers, now)
        for key, answer in answers.items():
            state = ReadyState.READY if answer.result is ProbeResult.READY else ReadyState.NOT_READY
            track = self._tracks[key]
            track.probed = now
            if unresolved is None:
                continue
            update_track(track, ReadyState.UNREACHABLE if unresolved else state, answer.text, now)
        return {key: track.readiness for key, track in self._tracks.items() if track.readiness is not None}

    def _last_probe(self, key: str) -> float:
        return self._tracks[key].probed

    def _is_due(self, track: _Track, now: float) -> bool:
        found = track.readiness
        if found is None or track.failed or found.state is ReadyState.NOT_READY:
            return True
        if found.state is ReadyState.UNREACHABLE and self._inside:
            return True
        return now - track.probed >= self._settings.ready_interval

    def _is_outside(self, answers: Mapping[str, Answer], now: float) -> bool | None:
        """Whether the operator is outside of the services' network; None while that is not known.

        It is inside for good once one name has resolved: after that, a name that does not is a failure.
        """
        if any(answer.result is not ProbeResult.NO_NAME for answer in answers.values()):
            self._inside = True
        if self._inside or not answers:
            return False
        self._began = now if self._began is None else self._began
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

    def _ask(self, services: Mapping[str, LiveService]) -> Mapping[str, Answer]:
        """Ask every task of these services; one for which there was no time is left out."""
        endpoints = {key: find_endpoint(live, self._settings) for key, live in services.items()}
        found = self._run({key: partial(self._find_addresses, one) for key, one in endpoints.items()})
        addresses = {key: some for key, some in found.items() if some is not None}
        probes = {
            (key, address): partial(ask_task, address, endpoints[key])
            for key, some in addresses.items()
            for address in some
        }
        answers = self._run(probes)
        judged = {}
        for key, some in addresses.items():
            given = [(address, answers.get((key, address))) for address in some]
            each = [(address, answer) for address, answer in given if answer is not None]
            if len(each) == len(given):  # all of them, or none where the name does not resolve
                judged[key] = judge_answers(endpoints[key], each)
                for result in [answer.result for _, answer in each] or [ProbeResult.NO_NAME]:
                    self._on_probe(result)
        return judged

    def _find_addresses(self, endpoint: Endpoint) -> Sequence[str]:
        if self._settings.environment is Environment.LOCAL:
            return (endpoint.host,)
        try:
            return self._resolve(endpoint.host, endpoint.port)
        except OSError:
            return ()

    def _run(self, jobs: Mapping[Any, Callable[[], T]]) -> Mapping[Any, T | None]:
        """Run jobs side by side; None for one that did not begin in time, or that does not end."""
        futures = {key: self._pool.submit(job) for key, job in jobs.items()}
        _, late = wait(futures.values(), timeout=CYCLE_SECONDS)
        wait([future for future in late if not future.cancel()], timeout=ANSWER_SECONDS)
        return {
            key: future.result() if future.done() and not future.cancelled() else None
            for key, future in futures.items()
        }


def find_endpoint(live: LiveService, settings: Settings) -> Endpoint:
    """Return how the tasks of a service are asked. Pure.

    A virtual IP, which a port published through the Swarm's ingress network needs, hides the tasks: their addresses
    have a name of their own.
    """
    spec = live.spec
    kind = spec.kind if spec is not None else Kind.GROUP
    port, variable, path = {
        Kind.GROUP: (settings.fastapi_group_port, "FASTAPI_GROUP_PORT", settings.fastapi_group_ready_path),
        Kind.STATE_API: (settings.state_api_port, "STATE_API_PORT", "/ready"),
        Kind.ROUTING_LAYER: (settings.routing_layer_port, "ROUTING_LAYER_PORT", "/ready"),
    }[kind]
    host, tasks, ports = live.name, live.running, spec.ports if spec is not None else ()
    if settings.environment is Environment.LOCAL:
        published = [each.published for each in ports if each.target == port]
        host, tasks, port = settings.swarm_node_host, 1, published[0] if published else port
    elif any(each.mode is Publish.INGRESS for each in ports) and settings.deployment_platform == "swarm":
        host = f"tasks.{live.name}"
    return Endpoint(live.name, host, tasks, port, variable, path, spec.group if spec is not None else None)


def resolve_host(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host, of IPv4 where it has any: not every image listens on IPv6.

    Raises:
        OSError: it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    chosen = [one for one in found if one[0] is socket.AF_INET] or found
    return sorted({str(one[4][0]) for one in chosen})


def ask_task(address: str, endpoint: Endpoint) -> Answer:
    """Ask one task whether it is ready; this takes 2 s at most."""
    deadline = time.monotonic() + ANSWER_SECONDS
    connection = http.client.HTTPConnection(address, endpoint.port, timeout=ANSWER_SECONDS)
    late = Answer(ProbeResult.NO_ANSWER, f"no answer within {ANSWER_SECONDS:g} s on port {endpoint.port}")
    try:
        connection.connect()
        connection.sock = _DeadlineSocket(connection.sock, deadline)
        connection.request(
            "GET",
            endpoint.path or "/",
            headers={"Host": endpoint.name, "Accept": "application/json", "Connection": "close"},
        )
        response = connection.getresponse()
        return judge_response(response.status, _read_body(response) if endpoint.path else b"", endpoint)
    except TimeoutError:
        return late
    except ConnectionRefusedError:
        return Answer(ProbeResult.REFUSED, f"nothing listens on port {endpoint.port} ({endpoint.variable})")
    except (http.client.HTTPException, ConnectionError):  # also: closed without an answer
        text = f"what listens on port {endpoint.port} ({endpoint.variable}) does not speak HTTP"
        return Answer(ProbeResult.NO_HTTP, text)
    except OSError as error:
        return Answer(ProbeResult.NO_ANSWER, f"port {endpoint.port} cannot be reached: {error.strerror or error}")
    finally:
        connection.close()


def _read_body(response: http.client.HTTPResponse) -> bytes:
    """Return the beginning of the body; of one that does not end in time, nothing: the status counts."""
    try:
        return response.read(_MAX_BODY)
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


def update_track(track: _Track, state: ReadyState, text: str, now: float) -> None:
    """Add a probe's result; a service that was ready loses that by two failures in a row."""
    before = track.readiness
    if before is not None and before.state is ReadyState.READY and state is ReadyState.NOT_READY and not track.failed:
        track.failed = True
        return
    track.failed = False
    since = before.since if before is not None and before.state is state else now
    track.readiness = Readiness(state, "" if state is ReadyState.UNREACHABLE else text, since)

"""The edge over sockets: what it passes on to the routing layer, how long streams live, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from reconciler.planning.specs import routing_layer_name
from reconciler.settings import Settings
from tests.harness.coroutines import PATIENCE, until
from tests.harness.ports import free_port
from tests.integration.edge.edge_system import (
    CLIENT,
    CONFIGURATION,
    OPERATOR,
    ROUTING_LAYER,
    Edge,
    NameServer,
    login,
    start_edge,
)
from tests.integration.routing_layer.proxy_system import Asked, ProxySystem, start_system

_STATE = "/asset_state?asset_uuid=A1"
_EVENTS = "Accept: text/event-stream"


@contextlib.asynccontextmanager
async def start_both(haproxy: str, folder: Path) -> AsyncIterator[tuple[ProxySystem, Edge]]:
    """Run a routing layer with the edge before it, until it can be reached through it."""
    async with (
        start_system(state=_answer_state, TRUSTED_PROXIES="127.0.0.1") as system,
        start_edge(haproxy, folder, routing_layer=system.proxy.port) as (edge, _),
    ):
        await edge.wait_for(_STATE, 200)
        yield system, edge


async def _answer_state(connection: object) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")  # type: ignore[attr-defined]


def test_the_configuration_is_valid_as_it_is_in_the_manifest(haproxy: str, tmp_path: Path) -> None:
    """HAProxy's own check finds no error and warns of nothing, with the manifest's defaults for all but files."""
    edge = Edge(haproxy, tmp_path / "edge", {})
    own = {name: edge.environment[name] for name in ("PATH", "CERTIFICATE")}
    done = subprocess.run([*edge.command, "-c"], env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    assert "ALERT" not in done.stdout + done.stderr


def test_it_looks_for_the_services_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and ports of the operator's defaults, in the configuration and in the stack file."""
    for name in ("RESOURCE_PREFIX", "ROUTING_LAYER_PORT", "RECONCILER_URL"):
        monkeypatch.delenv(name, raising=False)
    settings = Settings(_env_file=None, kafka_broker="broker:9092", ksqldb_url="http://ksqldb:8088")  # type: ignore[call-arg]
    wanted = {
        "ROUTING_LAYER": f"tasks.{routing_layer_name(settings)}:{settings.routing_layer_port}",
        "OPERATOR": f"tasks.{settings.reconciler_url.removeprefix('http://')}",
    }
    assert wanted == {"ROUTING_LAYER": f"{ROUTING_LAYER}:5555", "OPERATOR": f"{OPERATOR}:8080"}
    preset = dict(re.findall(r"presetenv (\w+) (\S+)", CONFIGURATION.read_text()))
    stack = yaml.safe_load((CONFIGURATION.parent / "stack.yml").read_text())
    given = stack["services"]["edge"]["environment"]
    assert {name: preset[name] for name in wanted} == wanted
    assert {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", given[name]) for name in wanted} == wanted


async def test_a_stream_passes_with_the_clients_true_address(haproxy: str, tmp_path: Path) -> None:
    """What a client says about its address reaches no service; target and headers of its request do."""
    async with start_both(haproxy, tmp_path) as (system, edge):
        lies = ("X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 7.7.7.7", "Forwarded: for=6.6.6.6", "X-Real-IP: 7.7.7.7")
        stream = await edge.get("/asset_stream?asset_uuid=A1&x=%20y", *lies, "Last-Event-ID: 7")
        assert stream.status == 200
        (service,) = system.weld.open
        assert b"6.6.6.6" not in service.request
        assert b"7.7.7.7" not in service.request
        (addresses,) = service.header("X-Forwarded-For")
        assert [each.strip() for each in addresses.split(",")] == [CLIENT, "127.0.0.1"]
        assert service.target == "/asset_stream?asset_uuid=A1&x=%20y"
        assert service.header("Last-Event-ID") == ["7"]
        await service.event("one")
        assert (await stream.event()).data == "one"


async def test_http_2_is_offered_and_old_tls_is_not(haproxy: str, tmp_path: Path) -> None:
    """An independent client gets a stream over HTTP/2; TLS 1.1 and plain HTTP get nothing."""
    async with start_both(haproxy, tmp_path) as (system, edge):
        trust = _trust(edge)
        url = f"https://edge.test:{edge.port}/asset_stream?asset_uuid=A1"
        command = ("curl", "-sN", "--http2", *trust, "-w", "version %{http_version}", url)
        curl = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        await until(lambda: bool(system.weld.open), "the stream reaches the service")
        await system.weld.open[0].event("one")
        await system.weld.open[0].send(b"0\r\n\r\n")
        said, _ = await curl.communicate()
        assert said == b"data: one\n\nversion 2"
        assert await _curl(*trust, "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", url) == 35
        assert await _curl(f"http://127.0.0.1:{edge.port}/asset_stream?asset_uuid=A1") == 52


def _trust(edge: Edge) -> tuple[str, ...]:
    """Return what makes curl trust the certificate and find its name."""
    return ("--cacert", str(edge.authority.certificate), "--resolve", f"edge.test:{edge.port}:127.0.0.1")


async def _curl(*arguments: str) -> int:
    process = await asyncio.create_subprocess_exec("curl", "-s", "--max-time", "10", *arguments)
    return await process.wait()


async def test_other_paths_stay_inside(haproxy: str, tmp_path: Path) -> None:
    """Only what clients use reaches the routing layer; its metrics do not leave the network."""
    inside = ("/metrics", "/ready", "/readyz", "/", "//metrics", "/registry", "/asset_stream/../metrics", "/group/x")
    similar = ("/asset_stream/", "/group//asset_stream", "/group/a/b/asset_stream", "/ASSET_STREAM", "/asset_statex")
    async with start_edge(haproxy, tmp_path, routing_layer=1) as (edge, _):
        for path in (*inside, *similar):
            refused = await edge.get(path)
            assert refused.status == 404, path
            assert (await refused.problem())["type"] == "urn:openfactory:edge:unknown-path"


async def test_answers_of_the_routing_layer_are_passed_on(haproxy: str, tmp_path: Path) -> None:
    """Its problem documents, a group's path with percent-encoding, and a method that it refuses itself."""
    async with start_both(haproxy, tmp_path) as (system, edge):
        assert (await (await edge.get("/asset_stream?asset_uuid=A9")).problem())["type"].endswith(":unknown-asset")
        assert (await edge.get("/asset_stream?asset_uuid=A1", method="POST")).status == 405
        assert (await edge.get("/group/W%65ld/asset_stream")).status == 200
        assert len(system.weld.open) == 1


async def test_streams_survive_a_reload(haproxy: str, tmp_path: Path) -> None:
    """The old process keeps its streams and ends with the last one; new clients reach the new process."""
    async with start_both(haproxy, tmp_path) as (system, edge):
        before = await edge.get("/asset_stream?asset_uuid=A1")
        old = edge.running[-1]
        new = await edge.reload()
        await edge.wait_for(_STATE, 200)
        after = await edge.get("/asset_stream?asset_uuid=A1")
        for at, stream in enumerate((before, after)):
            await system.weld.open[at].event(f"{at}")
            assert (await stream.event()).data == f"{at}"
        assert old.returncode is None
        before.leave()
        await asyncio.wait_for(old.wait(), 20)
        await system.weld.open[-1].event("again")
        assert (await after.event()).data == "again"
        assert new.returncode is None


class Task:
    """A task of the routing layer at an address of its own, as the edge sees one.

    Attributes:
        ready: what it says at ``/ready``.
        streams: the streams that are open.
        heads: the headers of each request for a state or a stream, by names in lower case.
    """

    def __init__(self, address: str, port: int) -> None:
        """Be ready at ``address:port``."""
        self.ready = True
        self.streams: list[web.StreamResponse] = []
        self.heads: list[list[tuple[str, str]]] = []
        self._place = (address, port)
        self._runner: web.AppRunner | None = None

    async def start(self) -> Task:
        """Listen."""
        app = web.Application()
        app.router.add_get("/ready", self._readiness)
        app.router.add_get("/asset_state", self._state)
        app.router.add_get("/asset_stream", self._stream)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._place).start()
        return self

    async def stop(self) -> None:
        """Go away, with all streams."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _readiness(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.ready else 503)

    async def _state(self, request: web.Request) -> web.Response:
        self._keep_head(request)
        return web.Response(text=self._place[0])

    def _keep_head(self, request: web.Request) -> None:
        self.heads.append([(name.lower(), value) for name, value in request.headers.items()])

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        self._keep_head(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self.streams.append(response)
        await asyncio.Event().wait()
        return response


@contextlib.asynccontextmanager
async def start_tasks(
    haproxy: str, folder: Path, *addresses: str
) -> AsyncIterator[tuple[Edge, NameServer, list[Task]]]:
    """Run tasks at these addresses of this machine and the edge before them, which knows only the first."""
    port = free_port()
    tasks = [await Task(address, port).start() for address in addresses]
    try:
        async with start_edge(haproxy, folder, routing_layer=port) as (edge, names):
            names.addresses[ROUTING_LAYER] = [addresses[0]]
            await wait_served_by(edge, addresses[0])
            yield edge, names, tasks
    finally:
        for task in tasks:
            await task.stop()


async def wait_served_by(edge: Edge, *addresses: str) -> None:
    """Wait until of ten requests each of these tasks answers some, and no other one."""
    async with asyncio.timeout(PATIENCE):
        while {await _ask_who(edge) for _ in range(10)} != set(addresses):  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.05)


async def _ask_who(edge: Edge) -> str:
    response = await edge.get(_STATE)
    try:
        return (await response.rest()).decode() if response.status == 200 else "none"
    finally:
        response.leave()


async def test_what_a_client_says_about_itself_is_replaced(haproxy: str, tmp_path: Path) -> None:
    """Address, scheme and host are the edge's words, each once; all other headers are the client's."""
    async with start_tasks(haproxy, tmp_path, "127.0.0.2") as (edge, _, (task,)):
        lies = [f"X-Forwarded-{name}: lie" for name in ("For", "For", "Proto", "Proto", "Host", "Port")]
        own = ("Authorization: Bearer a.b.c", "Cookie: openfactory_token=a.b.c", "X-Own: lie")
        await edge.get(_STATE, *lies, "Forwarded: lie", "X-Real-IP: lie", *own)
        assert sorted(task.heads[-1]) == [
            ("authorization", "Bearer a.b.c"),
            ("cookie", "openfactory_token=a.b.c"),
            ("host", "edge.test"),
            ("x-forwarded-for", CLIENT),
            ("x-forwarded-host", "edge.test"),
            ("x-forwarded-proto", "https"),
            ("x-own", "lie"),
        ]


_FORWARDED = (
    *("For", "Proto", "Host", "Port", "User", "Prefix", "Ssl", "Server", "Groups", "Email", "Client-Cert", "Scheme"),
    *("Preferred-Username", "Access-Token", "Uri", ""),
)


@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_no_forwarded_header_of_a_client_passes(haproxy: str, tmp_path: Path, version: str) -> None:
    """Services may trust any `X-Forwarded-*` to be a proxy's word, also the user's name: only the edge's three pass."""
    async with start_tasks(haproxy, tmp_path, "127.0.0.2") as (edge, _, (task,)):
        await edge.wait_for("/asset_stream", 200, _EVENTS)
        for target in (_STATE, "/asset_stream"):
            for spelling in (str.title, str.lower, str.upper):
                lies = [part for name in _FORWARDED for part in ("-H", f"{spelling(f'X-Forwarded-{name}')}: lie")]
                task.heads.clear()
                command = ("curl", "-s", f"--http{version}", "--interface", CLIENT, "-H", _EVENTS, *lies, *_trust(edge))
                curl = await asyncio.create_subprocess_exec(
                    *command, f"https://edge.test:{edge.port}{target}", stdout=asyncio.subprocess.DEVNULL
                )
                await until(lambda: bool(task.heads), "the request reaches the service")
                with contextlib.suppress(ProcessLookupError):
                    curl.kill()
                await curl.wait()
                assert sorted(each for each in task.heads[0] if each[0].startswith("x-")) == [
                    ("x-forwarded-for", CLIENT),
                    ("x-forwarded-host", f"edge.test:{edge.port}"),
                    ("x-forwarded-proto", "https"),
                ]


@pytest.mark.parametrize("accept", [_EVENTS, "Accept: */*"], ids=["event source", "program"])
async def test_the_password_of_the_page_reaches_no_service(haproxy: str, tmp_path: Path, accept: str) -> None:
    """A browser sends it to other paths of the host as well; a token of the same field passes."""
    async with start_tasks(haproxy, tmp_path, "127.0.0.2") as (edge, _, (task,)):
        await edge.wait_for("/asset_stream", 200, accept)
        for given, passed in (
            (login(), []),
            (login().replace("Basic", "bASIC"), []),
            (login().replace("Basic", "  Basic"), []),
            ("Authorization: Bearer a.b.c", ["Bearer a.b.c"]),
        ):
            for target in (_STATE, "/asset_stream"):
                task.heads.clear()
                response = await edge.get(target, accept, given)
                assert response.status == 200
                response.leave()
                assert [value for name, value in task.heads[0] if name == "authorization"] == passed, given


async def test_it_follows_the_addresses_of_the_tasks(haproxy: str, tmp_path: Path) -> None:
    """A new task gets the clients, one that left keeps its streams; a name server that is away is no harm."""
    async with start_tasks(haproxy, tmp_path, "127.0.0.2", "127.0.0.3") as (edge, names, tasks):
        stream = await edge.get("/asset_stream")
        names.addresses[ROUTING_LAYER] = ["127.0.0.3"]
        await wait_served_by(edge, "127.0.0.3")
        names.stop()
        await tasks[0].streams[0].write(b"data: still\n\n")
        assert (await stream.event()).data == "still"
        assert await _ask_who(edge) == "127.0.0.3"


async def test_a_task_that_is_not_ready_gets_no_clients(haproxy: str, tmp_path: Path) -> None:
    """It keeps its streams, and gets clients again when it is ready."""
    async with start_tasks(haproxy, tmp_path, "127.0.0.2", "127.0.0.3") as (edge, names, tasks):
        names.addresses[ROUTING_LAYER] = ["127.0.0.2", "127.0.0.3"]
        await wait_served_by(edge, "127.0.0.2", "127.0.0.3")
        streams = [await edge.get("/asset_stream") for _ in range(2)]
        tasks[0].ready = False
        await wait_served_by(edge, "127.0.0.3")
        for task in tasks:
            (open_one,) = task.streams  # each has one: the next client gets the task with the fewest
            await open_one.write(b"data: still\n\n")
        assert [(await stream.event()).data for stream in streams] == ["still", "still"]
        tasks[0].ready = True
        await wait_served_by(edge, "127.0.0.2", "127.0.0.3")


async def test_without_a_routing_layer_event_sources_get_no_status(haproxy: str, tmp_path: Path) -> None:
    """They would give up on one, so their request is cut; other clients are told to come again."""
    async with start_tasks(haproxy, tmp_path, "127.0.0.2") as (edge, _, tasks):
        await tasks[0].stop()
        await edge.wait_for(_STATE, 503)
        program = await edge.get("/asset_stream")
        assert program.header("Retry-After") == "2"
        assert (await program.problem())["type"] == "urn:openfactory:edge:no-server"
        source = await edge.ask("/asset_stream", "Accept: text/event-stream")
        assert await source.reader.read() == b""


async def test_an_address_has_its_share_of_connections(haproxy: str, tmp_path: Path) -> None:
    """One more than the limit is cut, and those that are open go on; another address gets in."""
    async with start_edge(haproxy, tmp_path, routing_layer=1, CONNECTIONS_PER_ADDRESS="5") as (edge, _):
        held: list[Asked] = []
        while len(held) < 5:
            with contextlib.suppress(ConnectionError):  # those from the start may not be counted off yet
                held.append(await edge.connect())
        with pytest.raises(ConnectionError):
            await edge.get("/healthz")
        elsewhere = ("-o", "/dev/null", "--interface", "127.0.0.8", *_trust(edge))
        assert await _curl(*elsewhere, f"https://edge.test:{edge.port}/healthz") == 0
        held[0].writer.transport.abort()
        await edge.wait_for("/healthz", 200)
        assert not any(each.reader.at_eof() for each in held[1:])


async def test_a_head_that_never_ends_is_cut(haproxy: str, tmp_path: Path) -> None:
    """A client that sends its head byte by byte does not keep its connection."""
    async with start_edge(haproxy, tmp_path, routing_layer=1) as (edge, _):
        slow = await edge.connect()
        slow.writer.write(b"GET /asset_stream HTTP/1.1\r\nHost: edge.test\r\nX: ")
        answer = asyncio.create_task(slow.head())
        while not answer.done():
            slow.writer.write(b"x")
            await asyncio.sleep(0.1)
        assert (await answer).status == 408

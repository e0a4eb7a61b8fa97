"""No client of ours follows a redirect: the credentials would go to whichever host it names."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from demo.ksql_rest import KsqlError as DemoError
from demo.ksql_rest import KsqlRest, client_session
from openfactory_common.errors import KsqlError, PlatformError
from openfactory_common.ksqldb_http import open_session
from openfactory_common.registry import GroupLookup
from reconciler.cli.running_operator import NoResponse, ask
from reconciler.ksqldb.client import KsqlClient
from reconciler.ksqldb.entities import Statement
from reconciler.ksqldb.transport import Timeouts
from reconciler.platforms.engine import Engine
from reconciler.settings import Settings as OperatorSettings
from routing_layer import registry_client
from routing_layer.membership import ksqldb
from routing_layer.metrics import Metrics
from routing_layer.settings import Settings
from tests.harness.ports import free_port
from tests.integration.ksqldb.tls import Authority

SOURCE = GroupLookup(table="T", key="K", levels=("l",))
STATUSES = (301, 302, 303, 307, 308)
#: Where a redirect can lead that no URL parser likes.
NOWHERE = ("http://a..b/", "http://[", "https://h:99999/", "//", "http://\xe9..\xe9/", "\x00", "", "http://u:p@/")


@dataclass
class Site:
    """A server, where it redirects to (None: it is the trap, and answers 200), and what it was asked."""

    status: int = 200
    location: str | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(site: Site, tls: tuple[Path, Path] | None = None) -> Iterator[Site]:
    """Serve on 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            site.asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(site.status)
            if site.location is not None:
                self.send_header("Location", site.location)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        do_POST = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    site.url = f"http{'' if tls is None else 's'}://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


def operator(url: str, ca: str | None) -> str:
    """Read and write as the operator does; return what it says."""
    said = []
    with closing(KsqlClient(url, Timeouts(2, 2, 2, 2), ca=ca, auth=("user", "secret"))) as client:
        for ask in (client.info, client.streams, lambda: client.members("t", "k", "l"), lambda: client.execute(DROP)):
            with pytest.raises(KsqlError) as refused:
                ask()
            said.append(str(refused.value))
    return said[0]


DROP = Statement("DROP STREAM x;", verb="drop", target="X", command_id="stream/`X`/drop")


def proxy(url: str, ca: str | None) -> str:
    """Ask the proxy's three questions."""

    async def ask() -> str:
        settings = Settings(
            ksqldb_url=url, ksqldb_username="user", ksqldb_password="secret", ksqldb_ca_file=ca, _env_file=None
        )
        async with open_session(settings) as session:
            asked = ksqldb.MembershipQueries(session, url)
            for question in (asked.look_up(SOURCE, "a"), asked.list_all(SOURCE), _watched(asked)):
                with pytest.raises(KsqlError) as refused:
                    await question
        return str(refused.value)

    return asyncio.run(ask())


async def _watched(asked: ksqldb.MembershipQueries) -> None:
    async with asked.watch(SOURCE) as rows:
        async for _ in rows:
            pass


def follower(url: str, _ca: str | None, token_file: Path | None = None) -> str:
    """Follow the registry and nudge; return what is counted as a refusal."""

    async def follow() -> str:
        url_with_user, metrics = url.replace("://", "://user:secret@"), Metrics()
        client = registry_client.RegistryClient(url_with_user, Path("/none"), metrics, lambda *_: None, token_file)
        try:
            await client.refresh()
            client.nudge_for("Weld")
            await asyncio.gather(*client._nudges)
            assert client.current is None
            return client._last_rejection
        finally:
            await client.close()

    return asyncio.run(follow())


def follower_with_token(url: str, _ca: str | None) -> str:
    """Follow the registry and nudge with a token."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("secret")
        file.flush()
        return follower(url, None, Path(file.name))


def demonstration(url: str, _ca: str | None) -> str:
    """Ask as the demonstration's services do."""

    async def ask() -> str:
        async with client_session() as session:
            rest = KsqlRest(session, url)
            assert not await rest.is_ready()
            for question in (rest.execute("LIST STREAMS;"), rest.pull("SELECT 1;")):
                with pytest.raises(DemoError) as refused:
                    await question
        return str(refused.value)

    return asyncio.run(ask())


def command(url: str, _ca: str | None) -> str:
    """Ask a running operator as `why` does."""
    settings = OperatorSettings(
        kafka_broker="k:9092",
        ksqldb_url="http://k:8088",
        reconciler_url=url.replace("://", "://user:secret@"),
        reconciler_port=free_port(),
        _env_file=None,
    )
    answer = ask(settings, "/groups/Weld")
    assert isinstance(answer, NoResponse)
    return answer.why


def engine(url: str, _ca: str | None) -> str:
    """Ask the Docker engine with a registry's credentials in a header."""
    with pytest.raises(PlatformError) as refused:
        Engine(url.replace("http://", "tcp://"), 2.0, None).get("/services", headers={"X-Registry-Auth": "secret"})
    return str(refused.value)


CLIENTS: dict[str, tuple[Callable[[str, str | None], str], str]] = {
    "operator": (operator, "KSQLDB_URL"),
    "proxy": (proxy, "KSQLDB_URL"),
    "follower": (follower, "RECONCILER_URL"),
    "follower with a token": (follower_with_token, "RECONCILER_URL"),
    "demonstration": (demonstration, "KSQLDB_URL"),
    "command": (command, "RECONCILER_URL"),
    "engine": (engine, ""),
}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("name", CLIENTS)
def test_a_redirect_is_an_error_that_names_the_variable(name: str, status: int) -> None:
    """The host that it names is asked nothing, neither with nor without credentials."""
    ask, variable = CLIENTS[name]
    with serving(Site()) as trap, serving(Site(status, f"{trap.url}/trap")) as site:
        said = ask(site.url, None)
        assert site.asked
        assert trap.asked == []
    assert variable in said
    assert "trap" not in said
    assert "secret" not in said


@pytest.mark.parametrize("name", CLIENTS)
def test_a_redirect_to_nowhere_is_an_error_of_ours(name: str) -> None:
    """A location that is no URL breaks nothing."""
    for location in NOWHERE:
        with serving(Site(307, location)) as site:
            assert CLIENTS[name][0](site.url, None)


@pytest.mark.parametrize("name", ["operator", "proxy"])
def test_from_https_nothing_goes_to_http(name: str, tmp_path: Path) -> None:
    """The password that was protected on the way would not be any more."""
    authority = Authority.make(tmp_path / "ca")
    with serving(Site()) as trap, serving(Site(301, f"{trap.url}/"), authority.sign("IP:127.0.0.1")) as site:
        assert "KSQLDB_URL" in CLIENTS[name][0](site.url, str(authority.certificate))
        assert {given for _, given in site.asked} != {None}
        assert trap.asked == []


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
@pytest.mark.parametrize("name", ["operator", "proxy", "follower", "demonstration"])
def test_a_host_that_cannot_be_looked_up_is_an_error_of_ours(name: str, host: str) -> None:
    """An empty label, or one that is too long: the system's own error is no OSError."""
    ask, variable = CLIENTS[name]
    assert variable in ask(f"http://{host}/", None) or name == "demonstration"

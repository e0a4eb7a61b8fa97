"""No credential comes out of any program: not on stdout or stderr, not in an answer, a metric or a document.

Each setting that can carry a secret holds one that is found nowhere else, in every form that it could have on the way.
The programs are run as they are, with ksqlDB in every bad state, and everything that they say is searched.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from tests.harness.ports import free_port
from tests.integration.routing_layer.fake_sources import registry

ROOT = Path(__file__).resolve().parents[3]
MARK = "c4n4ry-in-a-coal-mine"
#: What ksqlDB, or what answers in its place, does: status, header, body.
STATES: dict[str, tuple[int, dict[str, str], bytes] | None] = {
    "away": None,
    "refuses": (401, {}, b'{"@type":"generic_error","error_code":40100,"message":"Unauthorized"}'),
    "redirects": (307, {"Location": "http://a..b/"}, b""),
    "malformed": (200, {}, b'[{"header":{"queryId":1,"schema":[]}},{"row":' + b"[" * 3000 + b"1" * 5000),
}
#: Where credentials for ksqlDB can stand, and what else is secret, for each way a setting of its own.
WAYS = ("url", "variables", "files")
#: Runs every command of the operator in one process, as a person would one after the other.
COMMANDS = """
import sys
from reconciler.cli.main import main
for line in sys.argv[1:]:
    print("$", line, flush=True)
    try:
        print("exit", main(line.split()), flush=True)
    except SystemExit as end:
        print("exit", end.code, flush=True)
"""
OPERATOR = ("settings", "plan", "status -o json", "--once --timeout 0.1", "--dry-run", "why Weld", "teardown --yes")


def secret(name: str) -> str:
    """Return a secret that is found nowhere else."""
    return f"{MARK}-{name}"


def found(text: bytes) -> list[str]:
    """Return the lines in which a secret is, as it is or as HTTP carries it."""
    forms = [MARK.encode(), quote(MARK).encode(), MARK.upper().encode()]
    forms += [base64.b64encode(f"{pad}{MARK}".encode())[4:-4] for pad in ("", "x", "xx")]
    return [line.decode(errors="replace")[:300] for line in text.splitlines() if any(form in line for form in forms)]


def environment(folder: Path, ksqldb: str, operator: str, way: str) -> dict[str, str]:
    """Return the settings of both programs with a secret wherever one can stand."""
    host = ksqldb.removeprefix("http://")
    given = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "KAFKA_BROKER": "broker:9092",
        "KSQLDB_URL": f"http://user:{secret('ksqldb-url')}@{host}" if way == "url" else ksqldb,
        "KSQLDB_SERVICE_URL": "http://ksqldb:8088",
        "RECONCILER_URL": operator.replace("://", f"://user:{secret('reconciler-url')}@"),
        "REGISTRY_FILE": str(folder / "registry.json"),
        "REGISTRY_POLL": "50ms",
        "LOG_LEVEL": "debug",
        "KSQLDB_USERNAME_SECRET": "user",
        "KSQLDB_PASSWORD_SECRET": "password",
    }
    if way == "variables":
        given |= {"KSQLDB_USERNAME": "user", "KSQLDB_PASSWORD": secret("password")}
    if way == "files":
        for name in ("USERNAME", "PASSWORD"):
            file = folder / name
            file.write_text(secret(f"{name}-file"))
            given[f"KSQLDB_{name}_FILE"] = str(file)
        (folder / "token").write_text(secret("operators-token"))
        given["RECONCILER_TOKEN_FILE"] = str(folder / "token")
    return given


@contextmanager
def answering(status: int, headers: dict[str, str], body: bytes, others: dict[str, Any] | None = None) -> Iterator[str]:
    """Serve one answer to every question; ``others`` are JSON documents by the end of the path."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            known = next((value for end, value in (others or {}).items() if self.path.endswith(end)), None)
            data = body if known is None else json.dumps(known).encode()
            self.send_response(status if known is None else 200)
            for name, value in {**headers, "Content-Type": "application/json", "Content-Length": len(data)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that ended
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


#: An engine without anything: enough for the operator to ask ksqlDB.
ENGINE = {
    "/version": {"ApiVersion": "1.41", "Version": "20.10"},
    "/info": {"Swarm": {"LocalNodeState": "active", "ControlAvailable": True}},
}


async def run(given: dict[str, str], folder: Path, *arguments: str) -> bytes:
    """Run a program to its end and return all that it says."""
    process = await start(given, folder, *arguments)
    said, _ = await asyncio.wait_for(process.communicate(), 90)
    return said


async def start(given: dict[str, str], folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    """Start a program; stdout and stderr are one."""
    pipe, out = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=given, cwd=folder, stdout=pipe, stderr=out
    )


async def served(
    given: dict[str, str], folder: Path, port: int, module: str, *targets: str, until: bytes = b""
) -> tuple[bytes, bytes]:
    """Run a server until it has answered for every target and said ``until``; return all answers, and all it says."""
    process = await start(given, folder, "-m", module)
    heard, said = bytearray(), bytearray()
    headers = {"Authorization": f"Bearer {secret('bearer')}", "Cookie": f"token={secret('cookie')}"}
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession(headers=headers) as session:
            for target in targets:
                heard += await _answer(session, f"http://127.0.0.1:{port}{target}", process)
            while until not in said:
                line = await process.stdout.readline()  # type: ignore[union-attr]  # it is a pipe, see `start`
                assert line, f"ended without {until!r}: {said.decode()}"
                said += line
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
    rest, _ = await asyncio.wait_for(process.communicate(), 60)
    return bytes(heard), bytes(said + rest)


async def _answer(session: aiohttp.ClientSession, url: str, process: asyncio.subprocess.Process) -> bytes:
    while True:
        assert process.returncode is None, (await process.communicate())[0].decode()
        try:
            async with session.get(url, allow_redirects=False) as answer:
                return str(answer.raw_headers).encode() + await answer.read() + b"\n"
        except aiohttp.ClientConnectionError:
            await asyncio.sleep(0.05)


async def everything(folder: Path, state: str) -> dict[str, bytes]:
    """Run all programs with ksqlDB in one state; return what each said."""
    answer = STATES[state]
    way = WAYS[list(STATES).index(state) % len(WAYS)]
    with (
        answering(*(answer or (500, {}, b""))) as ksqldb,
        answering(200, {}, b"[]", ENGINE) as engine,
        answering(302, {"Location": f"http://x:{secret('foreign')}@h/"}, b"") as operator,
    ):
        url = ksqldb if answer is not None else f"http://127.0.0.1:{free_port()}"
        given = environment(folder, url, operator, way)
        (folder / "registry.json").write_bytes(registry({}))
        given["DOCKER_HOST"] = engine.replace("http://", "tcp://")
        ports = {"RECONCILER_PORT": str(free_port()), "ROUTING_LAYER_PORT": str(free_port())}
        token = f"token={secret('query')}"
        commands, reconciler, proxy = await asyncio.gather(
            run({**given, "RECONCILER_PORT": str(free_port())}, folder, "-c", COMMANDS, *OPERATOR),
            served(
                {**given, **ports, "PRUNE_GRACE": "1"},
                folder,
                int(ports["RECONCILER_PORT"]),
                "reconciler",
                *("/healthz", "/readyz", "/registry", "/status", "/", "/groups/Weld", f"/nothing?{token}", "/metrics"),
                until=b"read failed",
            ),
            served(
                {**given, **ports, "LAZY_DEPLOY_WAIT": "0"},
                folder,
                int(ports["ROUTING_LAYER_PORT"]),
                "routing_layer",
                *(f"/asset_stream?asset_uuid=nope&{token}", f"/group/x/asset_stream?{token}"),
                *(f"/asset_state?{token}", f"/nothing?{token}", "/readyz", "/healthz", "/metrics"),
            ),
        )
    return {
        "commands": commands,
        "operator's answers": reconciler[0],
        "operator": reconciler[1],
        "proxy's answers": proxy[0],
        "proxy": proxy[1],
    }


def test_no_credential_comes_out_of_any_program(tmp_path: Path) -> None:
    """Whatever ksqlDB does: the cause is in the log, the credentials are nowhere."""

    async def all_states() -> list[dict[str, bytes]]:
        folders = {state: tmp_path / state for state in STATES}
        for folder in folders.values():
            folder.mkdir()
        return await asyncio.gather(*(everything(folder, state) for state, folder in folders.items()))

    for state, said in zip(STATES, asyncio.run(all_states()), strict=True):
        for name, text in said.items():
            assert found(text) == [], f"{name}, ksqlDB {state}"
            assert b"Traceback" not in text, f"{name}, ksqlDB {state}: {text.decode()}"
        assert said["commands"].count(b"$ ") == len(OPERATOR)
        assert b"read failed" in said["operator"]
        assert b"membership: " in said["proxy"]
        assert b"127.0.0.1" not in said["proxy's answers"], (
            "no host, no port and no exception: a client cannot use them"
        )


#: Values that are refused, each with a secret in it: the variable is named, the value is not repeated.
REFUSED = {
    "KSQLDB_URL": f"http://user:{MARK}@host:99999",
    "RECONCILER_URL": f"ftp://user:{MARK}@host",
    "KSQLDB_SERVICE_URL": f"http://host/?token={MARK}",
    "KSQLDB_PASSWORD": f"{MARK}\x07",
    "KSQLDB_USERNAME": f"{MARK}:{MARK}@host",
    "ROUTING_LAYER_PORT": f"{MARK}@5555",
    "DOCKER_HOST": f"tcp://user:{MARK}@host:1",
}


@pytest.mark.parametrize("query", [False, True])
def test_a_refused_value_is_not_repeated(tmp_path: Path, *, query: bool) -> None:
    """Both programs end with 2 or show the settings, and none has a secret in what it says."""
    values = {name: f"http://host?token={MARK}" for name in REFUSED if "URL" in name} if query else REFUSED
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "KAFKA_BROKER": f"SASL_SSL://u:{MARK}@b:9092"}

    async def both() -> list[bytes]:
        commands = ("settings", "plan", "status", "why x", "runserver")
        return await asyncio.gather(
            run({**given, **values}, tmp_path, "-c", COMMANDS, *commands),
            run({**given, **values}, tmp_path, "-m", "routing_layer"),
        )

    for text in asyncio.run(both()):
        assert found(text) == []
        assert b"KSQLDB_URL" in text

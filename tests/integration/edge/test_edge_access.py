"""A browser behind the edge reads what its cookie grants, and nothing else."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.harness.coroutines import until
from tests.integration.edge.edge_system import start_edge
from tests.integration.routing_layer.proxy_system import start_system
from tests.integration.web.browser import tab

# The first run installs a browser.
pytestmark = pytest.mark.timeout(300)

_SECRET = bytes(range(32))
_ISSUER, _AUDIENCE = "https://login.test", "openfactory"


def _write_keys(folder: Path) -> str:
    """Write the key set of the installation, and return its path."""
    secret = base64.urlsafe_b64encode(_SECRET).rstrip(b"=").decode()
    keys = folder / "keys.json"
    keys.write_text(json.dumps({"keys": [{"kty": "oct", "kid": "one", "alg": "HS256", "use": "sig", "k": secret}]}))
    return str(keys)


def _make_token(**grants: list[str]) -> str:
    claims: dict[str, Any] = {"iss": _ISSUER, "aud": _AUDIENCE, "exp": int(time.time()) + 600, "openfactory": grants}
    return jwt.encode(claims, _SECRET, algorithm="HS256", headers={"kid": "one"})


async def test_a_browser_reads_only_what_its_cookie_grants(haproxy: str, chromium: str, tmp_path: Path) -> None:
    """Before it has the cookie everything is closed to it; then one asset is open, and the service never sees it."""
    async with (
        start_system(AUTH_KEYS_FILE=_write_keys(tmp_path), AUTH_ISSUER=_ISSUER, AUTH_AUDIENCE=_AUDIENCE) as system,
        start_edge(haproxy, tmp_path, routing_layer=system.proxy.port) as (edge, _),
        tab(chromium, tmp_path / "profile", edge.browser_option) as page,
    ):
        await edge.wait_for("/asset_stream?asset_uuid=A1", 401)
        await page.show(f"{edge.url}/healthz")
        source = "window.%s = new EventSource('/asset_stream?asset_uuid=%s'); %s.onmessage = (e) => seen = e.data; 0"
        await page.ask(source % ("before", "A1", "before"))
        await page.until("before.readyState === EventSource.CLOSED")

        token = _make_token(assets=["A1"])
        await page.call("Network.setCookie", name="openfactory_token", value=token, url=edge.url, secure=True)
        await page.ask(source % ("granted", "A1", "granted"))
        await until(lambda: bool(system.weld.open), "the granted stream reaches its service")
        await system.weld.open[0].event("one")
        await page.until("window.seen === 'one'")
        assert token.encode() not in system.weld.open[0].request

        await page.ask(source % ("other", "A2", "other"))
        await page.until("other.readyState === EventSource.CLOSED")
        assert await page.ask("granted.readyState") == 1
        assert not system.paint.connections
        assert token not in edge.log.read_text()

"""Requests to the running operator: only it has counters over several cycles, and objects in backoff."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError

from openfactory_common.settings_types import strip_user
from openfactory_common.tokens import TokenFile
from reconciler.report.counters import Counters
from reconciler.settings import Settings, read

#: Seconds to wait for a response; the operator answers from memory.
_TIMEOUT = 3.0
#: Seconds without a byte after which a stream has ended; the operator sends a comment every 15 s.
_SILENCE = 40.0
_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class OperatorResponse:
    """The response of an operator of this owner: its address, the HTTP status, the document."""

    url: str
    status: int
    document: dict[str, Any]


@dataclass(frozen=True)
class NoResponse:
    """No operator of this owner gave a usable response; ``why`` has the reason for each address."""

    why: str


def ask(settings: Settings, path: str) -> OperatorResponse | NoResponse:
    """Request a document from the operator on this host, then from the one at `RECONCILER_URL`.

    Args:
        settings: of this process; an operator of another `RECONCILER_OWNER` does not count.
        path: of the document; a usable response names the owner, whatever its status.
    """
    addresses = {"RECONCILER_PORT": f"http://127.0.0.1:{settings.reconciler_port}"}
    if "reconciler_url" in settings.model_fields_set:
        addresses["RECONCILER_URL"] = settings.reconciler_url.rstrip("/")
    tried = []
    for variable, base in addresses.items():
        url = strip_user(base)  # http.client takes user and password for a part of the host
        found = _get(f"{url}{path}", {})
        if isinstance(found, tuple) and found[0] == HTTPStatus.UNAUTHORIZED:
            found = _authorize(f"{url}{path}", found, settings)
        if isinstance(found, str):
            tried.append(f"{url} ({variable}) {found}")
        elif "owner" in found[1] and found[1]["owner"] != settings.reconciler_owner:
            tried.append(f"{url} belongs to owner {found[1]['owner']}")
        elif "owner" not in found[1]:
            tried.append(f"{url} does not serve this ({found[0]} {found[1].get('title', '')})")
        else:
            return OperatorResponse(url, *found)
    return NoResponse("; ".join(tried))


def nudge(settings: Settings, url: str) -> None:
    """Ask the operator at ``url``, which is of this owner (see `ask`), to begin a cycle; one may have its own pace."""
    file = settings.reconciler_token_file
    _get(f"{url}/reconcile", {} if file is None else TokenFile(file, "RECONCILER_TOKEN_FILE").header(), b"")


def list_groups() -> tuple[str, ...]:
    """Return the groups that the running operator knows, for a shell's completion; none without operator or settings.

    Names that a terminal cannot show, or that are more than a line, are left out.
    """
    settings = read()
    answer = ask(settings, "/groups/") if isinstance(settings, Settings) else NoResponse("")
    known = answer.document.get("known", ()) if isinstance(answer, OperatorResponse) else ()
    return tuple(name for name in known if isinstance(name, str) and name.isprintable())


def ask_counters(settings: Settings) -> tuple[str, Counters] | NoResponse:
    """Request the counters of the running operator; return its address and them."""
    answer = ask(settings, "/counters")
    if isinstance(answer, NoResponse):
        return answer
    try:
        return answer.url, Counters.model_validate(answer.document)
    except ValidationError:
        return NoResponse(f"{answer.url} has another version")


def follow(settings: Settings, url: str, since: int) -> Iterator[str]:
    """Return the lines of a stream of Server-Sent Events, after the event with this id.

    Args:
        settings: of this process.
        url: of the stream, at an operator of this owner (see `ask`).
        since: id of the last event that is known.

    Raises:
        OSError: it does not answer, or the stream was cut.
        http.client.HTTPException: the same.
    """
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(since)}
    try:
        response = _open(url, headers, _SILENCE)
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.UNAUTHORIZED or settings.reconciler_token_file is None:
            raise
        token = TokenFile(settings.reconciler_token_file, "RECONCILER_TOKEN_FILE").header()
        response = _open(url, headers | token, _SILENCE)
    with response:
        for line in response:
            yield line.decode("utf-8", "replace").rstrip("\n")


def _authorize(url: str, found: tuple[int, dict[str, Any]], settings: Settings) -> tuple[int, dict[str, Any]] | str:
    """Ask again with the token, if an operator of this owner wants it: another one must not get to know it."""
    if found[1].get("owner") != settings.reconciler_owner:
        return found
    if settings.reconciler_token_file is None:
        return "needs a token: RECONCILER_TOKEN_FILE is not set here"
    answer = _get(url, TokenFile(settings.reconciler_token_file, "RECONCILER_TOKEN_FILE").header())
    if isinstance(answer, tuple) and answer[0] == HTTPStatus.UNAUTHORIZED:
        return "does not accept the first token of RECONCILER_TOKEN_FILE"
    return answer


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Returns a redirect as the response."""

    def redirect_request(self, *_args: Any) -> None:
        """Follow no redirect."""


def _open(url: str, headers: Mapping[str, str], timeout: float, body: bytes | None = None) -> Any:
    """Send a GET, with a body a POST."""
    request = urllib.request.Request(url, body, dict(headers))  # noqa: S310 - http(s) by the settings
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    return opener.open(request, timeout=timeout)


def _get(url: str, headers: Mapping[str, str], body: bytes | None = None) -> tuple[int, dict[str, Any]] | str:
    """Return status and document, or what is wrong with the response."""
    try:
        try:
            with _open(url, headers, _TIMEOUT, body) as response:
                status, text = response.status, response.read(_MAX_BYTES)
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read(_MAX_BYTES)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"does not answer ({getattr(error, 'reason', error)})"
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    return (status, document) if isinstance(document, dict) else f"answers {status} without a JSON document"

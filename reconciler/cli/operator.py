"""Asking the operator that runs: only it knows what it has counted and what waits after a failure."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from openfactory_common.settings_types import without_user
from reconciler.report.counters import Counters
from reconciler.settings import Settings

#: Seconds to wait for an answer; it comes from memory.
_PATIENCE = 3.0
_MOST = 64 * 1024 * 1024


@dataclass(frozen=True)
class OperatorResponse:
    """What an operator of this owner said: where it is, the HTTP status, the document."""

    url: str
    status: int
    document: dict[str, Any]


@dataclass(frozen=True)
class NoResponse:
    """No operator of this owner gave an answer that can be used; ``why`` says for each place why not."""

    why: str


def ask(settings: Settings, path: str) -> OperatorResponse | NoResponse:
    """Ask the operator that runs here, or where `RECONCILER_URL` says.

    Args:
        settings: of this process; an operator of another `RECONCILER_OWNER` is none of ours.
        path: what to ask for; its answer names the owner, whatever its status.
    """
    told = {"RECONCILER_PORT": f"http://127.0.0.1:{settings.reconciler_port}"}
    if "reconciler_url" in settings.model_fields_set:
        told["RECONCILER_URL"] = settings.reconciler_url.rstrip("/")
    tried = []
    for variable, base in told.items():
        url = without_user(base)  # with user and password http.client would take them for a part of the host
        found = _get(f"{url}{path}")
        if isinstance(found, str):
            tried.append(f"{url} ({variable}) {found}")
        elif "owner" in found[1] and found[1]["owner"] != settings.reconciler_owner:
            tried.append(f"{url} belongs to owner {found[1]['owner']}")
        elif "owner" not in found[1]:
            tried.append(f"{url} gives no answer to this ({found[0]} {found[1].get('title', '')})")
        else:
            return OperatorResponse(url, *found)
    return NoResponse("; ".join(tried))


def counters(settings: Settings) -> tuple[str, Counters] | NoResponse:
    """Ask what the operator that runs has counted; its address comes first."""
    answer = ask(settings, "/counters")
    if isinstance(answer, NoResponse):
        return answer
    try:
        return answer.url, Counters.model_validate(answer.document)
    except ValidationError:
        return NoResponse(f"{answer.url} is of another version")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect as the answer that it is."""

    def redirect_request(self, *_args: Any) -> None:
        """Follow nothing."""


def _get(url: str) -> tuple[int, dict[str, Any]] | str:
    """Return status and document, or what is wrong with the answer."""
    try:
        request = urllib.request.Request(url)  # noqa: S310 - http(s) by the settings
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
        try:
            with opener.open(request, timeout=_PATIENCE) as response:
                status, body = response.status, response.read(_MOST)
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read(_MOST)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"does not answer ({getattr(error, 'reason', error)})"
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    return (status, document) if isinstance(document, dict) else f"answers {status} and no JSON document"

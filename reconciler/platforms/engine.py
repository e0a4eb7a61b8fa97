"""HTTP to one Docker engine: one function sends every request, one function translates errors.

The Docker SDK's low-level client gives the connection (unix socket, TLS, ssh) and the registry credentials; requests
are sent as in the engine's API reference, because the SDK's own methods cannot send a whole service spec unchanged and
cannot update the labels of a config.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from docker.api.client import APIClient
from docker.auth import get_config_header, resolve_repository_name
from docker.errors import DockerException
from docker.utils import kwargs_from_env
from requests import Response
from requests.exceptions import ReadTimeout, RequestException, TooManyRedirects

from openfactory_common.errors import PlatformConflict, PlatformError, PlatformRefused, PlatformUnreachable
from openfactory_common.settings_types import mask
from reconciler.platforms.answers import check_answer

#: ``(request, code, seconds)``: the request without ids, the HTTP status or ``"none"`` where no answer came.
OnRequest = Callable[[str, str, float], None]

#: The newest version of the engine's API that we use: a newer one may leave out what is read here. An engine that has
#: only older ones gets its newest, one that has removed this one gets its oldest (29.0 to 29.2: 1.44).
NEWEST_API = (1, 44)
#: The first version that has ``NoNewPrivileges`` for a service.
PRIVILEGES_API = (1, 44)

#: Bytes before each part of an output: stream, three zeros, the length.
_FRAME_HEAD = 8
_NO_ANSWER = "none"
_RPC = re.compile(r"^rpc error: code = \w+ desc = ")
_NOT_MANAGER = re.compile(r"not a swarm manager|not part of a swarm", re.IGNORECASE)
_OUT_OF_SEQUENCE = "update out of sequence"
_NO_LEADER = re.compile(r"does not have a leader|no elected cluster leader|lost leader", re.IGNORECASE)
#: A manager that has just started sends the last two, although it also sends that it is not a manager.
_LEADER_UNREACHED = re.compile(
    r"deadline ?exceeded|context canceled|code = unavailable|connection is closing|being prepared|trouble connecting",
    re.IGNORECASE,
)
_LOG = logging.getLogger(__name__)


class NotFound(PlatformConflict):
    """The engine has no object with this id."""


class _Client(APIClient):
    """The SDK's client without redirects: it would send the image registry's credentials to any host."""

    def get_redirect_target(self, resp: Response) -> str | None:
        if super().get_redirect_target(resp) is not None:
            raise TooManyRedirects("it answered with a redirect, which is not followed")
        return None


class Engine:
    """A connection that is opened by the first request, and again after a failure."""

    def __init__(self, base_url: str | None, timeout: float, on_request: OnRequest | None) -> None:
        """Set up; nothing is sent yet.

        Args:
            base_url: of the engine; None for ``DOCKER_HOST``, ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH``.
            timeout: seconds to wait for a connection, and for each part of an answer.
            on_request: called after every request.
        """
        self._base_url = base_url
        self._timeout = timeout
        self._on_request = on_request
        self._client: APIClient | None = None
        self._about: Mapping[str, Any] = {}
        self._version = NEWEST_API

    @property
    def api_version(self) -> tuple[int, int]:
        """The version of the API that requests are sent in.

        Raises:
            PlatformError: no engine answers.
        """
        self._get_client()
        return self._version

    @property
    def about(self) -> Mapping[str, Any]:
        """What the engine says of its version.

        Raises:
            PlatformError: no engine answers.
        """
        self._get_client()
        return self._about

    def get(
        self,
        path: str,
        *ids: str,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Read; a ``filters`` parameter may be a mapping."""
        encoded = {
            name: json.dumps(value) if isinstance(value, Mapping) else value for name, value in (params or {}).items()
        }
        return self._request("GET", path, *ids, params=encoded, headers=headers)

    def post(
        self,
        path: str,
        *ids: str,
        body: Mapping[str, Any] | None = None,
        version: int | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Write, at the object's ``version`` if it already exists; ``timeout`` is for requests that take long."""
        given = {**(params or {}), **({} if version is None else {"version": version})}
        return self._request("POST", path, *ids, params=given, body=body, headers=headers, timeout=timeout)

    def delete(self, path: str, *ids: str, params: Mapping[str, Any] | None = None) -> None:
        """Remove one object; `NotFound` if there is none."""
        self._request("DELETE", path, *ids, params=params)

    def pull(self, image: str, silence: float) -> None:
        """Pull an image; ``silence`` is for how many seconds there may be no progress.

        Raises:
            PlatformRefused: it cannot be pulled, for the engine's reason.
        """
        has_version = "@" in image or ":" in image.rpartition("/")[2]
        headers, given = self.credentials(image), {"fromImage": image, "tag": "" if has_version else "latest"}
        failed = f"image {image} is not here and cannot be pulled"
        try:
            lines = self._request(
                "POST", "/images/create", params=given, headers=headers, timeout=silence, in_lines=True
            )
        except (PlatformRefused, NotFound) as problem:
            raise PlatformRefused(f"{failed}: {problem}") from problem
        for line in lines or ():  # the answer is a 200 before the first byte is pulled
            if "error" in line:
                raise PlatformRefused(f"{failed}: {line['error']}")

    def read_output(self, path: str, *ids: str, tail: int, follow: bool, details: bool = False) -> Iterator[str]:
        """Return lines of the output of a container or service, which has no terminal; with ``follow`` without end.

        Raises:
            PlatformError: the read failed, perhaps after some lines.
        """
        flags = {"stdout": True, "stderr": True, "follow": follow, "details": details}
        params = {name: str(value).lower() for name, value in flags.items()}
        client, label = self._get_client(), f"GET {path}"
        url = f"{client.base_url}/v{_format_version(self._version)}{path.format(*ids)}"
        limits = (self._timeout, None if follow else self._timeout)  # to connect, and between two parts
        try:
            with client.request("GET", url, params=params | {"tail": tail}, stream=True, timeout=limits) as answer:
                if not answer.ok:
                    raise translate_error(label, answer.status_code, _read_message(answer.text))
                yield from split_output(answer.iter_content(None))
        except (RequestException, OSError) as problem:
            raise PlatformUnreachable(f"{label}: the output was cut: {find_root_cause(problem)}") from problem

    def credentials(self, image: str) -> dict[str, str]:
        """Return the header with the registry credentials for ``image``, empty if there are none (best effort)."""
        try:
            registry, _ = resolve_repository_name(image)
            header = get_config_header(self._get_client(), registry)
        except (DockerException, OSError, ValueError, KeyError) as problem:
            _LOG.warning("registry credentials for %s cannot be read: %s", image, problem)
            return {}
        return {"X-Registry-Auth": header.decode() if isinstance(header, bytes) else header} if header else {}

    def close(self) -> None:
        """Close pooled connections; the next request opens a new one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _request(
        self,
        method: str,
        path: str,
        *ids: str,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        in_lines: bool = False,
    ) -> Any:
        client, label = self._get_client(), f"{method} {path}"
        where = path.format(*(quote(item, safe="/:@") for item in ids))
        url = f"{client.base_url}/v{_format_version(self._version)}{where}"
        code, started, limit = _NO_ANSWER, time.monotonic(), timeout or self._timeout
        try:
            answer = client.request(method, url, params=params, json=body, headers=headers, timeout=limit)
            code = str(answer.status_code)
            if answer.ok and in_lines:
                return _parse_lines(label, answer.content)
            if answer.ok:  # an empty body is None; a body that is not JSON is a connection that broke
                return check_answer(label, answer.json() if answer.content else None)
        except ReadTimeout as problem:
            self.close()
            raise PlatformUnreachable(
                f"{label}: the Docker engine did not answer within {limit:g} s; so does a manager of a Swarm that has "
                "just lost the others"
            ) from problem
        except (RequestException, OSError) as problem:
            self.close()
            raise PlatformUnreachable(
                f"{label}: the Docker engine did not answer: {find_root_cause(problem)}"
            ) from problem
        finally:
            self._report(label, code, started)
        raise translate_error(label, answer.status_code, _read_message(answer.text))

    def _get_client(self) -> APIClient:
        if self._client is None:
            code, started = _NO_ANSWER, time.monotonic()
            try:
                self._client = self._connect()
                code = "200"
            finally:
                self._report("GET /version", code, started)
        return self._client

    def _connect(self) -> APIClient:
        try:
            where: dict[str, Any] = {"base_url": self._base_url} if self._base_url else {**kwargs_from_env()}
            client = _Client(**where, version=_format_version(NEWEST_API), timeout=max(1, round(self._timeout)))
            self._about = client.version(api_version=False)
            self._version = _negotiate_version(self._about)
        except (DockerException, RequestException, OSError, ValueError) as problem:
            if isinstance(problem, RequestException | OSError) or isinstance(problem.__cause__, RequestException):
                address = self._base_url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
                raise PlatformUnreachable(
                    f"no Docker engine answers at {mask(address)}: {find_root_cause(problem)}; is it running, and is "
                    "DOCKER_HOST right?"
                ) from problem
            raise PlatformRefused(
                f"the Docker engine cannot be used as configured: {problem}; check DOCKER_HOST, DOCKER_TLS_VERIFY "
                "and DOCKER_CERT_PATH"
            ) from problem
        return client

    def _report(self, label: str, code: str, started: float) -> None:
        if self._on_request is not None:
            self._on_request(label, code, time.monotonic() - started)


def split_output(parts: Iterable[bytes]) -> Iterator[str]:
    """Return the lines in the frames that the engine sends: 8 bytes, of which the last 4 are the length, and text."""
    rest = b""
    for part in parts:
        rest += part
        while len(rest) >= _FRAME_HEAD and len(rest) >= (end := _FRAME_HEAD + int.from_bytes(rest[4:_FRAME_HEAD])):
            yield from rest[_FRAME_HEAD:end].decode("utf-8", "replace").rstrip("\n").split("\n")
            rest = rest[end:]


def find_root_cause(problem: BaseException) -> str:
    """Return the root cause of a failed connection in the system's words, without the text of the libraries."""
    seen: list[BaseException] = []
    inner: BaseException | None = problem
    while inner is not None and inner not in seen:
        seen.append(inner)
        carried = next((arg for arg in inner.args if isinstance(arg, BaseException)), None)
        inner = inner.__cause__ or inner.__context__ or carried
    texts = (getattr(one, "strerror", None) or "" for one in reversed(seen))
    return next((text for text in texts if text), "") or str(seen[-1]) or str(problem)


def translate_error(label: str, status: int, message: str) -> PlatformError:
    """Return the error for an answer outside 2xx.

    The status of several answers is not specific (a stale version is a 500), so the text decides first (measured on
    engine 20.10).
    """
    words = _RPC.sub("", message)  # without the prefix of the engine's internal protocol
    text = f"{label}: {words} (HTTP {status})"
    if _NO_LEADER.search(message):
        return PlatformUnreachable(
            f"{label}: the Swarm has no leader, too few of its managers reach each other; services keep running, "
            f"nothing can be changed until more than half of them are back ({words.partition('. ')[0]}, HTTP {status})"
        )
    if _LEADER_UNREACHED.search(message):
        return PlatformUnreachable(
            f"{label}: this manager does not reach the Swarm's leader; it is starting, or it has lost the other "
            f"managers ({words}, HTTP {status})"
        )
    if _NOT_MANAGER.search(message):
        return PlatformRefused(f"{text}. Run `docker swarm init` there, or set DOCKER_HOST to a manager of the Swarm")
    if _OUT_OF_SEQUENCE in message:
        return PlatformConflict(text)
    if status == 404:  # noqa: PLR2004 - HTTP's own number
        return PlatformRefused(text) if words.startswith("network ") else NotFound(text)
    if status == 409:  # noqa: PLR2004 - HTTP's own number
        return PlatformConflict(text)
    if status in {502, 503, 504}:
        return PlatformUnreachable(text)
    return PlatformRefused(text)


def _read_message(body: str) -> str:
    """Return the engine's own words."""
    try:
        message = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        message = body
    return str(message).strip() or "no reason given"


def _parse_lines(label: str, body: bytes) -> list[Mapping[str, Any]]:
    """Return the JSON objects of a progress report, one a line."""
    try:
        found = [json.loads(line) for line in body.splitlines() if line.strip()]
    except ValueError as problem:
        raise PlatformError(f"{label}: the Docker engine sent an incomplete answer: {problem}") from problem
    return [one for one in found if isinstance(one, dict)]


def _negotiate_version(answer: Any) -> tuple[int, int]:
    """Return the version to use: the newest that both sides have, from the answer of ``GET /version``."""
    found = answer if isinstance(answer, Mapping) else {}
    newest, oldest = parse_version(found.get("ApiVersion")), parse_version(found.get("MinAPIVersion"))
    if newest is None:
        raise PlatformError("GET /version: the Docker engine sent an incomplete answer: ApiVersion")
    return max(min(newest, NEWEST_API), oldest or (0, 0))


def parse_version(version: Any) -> tuple[int, int] | None:
    """Parse a version of the API (``1.44``); None where it is none."""
    form = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", version) if isinstance(version, str) else None
    return (int(form[1]), int(form[2])) if form else None


def _format_version(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"

"""Pages of other origins: which of them a browser lets read our answers (Fetch standard, "CORS protocol"). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from openfactory_common.edge import parse_origins

_Fields = Sequence[tuple[bytes, bytes]]

_SERVICES_OWN = b"access-control-"
_EXPOSED = b"Access-Control-Expose-Headers: Retry-After, WWW-Authenticate"
_PREFLIGHT = (
    b"Access-Control-Allow-Methods: GET, HEAD",
    b"Access-Control-Allow-Headers: Authorization, Last-Event-ID, Cache-Control",
    b"Access-Control-Max-Age: 600",
)


class Cors:
    """Says what browsers may do with the answers.

    Attributes:
        on: whether any origin is allowed; without, what services say about it is passed on.
    """

    def __init__(self, setting: str = "") -> None:
        """Read origins that are separated by commas, or ``*``.

        Raises:
            ValueError: what is wrong with the setting, in words.
        """
        origins = parse_origins(setting)
        self.on = bool(origins)
        self._allowed = {origin.encode(): _allow(origin) for origin in origins}
        # A cache must not give one origin the answer to another ("CORS protocol and HTTP caches"): all answers vary.
        self._default = () if not self.on else self._allowed.get(b"*", (b"Vary: Origin",))

    def fields(self, raw_headers: _Fields) -> tuple[bytes, ...]:
        """Return the field lines for the answer to a request, whatever the answer is.

        An origin that is not allowed gets the answer without them: its browser does not show it to the page.
        """
        if not self.on:
            return ()
        return self._allowed.get(_find_origin(raw_headers), self._default)

    def answer_preflight(self, method: str, raw_headers: _Fields) -> tuple[bytes, ...] | None:
        """Return the field lines of the 204 that answers a preflight; None if the request is none.

        Browsers send it without credentials, so it is answered before they are checked. It asks for what the page is
        about to send; the answer names all that is allowed, and the browser compares.
        """
        if method != "OPTIONS" or not self.on:
            return None
        names = {name.lower() for name, _ in raw_headers}
        if not {b"origin", b"access-control-request-method"} <= names:
            return None
        fields = self.fields(raw_headers)
        return fields + _PREFLIGHT if _EXPOSED in fields else fields

    def replace(self, lines: Iterable[bytes], fields: tuple[bytes, ...]) -> Iterable[bytes]:
        """Return the field lines of a service's answer with ``fields`` in place of its own of this kind."""
        if not self.on:
            return lines
        return (*(line for line in lines if line[: len(_SERVICES_OWN)].lower() != _SERVICES_OWN), *fields)


def _find_origin(raw_headers: _Fields) -> bytes:
    """Return the one origin of a request; empty if there is none, or several."""
    found = [value for name, value in raw_headers if len(name) == len(b"origin") and name.lower() == b"origin"]
    return found[0] if len(found) == 1 else b""


def _allow(origin: str) -> tuple[bytes, ...]:
    allowed = b"Access-Control-Allow-Origin: " + origin.encode()
    if origin == "*":  # browsers refuse credentials with it, and so do we
        return allowed, _EXPOSED
    return b"Vary: Origin", allowed, b"Access-Control-Allow-Credentials: true", _EXPOSED

"""What a request asks for, and what is wrong with it in words: RFC 9112, section 3.2, on plain values. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ABSOLUTE = re.compile(r"https?://([^/?#]+)(.*)", re.IGNORECASE | re.DOTALL)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://.*", re.DOTALL)
#: RFC 3986's host and port, without the commas that a list of several has; no user.
_HOST = re.compile(r"(?:\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~!$&'()*+;=%-]*)(?::(?P<port>[0-9]{0,5}))?")
_LAST_PORT = 65_535
#: A request line, whole or cut behind its first blank; greedy, so that a blank is in the target.
_REQUEST_LINE = re.compile(rb"^[A-Z]{1,20} (?:(.+) HTTP/[0-9]|([^\r\n]+)\Z)", re.MULTILINE)
_NOT_IN_TARGETS = re.compile(rb"[^\x21-\x7e]")
_LONGEST_CHARACTER = 4


def to_origin_form(target: str) -> tuple[str, str | None]:
    """Return path and query of a target, and the authority of one in absolute-form, which replaces ``Host``."""
    absolute = None if target.startswith("/") else _ABSOLUTE.fullmatch(target)
    if absolute is None:
        return target, None
    path = absolute[2]
    return path if path.startswith("/") else f"/{path}", absolute[1]


def find_target_fault(target: str) -> str | None:
    """Return what is wrong with the target of a GET or HEAD that is in origin-form by now; None if nothing is."""
    if "#" in target:
        return "the request target has a fragment, which is for the client alone; percent-encode a # as %23"
    if target.startswith("/"):
        return None
    scheme = _SCHEME.fullmatch(target)
    if scheme is None:
        return "the request target is not a path with an optional query"
    if scheme[1].lower() in ("http", "https"):
        return "the request target is a URL without a host"
    return f"the request target has the scheme {scheme[1][:20]}, only http and https are served here"


def find_host_fault(hosts: Sequence[str], *, required: bool) -> str | None:
    """Return what is wrong with the values of ``Host``; None if nothing is. HTTP/1.0 does not require one."""
    if len(hosts) > 1 or (required and not hosts):
        return "a request has exactly one Host"
    match = _HOST.fullmatch(hosts[0]) if hosts else None
    if hosts and (match is None or int(match["port"] or 0) > _LAST_PORT):
        return "Host is not a host with an optional port"
    return None


def explain_refused_target(data: bytes) -> str | None:
    """Return why a parser has refused a request of ``data``: a character that no target has; None if there is none.

    People and programs write names as they are (`?asset_uuid=Ofen-ä`); a parser only says that a character is invalid.
    """
    for line in _REQUEST_LINE.finditer(data):
        target = line[1] or line[2]
        found = _NOT_IN_TARGETS.search(target)
        if found is None:
            continue
        for size in range(1, _LONGEST_CHARACTER + 1):
            raw = target[found.start() : found.start() + size]
            try:
                character = raw.decode()
            except UnicodeDecodeError:
                continue
            return f"the request target has {character!r} in it; percent-encode it: {_encode(raw)}"
        raw = target[found.start() : found.end()]
        return f"the request target has a byte in it that is not UTF-8; percent-encode it: {_encode(raw)}"
    return None


def _encode(raw: bytes) -> str:
    return "".join(f"%{byte:02X}" for byte in raw)

"""Where the proxy reads a response otherwise than h11 or httptools, and the rule that each difference stands on.

The table holds differences of what is read (`judge` names them). A reason explains one difference from the readers that
it names, if its predicate holds on the parts of the bytes that it looks at; any other difference is a fault of one of
the readers. A reason that no example meets in a long run (``python -m tests.soak.responses``) has to go.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.unit.routing_layer.upstream.response_readers import Reading

H11, HTTPTOOLS = "h11", "httptools"
BOTH = frozenset((H11, HTTPTOOLS))

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_INTERIM = re.compile(rb"HTTP/\d\.\d 1\d\d")
_WORD = rb"[!#$%&'*+.^_`|~\w-]+"
_EXTENSION = rb"(?:;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|\"(?:[^\"\\]|\\.)*\"))?)*" % (_WORD, _WORD)


@dataclass
class Anatomy:
    """The parts of a connection's bytes, taken apart as generously as anyone could.

    Attributes:
        before: line ends before the first status line.
        heads: interim heads, then the final one.
        sizes: lines before chunks, their ends included.
        trailer: what follows the last chunk, up to an empty line.
    """

    before: bytes
    heads: list[bytes]
    sizes: list[bytes] = field(default_factory=list)
    trailer: bytes = b""

    @property
    def head(self) -> bytes:
        """The heads in one."""
        return b"".join(self.heads)

    @property
    def final(self) -> bytes:
        """The final head."""
        return self.heads[-1]

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a field of the final head."""
        found = re.findall(rb"(?i)(?<=\n)" + name + rb"[ \t]*:([^\r\n]*)", self.final)
        return [value.strip().lower() for value in found]


def take_apart(data: bytes) -> Anatomy:
    """Find the heads, and the lines of a chunked body."""
    rest = data.lstrip(b"\r\n")
    found = Anatomy(data[: len(data) - len(rest)], [])
    while True:
        end = _HEAD_END.search(rest)
        found.heads.append(rest[: end.end()] if end else rest)
        rest = rest[end.end() :] if end else b""
        if not _INTERIM.match(found.heads[-1]) or not rest:
            break
    if not found.values(b"transfer-encoding"):
        return found
    while size := re.match(rb"([0-9a-fA-F]+)[^\n]*\n", rest):
        found.sizes.append(size[0])
        rest = rest[size.end() :]
        length = int(size[1], 16)
        if length == 0:
            end = re.search(rb"(?:\A|\n)\r?\n", rest)
            found.trailer = rest[: end.end()] if end else rest
            break
        rest = rest[length + 2 :]
    return found


@dataclass(frozen=True)
class Reason:
    """One difference that is meant.

    Attributes:
        name: what the bytes have, in a few words.
        rule: where it is written, and why ours follows it and the other does not.
        readers: who differs from ours.
        difference: what differs, as `judge` names it.
        holds: whether the bytes have it.
    """

    name: str
    rule: str
    readers: frozenset[str]
    difference: str
    holds: Callable[[Anatomy], bool]


def _stricter(name: str, rule: str, holds: Callable[[Anatomy], object], *readers: str) -> Reason:
    return Reason(name, rule, frozenset(readers) or BOTH, "ours refuses", lambda parts: bool(holds(parts)))


def _length_or_coding(heads: list[bytes], status: bytes) -> bool:
    pattern = rb"(?is)\AHTTP/\d\.\d " + status + rb".*\n(?:transfer-encoding:|content-length:[ \t]*(?!0+[ \t]*[\r\n]))"
    return any(re.match(pattern, head) for head in heads)


_CONTROL = rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
_HALF = rb"(?<!\r)\n|\r(?!\n)"

REASONS = (
    _stricter(
        "a bare LF in a head",
        "RFC 9112, 2.2: a recipient may take it for a line end; two that do not agree see different fields.",
        lambda parts: re.search(rb"(?<!\r)\n", parts.head),
        H11,
    ),
    _stricter(
        "a control character in a phrase",
        "RFC 9112, 4: a phrase is of blanks, tabs and visible characters; a terminal or a log obeys others.",
        lambda parts: any(re.match(rb"[^\n]*?" + _CONTROL + rb"[^\n]*\n", head) for head in parts.heads),
    ),
    _stricter(
        "a control character in a field",
        "RFC 9110, 5.5: CR, LF and NUL are invalid, others may be kept; a terminal or a log obeys them.",
        lambda parts: re.search(rb"(?<=\n)[^\n]*" + _CONTROL, parts.head),
        H11,
    ),
    _stricter(
        "a folded line",
        "RFC 9112, 5.2: obsolete; a client's side may refuse it. Line by line it looks like another field.",
        lambda parts: re.search(rb"\n[ \t]", parts.head),
        H11,
    ),
    _stricter(
        "no blank after the status code",
        "RFC 9112, 4: the blank is there also if the phrase is empty.",
        lambda parts: any(re.match(rb"HTTP/1\.[01] \d\d\d\r", head) for head in parts.heads),
    ),
    _stricter(
        "a status code that does not exist",
        "RFC 9110, 15: 100 to 599; others have no class, so that it is not known whether a body follows.",
        lambda parts: any(re.match(rb"HTTP/1\.[01] (?:0|[6-9])\d\d", head) for head in parts.heads),
    ),
    _stricter(
        "another version",
        "RFC 9112, 2.3: there is no other minor version of HTTP/1; the framing of what is not HTTP/1 is unknown.",
        lambda parts: any(re.match(rb"HTTP/(?!1\.[01] )\d\.\d ", head) for head in parts.heads),
    ),
    _stricter(
        "line ends before a status line",
        "RFC 9112, 2.2: only a server ignores them, before a request line.",
        lambda parts: parts.before or any(re.match(rb"[\r\n]", head) for head in parts.heads),
        HTTPTOOLS,
    ),
    _stricter(
        "an interim response with a length or a coding",
        "RFC 9110, 8.6 and RFC 9112, 6.1: must not be sent; who takes it at its word reads another body.",
        lambda parts: _length_or_coding(parts.heads, rb"1\d\d"),
    ),
    _stricter(
        "an interim response in HTTP/1.0",
        "RFC 9110, 15.2: HTTP/1.0 has none; llhttp ends the connection with it, so that the final one is refused.",
        lambda parts: any(re.match(rb"HTTP/1\.0 1\d\d ", head) for head in parts.heads),
        H11,
    ),
    _stricter(
        "a 204 with a length or a coding",
        "as above",
        lambda parts: _length_or_coding(parts.heads[-1:], rb"204"),
    ),
    _stricter(
        "several lengths, or a list of them",
        "RFC 9112, 6.3: equal ones may be taken as one; servers do not send them.",
        lambda parts: (
            len(parts.values(b"content-length")) > 1 or any(b"," in value for value in parts.values(b"content-length"))
        ),
        H11,
    ),
    _stricter(
        "a length of more than 18 digits",
        "RFC 9110, 8.6: what does not fit must not overflow; no body is that long.",
        lambda parts: any(re.fullmatch(rb"\d{19,}", value) for value in parts.values(b"content-length")),
    ),
    _stricter(
        "a length and a coding",
        "RFC 9112, 6.1: the coding wins, or it is an error, since it may be an attempt at response splitting.",
        lambda parts: parts.values(b"content-length") and parts.values(b"transfer-encoding"),
        H11,
    ),
    _stricter(
        "a coding in HTTP/1.0",
        "RFC 9112, 6.1: the framing is to be treated as faulty.",
        lambda parts: parts.final.startswith(b"HTTP/1.0 ") and parts.values(b"transfer-encoding"),
    ),
    _stricter(
        "a coding that is not 'chunked' alone",
        "RFC 9112, 6.1: only what was asked for by TE may be sent; llhttp reads others to the end of the connection.",
        lambda parts: parts.values(b"transfer-encoding") not in ([], [b"chunked"]),
        HTTPTOOLS,
    ),
    _stricter(
        "heads of more than 64 KiB",
        "RFC 9110, 5.4: a recipient may limit them.",
        lambda parts: len(parts.head) > 64 * 1024,
    ),
    _stricter(
        "half a line end in a chunked body",
        "RFC 9112, 7.1: CRLF; h11 also takes a bare LF in the trailer, and a CR in an extension.",
        lambda parts: re.search(_HALF, b"".join(parts.sizes) + parts.trailer),
        H11,
    ),
    _stricter(
        "a control character in a chunked body's lines",
        "RFC 9112, 7.1.1 and 7.1.2: neither an extension nor a trailer has one.",
        lambda parts: re.search(_CONTROL, b"".join(parts.sizes) + parts.trailer),
        H11,
    ),
    _stricter(
        "a folded line in a trailer",
        "RFC 9112, 5.2, as in a head.",
        lambda parts: re.search(rb"\n[ \t]", parts.trailer),
        H11,
    ),
    _stricter(
        "a blank after the size of a chunk",
        "RFC 9112, 7.1: none is there.",
        lambda parts: any(re.match(rb"[\da-fA-F]+[^\r\n]*[ \t]\r\n", size) for size in parts.sizes),
        H11,
    ),
    _stricter(
        "an extension of a chunk that is none",
        "RFC 9112, 7.1.1: a name, and a token or a quoted string as its value.",
        lambda parts: any(
            re.match(rb"[\da-fA-F]+[ \t]*;", size) and not re.fullmatch(rb"[\da-fA-F]+" + _EXTENSION + rb"\r\n", size)
            for size in parts.sizes
        ),
    ),
    _stricter(
        "a size of more than 15 digits",
        "RFC 9112, 7.1: large numbers are to be expected and must not overflow.",
        lambda parts: any(re.match(rb"[\da-fA-F]{16}", size) for size in parts.sizes),
    ),
    _stricter(
        "a line of a chunked body of more than 4 KiB",
        "RFC 9112, 7.1.1: a recipient ought to limit extensions.",
        lambda parts: any(len(line) > 4096 for line in [*parts.sizes, *parts.trailer.split(b"\n")]),
    ),
    _stricter(
        "a trailer of more than 16 KiB",
        "RFC 9110, 6.5.1: a recipient may ignore trailers, and limit them.",
        lambda parts: len(parts.trailer) > 16 * 1024,
    ),
    Reason(
        "blanks in an extension of a chunk",
        "RFC 9112, 7.1.1 and RFC 9110, 5.6.3: bad whitespace that a recipient must parse; llhttp refuses it.",
        frozenset((HTTPTOOLS,)),
        "ours takes",
        lambda parts: any(re.search(rb"[ \t]", re.sub(rb'"(?:[^"\\]|\\.)*"', b"", size)) for size in parts.sizes),
    ),
    Reason(
        "an interim response with 'Connection: close'",
        "RFC 9110, 15.2: a final response follows; llhttp ends the connection with the interim one.",
        frozenset((HTTPTOOLS,)),
        "ours takes",
        lambda parts: any(re.search(rb"(?i)\nconnection:[^\r\n]*close", head) for head in parts.heads[:-1]),
    ),
    Reason(
        "a 304 with a coding is the last on its connection",
        "RFC 9112, 6.1: it tells the coding of the answer to GET and has no body; some servers send a last chunk.",
        BOTH,
        "kept",
        lambda parts: (
            re.match(rb"HTTP/1\.1 304 ", parts.final) is not None and bool(parts.values(b"transfer-encoding"))
        ),
    ),
    Reason(
        "an HTTP/1.0 connection is used once",
        "RFC 9112, 9.3: it may be kept where both sides say keep-alive; our requests do not.",
        frozenset((HTTPTOOLS,)),
        "kept",
        lambda parts: (
            parts.final.startswith(b"HTTP/1.0 ")
            and any(b"keep-alive" in value for value in parts.values(b"connection"))
        ),
    ),
)


def find_difference(ours: Reading, theirs: Reading) -> str | None:
    """Return how the readings differ: who refuses, or which attribute; None: not at all."""
    if ours.complete != theirs.complete:
        return "ours takes" if ours.complete else "ours refuses"
    if not ours.complete:
        return None
    for name in ("status", "reason", "fields", "body"):
        if getattr(ours, name) != getattr(theirs, name):
            return name
    return "kept" if ours.kept is not None and ours.kept != theirs.kept else None


def judge(data: bytes, ours: Reading, reader: str, theirs: Reading) -> tuple[str | None, list[str]]:
    """Return the difference from one reader, None without one, and the names of the reasons that explain it."""
    difference = find_difference(ours, theirs)
    if difference is None:
        return None, []
    parts = take_apart(data)
    candidates = [reason for reason in REASONS if reader in reason.readers and reason.difference == difference]
    return difference, [reason.name for reason in candidates if reason.holds(parts)]

"""What two parsers may read differently is refused."""

from __future__ import annotations

import pytest

from routing_layer.access.strict_json import parse_json


@pytest.mark.parametrize(
    ("document", "value"),
    [
        (b"{}", {}),
        (b'{"a": [1, 2.5, null, true], "b": {"a": "\xc3\xa4"}}', {"a": [1, 2.5, None, True], "b": {"a": "ä"}}),
        (b"1e300", 1e300),
    ],
)
def test_a_document_is_read(document: bytes, value: object) -> None:
    """Names may be the same in different objects."""
    assert parse_json(document) == value


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b'{"a": 1, "a": 1}',
        b'{"x": [{"a": 1, "\\u0061": 2}]}',
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"1e400",
        b"-1e400",
        b"9" * 5000,
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{} {}",
    ],
    ids=lambda document: repr(document[:20]),
)
def test_an_ambiguous_document_is_refused(document: bytes) -> None:
    """With a message that repeats nothing of it."""
    with pytest.raises(ValueError, match=r"^not a JSON document without ambiguities$") as refused:
        parse_json(document)
    assert refused.value.__cause__ is None

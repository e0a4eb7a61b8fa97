"""One record becomes one server-sent event, byte for byte."""

from __future__ import annotations

import pytest

from group_service.events import Event, Reason, chunk, gap_frame


def event(value: bytes) -> Event:
    """Return an event with a value."""
    return Event("Weld", b"A", value, 0, 12, 99)


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (b'{"ID":"x"}', b'data: {"ID":"x"}\n'),
        ("{'ü':1}".encode(), "data: {'ü':1}\n".encode()),
        (b"not JSON \xff\x00", b"data: not JSON \xff\x00\n"),
        (b"", b"data: \n"),
        (b"{\n 1\r\n}\r", b"data: {\ndata:  1\ndata: }\ndata: \n"),
    ],
)
def test_the_value_is_the_data(value: bytes, data: bytes) -> None:
    """No byte of the value is changed, but a line end begins another field: otherwise it would end the event."""
    assert event(value).frame == b"id: Weld/0/12@99\nevent: asset_update\n" + data + b"\n"


@pytest.mark.parametrize(
    ("value", "item"),
    [
        (b'{"ID":"Temp","VALUE":"1"}', "Temp"),
        (b'{"asset_uuid":"A","id":"Temp"}', "Temp"),
        (b'{"Id":7}', "7"),
        (b'{\n"id":\n"Temp"}', "Temp"),
        (b'{"ID":null}', None),
        (b'{"ID":""}', None),
        (b'{"x":1}', None),
        (b'["id"]', None),
        (b"nonsense", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_the_data_item_is_found_in_any_case(value: bytes, item: str | None) -> None:
    """The column's name may have any case; a value without one has no data item and is no error."""
    assert event(value).item == item


def test_a_frame_can_get_another_id() -> None:
    """The rest of it stays."""
    assert event(b"v").frame_as("Weld/0:12,1:3@99") == b"id: Weld/0:12,1:3@99\nevent: asset_update\ndata: v\n\n"


def test_a_gap_has_the_id_from_which_to_continue() -> None:
    """A client that reconnects after it is not told the same again."""
    frame = gap_frame("Weld/0/9", "Weld/0/59", Reason.EXPIRED)
    data = b'{"from":"Weld/0/9","to":"Weld/0/59","reason":"expired"}'
    assert frame == b"id: Weld/0/59\nevent: gap\ndata: " + data + b"\n\n"


def test_a_chunk_has_its_length_in_hexadecimal() -> None:
    """As HTTP/1.1 asks."""
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"

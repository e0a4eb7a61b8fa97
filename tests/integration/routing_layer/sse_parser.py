"""An event stream parser that follows the WHATWG HTML standard, section 9.2.6, and nothing else."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

#: CRLF, LF or CR: no other character ends a line (U+2028 does not).
_LINE_END = re.compile("\r\n|\n|\r")


@dataclass(frozen=True)
class Event:
    """One dispatched event."""

    data: str
    type: str = "message"
    last_id: str = ""


class EventParser:
    """Turns bytes, cut anywhere, into events.

    Attributes:
        retry: the reconnection time in milliseconds, None until one was sent.
        last_id: what a reconnection sends as ``Last-Event-ID``: a block sets it, even one without data.
    """

    def __init__(self) -> None:
        """Start at the beginning of a stream."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._first = True
        self._data: list[str] = []
        self._type = ""
        self._last_id = ""
        self.last_id = ""
        self.retry: int | None = None

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that ``data`` completes."""
        self._text += self._decoder.decode(data)
        if self._first and self._text:
            self._text = self._text.removeprefix("\ufeff")
            self._first = False
        events: list[Event] = []
        while (line := self._next_line()) is not None:
            event = self._take(line)
            if event is not None:
                events.append(event)
        return events

    def _next_line(self) -> str | None:
        match = _LINE_END.search(self._text)
        # A CR at the very end may be the first half of a CRLF.
        if match is None or (match[0] == "\r" and match.end() == len(self._text)):
            return None
        line, self._text = self._text[: match.start()], self._text[match.end() :]
        return line

    def _take(self, line: str) -> Event | None:
        if line == "":
            return self._dispatch()
        if line.startswith(":"):
            return None
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._type = value
        elif field == "id" and "\0" not in value:
            self._last_id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)
        return None

    def _dispatch(self) -> Event | None:
        data, kind = self._data, self._type
        self.last_id = self._last_id
        self._data, self._type = [], ""
        return Event("\n".join(data), kind or "message", self._last_id) if data else None

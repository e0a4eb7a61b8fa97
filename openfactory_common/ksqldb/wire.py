"""Bytes to values and values to SQL text: ksqlDB's wire format, without any I/O.

Both sides of the project speak it: the operator through ``client`` and the routing layer through its own HTTP
library. Rows come as *StreamedRow* (``application/vnd.ksql.v1+json``): one JSON array, a header first, then rows, the
only form of ksqlDB that shows the deletions of a table and whose end can be recognized.

    [{"header":{"queryId":"...","schema":"`ASSET_UUID` STRING KEY, `N` BIGINT"}},
    {"row":{"columns":["A1",1]}},
    {"row":{"columns":["A2",null],"tombstone":true}},
    {"finalMessage":"Query Completed"}]

A 200 is sent before the first row is known, so a failure comes as an item (``errorMessage``), and a server that dies
leaves the array open. A body is believed only when its bracket was closed: otherwise half a table would be read as a
whole one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import NoneType
from typing import Any, NamedTuple

from openfactory_common.errors import KsqlBadStatement, KsqlTruncated, KsqlWrongShape
from openfactory_common.ksqldb.failures import brief, in_band, is_error_object, no_constant

JSON_ACCEPT = "application/json"
ROWS_ACCEPT = "application/vnd.ksql.v1+json"
"""Always sent: without an Accept header the two query endpoints answer in different formats."""

_SOURCE_NAME = re.compile(r"[A-Za-z0-9_-]+")
_COLUMN = re.compile(r"`((?:[^`]|``)*)` ")
_SPACE = re.compile(r"[ \t\r\n]*")
_IGNORED = frozenset({"sourceHost", "continuationToken", "consistencyToken"})
_AFTER_MARK = {
    ("start", "["): "first",
    ("first", "]"): "closed",
    ("item", ","): "comma",
    ("item", "]"): "closed",
}
"""What a bracket or a comma between items leads to; items may come at ``first`` and ``comma``."""
_LONGEST_ITEM = 16 * 1024 * 1024
#: An item that is not complete after this many bytes is not decoded again before its last brace.
_LONG_ITEM = 64 * 1024
_STRING_OR_BRACE = re.compile(rb"\\.?|[\"{}]", re.DOTALL)
#: What a value of a type must be; other types are passed as they come.
_TYPES: dict[str, Any] = {"STRING": (str, NoneType), "BIGINT": (int, NoneType)}


def literal(value: str) -> str:
    """Return ``value`` as an SQL string literal.

    The doubled quote is the only escape of ksqlDB's literals: no backslash escapes, newlines may stay. ``${...}`` is
    inert as long as no ``sessionVariables`` are sent, which this project never does.
    """
    return "'" + value.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return a source name in backticks, which keeps its case.

    Raises:
        KsqlBadStatement: the name has a character that ksqlDB accepts in no source name, quoted or not.
    """
    if not _SOURCE_NAME.fullmatch(name):
        raise KsqlBadStatement(f"not a ksqlDB source name (letters, digits, _ and - only): {name!r}")
    return f"`{name}`"


def fold_name(name: str) -> str:
    """Return a name that a person wrote as ksqlDB stores it: in upper case, unless it is in quotes."""
    if len(name) > 1 and name[0] == name[-1] and name[0] in '`"':
        return name[1:-1].replace(name[0] * 2, name[0])
    return name.upper()


def column(name: str) -> str:
    """Return a column name in backticks; any character is allowed, a backtick is doubled.

    Raises:
        KsqlBadStatement: the name is empty or has blanks around it.
    """
    if not name or name != name.strip():
        raise KsqlBadStatement(f"not a ksqlDB column name: {name!r}")
    return "`" + name.replace("`", "``") + "`"


class Column(NamedTuple):
    """One column of a result: its name as stored, its SQL type, whether it is (part of) the key."""

    name: str
    type: str
    key: bool = False


class Header(NamedTuple):
    """What comes before the rows. A push query marks no column as a key."""

    query_id: str
    columns: tuple[Column, ...]


class Row(NamedTuple):
    """One row. A tombstone has only its key columns filled: the row of that key is gone."""

    values: list[Any]
    tombstone: bool = False


class Final(NamedTuple):
    """The server ended the query by itself (``Query Completed``, ``Limit Reached``)."""

    message: str


Item = Header | Row | Final


class _LongItem:
    """Finds the end of an item that comes in many chunks, without looking at any byte twice.

    Decoded again at each chunk, an item of 16 MiB without an end would cost minutes of processor time.
    """

    def __init__(self) -> None:
        """Start before the item's first brace."""
        self._depth = 0
        self._quoted = False
        self._escaped = False  # the last byte was a backslash

    def ends_in(self, chunk: bytes) -> bool:
        """Whether the item's last brace is in ``chunk``, which follows those before."""
        mark = b""
        for found in _STRING_OR_BRACE.finditer(chunk, 1 if self._escaped else 0):
            mark = found[0]
            if mark == b'"':
                self._quoted = not self._quoted
            elif not self._quoted and mark in (b"{", b"}"):
                self._depth += 1 if mark == b"{" else -1
                if self._depth <= 0:
                    return True
        self._escaped = mark == b"\\" if chunk else self._escaped
        return False


class RowFeed:
    """Turns the chunks of a StreamedRow body into items as soon as they are complete.

    Chunks may be cut anywhere, within a character too; items may share a line or not; empty lines (keep-alives) are
    passed over. Only the unfinished end of the body is kept.
    """

    def __init__(self) -> None:
        """Start before the opening bracket."""
        self._rest = bytearray()
        self._long: _LongItem | None = None
        self._state = "start"
        self._decode = json.JSONDecoder(parse_constant=no_constant).raw_decode

    @property
    def closed(self) -> bool:
        """Whether the array has been closed: the body is complete."""
        return self._state == "closed"

    def feed(self, chunk: bytes) -> list[Item]:
        """Return the items that ``chunk`` completes.

        Raises:
            KsqlInBandFailure: an error object came; the rows before it are not a result.
            KsqlWrongShape: the body is not an array of StreamedRow items.
        """
        if self._long is not None and not self._long.ends_in(chunk):
            self._keep(chunk)
            return []
        data = bytes(self._rest + chunk)
        self._rest.clear()
        if self._state == "start" and data.strip()[:1] not in (b"", b"["):
            raise KsqlWrongShape(f"not an array of rows: {data[:80]!r}", status=200)
        # Only JSON's own ASCII marks can end an item, so cutting there never cuts a character.
        end = max(data.rfind(b"}"), data.rfind(b"]"), data.rfind(b","), data.rfind(b"\n"), data.rfind(b"[")) + 1
        if end == 0:
            self._keep(data)
            return []
        text = _decode(data[:end])
        items, used = self._walk(text)
        if self._long is not None and not text[:used].strip():
            raise KsqlWrongShape(f"not JSON: {text[:80]!r}", status=200)
        self._long = None
        self._keep(text[used:].encode() + data[end:])
        return items

    def close(self) -> None:
        """Confirm that the body has ended where it should.

        Raises:
            KsqlTruncated: the array was not closed: the connection broke, or the server died.
        """
        if not self.closed:
            raise KsqlTruncated("the answer ended before its closing bracket", status=200)

    def _keep(self, more: bytes) -> None:
        self._rest += more
        if len(self._rest) > _LONGEST_ITEM:
            raise KsqlWrongShape(f"an item of more than {_LONGEST_ITEM} bytes", status=200)
        if self._long is None and len(self._rest) > _LONG_ITEM:
            self._long = _LongItem()
            if self._long.ends_in(bytes(self._rest)):
                raise KsqlWrongShape(f"not JSON: {bytes(self._rest[:80])!r}", status=200)

    def _walk(self, text: str) -> tuple[list[Item], int]:
        """Read as many items as ``text`` holds; return them and how much of it was used."""
        items: list[Item] = []
        position, size = _skip_space(text, 0), len(text)
        while position < size:
            if text[position] == "{" and self._state in ("first", "comma"):
                try:
                    document, position = self._decode(text, position)
                except json.JSONDecodeError:
                    self._unfinished(text, position)
                    break
                except (ValueError, RecursionError) as error:  # NaN, a number of 5,000 digits, or nested too deeply
                    raise KsqlWrongShape(f"not JSON: {text[position : position + 80]!r}", status=200) from error
                self._state = "item"
                item = _parse_item(document)
                if item is not None:
                    items.append(item)
            else:
                after = _AFTER_MARK.get((self._state, text[position]))
                if after is None:
                    raise KsqlWrongShape(f"not an array of rows: {text[position]!r} out of place", status=200)
                self._state = after
                position += 1
            position = _skip_space(text, position)
        return items, position

    @staticmethod
    def _unfinished(text: str, start: int) -> None:
        """Tell an item that is still coming from one that never will be: no item has a raw newline in it."""
        if "\n" in text[start:]:
            raise KsqlWrongShape(f"not JSON: {text[start : start + 80]!r}", status=200)


class _TypedRows:
    """A body of which the header and each row must have the expected columns."""

    def __init__(self, expected: tuple[Column, ...]) -> None:
        """Expect rows with these columns; in a push query's header no column is a key."""
        self._expected = expected
        self._types = [_TYPES.get(one.type, object) for one in expected]
        self._feed = RowFeed()
        self._has_header = False


class PullReader(_TypedRows):
    """Reads a pull query's answer and believes it only as a whole.

    Checked: a header first, its columns exactly the expected ones (names, types and key), each row as wide as the
    header, no error object, the closing bracket.
    """

    def feed(self, chunk: bytes) -> Iterator[tuple[Any, ...]]:
        """Yield the rows that ``chunk`` completes; they count only after ``close``.

        Raises:
            KsqlInBandFailure: the server failed after it had begun.
            KsqlWrongShape: another schema, no header, another width, or not rows at all.
        """
        width = len(self._expected)
        for item in self._feed.feed(chunk):
            if isinstance(item, Row) and self._has_header:
                if len(item.values) != width or item.tombstone:
                    raise KsqlWrongShape(f"a row of {len(item.values)} columns, not {width}", status=200)
                if not all(map(isinstance, item.values, self._types)):
                    raise KsqlWrongShape(f"not a row of {_show(self._expected)}: {brief(item.values)}", status=200)
                yield tuple(item.values)
            elif isinstance(item, Row) or (isinstance(item, Header) and self._has_header):
                raise KsqlWrongShape("the header is not at the beginning", status=200)
            elif isinstance(item, Header):
                if item.columns != self._expected:
                    raise KsqlWrongShape(f"columns {_show(item.columns)}, not {_show(self._expected)}", status=200)
                self._has_header = True

    def close(self) -> None:
        """Confirm that the answer was complete.

        Raises:
            KsqlTruncated: the closing bracket is missing.
            KsqlWrongShape: an array without a header.
        """
        self._feed.close()
        if not self._has_header:
            raise KsqlWrongShape("an answer without a header", status=200)


class PushRows(_TypedRows):
    """Reads a push query's rows as they come.

    Attributes:
        rows: what came, tombstones left out.
        final: the server ended the query, e.g. because of its LIMIT.
    """

    def __init__(self, expected: tuple[Column, ...]) -> None:
        """Expect rows with these columns."""
        super().__init__(expected)
        self.rows: list[tuple[Any, ...]] = []
        self.final = False

    def feed(self, chunk: bytes) -> int:
        """Take a chunk; return how many rows it completed.

        Raises:
            KsqlInBandFailure: the server failed after it had begun.
            KsqlWrongShape: another schema, no header, another width, or not rows at all.
        """
        count = 0
        for item in self._feed.feed(chunk):
            if isinstance(item, Row) and self._has_header and self._fits(item.values):
                self.take(item)
                count += 1
            elif isinstance(item, Header) and not self._has_header and item.columns == self._expected:
                self._has_header = True
            elif isinstance(item, Final):
                self.final = True
            else:
                raise KsqlWrongShape(f"not the columns {_show(self._expected)}: {str(item)[:120]}", status=200)
        return count

    def _fits(self, values: list[Any]) -> bool:
        return len(values) == len(self._expected) and all(map(isinstance, values, self._types))

    def take(self, row: Row) -> None:
        """Keep a row."""
        if not row.tombstone:
            self.rows.append(tuple(row.values))


class PushFold(PushRows):
    """Folds a push query's rows by their first column: the content of a table, from the history of its topic.

    Attributes:
        table: what each key has now, without the key.
        records: rows that were read.
    """

    def __init__(self, expected: tuple[Column, ...]) -> None:
        """Expect rows with these columns."""
        super().__init__(expected)
        self.table: dict[str, tuple[Any, ...]] = {}
        self.records = 0
        self._deleted: set[str] = set()

    @property
    def keys(self) -> int:
        """Keys that were named, those counted that were deleted."""
        return len(self.table) + len(self._deleted)

    def take(self, row: Row) -> None:
        """Set or delete the row of a key."""
        key = row.values[0]
        if not isinstance(key, str):
            raise KsqlWrongShape("a row without its key", status=200)
        self.records += 1
        if row.tombstone:
            self.table.pop(key, None)
            self._deleted.add(key)
        else:
            self._deleted.discard(key)
            self.table[key] = tuple(row.values[1:])


def columns_of(schema: str) -> tuple[Column, ...]:
    """Parse a header's schema text, e.g. ```A` STRING KEY, `M` MAP<STRING, STRING>``.

    Raises:
        KsqlWrongShape: the text has another form.
    """
    columns: list[Column] = []
    position = 0
    while position < len(schema):
        match = _COLUMN.match(schema, position)
        if match is None:
            raise KsqlWrongShape(f"not a schema: {schema[:120]!r}", status=200)
        end = _find_type_end(schema, match.end())
        kind = schema[match.end() : end]
        name = match[1].replace("``", "`")
        columns.append(Column(name, kind.removesuffix(" KEY"), kind.endswith(" KEY")))
        position = end + 2
    return tuple(columns)


def _find_type_end(schema: str, start: int) -> int:
    """Return where a type ends: at the first comma outside of ``<>``, ``()`` and backticks."""
    depth, quoted = 0, False
    for position in range(start, len(schema)):
        mark = schema[position]
        if mark == "`":
            quoted = not quoted
        elif not quoted and mark == "," and depth == 0:
            return position
        elif not quoted:
            depth += (mark in "<(") - (mark in ">)")
    return len(schema)


def _parse_item(document: Any) -> Item | None:
    """Return the value of one element of the array; None for one that carries nothing for us."""
    try:
        row = document["row"]
        return Row(_list(row["columns"]), row.get("tombstone", False) is True)
    except (KeyError, TypeError, AttributeError):
        return _parse_rare_item(document)


def _parse_rare_item(document: Any) -> Item | None:
    if "errorMessage" in document:
        raise in_band(document["errorMessage"])
    if is_error_object(document):
        raise in_band(document)
    if "finalMessage" in document:
        message = document["finalMessage"]
        return Final(message if isinstance(message, str) else brief(message))
    if "header" in document:
        return _parse_header(document["header"])
    if document and _IGNORED.issuperset(document):
        return None
    raise KsqlWrongShape(f"not an item of a row stream: {brief(document)}", status=200)


def _parse_header(header: Any) -> Header:
    try:
        query_id, schema = header.get("queryId"), header["schema"]
    except (KeyError, TypeError, AttributeError) as error:
        raise KsqlWrongShape(f"not a header: {brief(header)}", status=200) from error
    if not isinstance(schema, str) or not isinstance(query_id, str | None):
        raise KsqlWrongShape(f"not a header: {brief(header)}", status=200)
    return Header(query_id or "", columns_of(schema))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise KsqlWrongShape("the answer is not UTF-8", status=200) from error


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _show(columns: tuple[Column, ...]) -> str:
    return ", ".join(f"{name} {kind}{' KEY' if key else ''}" for name, kind, key in columns)

"""Reads a stream's definition back from the text in which ksqlDB keeps it.

The server renders a statement anew (names folded, every column qualified, comparisons in parentheses, properties
added and sorted), and another version may do it in another way, so texts are not compared: they are cut into tokens,
and the parts that matter are brought to one form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

_TOKEN = re.compile(
    r"(?P<blank>\s+|--[^\n]*|/\*.*?\*/)"
    r"|(?P<text>'(?:[^']|'')*')"
    r"|(?P<quoted>`(?:[^`]|``)*`|\"(?:[^\"]|\"\")*\")"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?(?![A-Za-z0-9_@-]))"
    # The server shows some names without the quotes that it would need itself to read them back: those that begin
    # with a digit, and those with two dashes, which then look like a comment.
    r"|(?P<word>[A-Za-z0-9_][A-Za-z0-9_@-]*)"
    r"|(?P<mark><>|!=|<=|>=|:=|->|=>|.)",
    re.DOTALL,
)
_CLAUSES = ("FROM", "WINDOW", "WHERE", "GROUP", "PARTITION", "HAVING", "EMIT", "LIMIT")
_DIGITS = 20
_CACHED_TEXTS = 4096  # two texts a stream; a parse costs about 0.2 ms, an observe of 1,000 groups does none twice


@dataclass(frozen=True)
class Token:
    """A word (folded to upper case), a name in quotes, a string, a number or a mark, with its plain value."""

    kind: str
    value: str

    def is_word(self, *words: str) -> bool:
        """Whether it is one of these keywords, not in quotes."""
        return self.kind == "word" and self.value in words

    def is_mark(self, mark: str) -> bool:
        """Whether it is this mark."""
        return self.kind == "mark" and self.value == mark

    @property
    def is_name(self) -> bool:
        """Whether it can name something."""
        return self.kind in ("word", "quoted")


@dataclass(frozen=True)
class Output:
    """One selected column: its name and the expression in one form (``s`` the stream's side, ``t`` the table's)."""

    name: str
    expression: str


@dataclass(frozen=True)
class Join:
    """The table that a stream is joined with: how (INNER, LEFT ...), which, and on what."""

    kind: str
    table: str
    condition: str


@dataclass(frozen=True)
class Definition:
    """A CREATE STREAM ... AS SELECT, taken apart.

    Attributes:
        name: the stream, as stored.
        source: the stream that it reads from, as stored.
        topic: KAFKA_TOPIC, else the stream's name, which ksqlDB then takes.
        retention_ms: RETENTION_MS, None where the text has none.
        columns: what it selects, in order.
        filter: the condition in one form, "" without one.
        filter_literal: the text that the one column is compared with, None for any other condition.
        join: the joined table, if there is one.
        rest: any other clause, in one form; ours have none.
        properties: the WITH clause, names in upper case.
    """

    name: str
    source: str
    topic: str
    retention_ms: int | None
    columns: tuple[Output, ...]
    filter: str
    filter_literal: str | None
    join: Join | None
    rest: str
    properties: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)


@lru_cache(maxsize=_CACHED_TEXTS)
def definition_of(text: str) -> Definition | None:
    """Take a statement apart; None where it is not a CREATE STREAM ... AS SELECT from one stream."""
    try:
        return _statement(_Cursor(tuple(_tokens(text))))
    except _OtherFormError:
        return None


@lru_cache(maxsize=_CACHED_TEXTS)
def sources_of(text: str) -> frozenset[str]:
    """Return what a statement reads: every name after FROM or JOIN, as stored, whatever kind of statement it is."""
    tokens = tuple(_tokens(text))
    return frozenset(name.value for word, name in pairwise(tokens) if word.is_word("FROM", "JOIN") and name.is_name)


def target_of(text: str) -> str:
    """Return what an INSERT INTO writes, as stored; ``""`` for any other statement."""
    tokens = tuple(_tokens(text))[:3]
    if len(tokens) < 3 or not (tokens[0].is_word("INSERT") and tokens[1].is_word("INTO")):  # noqa: PLR2004 - both words and the name
        return ""
    return tokens[2].value


@lru_cache(maxsize=_CACHED_TEXTS)
def topic_of(text: str) -> str:
    """Return the KAFKA_TOPIC that a statement names, of a stream or a table; ``""`` where it names none."""
    tokens = tuple(_tokens(text))
    for name, mark, topic in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if name.is_word("AS"):
            break
        if name.is_word("KAFKA_TOPIC") and mark.is_mark("=") and topic.kind == "text":
            return topic.value
    return ""


class _OtherFormError(Exception):
    """The text is not of the form that is looked for."""


class _Cursor:
    """A place in a row of tokens."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.at = 0

    def peek(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self) -> Token:
        token = self.peek()
        if token is None:
            raise _OtherFormError
        self.at += 1
        return token

    def accept(self, *words: str) -> bool:
        """Take these keywords if they come next, all of them."""
        ahead = self.tokens[self.at : self.at + len(words)]
        if len(ahead) < len(words) or not all(token.is_word(word) for token, word in zip(ahead, words, strict=True)):
            return False
        self.at += len(words)
        return True

    def expect(self, *words: str) -> None:
        if not self.accept(*words):
            raise _OtherFormError

    def name(self) -> str:
        token = self.take()
        if not token.is_name:
            raise _OtherFormError
        return token.value

    def until(self, *words: str) -> tuple[Token, ...]:
        """Take what stands before one of these keywords, outside of brackets."""
        start, depth = self.at, 0
        while (token := self.peek()) is not None:
            if depth == 0 and (token.is_word(*words) or token.is_mark(";")):
                break
            depth += _step(token)
            self.at += 1
        return tuple(self.tokens[start : self.at])


def _tokens(text: str) -> Iterator[Token]:
    for match in _TOKEN.finditer(text):
        kind, raw = str(match.lastgroup), match[0]
        if kind == "blank":
            continue
        if kind in ("text", "quoted"):
            yield Token(kind, raw[1:-1].replace(raw[0] * 2, raw[0]))
        else:
            yield Token(kind, raw.upper())


def _statement(cursor: _Cursor) -> Definition:
    cursor.expect("CREATE")
    cursor.accept("OR", "REPLACE")
    cursor.expect("STREAM")
    cursor.accept("IF", "NOT", "EXISTS")
    name = cursor.name()
    properties = _properties(cursor) if cursor.accept("WITH") else {}
    cursor.expect("AS", "SELECT")
    selected = cursor.until("FROM")
    cursor.expect("FROM")
    source, join, sides = _sources(_Cursor(cursor.until(*_CLAUSES)))
    where = cursor.until(*_CLAUSES) if cursor.accept("WHERE") else ()
    rest = tuple(cursor.tokens[cursor.at :])
    condition = _resolved(where, sides)
    return Definition(
        name=name,
        source=source,
        topic=properties.get("KAFKA_TOPIC", name),
        retention_ms=_milliseconds(properties.get("RETENTION_MS")),
        columns=tuple(_output(part, sides) for part in _split(selected)),
        filter=_form(condition),
        filter_literal=_compared_with(condition),
        join=join,
        rest=_form(_unimplied(rest)),
        properties=properties,
    )


def _properties(cursor: _Cursor) -> dict[str, str]:
    inner: list[Token] = []
    if not cursor.take().is_mark("("):
        raise _OtherFormError
    while not (token := cursor.take()).is_mark(")"):
        inner.append(token)
    pairs = [part for part in _split(inner) if part]
    if any(len(part) < 3 or not part[1].is_mark("=") for part in pairs):  # noqa: PLR2004 - name, mark, value
        raise _OtherFormError
    return {part[0].value.upper(): "".join(token.value for token in part[2:]) for part in pairs}


def _sources(cursor: _Cursor) -> tuple[str, Join | None, Mapping[str, str]]:
    """Return the source, the join, and which side each name and alias stands for."""
    source, sides = _aliased(cursor, "s")
    kind = "".join(token.value for token in cursor.until("JOIN")) or "INNER"
    if not cursor.accept("JOIN"):
        if cursor.peek() is not None or kind != "INNER":
            raise _OtherFormError
        return source, None, sides
    table, other = _aliased(cursor, "t")
    cursor.expect("ON")
    both = {**other, **sides}
    return source, Join(kind, table, _form(_resolved(cursor.tokens[cursor.at :], both))), both


def _aliased(cursor: _Cursor, side: str) -> tuple[str, dict[str, str]]:
    name = cursor.name()
    sides = {name: side}
    cursor.accept("AS")
    token = cursor.peek()
    if token is not None and token.is_name and not token.is_word("JOIN", "INNER", "LEFT", "RIGHT", "FULL", "ON"):
        sides = {cursor.name(): side}
    return name, sides


def _output(part: tuple[Token, ...], sides: Mapping[str, str]) -> Output:
    """Split a selected column into its expression and its name."""
    expression, name = part, ""
    if len(part) > 1 and part[-1].is_name and not part[-2].is_mark("."):
        name = part[-1].value
        expression = part[:-2] if part[-2].is_word("AS") else part[:-1]
    elif part and part[-1].is_name:
        name = part[-1].value
    return Output(name, _form(_resolved(expression, sides)))


def _resolved(tokens: Sequence[Token], sides: Mapping[str, str]) -> tuple[Token, ...]:
    """Replace ``alias.COLUMN`` and, where there is one side only, ``COLUMN`` by the side and the column's name."""
    found: list[Token] = []
    at = 0
    tokens = _bare(tokens)
    while at < len(tokens):
        token = tokens[at]
        if token.is_name and at + 2 < len(tokens) and tokens[at + 1].is_mark("."):
            found.append(Token("column", f"{sides.get(token.value, '?')}.{tokens[at + 2].value}"))
            at += 3
            continue
        called = at + 1 < len(tokens) and tokens[at + 1].is_mark("(")
        single = token.is_name and not called and not token.is_word("AND", "OR", "NOT", "IS", "NULL", "IN", "LIKE")
        found.append(Token("column", f"s.{token.value}") if single and len(sides) == 1 else token)
        at += 1
    return tuple(found)


def _bare(tokens: Sequence[Token]) -> tuple[Token, ...]:
    """Take off the brackets around the whole."""
    tokens = tuple(tokens)
    while len(tokens) > 1 and tokens[0].is_mark("(") and _closing(tokens) == len(tokens) - 1:
        tokens = tokens[1:-1]
    return tokens


def _closing(tokens: Sequence[Token]) -> int:
    depth = 0
    for at, token in enumerate(tokens):
        depth += _step(token)
        if depth == 0:
            return at
    return -1


def _compared_with(condition: Sequence[Token]) -> str | None:
    """Return ``Weld`` for ``s.UNS_GROUP = 'Weld'``, in either order."""
    if len(condition) == 3 and condition[1].is_mark("="):  # noqa: PLR2004 - column, mark, text
        kinds = {token.kind: token.value for token in (condition[0], condition[2])}
        if kinds.get("column", "").endswith(".UNS_GROUP") and "text" in kinds:
            return kinds["text"]
    return None


def _unimplied(rest: tuple[Token, ...]) -> tuple[Token, ...]:
    """Leave off what a CREATE ... AS SELECT has by itself: EMIT CHANGES and the semicolon."""
    kept = [token for token in rest if not token.is_mark(";")]
    return () if [token.value for token in kept] == ["EMIT", "CHANGES"] else tuple(kept)


def _split(tokens: Sequence[Token]) -> Iterator[tuple[Token, ...]]:
    """Split at the commas outside of brackets."""
    part: list[Token] = []
    depth = 0
    for token in tokens:
        depth += _step(token)
        if depth == 0 and token.is_mark(","):
            yield tuple(part)
            part = []
        else:
            part.append(token)
    yield tuple(part)


def _step(token: Token) -> int:
    if token.kind != "mark":
        return 0
    return (token.value in "([") - (token.value in ")]")


def _form(tokens: Sequence[Token]) -> str:
    return " ".join(repr(token.value) if token.kind == "text" else token.value for token in tokens)


def _milliseconds(value: str | None) -> int | None:
    # Python reads no number of more than 4,300 digits; Kafka's are 64 bits.
    if value is None or len(value) > _DIGITS or not value.removeprefix("-").isdecimal():
        return None
    return int(value)

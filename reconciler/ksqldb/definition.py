"""Parses a stream's definition from the statement as ksqlDB renders it. Pure.

The server rewrites a statement (names folded, every column qualified, comparisons in parentheses, properties added and
sorted), and another version may do it in another way, so texts are not compared: they are split into tokens, and the
relevant parts are normalized.
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
    # The server renders some names without the quotes that it needs to parse them: names that begin with a digit, and
    # names with two dashes, which then look like a comment.
    r"|(?P<word>[A-Za-z0-9_][A-Za-z0-9_@-]*)"
    r"|(?P<mark><>|!=|<=|>=|:=|->|=>|.)",
    re.DOTALL,
)
_CLAUSES = ("FROM", "WINDOW", "WHERE", "GROUP", "PARTITION", "HAVING", "EMIT", "LIMIT")
_DIGITS = 20
_CACHED_TEXTS = 4096  # two texts a stream; a parse costs about 0.2 ms, an observation of 1,000 groups parses none twice


@dataclass(frozen=True)
class Token:
    """A word (folded to upper case), a quoted name, a string, a number or a mark, with its plain value."""

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
    """One selected column: its name and its normalized expression (``s`` the stream's side, ``t`` the table's)."""

    name: str
    expression: str


@dataclass(frozen=True)
class Join:
    """The joined table: the kind of join (INNER, LEFT ...), the table, and the condition."""

    kind: str
    table: str
    condition: str


@dataclass(frozen=True)
class Definition:
    """A parsed CREATE STREAM ... AS SELECT.

    Attributes:
        name: the stream, as stored.
        source: the stream that it reads from, as stored.
        topic: KAFKA_TOPIC, else the stream's name, as in ksqlDB.
        retention_ms: RETENTION_MS, None where the text has none.
        columns: the selected columns, in order.
        filter: the normalized condition, "" without one.
        filter_literal: the text that the one column is compared with, None for any other condition.
        join: the joined table, if there is one.
        rest: all other clauses, normalized; ours have none.
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
    """Parse a statement; None where it is not a CREATE STREAM ... AS SELECT from one stream."""
    try:
        return _parse_statement(_Parser(tuple(_split_tokens(text))))
    except _OtherFormError:
        return None


@lru_cache(maxsize=_CACHED_TEXTS)
def sources_of(text: str) -> frozenset[str]:
    """Return the sources of any statement: every name after FROM or JOIN, as stored."""
    tokens = tuple(_split_tokens(text))
    return frozenset(name.value for word, name in pairwise(tokens) if word.is_word("FROM", "JOIN") and name.is_name)


def target_of(text: str) -> str:
    """Return the target of an INSERT INTO, as stored; ``""`` for any other statement."""
    tokens = tuple(_split_tokens(text))[:3]
    if len(tokens) < 3 or not (tokens[0].is_word("INSERT") and tokens[1].is_word("INTO")):  # noqa: PLR2004 - both words and the name
        return ""
    return tokens[2].value


def topic_of(text: str) -> str:
    """Return the KAFKA_TOPIC of a statement for a stream or table; ``""`` where it has none."""
    return properties_of(text).get("KAFKA_TOPIC", "")


@lru_cache(maxsize=_CACHED_TEXTS)
def properties_of(text: str) -> Mapping[str, str]:
    """Return the WITH clause of a statement for a stream or table, names in upper case; empty where it has none."""
    parser = _Parser(tuple(_split_tokens(text)))
    parser.take_until("WITH", "AS")
    try:
        return _parse_properties(parser) if parser.accept("WITH") else {}
    except _OtherFormError:
        return {}


class _OtherFormError(Exception):
    """The text does not have the expected form."""


class _Parser:
    """A position in a sequence of tokens."""

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
        """Take these keywords if all of them come next."""
        ahead = self.tokens[self.at : self.at + len(words)]
        if len(ahead) < len(words) or not all(token.is_word(word) for token, word in zip(ahead, words, strict=True)):
            return False
        self.at += len(words)
        return True

    def expect(self, *words: str) -> None:
        if not self.accept(*words):
            raise _OtherFormError

    def take_name(self) -> str:
        token = self.take()
        if not token.is_name:
            raise _OtherFormError
        return token.value

    def take_until(self, *words: str) -> tuple[Token, ...]:
        """Take the tokens before one of these keywords, outside of brackets."""
        ahead = self.tokens[self.at :]
        ends = (
            at
            for at, (token, depth) in enumerate(_with_depth(ahead))
            if depth == 0 and (token.is_word(*words) or token.is_mark(";"))
        )
        end = next(ends, len(ahead))
        self.at += end
        return tuple(ahead[:end])


def _split_tokens(text: str) -> Iterator[Token]:
    for match in _TOKEN.finditer(text):
        kind, raw = str(match.lastgroup), match[0]
        if kind == "blank":
            continue
        if kind in ("text", "quoted"):
            yield Token(kind, raw[1:-1].replace(raw[0] * 2, raw[0]))
        else:
            yield Token(kind, raw.upper())


def _parse_statement(parser: _Parser) -> Definition:
    parser.expect("CREATE")
    parser.accept("OR", "REPLACE")
    parser.expect("STREAM")
    parser.accept("IF", "NOT", "EXISTS")
    name = parser.take_name()
    properties = _parse_properties(parser) if parser.accept("WITH") else {}
    parser.expect("AS", "SELECT")
    selected = parser.take_until("FROM")
    parser.expect("FROM")
    source, join, sides = _parse_sources(_Parser(parser.take_until(*_CLAUSES)))
    where = parser.take_until(*_CLAUSES) if parser.accept("WHERE") else ()
    condition = _resolve(where, sides)
    rest = [token for token in parser.tokens[parser.at :] if not token.is_mark(";")]
    if [token.value for token in rest] == ["EMIT", "CHANGES"]:  # in every CREATE ... AS SELECT
        rest = []
    retention = properties.get("RETENTION_MS", "")
    # Python reads no number of more than 4,300 digits; Kafka's are 64 bits.
    is_number = len(retention) <= _DIGITS and retention.removeprefix("-").isdecimal()
    return Definition(
        name=name,
        source=source,
        topic=properties.get("KAFKA_TOPIC", name),
        retention_ms=int(retention) if is_number else None,
        columns=tuple(_parse_column(part, sides) for part in _split_at_commas(selected)),
        filter=_normalize(condition),
        filter_literal=_find_literal(condition),
        join=join,
        rest=_normalize(rest),
        properties=properties,
    )


def _parse_properties(parser: _Parser) -> dict[str, str]:
    inner: list[Token] = []
    if not parser.take().is_mark("("):
        raise _OtherFormError
    while not (token := parser.take()).is_mark(")"):
        inner.append(token)
    pairs = [part for part in _split_at_commas(inner) if part]
    if any(len(part) < 3 or not part[1].is_mark("=") for part in pairs):  # noqa: PLR2004 - name, mark, value
        raise _OtherFormError
    return {part[0].value.upper(): "".join(token.value for token in part[2:]) for part in pairs}


def _parse_sources(parser: _Parser) -> tuple[str, Join | None, Mapping[str, str]]:
    """Return the source, the join, and the side of each name and alias."""
    source, sides = _parse_source(parser, "s")
    kind = "".join(token.value for token in parser.take_until("JOIN")) or "INNER"
    if not parser.accept("JOIN"):
        if parser.peek() is not None or kind != "INNER":
            raise _OtherFormError
        return source, None, sides
    table, other = _parse_source(parser, "t")
    parser.expect("ON")
    both = {**other, **sides}
    return source, Join(kind, table, _normalize(_resolve(parser.tokens[parser.at :], both))), both


def _parse_source(parser: _Parser, side: str) -> tuple[str, dict[str, str]]:
    name = parser.take_name()
    sides = {name: side}
    parser.accept("AS")
    token = parser.peek()
    if token is not None and token.is_name and not token.is_word("JOIN", "INNER", "LEFT", "RIGHT", "FULL", "ON"):
        sides = {parser.take_name(): side}
    return name, sides


def _parse_column(part: tuple[Token, ...], sides: Mapping[str, str]) -> Output:
    """Split a selected column into its expression and its name."""
    expression, name = part, ""
    if len(part) > 1 and part[-1].is_name and not part[-2].is_mark("."):
        name = part[-1].value
        expression = part[:-2] if part[-2].is_word("AS") else part[:-1]
    elif part and part[-1].is_name:
        name = part[-1].value
    return Output(name, _normalize(_resolve(expression, sides)))


def _resolve(tokens: Sequence[Token], sides: Mapping[str, str]) -> tuple[Token, ...]:
    """Replace ``alias.COLUMN`` and, where there is one side only, ``COLUMN`` by the side and the column's name."""
    found: list[Token] = []
    at = 0
    tokens = _strip_brackets(tokens)
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


def _strip_brackets(tokens: Sequence[Token]) -> tuple[Token, ...]:
    """Remove the brackets around the whole."""
    tokens = tuple(tokens)
    while len(tokens) > 1 and tokens[0].is_mark("("):
        closing = next((at for at, (_, depth) in enumerate(_with_depth(tokens)) if depth == 0), -1)
        if closing != len(tokens) - 1:
            break
        tokens = tokens[1:-1]
    return tokens


def _find_literal(condition: Sequence[Token]) -> str | None:
    """Return ``Weld`` for ``s.UNS_GROUP = 'Weld'``, in either order."""
    if len(condition) == 3 and condition[1].is_mark("="):  # noqa: PLR2004 - column, mark, text
        kinds = {token.kind: token.value for token in (condition[0], condition[2])}
        if kinds.get("column", "").endswith(".UNS_GROUP") and "text" in kinds:
            return kinds["text"]
    return None


def _split_at_commas(tokens: Sequence[Token]) -> Iterator[tuple[Token, ...]]:
    """Split at the commas outside of brackets."""
    part: list[Token] = []
    for token, depth in _with_depth(tokens):
        if depth == 0 and token.is_mark(","):
            yield tuple(part)
            part = []
        else:
            part.append(token)
    yield tuple(part)


def _with_depth(tokens: Sequence[Token]) -> Iterator[tuple[Token, int]]:
    """Yield each token with the depth of brackets after it."""
    depth = 0
    for token in tokens:
        if token.kind == "mark":
            depth += (token.value in "([") - (token.value in ")]")
        yield token, depth


def _normalize(tokens: Sequence[Token]) -> str:
    return " ".join(repr(token.value) if token.kind == "text" else token.value for token in tokens)

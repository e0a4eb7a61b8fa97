"""Text to statements: the lark grammar, the syntax tree, and syntax errors in ksqlDB's words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources import files
from typing import Any

from lark import Lark
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from demo.ksqldb import ast
from demo.ksqldb.building import Builder
from demo.ksqldb.building_expressions import ReservedWord
from demo.ksqldb.errors import KsqlRefusal, StatementFault
from demo.ksqldb.words import RESERVED, STATEMENTS

_SOURCE_NAME = re.compile(r"[a-zA-Z0-9_-]*")


class SyntaxFault(Exception):
    """A text outside the grammar; the message is ksqlDB's, as far as it could be had."""


class BadSourceName(Exception):
    """A source name with other characters than ksqlDB allows; carries the name and the message."""

    def __init__(self, name: str, message: str) -> None:
        """Keep the name: it is all that ksqlDB echoes as the statement's text."""
        super().__init__(message)
        self.name = name
        self.message = message


@dataclass(frozen=True)
class Script:
    """All statements of one request, in order."""

    statements: tuple[ast.Prepared, ...]


@lru_cache(maxsize=1)
def _grammar() -> Lark:
    text = files("demo.ksqldb").joinpath("ksql.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", maybe_placeholders=True, transformer=Builder())


def parse(text: str) -> Script:
    """Parse every statement of a request.

    Raises:
        SyntaxFault: the text is not in the grammar; nothing of it may run.
        BadSourceName: a created source has a name that ksqlDB refuses.
        KsqlRefusal: an empty identifier, a LIMIT in CREATE … AS SELECT.
    """
    try:
        parts: Any = _grammar().parse(text)
    except UnexpectedInput as error:
        raise SyntaxFault(_syntax_message(error, text)) from None
    except ReservedWord as error:
        raise SyntaxFault(_reserved_message(error.line, error.column, error.word)) from None
    except StatementFault as error:
        raise KsqlRefusal(f"Failed to prepare statement: {error}", statement=text) from None
    return Script(tuple(_prepared(text, parts)))


def _prepared(text: str, parts: list[tuple[ast.Statement, int]]) -> list[ast.Prepared]:
    found, start = [], 0
    for statement, end in parts:
        own = text[_skip_blank(text, start) : end]
        _check(statement, own)
        found.append(ast.Prepared(statement, own))
        start = end
    return found


def _check(statement: ast.Statement, text: str) -> None:
    if not isinstance(statement, ast.Create):
        return
    if not _SOURCE_NAME.fullmatch(statement.name):
        where = f"Line: {statement.position.line}, Col: {statement.position.column}"
        rule = "Source names may only contain alphanumeric values, '_' or '-'."
        raise BadSourceName(statement.name, f"Illegal argument at {where}. {rule} Got: '{statement.name}'")
    if statement.query is not None and statement.query.limit is not None:
        reason = f"CREATE {statement.kind} AS SELECT statements don't support LIMIT clause."
        raise KsqlRefusal(f"Failed to prepare statement: {reason}", statement=text)


def _skip_blank(text: str, start: int) -> int:
    """The first position at or after `start` that is neither white space nor a comment."""
    while start < len(text):
        if text[start].isspace():
            start += 1
        elif text.startswith("--", start):
            end = text.find("\n", start)
            start = len(text) if end < 0 else end + 1
        elif text.startswith("/*", start):
            start = text.find("*/", start) + 2
        else:
            break
    return start


def _syntax_message(error: UnexpectedInput, text: str) -> str:
    line, column, found = _where(error, text)
    head = f"line {line}:{column}: Syntax Error\n"
    expected = _expected(error)
    if _starts_statement(expected):
        return head + _unknown_statement(found)
    if found == "<EOF>" or expected == {"SEMI"}:
        return f"{head}missing ';' at '{found}'" if "SEMI" in expected else f"{head}Unexpected end of input"
    if found.upper() in RESERVED:
        return _reserved_message(line, column, found)
    if expected == {"SELECT"}:
        return f"{head}missing 'SELECT' at '{found}'"
    return f"{head}Expecting {{{', '.join(sorted(_symbol(each) for each in expected))}}}"


def _reserved_message(line: int, column: int, word: str) -> str:
    reason = f'"{word}" is a reserved keyword and it can\'t be used as an identifier.'
    return f"line {line}:{column}: Syntax Error\n{reason} You can use it as an identifier by escaping it as '{word}' "


def _where(error: UnexpectedInput, text: str) -> tuple[int, int, str]:
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        lines = text.split("\n")
        return len(lines), len(lines[-1]) + 1, "<EOF>"
    if isinstance(error, UnexpectedToken):
        return error.line, error.column, str(error.token)
    word = _word_at(text, error.pos_in_stream or 0)
    return error.line, error.column, word


def _word_at(text: str, start: int) -> str:
    end = start
    while end < len(text) and (text[end].isalnum() or text[end] in "_@"):
        end += 1
    return text[start : max(end, start + 1)]


def _expected(error: UnexpectedInput) -> set[str]:
    if isinstance(error, UnexpectedToken):
        return set(error.accepts or error.expected)
    if isinstance(error, UnexpectedCharacters):
        return set(error.allowed or ())
    return set()


def _starts_statement(expected: set[str]) -> bool:
    return {"CREATE", "DROP", "SELECT"} <= expected


def _unknown_statement(found: str) -> str:
    close = get_close_matches(found.upper(), STATEMENTS, n=1, cutoff=0.5)
    hint = f"\nDid you mean '{close[0]}'?" if close else ""
    return f"Unknown statement '{found}'{hint}"


def _symbol(terminal: str) -> str:
    symbols = {"SEMI": "';'", "LPAR": "'('", "RPAR": "')'", "_EQUAL": "'='", "COMMA": "','", "STAR": "'*'"}
    return symbols.get(terminal, f"'{terminal}'")

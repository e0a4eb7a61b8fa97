"""Grammar rules of names and expressions to syntax tree nodes; lark calls them while it parses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lark import Token, Transformer, v_args

from demo.ksqldb import ast
from demo.ksqldb.errors import StatementFault
from demo.ksqldb.words import RESERVED


@dataclass(frozen=True)
class Identifier:
    """A name as ksqlDB stores it, and where it stood."""

    text: str
    position: ast.Position


class ReservedWord(Exception):
    """A reserved word where an identifier is wanted."""

    def __init__(self, word: str, line: int, column: int) -> None:
        """Keep the word and its place."""
        super().__init__(word)
        self.word, self.line, self.column = word, line, column


def unquoted(token: Token) -> str:
    """The text between the quotes; a doubled quote stands for one."""
    quote = token[0]
    return str(token[1:-1]).replace(quote * 2, quote)


class ExpressionBuilder(Transformer[Token, Any]):
    """The rules of expressions and literals."""

    @v_args(inline=True)
    def name(self, token: Token) -> Identifier:
        """Fold or keep the case; ksqlDB folds what is not quoted."""
        quoted = token.type != "IDENTIFIER"
        text = unquoted(token) if quoted else str(token).upper()
        if not quoted and text in RESERVED:
            raise ReservedWord(str(token), token.line or 0, token.column or 0)
        if not text:
            raise StatementFault("name is empty")
        return Identifier(text, ast.Position(token.line or 0, token.column or 0))

    @v_args(inline=True)
    def string(self, token: Token) -> ast.Literal:
        """The text between the quotes; two quotes stand for one."""
        return ast.Literal(unquoted(token))

    @v_args(inline=True)
    def integer(self, token: Token) -> ast.Literal:
        """A whole number."""
        return ast.Literal(int(token))

    @v_args(inline=True)
    def decimal(self, token: Token) -> ast.Literal:
        """A number with a fraction or an exponent."""
        return ast.Literal(float(token))

    def true(self, _: list[Any]) -> ast.Literal:
        """TRUE."""
        return ast.Literal(value=True)

    def false(self, _: list[Any]) -> ast.Literal:
        """FALSE."""
        return ast.Literal(value=False)

    def null(self, _: list[Any]) -> ast.Literal:
        """NULL."""
        return ast.Literal(None)

    @v_args(inline=True)
    def literal(self, value: ast.Literal) -> ast.Literal:
        """Any literal (rule alternatives are named; nothing to do)."""
        return value

    @v_args(inline=True)
    def column(self, name: Identifier) -> ast.Column:
        """A bare column name."""
        return ast.Column(name.text, None, name.position)

    @v_args(inline=True)
    def qualified_column(self, source: Identifier, name: Identifier) -> ast.Column:
        """`source.column`."""
        return ast.Column(name.text, source.text, source.position)

    @v_args(inline=True)
    def pair(self, key: ast.Expression, value: ast.Expression) -> tuple[ast.Expression, ast.Expression]:
        """`key := value` of a map."""
        return key, value

    def arguments(self, parts: list[Any]) -> list[Any]:
        """The arguments of a call."""
        return parts

    @v_args(inline=True)
    def call(self, name: Identifier, arguments: list[Any] | None) -> ast.Expression:
        """A function call, or the map constructor."""
        parts = arguments or []
        if name.text == "MAP" and all(isinstance(each, tuple) for each in parts):
            return ast.MapConstructor(tuple(parts))
        if any(isinstance(each, tuple) for each in parts):
            raise StatementFault(f"':=' is not allowed in {name.text}")
        return ast.Call(name.text, tuple(parts))

    @v_args(inline=True)
    def call_star(self, name: Identifier, _: Token) -> ast.Call:
        """`COUNT(*)`."""
        return ast.Call(name.text, star=True)

    @v_args(inline=True)
    def cast(self, value: ast.Expression, type_: ast.SqlType) -> ast.Cast:
        """CAST."""
        return ast.Cast(value, type_)

    @v_args(inline=True)
    def when(self, condition: ast.Expression, value: ast.Expression) -> tuple[ast.Expression, ast.Expression]:
        """WHEN ... THEN ..."""
        return condition, value

    def case(self, parts: list[Any]) -> ast.Case:
        """CASE, with its branches and what comes after ELSE."""
        return ast.Case(tuple(parts[:-1]), parts[-1])

    @v_args(inline=True)
    def subscript(self, base: ast.Expression, index: ast.Expression) -> ast.Subscript:
        """`base[index]`."""
        return ast.Subscript(base, index)

    @v_args(inline=True)
    def parenthesised(self, value: ast.Expression) -> ast.Expression:
        """The tree already holds the grouping."""
        return value

    @v_args(inline=True)
    def signed(self, sign: Token, value: ast.Expression) -> ast.Expression:
        """A leading sign, folded into a number where there is one."""
        if sign == "+":
            return value
        if isinstance(value, ast.Literal) and isinstance(value.value, (int, float)):
            return ast.Literal(-value.value)
        return ast.Arithmetic("-", ast.Literal(0), value)

    @v_args(inline=True)
    def arithmetic(self, left: ast.Expression, operator: Token, right: ast.Expression) -> ast.Arithmetic:
        """+ - * / %."""
        return ast.Arithmetic(str(operator), left, right)

    @v_args(inline=True)
    def comparator(self, symbol: Token) -> str:
        """`!=` is another spelling of `<>`."""
        return "<>" if symbol == "!=" else str(symbol)

    @v_args(inline=True)
    def compare(self, left: ast.Expression, operator: str, right: ast.Expression) -> ast.Comparison:
        """An ordering or an inequality."""
        return ast.Comparison(operator, left, right)

    @v_args(inline=True)
    def equal(self, left: ast.Expression, right: ast.Expression) -> ast.Comparison:
        """`=`."""
        return ast.Comparison("=", left, right)

    @v_args(inline=True)
    def in_list(self, value: ast.Expression, negated: Token | None, *items: ast.Expression) -> ast.Expression:
        """IN, NOT IN."""
        found = ast.InList(value, items)
        return ast.Negation(found) if negated else found

    @v_args(inline=True)
    def like(self, value: ast.Expression, negated: Token | None, pattern: ast.Expression) -> ast.Expression:
        """LIKE, NOT LIKE."""
        found = ast.Like(value, pattern)
        return ast.Negation(found) if negated else found

    @v_args(inline=True)
    def between(
        self, value: ast.Expression, negated: Token | None, lower: ast.Expression, upper: ast.Expression
    ) -> ast.Expression:
        """BETWEEN, NOT BETWEEN."""
        found = ast.Between(value, lower, upper)
        return ast.Negation(found) if negated else found

    @v_args(inline=True)
    def is_null(self, value: ast.Expression, negated: Token | None) -> ast.IsNull:
        """IS NULL, IS NOT NULL."""
        return ast.IsNull(value, negated is not None)

    @v_args(inline=True)
    def and_(self, left: ast.Expression, right: ast.Expression) -> ast.Logical:
        """AND."""
        return ast.Logical("AND", left, right)

    @v_args(inline=True)
    def or_(self, left: ast.Expression, right: ast.Expression) -> ast.Logical:
        """OR."""
        return ast.Logical("OR", left, right)

    @v_args(inline=True)
    def not_(self, operand: ast.Expression) -> ast.Negation:
        """NOT."""
        return ast.Negation(operand)

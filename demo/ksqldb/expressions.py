"""Expressions to functions: every expression is compiled once, when its query is planned, never per record.

NULL follows SQL: a comparison with NULL is NULL, and a filter keeps a row only where its condition is TRUE.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from demo.ksqldb import ast, rendering
from demo.ksqldb.errors import PlanFault
from demo.ksqldb.values import (
    BIGINT,
    BOOLEAN,
    DOUBLE,
    INTEGER,
    NUMBERS,
    STRING,
    Row,
    decoder,
    timestamp_value,
)

Function = Callable[[Row], Any]
#: What TRIM takes off: Java's ``trim``, every character up to the blank and no other white space.
_BLANK = "".join(map(chr, range(33)))
NULL_TYPE = ast.SqlType("NULL")
AGGREGATES = frozenset({"COUNT", "SUM", "LATEST_BY_OFFSET", "EARLIEST_BY_OFFSET", "MIN", "MAX"})

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COMPARE_NAMES = {
    "=": "EQUAL",
    "<>": "NOT_EQUAL",
    "<": "LESS_THAN",
    "<=": "LESS_THAN_OR_EQUAL",
    ">": "GREATER_THAN",
    ">=": "GREATER_THAN_OR_EQUAL",
}
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
    "%": operator.mod,
}


class Scope(Protocol):
    """What the columns of an expression stand for."""

    def resolve(self, column: ast.Column, clause: str) -> tuple[int, ast.SqlType]:
        """The index of a column in the row, and its type.

        Raises:
            PlanFault: no such column, in ksqlDB's words for that clause (SELECT, WHERE, …).
        """
        ...


@dataclass(frozen=True)
class Compiled:
    """A function from a row to a value, and the type of that value."""

    function: Function
    type: ast.SqlType


def compile_expression(node: ast.Expression, scope: Scope, clause: str = "SELECT") -> Compiled:
    """Compile one expression.

    Raises:
        PlanFault: unknown column or function, or operands that cannot be compared.
    """
    handler = _HANDLERS.get(type(node))
    if handler is None:
        raise PlanFault(f"Unsupported expression: {rendering.expression(node)}")
    return handler(node, scope, clause)


def condition(node: ast.Expression, scope: Scope) -> Callable[[Row], bool]:
    """Compile a WHERE condition; what is not TRUE is False."""
    compiled = compile_expression(node, scope, "WHERE")
    if compiled.type != BOOLEAN:
        raise PlanFault(f"Type error in WHERE expression: Should evaluate to boolean but is {_shown(node)} instead.")
    function = compiled.function
    return lambda row: function(row) is True


def _shown(node: ast.Expression) -> str:
    return rendering.expression(node)


def _literal(node: ast.Literal, _: Scope, __: str) -> Compiled:
    value = node.value
    types: dict[type, ast.SqlType] = {str: STRING, bool: BOOLEAN, float: DOUBLE}
    found = NULL_TYPE if value is None else types.get(type(value))
    if found is None:
        found = INTEGER if -(2**31) <= int(value or 0) < 2**31 else BIGINT
    return Compiled(lambda _: value, found)


def _column(node: ast.Column, scope: Scope, clause: str) -> Compiled:
    index, type_ = scope.resolve(node, clause)
    return Compiled(operator.itemgetter(index), type_)


def _subscript(node: ast.Subscript, scope: Scope, clause: str) -> Compiled:
    base = compile_expression(node.base, scope, clause)
    index = compile_expression(node.index, scope, clause)
    if base.type.name not in {"MAP", "ARRAY"}:
        raise PlanFault(f"Subscript expression ({_shown(node)}) do not apply to {base.type}.")
    read = _map_member(base, index) if base.type.name == "MAP" else _array_member(base, index)
    return Compiled(read, base.type.parameters[-1])


def _map_member(base: Compiled, index: Compiled) -> Function:
    whole, key = base.function, index.function

    def read(row: Row) -> Any:
        members = whole(row)
        return None if members is None else members.get(key(row))

    return read


def _array_member(base: Compiled, index: Compiled) -> Function:
    whole, key = base.function, index.function

    def read(row: Row) -> Any:
        members, at = whole(row), key(row)
        if members is None or at is None or not 0 < abs(at) <= len(members):
            return None
        return members[at - 1 if at > 0 else at]  # SQL counts from 1, and from -1 at the end

    return read


def _comparison(node: ast.Comparison, scope: Scope, clause: str) -> Compiled:
    left = compile_expression(node.left, scope, clause)
    right = compile_expression(node.right, scope, clause)
    _check_comparable(node, left.type, right.type)
    first, second = _aligned(left, right), _aligned(right, left)
    compare = _COMPARE[node.operator]

    def read(row: Row) -> bool | None:
        one, other = first(row), second(row)
        return None if one is None or other is None else compare(one, other)

    return Compiled(read, BOOLEAN)


def _aligned(own: Compiled, other: Compiled) -> Function:
    """A text compared with a TIMESTAMP is read as a time first."""
    if own.type == STRING and other.type.name == "TIMESTAMP":
        function = own.function
        return lambda row: None if (text := function(row)) is None else timestamp_value(text)
    return own.function


def _check_comparable(node: ast.Comparison, left: ast.SqlType, right: ast.SqlType) -> None:
    names = {left.name, right.name}
    same = left.name == right.name and left.name not in {"MAP", "ARRAY"}
    if same or names <= NUMBERS or NULL_TYPE.name in names or names == {"STRING", "TIMESTAMP"}:
        return
    message = (
        f"Cannot compare {_unqualified(node.left)} ({left}) to {_unqualified(node.right)} ({right}) with "
        f"{_COMPARE_NAMES[node.operator]}."
    )
    statement = f"({_unqualified(node.left)} {node.operator} {_unqualified(node.right)})"
    raise PlanFault(f"Error in WHERE expression: {message}\nStatement: {statement}\nStatement: {statement}")


def _unqualified(node: ast.Expression) -> str:
    return rendering.identifier(node.name) if isinstance(node, ast.Column) else _shown(node)


def _logical(node: ast.Logical, scope: Scope, clause: str) -> Compiled:
    left = compile_expression(node.left, scope, clause).function
    right = compile_expression(node.right, scope, clause).function
    decisive = node.operator == "OR"

    def read(row: Row) -> Any:
        one = left(row)
        if one is decisive:
            return decisive
        other = right(row)
        if other is decisive:
            return decisive
        return None if one is None or other is None else not decisive

    return Compiled(read, BOOLEAN)


def _negation(node: ast.Negation, scope: Scope, clause: str) -> Compiled:
    inner = compile_expression(node.operand, scope, clause).function
    return Compiled(lambda row: None if (value := inner(row)) is None else not value, BOOLEAN)


def _in_list(node: ast.InList, scope: Scope, clause: str) -> Compiled:
    value = compile_expression(node.value, scope, clause).function
    items = [compile_expression(each, scope, clause).function for each in node.items]
    if all(isinstance(each, ast.Literal) for each in node.items):
        known = frozenset(each(()) for each in items)
        return Compiled(lambda row: None if (found := value(row)) is None else found in known, BOOLEAN)
    return Compiled(lambda row: any(each(row) == value(row) for each in items), BOOLEAN)


def _like(node: ast.Like, scope: Scope, clause: str) -> Compiled:
    value = compile_expression(node.value, scope, clause).function
    pattern = compile_expression(node.pattern, scope, clause).function

    def read(row: Row) -> bool | None:
        text, like = value(row), pattern(row)
        return None if text is None or like is None else _like_pattern(like).fullmatch(text) is not None

    return Compiled(read, BOOLEAN)


def _like_pattern(text: str) -> re.Pattern[str]:
    wild = {"%": ".*", "_": "."}
    return re.compile("".join(wild.get(each, re.escape(each)) for each in text), re.DOTALL)


def _between(node: ast.Between, scope: Scope, clause: str) -> Compiled:
    lower = ast.Comparison(">=", node.value, node.lower)
    upper = ast.Comparison("<=", node.value, node.upper)
    return _logical(ast.Logical("AND", lower, upper), scope, clause)


def _is_null(node: ast.IsNull, scope: Scope, clause: str) -> Compiled:
    inner, negated = compile_expression(node.value, scope, clause).function, node.negated
    return Compiled(lambda row: (inner(row) is None) is not negated, BOOLEAN)


def _arithmetic(node: ast.Arithmetic, scope: Scope, clause: str) -> Compiled:
    left = compile_expression(node.left, scope, clause)
    right = compile_expression(node.right, scope, clause)
    names = {left.type.name, right.type.name}
    text = node.operator == "+" and names == {"STRING"}
    if not text and not names <= NUMBERS:
        raise PlanFault(f"Unsupported arithmetic types. {left.type} {right.type}")
    found = DOUBLE if "DOUBLE" in names else BIGINT if "BIGINT" in names else left.type
    apply = operator.truediv if node.operator == "/" and found == DOUBLE else _ARITHMETIC[node.operator]
    one, other = left.function, right.function

    def read(row: Row) -> Any:
        first, second = one(row), other(row)
        return None if first is None or second is None else apply(first, second)

    return Compiled(read, STRING if text else found)


def _cast(node: ast.Cast, scope: Scope, clause: str) -> Compiled:
    inner, convert = compile_expression(node.value, scope, clause).function, decoder(node.type)
    return Compiled(lambda row: convert(inner(row)), node.type)


def _case(node: ast.Case, scope: Scope, clause: str) -> Compiled:
    branches = [
        (compile_expression(condition, scope, clause), compile_expression(value, scope, clause))
        for condition, value in node.branches
    ]
    if any(condition.type != BOOLEAN for condition, _ in branches):
        raise PlanFault("WHEN operand type should be boolean.")
    default = compile_expression(node.default or ast.Literal(None), scope, clause)

    def read(row: Row) -> Any:
        chosen = next((value for condition, value in branches if condition.function(row) is True), default)
        return chosen.function(row)

    return Compiled(read, branches[0][1].type)


def _map(node: ast.MapConstructor, scope: Scope, clause: str) -> Compiled:
    entries = [
        (compile_expression(key, scope, clause), compile_expression(value, scope, clause))
        for key, value in node.entries
    ]
    member = entries[0][1].type if entries else STRING

    def read(row: Row) -> dict[Any, Any]:
        return {key.function(row): value.function(row) for key, value in entries}

    return Compiled(read, ast.SqlType("MAP", (STRING, member)))


def _call(node: ast.Call, scope: Scope, clause: str) -> Compiled:
    arguments = [compile_expression(each, scope, clause) for each in node.arguments]
    one = arguments[0] if arguments else Compiled(lambda _: None, NULL_TYPE)
    inner = one.function
    simple: dict[str, Compiled] = {
        "AS_VALUE": one,
        "UCASE": Compiled(lambda row: None if (text := inner(row)) is None else text.upper(), STRING),
        "LCASE": Compiled(lambda row: None if (text := inner(row)) is None else text.lower(), STRING),
        "TRIM": Compiled(lambda row: None if (text := inner(row)) is None else text.strip(_BLANK), STRING),
        "LEN": Compiled(lambda row: None if (text := inner(row)) is None else len(text), INTEGER),
        "CONCAT": Compiled(lambda row: "".join(each.function(row) or "" for each in arguments), STRING),
        "COALESCE": Compiled(
            lambda row: next((found for each in arguments if (found := each.function(row)) is not None), None), one.type
        ),
        "IFNULL": Compiled(
            lambda row: next((found for each in arguments if (found := each.function(row)) is not None), None), one.type
        ),
    }
    if node.name not in simple:
        raise PlanFault(f"Can't find any functions with the name '{node.name}'")
    return simple[node.name]


_HANDLERS: dict[type, Callable[[Any, Scope, str], Compiled]] = {
    ast.Literal: _literal,
    ast.Column: _column,
    ast.Subscript: _subscript,
    ast.Call: _call,
    ast.MapConstructor: _map,
    ast.Comparison: _comparison,
    ast.Logical: _logical,
    ast.Negation: _negation,
    ast.InList: _in_list,
    ast.Like: _like,
    ast.Between: _between,
    ast.IsNull: _is_null,
    ast.Arithmetic: _arithmetic,
    ast.Cast: _cast,
    ast.Case: _case,
}

"""The statements and expressions of the SQL that the server understands, as frozen values.

Identifiers are stored as ksqlDB stores them: unquoted ones upper-cased, quoted ones as written.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SqlType:
    """A column type; `parameters` holds the member types of MAP (key, value) and ARRAY (element)."""

    name: str
    parameters: tuple[SqlType, ...] = ()

    def __str__(self) -> str:
        """The type as ksqlDB prints it, e.g. `MAP<STRING, STRING>`."""
        if not self.parameters:
            return self.name
        return f"{self.name}<{', '.join(str(each) for each in self.parameters)}>"


@dataclass(frozen=True)
class Position:
    """Where a name stands in the request (both count from 1, as in ksqlDB's messages)."""

    line: int = 0
    column: int = 0


@dataclass(frozen=True)
class Literal:
    """A constant; None is NULL."""

    value: str | int | float | bool | None


@dataclass(frozen=True)
class Column:
    """A column, with the alias of its source where one was given or found."""

    name: str
    source: str | None = None
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True)
class Subscript:
    """`base['key']` of a map, `base[1]` of an array."""

    base: Expression
    index: Expression


@dataclass(frozen=True)
class Call:
    """A function call; `star` for `COUNT(*)`."""

    name: str
    arguments: tuple[Expression, ...] = ()
    star: bool = False


@dataclass(frozen=True)
class MapConstructor:
    """`MAP('a' := 'b', …)`."""

    entries: tuple[tuple[Expression, Expression], ...]


@dataclass(frozen=True)
class Comparison:
    """Two operands and one of = <> < <= > >=."""

    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True)
class Logical:
    """AND or OR."""

    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True)
class Negation:
    """NOT."""

    operand: Expression


@dataclass(frozen=True)
class InList:
    """`value IN (…)`."""

    value: Expression
    items: tuple[Expression, ...]


@dataclass(frozen=True)
class Like:
    """`value LIKE pattern`."""

    value: Expression
    pattern: Expression


@dataclass(frozen=True)
class Between:
    """`value BETWEEN lower AND upper`."""

    value: Expression
    lower: Expression
    upper: Expression


@dataclass(frozen=True)
class IsNull:
    """`value IS NULL`, or `IS NOT NULL` when negated."""

    value: Expression
    negated: bool = False


@dataclass(frozen=True)
class Arithmetic:
    """Two operands and one of + - * / %."""

    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True)
class Cast:
    """`CAST(value AS type)`."""

    value: Expression
    type: SqlType


@dataclass(frozen=True)
class Case:
    """`CASE WHEN condition THEN value ... ELSE value END`; without ELSE, NULL where no condition holds."""

    branches: tuple[tuple[Expression, Expression], ...]
    default: Expression | None = None


Expression = (
    Literal
    | Column
    | Subscript
    | Call
    | MapConstructor
    | Comparison
    | Logical
    | Negation
    | InList
    | Like
    | Between
    | IsNull
    | Arithmetic
    | Cast
    | Case
)


@dataclass(frozen=True)
class AllColumns:
    """`*`, or `S.*` with a source."""

    source: str | None = None


@dataclass(frozen=True)
class SingleColumn:
    """One expression of the projection and its alias."""

    expression: Expression
    alias: str | None = None


SelectItem = AllColumns | SingleColumn


@dataclass(frozen=True)
class Relation:
    """A source with the alias it is called by (its own name by default)."""

    name: str
    alias: str


@dataclass(frozen=True)
class Join:
    """A join with the right-hand relation; `kind` is INNER, LEFT OUTER, RIGHT OUTER or FULL OUTER."""

    kind: str
    relation: Relation
    criteria: Expression
    within: bool = False


@dataclass(frozen=True)
class Query:
    """SELECT. `emit` is CHANGES, FINAL or None (a pull query)."""

    items: tuple[SelectItem, ...]
    relation: Relation
    joins: tuple[Join, ...] = ()
    where: Expression | None = None
    group_by: tuple[Expression, ...] = ()
    partition_by: tuple[Expression, ...] = ()
    having: Expression | None = None
    emit: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class ColumnDefinition:
    """A declared column; `key` is "", "KEY" or "PRIMARY KEY"."""

    name: str
    type: SqlType
    key: str = ""


PropertyValue = str | int | float | bool | None


@dataclass(frozen=True)
class Create:
    """CREATE [OR REPLACE] [SOURCE] STREAM|TABLE, declared (`columns`) or derived (`query`)."""

    kind: str
    name: str
    columns: tuple[ColumnDefinition, ...] = ()
    properties: tuple[tuple[str, PropertyValue], ...] = ()
    query: Query | None = None
    or_replace: bool = False
    if_not_exists: bool = False
    read_only: bool = False
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True)
class InsertValues:
    """INSERT INTO … VALUES."""

    target: str
    columns: tuple[str, ...]
    values: tuple[Expression, ...]


@dataclass(frozen=True)
class InsertSelect:
    """INSERT INTO … SELECT, a persistent query without a sink of its own."""

    target: str
    query: Query


@dataclass(frozen=True)
class Drop:
    """DROP STREAM|TABLE."""

    kind: str
    name: str
    if_exists: bool = False
    delete_topic: bool = False


@dataclass(frozen=True)
class Alter:
    """ALTER STREAM|TABLE … ADD COLUMN."""

    kind: str
    name: str
    columns: tuple[ColumnDefinition, ...]


@dataclass(frozen=True)
class AssertTopic:
    """ASSERT [NOT EXISTS] TOPIC."""

    topic: str
    exists: bool


@dataclass(frozen=True)
class ListSources:
    """LIST STREAMS|TABLES [EXTENDED]."""

    kind: str
    extended: bool


@dataclass(frozen=True)
class ListQueries:
    """LIST QUERIES [EXTENDED]."""

    extended: bool


@dataclass(frozen=True)
class ListTopics:
    """LIST [ALL] TOPICS [EXTENDED]."""

    everything: bool
    extended: bool


@dataclass(frozen=True)
class ListOther:
    """LIST of something else: VARIABLES, PROPERTIES, CONNECTORS, …."""

    what: str


@dataclass(frozen=True)
class Describe:
    """DESCRIBE of one source."""

    name: str
    extended: bool


@dataclass(frozen=True)
class DescribeSources:
    """DESCRIBE STREAMS|TABLES [EXTENDED]."""

    kind: str
    extended: bool


@dataclass(frozen=True)
class Explain:
    """EXPLAIN of a query by its id."""

    query_id: str


@dataclass(frozen=True)
class QueryCommand:
    """TERMINATE, PAUSE or RESUME; a `query_id` of None means ALL."""

    verb: str
    query_id: str | None


@dataclass(frozen=True)
class SetProperty:
    """SET 'name'='value', or UNSET with a value of None."""

    name: str
    value: str | None


@dataclass(frozen=True)
class Define:
    """DEFINE name='value'."""

    name: str
    value: str


@dataclass(frozen=True)
class PrintTopic:
    """PRINT topic."""

    topic: str
    from_beginning: bool
    limit: int | None


Statement = (
    Create | InsertValues | InsertSelect | Drop | Alter | AssertTopic | ListSources | ListQueries | ListTopics
    | ListOther | Describe | DescribeSources | Explain | QueryCommand | SetProperty | Define | PrintTopic | Query
)  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """A parsed statement with its own text (comments around it and other statements left out)."""

    statement: Statement
    text: str

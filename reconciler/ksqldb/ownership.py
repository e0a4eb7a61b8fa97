"""The owner of a ksqlDB source, from its name and the statement that made it. Pure.

A name proves nothing. A group's stream is ours if it reads a shared stream of this installation *and* has exactly the
form that we write: a name and a topic that follow from the text that it filters by, our columns, no other clause. Any
other source that reads our shared stream is a reader, made by a user: neither of the two is ever dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from reconciler.domain.installation import Installation
from reconciler.domain.names import LEGACY, SharedName, fold, names_of
from reconciler.ksqldb.definition import Definition, Output, definition_of, sources_of

VALUE_COLUMNS = ("id", "value", "type", "tag", "timestamp")
"""The columns of the assets' stream that events carry, besides ``asset_uuid``; the JSON keys of a record."""

GROUP_COLUMN = "UNS_GROUP"
KEY_COLUMN = "ASSET_KEY"

_GROUP_COLUMNS = tuple(Output(name, f"s.{name}") for name in (KEY_COLUMN, "asset_uuid", *VALUE_COLUMNS))
_SHARED_COLUMNS = (
    Output(KEY_COLUMN, "s.ASSET_UUID"),
    Output("asset_uuid", "AS_VALUE ( s.ASSET_UUID )"),
    *(Output(name, f"s.{name.upper()}") for name in VALUE_COLUMNS),
)
#: The properties in our WITH clauses, as we write them and as the server completes them.
_PROPERTIES = frozenset(
    {"KAFKA_TOPIC", "KEY_FORMAT", "VALUE_FORMAT", "RETENTION_MS", "CLEANUP_POLICY", "PARTITIONS", "REPLICAS"}
)


class Whose(StrEnum):
    """The owner of a source."""

    SHARED = "shared stream of ours"
    GROUP = "group stream of ours"
    READER = "reader of our shared stream"
    OTHER = "another installation's"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class Ownership:
    """The owner with details.

    Attributes:
        whose: the owner.
        group: the group of a group stream of ours.
        installation: the id of another installation that owns it, or whose shared stream it reads.
    """

    whose: Whose
    group: str | None = None
    installation: str = ""

    @property
    def is_users(self) -> bool:
        """Whether no installation has a part in it: what reads another one's shared stream may be of that one."""
        return self.whose in (Whose.FOREIGN, Whose.READER) and not self.installation

    @property
    def text(self) -> str:
        """The predicate of a source that is not ours, for messages."""
        match self.whose, self.installation:
            case ((Whose.READER | Whose.FOREIGN), installation) if installation:
                return f"reads the shared stream of another installation ({installation})"
            case Whose.READER, _:
                return "reads our shared stream, but is not a group stream as we make them"
            case Whose.OTHER, installation if installation == LEGACY:
                return f"belongs to an installation made before there were ids (--adopt {LEGACY} if it is this one)"
            case Whose.OTHER, installation:
                return f"belongs to installation {installation} (--adopt {installation} if it is this one)"
        return "does not read from our shared stream"


@lru_cache(maxsize=8192)  # a cycle needs it three times for the same statements
def ownership(name: str, text: str, owner: str, installation: Installation) -> Ownership:
    """Determine the owner of a source.

    Args:
        name: as stored.
        text: the statement that made it, as ksqlDB shows it.
        owner: our owner id.
        installation: ours.
    """

    def is_ours(shared: SharedName) -> bool:
        return shared.owner == fold(owner) and installation.owns(shared.installation)

    definition, own_name = definition_of(text), SharedName.parse(name)
    if own_name is not None and definition is not None and _has_shared_form(definition, name):
        return Ownership(Whose.SHARED) if is_ours(own_name) else Ownership(Whose.OTHER, None, own_name.installation)
    read = [shared for source in sources_of(text) if (shared := SharedName.parse(source)) is not None]
    group = group_of(definition, name) if definition is not None else None
    theirs = min((shared.installation for shared in read if not is_ours(shared)), default="")
    if any(is_ours(shared) for shared in read):
        return Ownership(Whose.READER, None, theirs) if group is None else Ownership(Whose.GROUP, group)
    return Ownership(Whose.OTHER if read and group is not None else Whose.FOREIGN, None, theirs)


def group_of(definition: Definition, name: str) -> str | None:
    """Return the group of a stream that has our form; None for any other form."""
    group = definition.filter_literal
    if group is None:
        return None
    names = names_of(group)
    named = (definition.name, name, definition.topic) == (names.stream, names.stream, names.topic)
    selected = definition.columns == _GROUP_COLUMNS and definition.filter == f"s.{GROUP_COLUMN} = {group!r}"
    return group if named and selected and definition.join is None and _has_our_properties(definition) else None


def _has_shared_form(definition: Definition, name: str) -> bool:
    """Whether it joins as our shared streams do, with any level and any two sources."""
    join, columns = definition.join, definition.columns
    named = (definition.name, definition.topic) == (name, name.lower())
    joined = join is not None and join.kind == "INNER" and join.condition == "s.ASSET_UUID = t.ASSET_UUID"
    selected = columns[:-1] == _SHARED_COLUMNS and columns[-1].name == GROUP_COLUMN
    return named and joined and selected and not definition.filter and _has_our_properties(definition)


def _has_our_properties(definition: Definition) -> bool:
    """Whether it has no property or clause that ours never have."""
    properties = definition.properties
    formats = properties.get("KEY_FORMAT", "KAFKA"), properties.get("VALUE_FORMAT")
    return not definition.rest and properties.keys() <= _PROPERTIES and formats == ("KAFKA", "JSON")

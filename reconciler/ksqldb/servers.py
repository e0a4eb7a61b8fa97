"""Whether the queries that groups depend on run on every ksqlDB server of the cluster. Pure.

Of several servers each holds a part of the UNS map. While one is away the others answer a pull query with 200, complete
and healthy, and only the rows of their own parts (measured: 1,371 of 2,000, for up to 64 s, 0 for some of them). What
tells is LIST QUERIES: ``statusCount`` names a server that does not answer (``UNRESPONSIVE``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator

from openfactory_common.ksqldb.wire import stored
from reconciler.ksqldb.entities import PAUSED, RUNNING, QueryInfo

_LITERAL = re.compile(r"'(?:[^']|'')*'")
_NAME = r"(`[^`]+`|[A-Za-z0-9_-]+)"
_READS = re.compile(rf"\b(?:FROM|JOIN)\s+{_NAME}", re.IGNORECASE)
_MAKES = re.compile(rf"\s*CREATE\s+(?:OR REPLACE )?(?:SOURCE )?TABLE\s+(?:IF NOT EXISTS )?{_NAME}", re.IGNORECASE)
_TRANSIENT = ("PUSH", "PULL")


def not_running(listed: Iterable[QueryInfo], tables: Collection[str], is_ours: Callable[[QueryInfo], bool]) -> str:
    """Return which query of ours or of the UNS map does not run on every server, and how; ``""`` where all do.

    Args:
        listed: LIST QUERIES.
        tables: names of the tables that groups are read from, as stored.
        is_ours: whether a query writes a stream of ours. One of ours may be paused on all servers: it is resumed.
    """
    queries = [query for query in listed if query.type not in _TRANSIENT]
    feeding = _feeding(queries, tables)
    found = []
    for query in queries:
        allowed: tuple[set[str], ...] = ({RUNNING},) if query.id in feeding else ({RUNNING}, {PAUSED})
        if (query.id in feeding or is_ours(query)) and _states(query) not in allowed:
            found.append(_text(query))
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{min(found)}{more}" if found else ""


def servers(listed: Iterable[QueryInfo]) -> int:
    """Return on how many servers queries run; a transient query runs on the one that was asked for it."""
    return max((sum(query.status_count.values()) for query in listed if query.type not in _TRANSIENT), default=0)


def _states(query: QueryInfo) -> set[str]:
    return {state for state, number in query.status_count.items() if number}


def _text(query: QueryInfo) -> str:
    total = sum(query.status_count.values())
    counts = sorted(query.status_count.items())
    wrong = [f"{state} on {number} of {total} servers" for state, number in counts if state != RUNNING]
    return f"query {query.id} is {' and '.join(wrong) or 'on no server'}"


def _feeding(queries: Iterable[QueryInfo], tables: Collection[str]) -> set[str]:
    """Ids of the queries that write one of ``tables``, or what such a query reads, and so on."""
    rest = {query.id: (query, set(_made(query))) for query in queries}
    wanted, feeding = set(tables), set[str]()
    while new := {name for name, (_, sinks) in rest.items() if sinks & wanted}:
        feeding |= new
        wanted |= {source for name in new for source in _read(rest.pop(name)[0])}
    return feeding


def _made(query: QueryInfo) -> Iterator[str]:
    """What a query writes; a source table's has no sink, and its text names the table."""
    yield from query.sinks
    named = _MAKES.match(query.text)
    if named is not None:
        yield stored(named[1])


def _read(query: QueryInfo) -> Iterator[str]:
    yield from (stored(name) for name in _READS.findall(_LITERAL.sub("''", query.text)))

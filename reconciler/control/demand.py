"""Asks the tasks of the routing layer which groups clients ask for (`GET /demand`), where groups may sleep."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from http import HTTPStatus
from typing import Any

from openfactory_common.errors import KsqlError
from reconciler.control.readiness import (
    ANSWER_SECONDS,
    AT_ONCE,
    DNS_SECONDS,
    Endpoint,
    find_endpoint,
    resolve_host,
    send_get,
)
from reconciler.domain.demand import DemandReport, GroupDemand, TaskDemand
from reconciler.domain.services import LiveService
from reconciler.ksqldb.api import Ksqldb
from reconciler.ksqldb.definition import sources_of
from reconciler.planning.sleep import find_overdue
from reconciler.planning.specs import is_ours, routing_layer_name
from reconciler.planning.survey import StreamVerdict, Survey
from reconciler.settings import Environment, Settings

#: Seconds without an answer of every task after which all groups wake: a client may wait at the one that is silent.
DOUBT_SECONDS = 60.0
#: Groups whose query is asked in one cycle how far it has read, in turn.
_DESCRIBED = 10
#: Seconds after which a query that runs counts as one that has read enough for its stream to move: it may have failed,
#: or the server may not tell how far it is, and clients wait.
MOVE_SECONDS = 600.0
#: Bytes of an answer: 1,000 groups have about 80 KiB.
_MAX_BODY = 8 * 1024 * 1024


class DemandReader:
    """Reads the demand for one operator."""

    def __init__(self, settings: Settings, resolve: Callable[[str, int], Sequence[str]] = resolve_host) -> None:
        """Prepare to ask; ``resolve`` returns the addresses of a host, and raises `OSError` where it has none."""
        self._settings = settings
        self._resolve = resolve
        self._pool = ThreadPoolExecutor(AT_ONCE, "demand")
        self._silent_since: float | None = None
        self._targets: dict[tuple[str, str], int] = {}
        self._running: dict[str, float] = {}
        self._turn = 0

    def read(self, survey: Survey, ksqldb: Ksqldb, now: float, wall: datetime) -> DemandReport | None:
        """Ask every task of the routing layer that runs; this takes 3 s at most, and what ksqlDB is asked.

        Args:
            survey: what was observed in this cycle.
            ksqldb: says how far queries have read.
            now: monotonic seconds.
            wall: the time of day.

        Returns:
            None where no group sleeps, or ever will. What sleeps when `IDLE_AFTER` is unset wakes, whatever is asked
            for; then only the queries are read.
        """
        sleeps = self._settings.idle_after > 0
        if not sleeps and not (survey.published and survey.published.document.asleep):
            return None
        live = survey.observed.platform.services.get(routing_layer_name(self._settings).casefold()) if sleeps else None
        tasks = self._ask(live) if live is not None else ()
        answered = live is not None and all_answered(live, tasks)
        # Not since the last complete answer: nothing is asked while ksqlDB is away, and that is no task's silence.
        silent_since = now if self._silent_since is None else self._silent_since
        self._silent_since = None if answered else silent_since
        at = int(wall.timestamp())
        return DemandReport(
            at,
            tuple(task for task in tasks if task is not None),
            complete=answered and live is not None and not may_drain(live, tasks, wall),
            doubtful=not answered and now - silent_since >= DOUBT_SECONDS,
            caught_up=self._find_caught_up(survey, ksqldb, at, now),
        )

    def _ask(self, live: LiveService) -> Sequence[TaskDemand | None]:
        """Return what each address of the service answers; None for one that does not."""
        if live.spec is None or not is_ours(live, self._settings) or self._settings.environment is Environment.LOCAL:
            return ()
        endpoint = find_endpoint(live.spec, self._settings)
        port = live.spec.env.get("METRICS_PORT")
        endpoint = endpoint if port is None else endpoint._replace(port=int(port), tls=False)
        try:
            addresses = self._pool.submit(self._resolve, endpoint.host, endpoint.port).result(DNS_SECONDS)
        except OSError:  # also a TimeoutError: the name is still being looked up
            return ()
        return tuple(self._pool.map(lambda address: ask_task(address, endpoint), addresses))

    def _find_caught_up(self, survey: Survey, ksqldb: Ksqldb, at: int, now: float) -> frozenset[str]:
        """Return the groups whose query has read what its source had when it was first seen to run again."""
        source, topics = survey.observed.source, dict[str, str]()
        for group in sorted(find_overdue(survey, self._settings, at)):
            query = source.queries.get(survey.wanted[group].stream)
            read = next(iter(sources_of(query.text)), "") if query is not None and not query.paused else ""
            if read in source.streams:
                topics[group] = source.streams[read].topic
        self._targets = {key: end for key, end in self._targets.items() if key in topics.items()}
        groups, turn = list(topics), self._turn % max(1, len(topics))
        self._turn = turn + _DESCRIBED
        self._running = {group: self._running.get(group, now) for group in topics}
        moved = (group for group in topics if survey.streams[group].verdict is StreamVerdict.MOVED)
        found = {group for group in moved if now - self._running[group] >= MOVE_SECONDS}
        for group in [*groups[turn:], *groups[:turn]][:_DESCRIBED]:
            with suppress(KsqlError):  # asked again in a later cycle; until then it reads on
                described = ksqldb.describe_extended(survey.wanted[group].stream)
                consumed = described.consumed.get(topics[group]) if described is not None else None
                # With exactly-once each partition at rest ends one marker behind what is read.
                behind = source.partitions.get(topics[group], 1)
                key = (group, topics[group])
                if consumed is not None and consumed.read + behind >= self._targets.setdefault(key, consumed.end):
                    found.add(group)
        return frozenset(found)


def all_answered(live: LiveService, tasks: Sequence[TaskDemand | None]) -> bool:
    """Whether every task that runs has answered for all its workers, and no other is on its way. Pure."""
    return live.converged and len(tasks) == live.running and all(task is not None and task.complete for task in tasks)


def may_drain(live: LiveService, tasks: Sequence[TaskDemand | None], wall: datetime) -> bool:
    """Whether a task that was replaced may still have streams: its name resolves no more, so it is not asked. Pure.

    It is not where the service was last changed, and every task was started, longer ago than one has to end: with the
    grace time that it was started with, which the change may have shortened.
    """
    grace = max((spec.stop_grace for spec in (live.spec, live.previous) if spec is not None), default=0.0)
    changed = live.updated_at
    recent = changed is None or (wall - changed).total_seconds() < grace
    return recent or any(task is not None and task.uptime < grace for task in tasks)


def ask_task(address: str, endpoint: Endpoint) -> TaskDemand | None:
    """Return what one task reports; None where it does not answer, or with something else."""
    deadline = time.monotonic() + ANSWER_SECONDS
    try:
        status, body = send_get(address, endpoint, "/demand", deadline, limit=_MAX_BODY)
    except (OSError, http.client.HTTPException):
        return None
    return parse_demand(body) if status == HTTPStatus.OK else None


def parse_demand(body: bytes) -> TaskDemand | None:
    """Read what a task reports; None for anything else. Pure."""
    try:
        document = json.loads(body)
        return TaskDemand(
            _typed(document["revision"], str),
            _typed(document["complete"], bool),
            float(document["uptime_seconds"]),
            {
                group: GroupDemand(_typed(one["open"], int), _typed(one["waiting"], int), float(one["idle_seconds"]))
                for group, one in _typed(document["groups"], dict).items()
            },
        )
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def _typed(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise TypeError(kind.__name__)
    return value

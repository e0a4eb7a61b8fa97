"""The command runner: what happens between the acceptance of a DDL statement and its execution.

Commands run one at a time. Two DDL requests at once fence each other on the real server: one wins, the others get
500 and were not executed; here every request runs to its end before the next begins, so that happens on demand only.
Like the real server, a request is validated first: what is refused with 400 is refused on a bad day as well, and
IF NOT EXISTS of something that exists is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from demo.ksqldb import ast
from demo.ksqldb.catalog import Catalog, CommandStatus
from demo.ksqldb.commands import WRITES, Commands, Session
from demo.ksqldb.describing import Entity
from demo.ksqldb.errors import BAD_REQUEST, SERVER_ERROR, KsqlRefusal
from demo.ksqldb.faults import Faults
from openfactory_common.tasks import cancel_until_ended

BLOCKED = "Timeout while waiting for command topic consumer to process command\n\ttopic"
NO_KAFKA = (
    "Timeout while initializing transaction to the KSQL command topic.\nIf you're running a single Kafka broker, "
    "ensure that the following configs are set to 1 on the broker:\n- transaction.state.log.replication.factor\n"
    "- transaction.state.log.min.isr\n- offsets.topic.replication.factor\n"
    "Caused by: Timeout expired after 60000ms while awaiting InitProducerId"
)
FENCED = (
    "Producer with transactionalId 'default_' and (producerId=0, epoch=1) has been fenced by another producer with "
    "the same transactionalId"
)
Batch = list[ast.Prepared]


@dataclass(frozen=True)
class Written:
    """A batch that stands in the command topic: it runs under the sequence numbers that it got there."""

    statements: Batch
    session: Session
    sequence: int
    last_plan: int


@dataclass
class Runner:
    """Executes requests, with the faults of the command topic where they are switched on."""

    catalog: Catalog
    faults: Faults
    commands: Commands
    pending: list[Written] = field(default_factory=list)
    tasks: dict[asyncio.Task[list[Entity]], set[str]] = field(default_factory=dict)

    async def run(self, statements: Batch, session: Session) -> list[Entity]:
        """Run a request, or what the faults make of it.

        Raises:
            KsqlRefusal: of a statement, or of a command topic that does not answer.
        """
        if any(isinstance(each.statement, ast.InsertValues) for each in statements):
            await self._kafka_for_insert(statements, session)
        if not any(isinstance(each.statement, WRITES) for each in statements) or not self._disturbed():
            return self.commands.run(statements, session)
        entities, copy = self.commands.rehearse(statements, session)
        if not any(each["@type"] == "currentStatus" for each in entities):
            return entities
        self._delete_topics(copy)
        await self._refuse(session.request)
        self._refuse_twin(entities, session.request)
        return await self._delayed(statements, session, entities, copy)

    def _disturbed(self) -> bool:
        return bool(self.faults.active) or bool(self.tasks)

    async def _kafka_for_insert(self, statements: Batch, session: Session) -> None:
        seconds = self.faults.use("kafka_down", session.request)
        if seconds is None:
            return
        await asyncio.sleep(float(seconds))
        target = next(each.statement.target for each in statements if isinstance(each.statement, ast.InsertValues))
        source = self.catalog.sources.get(target)
        if source is not None:
            cause = f"Topic {source.topic.name} not present in metadata after\n\t60000 ms."
            raise KsqlRefusal(f"Failed to insert values into '{target}'.\nCaused by: {cause}", code=BAD_REQUEST)

    def _delete_topics(self, copy: Catalog) -> None:
        """DELETE TOPIC happens before the command is written, so it happens also when the command is not."""
        for name in set(self.catalog.topics) - set(copy.topics):
            del self.catalog.topics[name]

    async def _refuse(self, sql: str) -> None:
        use = self.faults.use
        if use("rate_limited", sql):
            reason = "DDL/DML rate is crossing the configured rate limit of statements/second"
            raise KsqlRefusal(reason, code=42900)
        if use("fenced", sql):
            raise KsqlRefusal(FENCED, code=SERVER_ERROR, statement=sql)
        seconds = use("kafka_down", sql)
        if seconds is not None:
            await asyncio.sleep(float(seconds))
            raise KsqlRefusal(NO_KAFKA, code=SERVER_ERROR, statement=sql)
        if "queued" in self.faults.active:
            return
        for switch in ("blocked_runner", "dead_runner"):
            seconds = use(switch, sql)
            if seconds is not None:
                await asyncio.sleep(float(seconds))
                raise _not_written(sql, BLOCKED)

    def _refuse_twin(self, entities: list[Entity], sql: str) -> None:
        """While a command waits, another one with its id is refused."""
        waiting = {command for commands in self.tasks.values() for command in commands}
        twin = next((each["commandId"] for each in entities if each.get("commandId") in waiting), None)
        if twin is not None:
            raise _not_written(sql, f"Another command with the same id ({twin}) is being\n\texecuted.")

    async def _delayed(
        self, statements: Batch, session: Session, entities: list[Entity], copy: Catalog
    ) -> list[Entity]:
        seconds = self.faults.use("ddl_timeout", session.request)
        if seconds is not None:
            # The client may give up; the command runs all the same.
            run = lambda: self.commands.run(statements, session)  # noqa: E731 - reads better than a nested def
            return await asyncio.shield(self._later(float(seconds), run, entities))
        written = Written(statements, session, self.catalog.next_sequence, self.catalog.last_plan)
        if self.faults.use("queued", session.request):
            self.pending.append(written)
            return self._unfinished(entities, copy, CommandStatus("QUEUED", "Statement written to command topic"))
        seconds = self.faults.use("executing", session.request)
        if seconds is not None:
            self._later(float(seconds), lambda: self._run_written(written), entities)
            return self._unfinished(entities, copy, CommandStatus("EXECUTING", "Executing statement"))
        return self.commands.run(statements, session)

    def _run_written(self, written: Written) -> list[Entity]:
        catalog = self.catalog
        now = catalog.next_sequence, catalog.last_plan
        catalog.next_sequence, catalog.last_plan = written.sequence, written.last_plan
        try:
            return self.commands.run(written.statements, written.session)
        finally:
            catalog.next_sequence, catalog.last_plan = now

    def _later(
        self, seconds: float, run: Callable[[], list[Entity]], entities: list[Entity]
    ) -> asyncio.Task[list[Entity]]:
        async def wait() -> list[Entity]:
            await asyncio.sleep(seconds)
            return run()

        task = asyncio.create_task(wait())
        self.tasks[task] = {str(each.get("commandId")) for each in entities}
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[list[Entity]]) -> None:
        self.tasks.pop(task, None)
        if not task.cancelled():
            task.exception()  # a refusal was the client's to hear; it has gone

    def _unfinished(self, entities: list[Entity], copy: Catalog, status: CommandStatus) -> list[Entity]:
        """The answer to a command that is written and not executed; its topics exist already, as on the real server."""
        for name, topic in copy.topics.items():
            self.catalog.topics.setdefault(name, topic)
        for each in entities:
            if each["@type"] == "currentStatus":
                self.catalog.statuses[each["commandId"]] = status
                each["commandStatus"] = status.body()
                each["commandSequenceNumber"] = self.catalog.advance(plan=True)
        return entities

    def release(self) -> None:
        """Run what was QUEUED, as a restart of the real server does."""
        waiting, self.pending = self.pending, []
        for each in waiting:
            try:
                self._run_written(each)
            except KsqlRefusal as refusal:
                self._failed(refusal)

    def _failed(self, refusal: KsqlRefusal) -> None:
        stuck = [name for name, each in self.catalog.statuses.items() if each.status == "QUEUED"]
        self.catalog.statuses.update({name: CommandStatus("ERROR", refusal.message) for name in stuck})

    async def stop(self) -> None:
        """Give up what is waiting."""
        await cancel_until_ended(self.tasks)


def _not_written(sql: str, cause: str) -> KsqlRefusal:
    reason = f"Could not write the statement '{sql}' into the command topic.\nCaused by: {cause}"
    return KsqlRefusal(reason, code=SERVER_ERROR, statement=sql)


def health(faults: Faults) -> tuple[bool, bool, str]:
    """What /healthcheck says of Kafka and of the command runner, and the status of /info."""
    dead = "dead_runner" in faults.active
    kafka = "kafka_down" not in faults.active
    return kafka, not dead, "ERROR" if dead else "RUNNING"

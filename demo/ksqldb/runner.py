"""The command runner: what happens between the acceptance of a DDL statement and its execution.

Commands run one at a time. Two DDL requests at once fence each other on the real server: one wins, the others get
500 and were not executed; here every request runs to its end before the next begins, so that happens on demand only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from demo.ksqldb import ast, rendering
from demo.ksqldb.catalog import Catalog, CommandStatus
from demo.ksqldb.commands import WRITES, Session
from demo.ksqldb.describing import Entity
from demo.ksqldb.errors import SERVER_ERROR, KsqlRefusal
from demo.ksqldb.faults import Faults

Execute = Callable[[list[ast.Prepared], Session], list[Entity]]
BLOCKED = "Timeout while waiting for command topic consumer to process command\n\ttopic"


@dataclass
class Runner:
    """Executes requests, with the faults of the command topic where they are switched on."""

    catalog: Catalog
    faults: Faults
    execute: Execute
    pending: list[tuple[list[ast.Prepared], Session]] = field(default_factory=list)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    async def run(self, statements: list[ast.Prepared], session: Session) -> list[Entity]:
        """Run a request, or what the faults make of it.

        Raises:
            KsqlRefusal: of a statement, or of a command topic that does not answer.
        """
        if not any(isinstance(each.statement, WRITES) for each in statements):
            return self.execute(statements, session)
        sql = session.request
        if self.faults.use("fenced", sql):
            raise KsqlRefusal(_fenced(), code=SERVER_ERROR, statement=sql)
        for switch in ("blocked_runner", "dead_runner"):
            seconds = self.faults.use(switch, sql)
            if seconds is not None:
                await asyncio.sleep(float(seconds))
                reason = f"Could not write the statement '{sql}' into the command topic.\nCaused by: {BLOCKED}"
                raise KsqlRefusal(reason, code=SERVER_ERROR, statement=sql)
        return await self._delayed(statements, session)

    async def _delayed(self, statements: list[ast.Prepared], session: Session) -> list[Entity]:
        seconds = self.faults.use("ddl_timeout", session.request)
        if seconds is not None:
            # The client may give up; the command runs all the same.
            task = self._later(float(seconds), statements, session)
            return await asyncio.shield(task)
        if self.faults.use("queued", session.request):
            self.pending.append((statements, session))
            return self._unfinished(statements, "QUEUED", "Statement written to command topic")
        seconds = self.faults.use("executing", session.request)
        if seconds is not None:
            self._later(float(seconds), statements, session)
            return self._unfinished(statements, "EXECUTING", "Executing statement")
        return self.execute(statements, session)

    def _later(self, seconds: float, statements: list[ast.Prepared], session: Session) -> asyncio.Task[list[Entity]]:
        async def wait() -> list[Entity]:
            await asyncio.sleep(seconds)
            return self.execute(statements, session)

        task = asyncio.create_task(wait())
        self.tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a refusal was the client's to hear; it has gone

    def _unfinished(self, statements: list[ast.Prepared], status: str, message: str) -> list[Entity]:
        found = []
        for each in statements:
            command = _command_id(each.statement)
            self.catalog.statuses[command] = CommandStatus(status, message)
            found.append(
                {
                    "@type": "currentStatus",
                    "statementText": each.text,
                    "commandId": command,
                    "commandStatus": CommandStatus(status, message).body(),
                    "commandSequenceNumber": self.catalog.advance(plan=False),
                    "warnings": [],
                }
            )
        return found

    def release(self) -> None:
        """Run what was QUEUED, as a restart of the real server does."""
        waiting, self.pending = self.pending, []
        for statements, session in waiting:
            try:
                self.execute(statements, session)
            except KsqlRefusal as refusal:
                failed = CommandStatus("ERROR", refusal.message)
                self.catalog.statuses.update({_command_id(each.statement): failed for each in statements})

    async def stop(self) -> None:
        """Give up what is waiting."""
        for task in tuple(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def _fenced() -> str:
    return (
        "Producer with transactionalId 'default_' and (producerId=0, epoch=1) has been fenced by another producer "
        "with the same transactionalId"
    )


def _command_id(statement: ast.Statement) -> str:
    if isinstance(statement, ast.Create):
        return f"{statement.kind.lower()}/{rendering.quoted(statement.name)}/create"
    if isinstance(statement, ast.Drop):
        return f"{statement.kind.lower()}/{statement.name}/drop"
    if isinstance(statement, ast.QueryCommand):
        return f"{statement.verb.lower()}/{statement.query_id or 'ALL'}/execute"
    return f"stream/{rendering.quoted(getattr(statement, 'target', ''))}/create"

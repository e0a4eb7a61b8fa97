"""POST /ksql: runs the statements of a request one after the other and collects their entities.

Every statement is validated before any runs: a request with several statements is first run against a copy of the
catalogue without data, as ksqlDB does in its sandbox.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from demo.ksqldb import ast, properties, rendering
from demo.ksqldb.catalog import Catalog, CommandStatus, Properties, Source
from demo.ksqldb.creating import PLANNING, AlreadyExists, Creator
from demo.ksqldb.describing import Describer, Entity, PushQuery
from demo.ksqldb.engine import PersistentQuery, explicit_offset
from demo.ksqldb.errors import (
    BAD_REQUEST,
    QUERY_ENDPOINT,
    SERVER_ERROR,
    KsqlRefusal,
    ServerFault,
    StatementFault,
)
from demo.ksqldb.inserting import insert
from demo.ksqldb.parser import BadSourceName, SyntaxFault, parse
from demo.ksqldb.planning import plan, prepare
from demo.ksqldb.topics import Topic
from demo.ksqldb.values import Key
from demo.ksqldb.variables import substitute

SELECT_ELSEWHERE = (
    "The following statement types should be issued to the websocket endpoint '/query':\n\t* PRINT\n\t* SELECT"
)
OFFSET_RESET = "ksql.streams.auto.offset.reset"
NO_LIMIT = 2**31 - 1  # ksqlDB's default for the number of persistent queries
WRITES = (ast.Create, ast.Drop, ast.InsertSelect, ast.QueryCommand, ast.Alter)


@dataclass
class Session:
    """What a request brings: its text, its properties (SET adds to them) and its variables."""

    request: str
    properties: Properties = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    defined: bool = False

    @property
    def substitutes(self) -> bool:
        """Whether variables are live in this request."""
        return self.properties.get("ksql.variable.substitution.enable", True) not in (False, "false")


@dataclass(frozen=True)
class Server:
    """What statements work on besides the catalogue.

    Attributes:
        pushes: the open push queries, for LIST QUERIES.
        end_push: ends one by its id; False when there is none.
        hidden: how many queries a server that is shutting down no longer lists.
        status: the statusCount of all queries while another server is away; None while there is one server.
        written: called with every accepted record of an INSERT: source, key, value.
        executed: called with every statement that ran.
        offset_reset: where queries begin that do not say so themselves; empty leaves it to Kafka.
    """

    service_id: str = "default_"
    query_limit: int | None = None
    pushes: Callable[[], list[PushQuery]] = list
    end_push: Callable[[str], bool] = lambda _: False
    hidden: Callable[[], int] = lambda: 0
    status: Callable[[], dict[str, int] | None] = lambda: None
    written: Callable[[Source, Key, dict[str, Any]], None] = lambda _, __, ___: None
    executed: Callable[[ast.Prepared, Session], None] = lambda _, __: None
    offset_reset: str = ""

    def properties(self, given: Properties) -> Properties:
        """The properties of a query: the server's own offset counts like one that the request names."""
        explicit = explicit_offset(given) or not self.offset_reset
        return dict(given) if explicit else {**given, OFFSET_RESET: self.offset_reset}

    @property
    def settings(self) -> dict[str, str]:
        """The settings that LIST PROPERTIES gives: those that matter to who creates queries."""
        limit = NO_LIMIT if self.query_limit is None else self.query_limit
        named = {"ksql.service.id": self.service_id, "ksql.query.persistent.active.limit": str(limit)}
        return named | ({OFFSET_RESET: self.offset_reset} if self.offset_reset else {})


def parsed(request: str) -> list[ast.Prepared]:
    """The statements of a request to /ksql.

    Raises:
        KsqlRefusal: a syntax error, a bad source name; the whole request is refused.
    """
    try:
        return list(parse(request).statements)
    except SyntaxFault as fault:
        raise KsqlRefusal(str(fault), statement=request) from None
    except BadSourceName as fault:
        raise KsqlRefusal(fault.message, statement=fault.name) from None


class Commands:
    """The statements of /ksql against one catalogue."""

    def __init__(self, catalog: Catalog, server: Server) -> None:
        """Bind the catalogue."""
        self._catalog = catalog
        self._server = server
        self._creator = Creator(catalog, server.query_limit)
        self._describer = Describer(catalog, server.service_id, server.settings)
        self._handlers: dict[type, Callable[[Any, str, Session], Entity | None]] = {
            ast.Create: self._create,
            ast.InsertSelect: self._insert_select,
            ast.InsertValues: self._insert,
            ast.Drop: self._drop,
            ast.Alter: self._alter,
            ast.QueryCommand: self._command,
            ast.SetProperty: self._set,
            ast.Define: self._define,
            ast.AssertTopic: self._assert_topic,
            ast.ListSources: lambda node, text, _: self._describer.sources(node, text),
            ast.DescribeSources: lambda node, text, _: self._describer.sources(node, text),
            ast.ListQueries: self._list_queries,
            ast.ListTopics: lambda node, text, _: self._describer.topics(node, text),
            ast.ListOther: lambda node, text, session: self._describer.other(node.what, text, session.variables),
            ast.Describe: lambda node, text, _: self._describer.describe(node, text),
            ast.Explain: lambda node, text, _: self._describer.explain(node.query_id, text),
        }

    def run(self, statements: list[ast.Prepared], session: Session) -> list[Entity]:
        """Run every statement of a request.

        Raises:
            KsqlRefusal: the first refusal; nothing has run when it comes from the validation.
        """
        if len(statements) > 1:
            self.rehearse(statements, session)
        return [entity for each in statements if (entity := self.run_one(each, session)) is not None]

    def rehearse(self, statements: list[ast.Prepared], session: Session) -> tuple[list[Entity], Catalog]:
        """Run every statement against a copy without data: its entities, and the copy.

        Raises:
            KsqlRefusal: the first refusal.
        """
        copy = _sandbox(self._catalog)
        sandbox = Commands(copy, Server(self._server.service_id, self._server.query_limit))
        trial = replace(session, properties=dict(session.properties), variables=dict(session.variables))
        return [entity for each in statements if (entity := sandbox.run_one(each, trial)) is not None], copy

    def run_one(self, prepared: ast.Prepared, session: Session) -> Entity | None:
        """Run one statement; None where ksqlDB answers with no entity (INSERT VALUES, SET)."""
        prepared = _substituted(prepared, session)
        statement, text = prepared.statement, prepared.text
        handler = self._handlers.get(type(statement))
        if handler is None:
            raise KsqlRefusal(SELECT_ELSEWHERE, code=QUERY_ENDPOINT, statement=text)
        try:
            entity = handler(statement, text, session)
        except ServerFault as fault:
            raise KsqlRefusal(str(fault), code=SERVER_ERROR, statement=session.request) from None
        except StatementFault as fault:
            raise KsqlRefusal(str(fault), statement=text) from None
        if entity is None or entity["@type"] == "currentStatus":
            self._server.executed(prepared, session)
        return entity

    def _status(self, command: str, text: str, status: CommandStatus, *, changes: bool = True) -> Entity:
        self._catalog.statuses[command] = status
        return {
            "@type": "currentStatus",
            "statementText": text,
            "commandId": command,
            "commandStatus": status.body(),
            "commandSequenceNumber": self._catalog.advance(plan=changes),
            "warnings": [],
        }

    def _create(self, statement: ast.Create, text: str, session: Session) -> Entity:
        try:
            done = self._creator.create(statement, text, self._server.properties(session.properties))
        except AlreadyExists as warning:
            return {"@type": "warning_entity", "statementText": text, "message": str(warning), "warnings": []}
        command = f"{statement.kind.lower()}/{rendering.quoted(statement.name)}/create"
        return self._status(command, done.text, CommandStatus("SUCCESS", done.message, done.query_id))

    def _insert_select(self, statement: ast.InsertSelect, text: str, session: Session) -> Entity:
        target = self._catalog.source(statement.target)
        try:
            planned = plan(prepare(statement.query, self._catalog), self._catalog)
        except StatementFault as fault:
            raise StatementFault(PLANNING + str(fault)) from None
        types = [(each.name, each.type, each.key) for each in planned.schema.columns]
        if types != [(each.name, each.type, each.key) for each in target.schema.columns]:
            raise StatementFault(
                "Incompatible schema between results and sink.\n"
                f"Result schema is {planned.schema}\nSink schema is {target.schema}"
            )
        query_id = f"INSERTQUERY_{self._catalog.peek_query_number()}"
        query = PersistentQuery(query_id, text, planned, target, self._server.properties(session.properties))
        self._catalog.queries[query_id] = query
        query.start()
        command = f"{target.kind.lower()}/{rendering.quoted(target.name)}/create"
        return self._status(command, text, CommandStatus("SUCCESS", f"Created query with ID {query_id}", query_id))

    def _insert(self, statement: ast.InsertValues, _: str, __: Session) -> None:
        source, key, value = insert(statement, self._catalog)
        self._server.written(source, key, value)
        source.topic.append(key, value)

    def _drop(self, statement: ast.Drop, text: str, _: Session) -> Entity:
        source = self._catalog.sources.get(statement.name)
        if statement.delete_topic:
            self._delete_topic(statement, source, text)
            text = rendering.drop(statement)
        try:
            message = self._dropped(statement, source)
        except StatementFault as fault:
            raise KsqlRefusal(str(fault), statement=text) from None
        command = f"{statement.kind.lower()}/{statement.name}/drop"
        return self._status(command, text, CommandStatus("SUCCESS", message))

    def _delete_topic(self, statement: ast.Drop, source: Source | None, text: str) -> None:
        if source is None:
            if statement.if_exists:
                return
            shown = (
                f"ConfiguredStatement{{statement={text}, config=SessionConfig{{overrides={{}}, "
                "systemConfig=io.confluent.ksql.util.KsqlConfig@0}}"
            )
            raise KsqlRefusal(f"Could not find source to delete topic for: {shown}", code=BAD_REQUEST)
        if source.read_only:
            raise KsqlRefusal(f"Cannot delete topic for read-only source: {source.name}", code=BAD_REQUEST)
        topic = source.topic.name
        others = [each.name for each in self._catalog.sources.values() if each.topic.name == topic]
        others = sorted(each for each in others if each != source.name)
        if others:
            reason = f"Found other data sources ({', '.join(others)}) using topic {topic}"
            raise ServerFault(f"Refusing to delete topic. {reason}")
        # Before the checks below, as in ksqlDB: a DROP that is refused has deleted the topic all the same.
        self._catalog.topics.pop(topic, None)

    def _dropped(self, statement: ast.Drop, source: Source | None) -> str:
        name = statement.name
        if source is None:
            if statement.if_exists:
                return f"Source {rendering.quoted(name)} does not exist."
            hint = self._catalog.case_hint(name)
            raise StatementFault(f"{statement.kind.capitalize()} {name} does not exist.{hint}")
        if source.kind != statement.kind:
            raise StatementFault(
                f"Incompatible data source type is {source.kind.lower()}, but statement was DROP "
                f"{statement.kind.lower()}"
            )
        self._check_unused(source)
        for query in self._catalog.writing(name):
            query.stop()
            del self._catalog.queries[query.id]
        source.close()
        del self._catalog.sources[name]
        return f"Source {rendering.quoted(name)} (topic: {source.topic.name}) was dropped."

    def _check_unused(self, source: Source) -> None:
        name = source.name
        readers = sorted(self._catalog.readers(name))
        if readers:
            raise StatementFault(
                f"Cannot drop {name}.\nThe following streams and/or tables read from this source: "
                f"[{', '.join(readers)}].\nYou need to drop them before dropping {name}."
            )
        inserts = [each.id for each in self._catalog.writing(name) if each.id.startswith("INSERTQUERY_")]
        reading = [each.id for each in self._catalog.reading(name)]
        if inserts or reading:
            raise StatementFault(
                f"Cannot drop {name}.\nThe following queries read from this source: [{', '.join(reading)}].\n"
                f"The following queries write into this source: [{', '.join(inserts)}].\n"
                f"You need to terminate them before dropping {name}."
            )

    def _alter(self, statement: ast.Alter, _: str, __: Session) -> Entity:
        source = self._catalog.source(statement.name)
        if source.derived:
            raise StatementFault("ALTER command is not supported for CREATE ... AS statements.")
        raise StatementFault("The development server does not support ALTER.")

    def _command(self, statement: ast.QueryCommand, text: str, _: Session) -> Entity:
        verb, query_id = statement.verb, statement.query_id
        if query_id is None:
            for each in list(self._catalog.queries):
                self._apply(verb, each)
        elif query_id in self._catalog.queries:
            self._apply(verb, query_id)
        elif verb == "TERMINATE" and self._server.end_push(query_id):
            found = {"queryId": query_id, "wasTerminated": True, "warnings": []}
            return {"@type": "terminate_query", "statementText": text, **found}
        else:
            raise StatementFault(f"Unknown queryId: {query_id}")
        done = {"TERMINATE": "terminated", "PAUSE": "paused", "RESUME": "resumed"}[verb]
        command = f"{verb.lower()}/{query_id or 'ALL'}/execute"
        return self._status(command, text, CommandStatus("SUCCESS", f"Query {done}."), changes=False)

    def _apply(self, verb: str, query_id: str) -> None:
        query = self._catalog.queries[query_id]
        if query.sink.read_only:
            raise StatementFault(f"Cannot {verb.lower()} query '{query_id}' because it is linked to a source table.")
        if verb == "PAUSE":
            query.pause()
        elif verb == "RESUME":
            query.resume()
        else:
            query.stop()
            del self._catalog.queries[query_id]

    def _set(self, statement: ast.SetProperty, _: str, session: Session) -> None:
        if not properties.known(statement.name):
            raise StatementFault(f"Unknown property: {statement.name}")
        if statement.value is None:
            session.properties.pop(statement.name, None)
        else:
            session.properties[statement.name] = statement.value

    def _define(self, statement: ast.Define, _: str, session: Session) -> None:
        session.variables[statement.name] = statement.value

    def _assert_topic(self, statement: ast.AssertTopic, text: str, _: Session) -> Entity:
        entity = self._describer.assert_topic(statement, text)
        if entity is None:
            state = "does not exist" if statement.exists else "exists"
            raise KsqlRefusal(f"Topic {statement.topic} {state}", code=41700)
        return entity

    def _list_queries(self, statement: ast.ListQueries, text: str, _: Session) -> Entity:
        pushes, hidden = self._server.pushes(), self._server.hidden()
        status = self._server.status()
        return self._describer.queries(text, pushes, extended=statement.extended, hidden=hidden, status=status)


def _substituted(prepared: ast.Prepared, session: Session) -> ast.Prepared:
    text = substitute(prepared.text, session.variables) if session.substitutes else prepared.text
    return prepared if text == prepared.text else parsed(text)[0]


class _Frozen:
    """A query of the sandbox: it can be listed and stopped, and does nothing."""

    def __init__(self, query: Any, sink: Source) -> None:
        """Copy what the checks read."""
        self.id, self.text, self.sink = query.id, query.text, sink
        self.source_names, self.paused, self.properties = query.source_names, query.paused, query.properties
        self.internal_topics = query.internal_topics
        self.written, self.silent, self.consumed = query.written, query.silent, query.consumed

    def hush(self, how: str) -> None:
        """Nothing runs."""

    def stop(self) -> None:
        """Nothing runs."""

    pause = resume = stop


def _sandbox(catalog: Catalog) -> Catalog:
    topics = {name: replace(each, records=[], readers=[], keys={}) for name, each in catalog.topics.items()}
    sources = {
        name: replace(each, topic=topics.get(each.topic.name, Topic(each.topic.name)), state={}, consumers=[])
        for name, each in catalog.sources.items()
    }
    queries = {name: _Frozen(each, sources[each.sink.name]) for name, each in catalog.queries.items()}
    return Catalog(sources, topics, dict(queries), {}, catalog.next_sequence, catalog.last_plan)

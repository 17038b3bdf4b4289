"""Sends each statement to the database that its tables are in.

Only applications with binds use this module; a session without binds has one engine.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary, ref

from sqlalchemy import ClauseElement, inspect
from sqlalchemy import Sequence as SequenceOfNumbers
from sqlalchemy.engine import Connection, Engine, ExecutionContext
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.sql.dml import Insert

from ..backends import listen_for_statements, masked
from ..engines import (
    full_name,
    mapping_generation,
    names_by_bind_key,
    session_of_connection,
    tables_in,
    tables_of_mapper,
)
from ..exceptions import BindError
from ..settings import DEFAULT_KEY

# Execution option of a statement whose database was chosen by its tables; the value is the Routes.
ROUTED = "sqa_routed"


ADVICE = (
    "Query each of them in a statement of its own (selectinload() for a relationship), "
    'or set __bind_key__ or info={"bind_key": ...} where one of them is missing.'
)


class Routes:
    """The engines of one application by bind key, in the order of their COMMITs."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self.engines = engines
        self.default = engines[DEFAULT_KEY]
        self._generation = mapping_generation()
        self._known: WeakKeyDictionary[Any, Engine] = WeakKeyDictionary()
        self._checked: WeakKeyDictionary[Any, Engine] = WeakKeyDictionary()
        # The engine that writes, by the one that read-only requests read from instead.
        self._writers: WeakKeyDictionary[Engine, Engine] | None = None
        self._check = _RoutingCheck(self)
        for engine in set(engines.values()):
            listen_for_statements(engine, self._check)

    def add_reader(self, reader: Engine, writer: Engine) -> None:
        """Check the statements of *reader* as those of *writer*, in whose place it reads."""
        if self._writers is None:
            self._writers = WeakKeyDictionary()
        self._writers[reader] = writer
        listen_for_statements(reader, self._check)

    def writer_of(self, engine: Engine) -> Engine:
        """Return the engine in whose place *engine* reads, or *engine* itself."""
        return engine if self._writers is None else self._writers.get(engine, engine)

    def engine_for(self, key: str) -> Engine:
        """Return the engine with the bind key *key*.

        Raises :class:`BindError`, which lists the known keys, when there is none.
        """
        try:
            return self.engines[key]
        except KeyError:
            raise unknown_bind(key, self.engines) from None

    def engine_of(self, thing: Any) -> Engine:
        """Return the engine for a statement or a mapper; the default engine if it uses no table."""
        if self._generation != mapping_generation():
            # A class was mapped since then, and it may give a table another key. The generation is
            # assigned last: another thread must not see it together with the old caches.
            self._known, self._checked, self._generation = (
                WeakKeyDictionary(),
                WeakKeyDictionary(),
                mapping_generation(),
            )
        known = self._known.get(thing)
        if known is not None:
            return known
        tables = tables_of_mapper(thing) if isinstance(thing, Mapper) else tables_in(thing)
        self._known[thing] = engine = self.engine_of_tables(tables)
        return engine

    def engine_of_tables(self, tables: Iterable[Any]) -> Engine:
        """Return the engine for *tables*; the default engine if there are none.

        Raises :class:`BindError` when the tables are in several databases.
        """
        keys = names_by_bind_key(tables)
        engines = {self.engine_for(key) for key in keys}
        if len(engines) > 1:
            uses = (f"{', '.join(sorted(names))} ({key})" for key, names in sorted(keys.items()))
            msg = f"One statement cannot use two databases: {' and '.join(uses)}. {ADVICE}"
            raise BindError(msg)
        return engines.pop() if engines else self.default

    def names_of(self, engines: Sequence[Engine]) -> list[str]:
        """Return the bind key of each of *engines*; the masked URL of an engine without one."""
        names = {engine: key for key, engine in self.engines.items()}
        return [names.get(engine) or masked(engine.url) for engine in engines]

    def in_order(self, engines: Iterable[Engine]) -> list[Engine]:
        """Return *engines* in the order of their COMMITs; engines without a bind key come first."""
        places = {engine: place for place, engine in enumerate(self.engines.values())}
        return sorted(engines, key=lambda engine: places.get(engine, -1))

    def check_tables(self, compiled: Any, engine: Engine) -> None:
        """Raise :class:`BindError` when *compiled* uses tables that are not in *engine*.

        Only the compiled statement has the tables that eager loading joins.
        """
        if self._checked.get(compiled) is engine:
            return
        final = getattr(compiled.compile_state, "statement", None)
        tables = tables_in(compiled.statement if final is None else final)
        if tables:
            own = self.engine_of_tables(tables)
            if own is not engine:
                [name, other] = self.names_of([own, engine])
                uses = ", ".join(sorted(map(full_name, tables)))
                msg = (
                    f"{uses} is of the bind {name}, but the statement was sent to {other}. {ADVICE}"
                )
                raise BindError(msg)
        self._checked[compiled] = engine


def unknown_bind(key: str, known: Iterable[str]) -> BindError:
    """Return the error to raise for *key*, which is not among the *known* keys."""
    return BindError(f"There is no bind {key!r}, only: {', '.join(sorted(known)) or 'none'}.")


class _RoutingCheck:
    """Checks each statement just before it is sent, with everything that SQLAlchemy added to it."""

    def __init__(self, routes: Routes) -> None:
        # Weak: an engine that was handed in holds this listener longer than the Routes should live.
        self._routes = ref(routes)

    def __call__(self, _statement: str, context: ExecutionContext | None) -> None:
        compiled, routes = getattr(context, "compiled", None), self._routes()
        if context is None or compiled is None or routes is None:
            return
        connection = context.root_connection
        # Only statements that a session of these routes has routed, or that its flush sends.
        if context.execution_options.get(ROUTED) is routes or _is_flushing(connection, routes):
            routes.check_tables(compiled, routes.writer_of(connection.engine))


def _is_flushing(connection: Connection, routes: Routes) -> bool:
    session = session_of_connection(connection)
    return isinstance(session, RoutingSession) and session.routes is routes and session.flushing


class RoutingSession(Session):
    """A session on several databases, which sends each statement to the database of its tables."""

    def __init__(self, *args: Any, routes: Routes, **options: Any) -> None:
        super().__init__(*args, **options)
        self.routes = routes
        self.flushing = False

    def get_bind(
        self,
        mapper: Any = None,
        *,
        clause: Any = None,
        bind: Any = None,
        bind_key: str | None = None,
        **_: Any,
    ) -> Engine | Connection:
        """Return the engine for *bind_key*, or for the tables of the statement or the mapper."""
        if bind is not None:
            return cast("Engine | Connection", bind)
        if bind_key is not None:
            return self.routes.engine_for(bind_key)
        if clause is not None:
            return self.routes.engine_of(clause)
        if mapper is not None:
            return self.routes.engine_of(inspect(mapper).mapper)
        return self.routes.default

    def get(self, entity: Any, ident: Any, **options: Any) -> Any:
        """Return the object of *entity* with the primary key *ident*, from its database."""
        if options.get("bind_arguments") is None:
            mapper = inspect(entity, raiseerr=False)
            if isinstance(mapper, Mapper):
                # The engine of a mapper is known. Its statement is a new one each time.
                options["bind_arguments"] = {"mapper": mapper}
        return super().get(entity, ident, **options)

    def flush(self, objects: Any = None) -> None:
        """Write the pending changes, each object to the database of its table."""
        before, self.flushing = self.flushing, True
        try:
            super().flush(objects)
        finally:
            self.flushing = before

    def execute(self, statement: Any, params: Any = None, **options: Any) -> Any:
        """Execute *statement* in its database."""
        return super().execute(statement, params, **self._routed(statement, params, options))

    def scalar(self, statement: Any, params: Any = None, **options: Any) -> Any:
        """Execute *statement* in its database and return the first value."""
        return super().scalar(statement, params, **self._routed(statement, params, options))

    def scalars(self, statement: Any, params: Any = None, **options: Any) -> Any:
        """Execute *statement* in its database and return the first value of each row."""
        return super().scalars(statement, params, **self._routed(statement, params, options))

    def _routed(self, statement: Any, params: Any, options: dict[str, Any]) -> dict[str, Any]:
        """Return *options* with the engine that was chosen for *statement*.

        SQLAlchemy calls get_bind() without the statement for some kinds, such as a union of
        columns. So the engine is chosen here.
        """
        arguments = options.get("bind_arguments") or {}
        asked = "bind" in arguments or "bind_key" in arguments
        if asked:
            bind = self.get_bind(**arguments)
            self._check_bulk_insert(statement, params, bind.engine)
        elif "mapper" in arguments or "clause" in arguments:
            bind = self.get_bind(**arguments)
        elif isinstance(statement, (ClauseElement, SequenceOfNumbers)):
            bind = self.routes.engine_of(statement)
        else:
            # It is not a statement: SQLAlchemy raises an error for it.
            return options
        bound = {**arguments, "bind": bind}
        bound.pop("bind_key", None)
        marks = {**(options.get("execution_options") or {}), ROUTED: None if asked else self.routes}
        options.update(bind_arguments=bound, execution_options=marks)
        return options

    def _check_bulk_insert(self, statement: Any, params: Any, engine: Engine) -> None:
        """Raise :class:`BindError` for a bulk INSERT of a mapped class into another database.

        SQLAlchemy turns such an INSERT into a flush, and a flush follows the bind key of the class,
        not the engine that the caller asked for.
        """
        if not isinstance(statement, Insert) or params is None:
            return
        entity = statement.entity_description.get("entity")
        own = self.routes.engine_of(statement)
        if entity is not None and own is not engine:
            names = self.routes.names_of([own, engine])
            msg = (
                f"insert({entity.__name__}) with parameters goes where its bind key says, to "
                f"{names[0]}: write insert({entity.__name__}.__table__) to insert into {names[1]}."
            )
            raise BindError(msg)

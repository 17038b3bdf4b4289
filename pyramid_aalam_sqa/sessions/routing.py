"""Sends each statement to the database that its tables are in.

An application without binds has none of this: its sessions know one engine.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary, ref

from sqlalchemy import ClauseElement, event, inspect
from sqlalchemy import Sequence as SequenceOfNumbers
from sqlalchemy.engine import Connection, Engine, ExecutionContext
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.sql.dml import Insert

from ..backends import masked
from ..engines import (
    full_name,
    mapping_generation,
    names_by_bind_key,
    session_of_connection,
    tables_in,
    tables_of_mapper,
)
from ..exceptions import BindError
from ..settings import DEFAULT

# Execution option of a statement whose tables have chosen the database: by whose routes.
ROUTED = "sqa_routed"


ADVICE = (
    "Ask each of them in a statement of its own (selectinload() for a relationship), "
    'or set __bind_key__ or info={"bind_key": ...} where one of them is missing.'
)


class Routes:
    """The engines of one application under their keys, in the order of their COMMITs."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self.engines = engines
        self.default = engines[DEFAULT]
        self._age = mapping_generation()
        self._known: WeakKeyDictionary[Any, Engine] = WeakKeyDictionary()
        self._checked: WeakKeyDictionary[Any, Engine] = WeakKeyDictionary()
        for engine in set(engines.values()):
            event.listen(engine, "before_cursor_execute", _Guard(self))

    def engine_for(self, key: str) -> Engine:
        """Return the engine called *key*; raise :class:`BindError`, naming those there are."""
        try:
            return self.engines[key]
        except KeyError:
            raise unknown_bind(key, self.engines) from None

    def engine_of(self, thing: Any) -> Engine:
        """Return the engine of *thing*, a statement or a mapper; that of none is the default's."""
        if self._age != mapping_generation():
            # A class was mapped since, and may have another key for a table.
            # The mapping_generation last: no other thread is to see the new one with the old findings.
            self._known, self._checked, self._age = (
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
        """Return the one engine of *tables*; raise :class:`BindError` when they have several."""
        keys = names_by_bind_key(tables)
        engines = {self.engine_for(key) for key in keys}
        if len(engines) > 1:
            uses = (f"{', '.join(sorted(names))} ({key})" for key, names in sorted(keys.items()))
            msg = f"One statement cannot use two databases: {' and '.join(uses)}. {ADVICE}"
            raise BindError(msg)
        return engines.pop() if engines else self.default

    def names_of(self, engines: Sequence[Engine]) -> list[str]:
        """Return the keys of *engines*; one that was handed in has its URL for a name."""
        names = {engine: key for key, engine in self.engines.items()}
        return [names.get(engine) or masked(engine.url) for engine in engines]

    def in_order(self, engines: Iterable[Engine]) -> list[Engine]:
        """Return *engines* in the order of their COMMITs, those handed in first."""
        places = {engine: place for place, engine in enumerate(self.engines.values())}
        return sorted(engines, key=lambda engine: places.get(engine, -1))

    def refuse_strangers(self, compiled: Any, engine: Engine) -> None:
        """Raise :class:`BindError` when *compiled*, bound for *engine*, uses another's tables.

        What is joined for eager loading is not seen before: it is in no part of the statement.
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
                msg = f"{uses} is of the bind {name}, and was to be sent to {other}. {ADVICE}"
                raise BindError(msg)
        self._checked[compiled] = engine


def unknown_bind(key: str, known: Iterable[str]) -> BindError:
    """Return the error for a *key* that is not among those *known*."""
    return BindError(f"There is no bind {key!r}, only: {', '.join(sorted(known)) or 'none'}.")


class _Guard:
    """Looks at what is sent, after everything that SQLAlchemy has added to a statement."""

    def __init__(self, routes: Routes) -> None:
        # Weak: the engine holds the guard, and may be its maker's for long.
        self._routes = ref(routes)

    def __call__(
        self,
        connection: Connection,
        _cursor: object,
        _statement: str,
        _parameters: object,
        context: ExecutionContext | None,
        _many: bool,
    ) -> None:
        compiled, routes = getattr(context, "compiled", None), self._routes()
        if context is None or compiled is None or routes is None:
            return
        # What was asked of a session that routes, or is written by its flush.
        if context.execution_options.get(ROUTED) is routes or _flushes(connection, routes):
            routes.refuse_strangers(compiled, connection.engine)


def _flushes(connection: Connection, routes: Routes) -> bool:
    session = session_of_connection(connection)
    return isinstance(session, RoutingSession) and session.routes is routes and session.flushing


class RoutingSession(Session):
    """A session that knows several databases."""

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
        """Return the engine for *bind_key*, or of what the statement or the mapper uses."""
        if bind is not None:
            return cast("Engine | Connection", bind)
        if bind_key is not None:
            return self.routes.engine_for(bind_key)
        if clause is not None:
            return self.routes.engine_of(clause)
        if mapper is not None:
            return self.routes.engine_of(inspect(mapper).mapper)
        return self.routes.default

    def flush(self, objects: Any = None) -> None:
        """Write what is pending, each object to its own database."""
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
        """Return *options* with the engine in them.

        Not left to get_bind(): of some statements, such as a union of columns, it is told nothing.
        """
        arguments = options.get("bind_arguments") or {}
        asked = bool(arguments) and not arguments.keys().isdisjoint(("bind", "bind_key"))
        if asked:
            bind = self.get_bind(**arguments)
            self._refuse_elsewhere(statement, params, bind.engine)
        elif "mapper" in arguments or "clause" in arguments:
            bind = self.get_bind(**arguments)
        elif isinstance(statement, (ClauseElement, SequenceOfNumbers)):
            bind = self.routes.engine_of(statement)
        else:
            # SQLAlchemy will refuse it.
            return options
        kept = {name: value for name, value in arguments.items() if name != "bind_key"}
        marks = {**(options.get("execution_options") or {}), ROUTED: None if asked else self.routes}
        return {**options, "bind_arguments": {**kept, "bind": bind}, "execution_options": marks}

    def _refuse_elsewhere(self, statement: Any, params: Any, engine: Engine) -> None:
        """Refuse an INSERT of many objects into a database that is not theirs.

        SQLAlchemy makes a flush of it, which goes where the bind key says, whatever was asked.
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

"""The engine of a migration: it waits for locks for seconds only, and for statements without end.

A statement that changes a table waits until no transaction uses the table, and on MySQL and
PostgreSQL all that come after it wait behind it. So it waits for a short time, lets the others
pass, and tries again.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import sleep
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from ..engines import make_engine
from ..exceptions import MigrationError
from ..settings import Database
from .products import Product, product_of

# The application's own limits, which hold for requests.
LIMITS = {"read_timeout", "write_timeout", "timeout", "init_command"}
# What can be asked to let others write meanwhile. The two servers take the options at the end,
# ALTER TABLE after a comma.
ALTERS = re.compile(r"\s*ALTER\s+(?:ONLINE\s+)?TABLE\b", re.IGNORECASE)
CREATES_INDEX = re.compile(r"\s*CREATE\s+(?:UNIQUE\s+)?INDEX\b", re.IGNORECASE)
DROPS_INDEX = re.compile(
    r"\s*DROP\s+INDEX\s+(?P<index>\S+)\s+ON\s+(?P<table>.*\S)\s*", re.IGNORECASE | re.DOTALL
)
# The server cannot do it in the way that is asked for, or does not know the way.
NOT_SO = frozenset({"1845", "1846", "1800", "1221"})
OPT_OUT = "online = False"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a statement waits for a lock in seconds, and how often it is tried again."""

    seconds: float = 3
    retries: int = 10


def migration_engine(
    database: Database, sqa_options: Mapping[str, Any], patience: Patience
) -> Engine:
    """Return an engine of *database* that keeps no connection and waits as *patience* says."""
    given = database.options.get("connect_args", {})
    arguments = {name: given[name] for name in given.keys() - LIMITS}
    options = {"poolclass": NullPool, "connect_args": arguments}
    own = {
        **sqa_options,
        "lock_timeout": patience.seconds,
        "max_connections": None,
        "reset_connection": False,
        "statement_timeout": 0.0,
    }
    made = Database(database.url, options, name=database.name, prefix=database.prefix)
    return make_engine(made, own)


class Statements:
    """Sends the statements of a migration: again after a wait, and online where that is asked for.

    *online* tells whether the revision that runs just now asks for it.
    """

    def __init__(self, engine: Engine, patience: Patience, online: Callable[[], bool]) -> None:
        self._engine = engine
        self._patience = patience
        self._product: Product = product_of(engine.dialect)
        self._online = online

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send the statements of the block in this way."""
        event.listen(self._engine, "do_execute", self._execute)
        try:
            yield
        finally:
            event.remove(self._engine, "do_execute", self._execute)

    def _execute(self, cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        """Send *statement* as the dialect does, and return that it is done."""
        variants = online_variants(statement) if self._online() else []
        if not variants:
            self._send(cursor, statement, parameters, context)
            return True
        refusal: BaseException | None = None
        for variant in variants:
            try:
                self._send(cursor, variant, parameters, context)
            except context.dialect.loaded_dbapi.Error as error:
                if not self._is(error, NOT_SO):
                    raise
                refusal = error
            else:
                return True
        raise self._blocks(statement, refusal) from refusal

    def _send(self, cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        rest = self._patience.retries if self._product.RETRIES_STATEMENTS else 0
        while True:
            try:
                context.dialect.do_execute(cursor, statement, parameters, context)
            except context.dialect.loaded_dbapi.Error as error:
                if not rest or not self._is(error, self._product.LOCKED):
                    raise
                rest -= 1
                # Those that waited behind it get their turn.
                sleep(self._patience.seconds)
            else:
                return

    def _is(self, error: BaseException, codes: frozenset[str]) -> bool:
        return self._product.is_code(error, codes, self._engine.dialect.name)

    def _blocks(self, statement: str, error: BaseException | None) -> MigrationError:
        return MigrationError(
            f"The server cannot do this while others write: {' '.join(statement.split())} "
            f"({error}). Write {OPT_OUT!r} into the revision to do it all the same."
        )


def online_variants(statement: str) -> list[str]:
    """Return *statement* in the ways in which the server lets others write, the quickest first.

    The server refuses what it cannot do in that way. ``ALGORITHM=INSTANT`` takes no ``LOCK``. The
    list is empty for a statement that changes no table.
    """
    bare = statement.rstrip().rstrip(";")
    drop = DROPS_INDEX.fullmatch(bare)
    if drop is not None:
        # MariaDB takes no options in a DROP INDEX.
        bare = f"ALTER TABLE {drop['table']} DROP INDEX {drop['index']}"
    if drop is not None or ALTERS.match(statement):
        return [f"{bare}, ALGORITHM=INSTANT", f"{bare}, ALGORITHM=INPLACE, LOCK=NONE"]
    if CREATES_INDEX.match(statement):
        return [f"{bare} ALGORITHM=INPLACE LOCK=NONE"]
    return []


def waited_too_long(error: BaseException, engine: Engine) -> bool:
    """Return whether *error*, on *engine*, says that a lock was not had in time."""
    product = product_of(engine.dialect)
    return isinstance(error, DBAPIError) and product.is_code(
        error, product.LOCKED, engine.dialect.name
    )

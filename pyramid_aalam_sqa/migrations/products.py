"""What is particular to migrating each database product: its locks, and what it does with DDL.

:func:`product_of` finds the right one. The rest of the room asks it for facts.
"""

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from time import monotonic, sleep
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from sqlalchemy import text
from sqlalchemy.engine import URL, Connection, Dialect, Engine
from sqlalchemy.exc import DBAPIError

from ..backends import backend_class, is_memory
from ..exceptions import MigrationError

# Seconds between two attempts to take the lock of a database.
LOCK_RETRY_INTERVAL = 0.1
# MySQL's longest name of a lock.
LONGEST_LOCK_NAME = 64
WSREP = "SHOW VARIABLES LIKE 'wsrep_on'"
GALERA_ADVICE = (
    "The server is a node of Galera, and its locks are known to this node alone: another run on "
    "another node would not wait. Make sure that there is no other one, then say so with "
    "--on-galera (in env.py: run(..., on_galera=True))."
)
MYSQL_HOLDER = text(
    "SELECT CONCAT('connection ', ID, ' of ', USER, ' from ', HOST) "
    "FROM information_schema.PROCESSLIST WHERE ID = IS_USED_LOCK(:name)"
)
POSTGRESQL_HOLDER = text(
    "SELECT 'process ' || l.pid || coalesce(' of ' || a.usename, '') "
    "|| coalesce(' from ' || host(a.client_addr), '') "
    "FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid "
    "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND (l.classid::bigint << 32 | l.objid::bigint) = :key"
)


class Product:
    """A database of which nothing is known but what Alembic knows.

    - ``TRANSACTIONAL_DDL``: whether a revision that fails is undone as a whole; None leaves the
      answer to Alembic.
    - ``BATCH``: whether autogenerate writes ``op.batch_alter_table()``.
    - ``NO_SUCH_TABLE``, ``NOT_THERE``, ``LOGIN_REFUSED``, ``LOCKED``: codes of errors, or parts of
      their texts: there is no such table, no such database, no such account or password, and a lock
      was not had in time.
    - ``RETRIES_STATEMENTS``: whether a statement that waited too long can be sent again by itself.
    - ``ONLINE``: whether ``--online`` means something.
    """

    TRANSACTIONAL_DDL: ClassVar[bool | None] = None
    BATCH: ClassVar[bool] = False
    NO_SUCH_TABLE: ClassVar[frozenset[str]] = frozenset()
    NOT_THERE: ClassVar[frozenset[str]] = frozenset()
    LOGIN_REFUSED: ClassVar[frozenset[str]] = frozenset()
    LOCKED: ClassVar[frozenset[str]] = frozenset()
    RETRIES_STATEMENTS: ClassVar[bool] = False
    ONLINE: ClassVar[bool] = False

    def is_code(self, error: BaseException, codes: frozenset[str], dialect: str) -> bool:
        """Return whether *error*, of the driver or of SQLAlchemy, has one of *codes*."""
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        found = backend_class(dialect).error_codes(cause)
        return not codes.isdisjoint(found) or any(
            code in str(cause) for code in codes if not code.isalnum()
        )

    @contextmanager
    def locked(
        self, engine: Engine, name: str, wait: float, *, on_galera: bool = False
    ) -> Iterator[None]:
        """Keep other runs for the database *name* out, by a session of its own on *engine*.

        Raises :class:`MigrationError`, which says who holds the lock, after *wait* seconds.
        """
        yield

    @contextmanager
    def prepared(self, connection: Connection) -> Iterator[Callable[[], None]]:
        """Have *connection*, which has begun no transaction, ready for migrations in the block.

        Lend what is called at the end of each revision: it raises :class:`MigrationError` when the
        revision must not be committed.
        """
        yield _nothing

    def preamble(self, name: str | None) -> str:
        """Return what an SQL file for the database *name* begins with."""
        return ""

    def _wait(
        self, name: str, wait: float, take: Callable[[], bool], holder: Callable[[], str]
    ) -> None:
        deadline = monotonic() + wait
        while not take():
            if monotonic() > deadline:
                msg = (
                    f"Another run migrates {name}: {holder() or 'its lock is held'}; "
                    f"it was waited for {wait:g} seconds."
                )
                raise MigrationError(msg)
            sleep(LOCK_RETRY_INTERVAL)


class MySQL(Product):
    """MySQL and MariaDB: each statement that changes a table is stored at once."""

    TRANSACTIONAL_DDL = False
    NO_SUCH_TABLE = frozenset({"1146"})
    NOT_THERE = frozenset({"1049"})
    LOGIN_REFUSED = frozenset({"1045", "1044"})
    LOCKED = frozenset({"1205"})
    RETRIES_STATEMENTS = True
    ONLINE = True

    @contextmanager
    def locked(
        self, engine: Engine, name: str, wait: float, *, on_galera: bool = False
    ) -> Iterator[None]:
        """Take the lock with GET_LOCK(), which the server releases when the session ends."""
        lock = {"name": _lock_name(name)}
        with _session(engine) as connection:
            wsrep = connection.exec_driver_sql(WSREP).first()
            if wsrep is not None and wsrep[1] == "ON" and not on_galera:
                raise MigrationError(GALERA_ADVICE)
            self._wait(
                name,
                wait,
                lambda: bool(connection.scalar(text("SELECT GET_LOCK(:name, 0)"), lock)),
                lambda: str(connection.scalar(MYSQL_HOLDER, lock) or ""),
            )
            try:
                yield
            finally:
                # A pool may keep the session open. The lock of a lost one is free.
                with suppress(DBAPIError):
                    connection.execute(text("SELECT RELEASE_LOCK(:name)"), lock)

    def preamble(self, name: str | None) -> str:
        """Return a USE, because the statements leave the database out."""
        return f"USE `{name}`;\n\n" if name else ""


class PostgreSQL(Product):
    """PostgreSQL: a revision is one transaction."""

    TRANSACTIONAL_DDL = True
    NO_SUCH_TABLE = frozenset({"42P01"})
    NOT_THERE = frozenset({"3D000", "does not exist"})
    LOGIN_REFUSED = frozenset({"28P01", "28000", "authentication failed"})
    LOCKED = frozenset({"55P03"})

    @contextmanager
    def locked(
        self, engine: Engine, name: str, wait: float, *, on_galera: bool = False
    ) -> Iterator[None]:
        """Take an advisory lock of the session."""
        digest = sha256(f"sqa:migrate:{name}".encode()).digest()[:8]
        key = {"key": int.from_bytes(digest, signed=True)}
        with _session(engine) as connection:
            self._wait(
                name,
                wait,
                lambda: bool(connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), key)),
                lambda: str(connection.scalar(POSTGRESQL_HOLDER, key) or ""),
            )
            try:
                yield
            finally:
                with suppress(DBAPIError):
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)

    def preamble(self, name: str | None) -> str:
        """Return a search_path, because the statements leave the schema out."""
        return f'SET search_path = "{name}";\n\n' if name else ""


class SQLite(Product):
    """SQLite: with the BEGIN that our engines send, a revision is one transaction."""

    TRANSACTIONAL_DDL = True
    BATCH = True
    NO_SUCH_TABLE = frozenset({"no such table"})
    LOCKED = frozenset({"5", "6", "database is locked"})

    @contextmanager
    def locked(
        self, engine: Engine, name: str, wait: float, *, on_galera: bool = False
    ) -> Iterator[None]:
        """Lock a file beside the database, which holds the number of the process.

        The database's own locks end with each transaction, and there is one for each revision.
        """
        path = _path(engine.url)
        if path is None:
            yield
            return
        with _locked_file(
            path.with_name(f"{path.name}-migrating"),
            lambda take, holder: self._wait(name, wait, take, holder),
        ):
            yield

    @contextmanager
    def prepared(self, connection: Connection) -> Iterator[Callable[[], None]]:
        """Check foreign keys at the end of each revision, and not at each statement.

        In batch mode a table is dropped and made again. With foreign keys on, the drop would delete
        the rows that refer to it. The pragma does nothing inside a transaction.
        """
        driver: Any = connection.connection.dbapi_connection
        [(before,)] = driver.execute("PRAGMA foreign_keys").fetchall()
        broken = _broken_rows(driver) if before else set()

        def check() -> None:
            tables = {str(row[0]) for row in _broken_rows(driver) - broken} if before else set()
            if tables:
                shown = ", ".join(sorted(tables))
                msg = f"afterwards rows refer to rows that are not there: {shown}"
                raise MigrationError(msg)

        driver.execute("PRAGMA foreign_keys = OFF")
        try:
            yield check
        finally:
            # Of a failed revision, whose transaction is still open.
            driver.rollback()
            driver.execute(f"PRAGMA foreign_keys = {before}")


PRODUCTS: Mapping[str, Product] = {
    "mariadb": MySQL(),
    "mysql": MySQL(),
    "postgresql": PostgreSQL(),
    "sqlite": SQLite(),
}


def product_of(dialect: Dialect | URL) -> Product:
    """Return what is known of the product of *dialect*, or of the one at a URL."""
    name = dialect.get_backend_name() if isinstance(dialect, URL) else dialect.name
    return PRODUCTS.get(name) or Product()


@contextmanager
def _session(engine: Engine) -> Iterator[Connection]:
    """Lend a connection on which each statement is stored at once."""
    with engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def _nothing() -> None:
    pass


def _broken_rows(driver: Any) -> set[tuple[Any, ...]]:
    """Return the rows of each file of *driver* that refer to rows that are not there."""
    names = [row[1] for row in driver.execute("PRAGMA database_list").fetchall()]
    return {
        tuple(row)
        for name in names
        for row in driver.execute(f'PRAGMA "{name}".foreign_key_check').fetchall()
    }


def _lock_name(name: str) -> str:
    full = f"sqa:migrate:{name}"
    return full if len(full) <= LONGEST_LOCK_NAME else sha256(full.encode()).hexdigest()


def _path(url: URL) -> Path | None:
    """Return the path of the file at *url*; None for a database in memory."""
    if is_memory(url):
        return None
    database = str(url.database)
    if database.startswith("file:"):
        database = unquote(urlsplit(database).path)
    return Path(database).absolute()


Waiter = Callable[[Callable[[], bool], Callable[[], str]], None]


@contextmanager
def _locked_file(path: Path, wait: Waiter) -> Iterator[None]:
    """Hold the lock of the file at *path*, which is there for the block alone."""
    import fcntl  # noqa: PLC0415 - Windows has no such module, and the other products need none

    file = -1

    def take() -> bool:
        nonlocal file
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one that held it has removed its file, and another may have made a new one.
            if os.path.samestat(os.fstat(file), path.stat(follow_symlinks=False)):
                return True
        os.close(file)
        return False

    def holder() -> str:
        with suppress(OSError):
            return path.read_text()
        return ""

    wait(take, holder)
    try:
        os.truncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


# The statements that MySQL does not store at once; all others are, and what came before with them.
STAYS_OPEN = re.compile(r"\s*(INSERT|UPDATE|DELETE|REPLACE|WITH|SET|DO)\b", re.IGNORECASE)

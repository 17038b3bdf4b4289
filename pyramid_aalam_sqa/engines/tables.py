"""Creates an application's missing tables under a lock, so that workers may start together."""

from collections.abc import Sequence
from time import sleep

from sqlalchemy import MetaData, Table, inspect
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ..backends import Backend, backend_of
from ..exceptions import ProvisioningError

# How often it is looked again, and after how many seconds, where other workers create the same
# tables in spite of the lock. On Galera it keeps out those on its own node alone.
TRIES = 20
PAUSE = 0.2


def create_tables(
    engine: Engine, metadata: MetaData, name: str | None, tables: Sequence[Table] | None = None
) -> list[str]:
    """Create the tables of *metadata* that are missing in the database *name*; return their names.

    *tables* are the tables of *metadata* that belong into this database; None means all. If the
    database has a *name*, tables with another schema are skipped. Tables that exist are never
    changed, whatever columns they have. When no table is missing, nothing is written and no lock
    is taken. Raises :class:`ProvisioningError` when the account may not create tables, or when
    another process holds the lock for a minute.
    """
    backend, tried, tries = backend_of(engine), dict[str, None](), TRIES
    with engine.connect() as connection:
        while True:
            try:
                _create_missing(connection, metadata, name, tables, tried)
                return list(tried)
            except DBAPIError as error:
                tries -= 1
                code = backend.error_code(error.orig) if error.orig else ""
                if not tries or code not in backend.TABLE_CHANGES_CODES:
                    raise
            connection.rollback()
            sleep(PAUSE)


def _create_missing(
    connection: Connection,
    metadata: MetaData,
    name: str | None,
    tables: Sequence[Table] | None,
    tried: dict[str, None],
) -> None:
    """Create the tables that are missing under the lock, and add their names to *tried* before."""
    backend = backend_of(connection)
    label = name or backend.url.database or ""
    missing = missing_tables(connection, metadata, name, tables)
    connection.rollback()
    if not missing:
        return
    try:
        with backend.table_lock(connection, label):
            # Looked up again: another worker may have made them while this one waited.
            missing = missing_tables(connection, metadata, name, missing)
            if missing and name:
                backend.create_schema(connection, name)
            tried.update(dict.fromkeys(table.name for table in missing))
            metadata.create_all(connection, tables=missing)
    except DBAPIError as error:
        _raise_if_denied(backend, error, missing, label)
        raise


def missing_tables(
    connection: Connection,
    metadata: MetaData,
    name: str | None,
    tables: Sequence[Table] | None = None,
) -> list[Table]:
    """Return the tables of *metadata* that belong into the database *name* and do not exist.

    The arguments are those of :func:`create_tables`.
    """
    inspector = inspect(connection)
    return [
        table
        for table in metadata.sorted_tables
        if (name is None or table.schema in {None, name})
        and (tables is None or table in tables)
        and not inspector.has_table(table.name, schema=connection.schema_for_object(table))
    ]


def _raise_if_denied(backend: Backend, error: DBAPIError, missing: list[Table], name: str) -> None:
    """Raise an error with the command to run when *error* says that the account may not create."""
    if error.orig is None or backend.error_code(error.orig) not in backend.ACCESS_DENIED_CODES:
        return
    tables = ", ".join(table.name for table in missing)
    msg = (
        f"The account of the application may not create what is missing in {name} ({tables}): "
        "run `psqa create` if there is no such database yet, then `psqa tables`."
    )
    raise ProvisioningError(msg) from error

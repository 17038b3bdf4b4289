"""Creates an application's missing tables, once however many workers start together."""

from collections.abc import Sequence

from sqlalchemy import MetaData, Table, inspect
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ..backends import Backend, backend_of
from ..exceptions import ProvisioningError


def create_tables(
    engine: Engine, metadata: MetaData, name: str | None, tables: Sequence[Table] | None = None
) -> list[str]:
    """Create the tables of *metadata* that are missing in the database *name*; return their names.

    *tables* are those of them that belong there, all when it is None. Tables with the schema of
    somebody else are left alone where the database has a *name*, and so are tables that exist,
    whatever columns they have. When none is missing nothing is written and no lock is taken.
    Raises :class:`ProvisioningError` when the account may not create them, or when somebody else
    has been at it for a minute.
    """
    backend = backend_of(engine)
    label = name or engine.url.database or ""
    with engine.connect() as connection:
        missing = missing_tables(connection, metadata, name, tables)
        connection.rollback()
        if not missing:
            return []
        try:
            with backend.locked(connection, label):
                # Another worker may have made them while this one waited.
                missing = missing_tables(connection, metadata, name, tables)
                if missing and name:
                    backend.make_schema(connection, name)
                metadata.create_all(connection, tables=missing)
        except DBAPIError as error:
            _refuse_denied(backend, error, missing, label)
            raise
    return [table.name for table in missing]


def missing_tables(
    connection: Connection,
    metadata: MetaData,
    name: str | None,
    tables: Sequence[Table] | None = None,
) -> list[Table]:
    """Return the tables of *metadata* that belong into the database *name* and are not there."""
    inspector = inspect(connection)
    return [
        table
        for table in metadata.sorted_tables
        if (name is None or table.schema in {None, name})
        and (tables is None or table in tables)
        and not inspector.has_table(table.name, schema=connection.schema_for_object(table))
    ]


def _refuse_denied(backend: Backend, error: DBAPIError, missing: list[Table], name: str) -> None:
    """Raise what says whom to ask when *error* is that the account may not create."""
    if error.orig is None or backend.code(error.orig) not in backend.DENIED:
        return
    tables = ", ".join(table.name for table in missing)
    msg = (
        f"The account of the application may not create what is missing in {name} ({tables}): "
        "run `psqa create` if there is no such database yet, then `psqa tables`."
    )
    raise ProvisioningError(msg) from error

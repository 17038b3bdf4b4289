"""Creates, drops and reflects tables, each in the database of its bind key."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import MetaData, Table
from sqlalchemy.engine import Engine
from sqlalchemy.orm import registry as Registry  # noqa: N812 - "registry" is Pyramid's here

from ..engines import BIND_KEY_INFO, bind_key_of, tables_with_bind_key
from ..exceptions import BindError
from ..interfaces import HasRegistry
from ..settings import DEFAULT_KEY
from .application import Sqa, get_sqa


def create_all(
    app: Sqa | HasRegistry, base: Any, *, bind_key: str | None = None, **options: Any
) -> None:
    """Create the missing tables of *base*, each in the database of its bind key.

    *base* is a declarative base of any kind, a registry or a MetaData. *app* is an application, a
    request or an :class:`Sqa`. With *bind_key*, only the tables of that database are created;
    ``default`` is the application's own database. *options* are passed to
    ``MetaData.create_all()``. Raises :class:`BindError` for an unknown key.
    """
    for part in tables_by_database(_sqa(app), base, bind_key):
        part.metadata.create_all(part.engine, tables=part.tables, **options)


def drop_all(
    app: Sqa | HasRegistry, base: Any, *, bind_key: str | None = None, **options: Any
) -> None:
    """Drop the tables of *base*, each in the database of its bind key.

    The arguments and errors are those of :func:`create_all`.
    """
    for part in reversed(tables_by_database(_sqa(app), base, bind_key)):
        part.metadata.drop_all(part.engine, tables=part.tables, **options)


def reflect(
    app: Sqa | HasRegistry, base: Any, *, bind_key: str | None = None, **options: Any
) -> None:
    """Load the tables that exist in *base*'s databases into its MetaData.

    *base*'s databases are the one of its MetaData, and those of the tables that it has already.
    With *bind_key*, only that database is used. If the bind key of a loaded table is not the key
    of the MetaData, it is set as the table's ``info["bind_key"]``. *options* are passed to
    ``MetaData.reflect()``. Raises :class:`BindError` for an unknown key.
    """
    sqa = _sqa(app)
    parts = tables_by_database(sqa, base, bind_key)
    if bind_key is not None and not parts:
        metadata = next(metadatas_of(base))
        parts = [DatabaseTables(bind_key, sqa.engine_for(bind_key), metadata, None, None)]
    for part in parts:
        before = set(part.metadata.tables)
        part.metadata.reflect(part.engine, **options)
        if part.key != key_of_metadata(part.metadata):
            for name in part.metadata.tables.keys() - before:
                part.metadata.tables[name].info[BIND_KEY_INFO] = part.key


class DatabaseTables(NamedTuple):
    """The tables of one MetaData that belong to one database.

    ``key`` is the database's bind key, ``name`` its name in a portal. ``tables`` is None if all
    tables of the MetaData belong to this database.
    """

    key: str
    engine: Engine
    metadata: MetaData
    tables: list[Table] | None
    name: str | None


def tables_by_database(sqa: Sqa, base: Any, bind_key: str | None = None) -> list[DatabaseTables]:
    """Return the tables of *base* for each database of *sqa*, or only for *bind_key*.

    Raises :class:`BindError` for a key that *sqa* does not know.
    """
    if bind_key is not None:
        sqa.engine_for(bind_key)
    parts = []
    for metadata in metadatas_of(base):
        keys = [key_of_metadata(metadata), *map(bind_key_of, metadata.sorted_tables)]
        only_default = set(keys) == {DEFAULT_KEY}
        for key in dict.fromkeys(keys):
            if bind_key in {None, key}:
                tables = None if only_default else tables_with_bind_key(key, metadata)
                name = sqa.settings.name if key == DEFAULT_KEY else None
                parts.append(DatabaseTables(key, sqa.engine_for(key), metadata, tables, name))
    return parts


def metadatas_of(base: Any) -> Iterator[MetaData]:
    """Yield each MetaData that has tables of *base*.

    *base* is a declarative base of any kind, a registry or a MetaData. Raises :class:`BindError`
    for anything else.
    """
    if isinstance(base, MetaData):
        yield base
        return
    registry = base if isinstance(base, Registry) else getattr(base, "registry", None)
    found = [base.metadata] if isinstance(getattr(base, "metadata", None), MetaData) else []
    if registry is not None:
        # An abstract base for another database may have a MetaData of its own.
        mapped = (table for mapper in registry.mappers for table in mapper.tables)
        found += sorted(
            {table.metadata for table in mapped if isinstance(table, Table)},
            key=key_of_metadata,
        )
    if not found:
        msg = f"{base!r} cannot have tables: pass a declarative base, a registry or a MetaData."
        raise BindError(msg)
    yield from dict.fromkeys(found)


def key_of_metadata(metadata: MetaData) -> str:
    """Return the bind key for the tables of *metadata* that do not have a key of their own."""
    return str(metadata.info.get(BIND_KEY_INFO) or DEFAULT_KEY)


def _sqa(app: Sqa | HasRegistry) -> Sqa:
    return app if isinstance(app, Sqa) else get_sqa(app)

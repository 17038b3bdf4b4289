"""Creates, drops and reflects tables, each in the database of its bind key."""

from typing import Any

from ._binds import Part, key_of_metadata, metadatas_of, parts_of
from ._keys import INFO
from ._protocols import HasRegistry
from ._sqa import Sqa, get_sqa

__all__ = ["create_all", "drop_all", "reflect"]


def create_all(
    app: Sqa | HasRegistry, base: Any, *, bind_key: str | None = None, **options: Any
) -> None:
    """Create the tables of *base* that are missing, each in the database of its bind key.

    *base* is a declarative base of any kind, a registry or a MetaData, *app* an application, a
    request or its :class:`Sqa`. With *bind_key* only that database is touched; ``default`` is the
    application's own. *options* are those of ``MetaData.create_all()``. Raises :class:`BindError`
    for an unknown key.
    """
    for part in parts_of(_sqa(app), base, bind_key):
        part.metadata.create_all(part.engine, tables=part.tables, **options)


def drop_all(
    app: Sqa | HasRegistry, base: Any, *, bind_key: str | None = None, **options: Any
) -> None:
    """Drop the tables of *base*, each in the database of its bind key, as :func:`create_all`."""
    for part in reversed(parts_of(_sqa(app), base, bind_key)):
        part.metadata.drop_all(part.engine, tables=part.tables, **options)


def reflect(
    app: Sqa | HasRegistry, base: Any, *, bind_key: str | None = None, **options: Any
) -> None:
    """Load into the MetaData of *base* the tables that its databases have, with their bind keys.

    The databases are those whose tables *base* has already, and those of its MetaData; with
    *bind_key* it is that one. A table that is new gets ``info["bind_key"]`` where its MetaData
    says another. *options* are those of ``MetaData.reflect()``.
    """
    sqa = _sqa(app)
    parts = parts_of(sqa, base, bind_key)
    if bind_key is not None and not parts:
        parts = [Part(bind_key, sqa.engine_for(bind_key), next(metadatas_of(base)), None, None)]
    for part in parts:
        before = set(part.metadata.tables)
        part.metadata.reflect(part.engine, **options)
        if part.key != key_of_metadata(part.metadata):
            for name in part.metadata.tables.keys() - before:
                part.metadata.tables[name].info[INFO] = part.key


def _sqa(app: Sqa | HasRegistry) -> Sqa:
    return app if isinstance(app, Sqa) else get_sqa(app)

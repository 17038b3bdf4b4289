"""Creates, drops and reflects tables, each in the database of its bind key."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import MetaData, Table
from sqlalchemy.engine import Engine
from sqlalchemy.orm import registry as Registry  # noqa: N812 - "registry" is Pyramid's here

from ..engines import BIND_KEY_INFO, bind_key_of, tables_with_bind_key
from ..exceptions import BindError
from ..interfaces import HasRegistry
from ..settings import DEFAULT
from .application import Sqa, get_sqa


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
                part.metadata.tables[name].info[BIND_KEY_INFO] = part.key


def _sqa(app: Sqa | HasRegistry) -> Sqa:
    return app if isinstance(app, Sqa) else get_sqa(app)


@dataclass(frozen=True, slots=True)
class Part:
    """The tables of one MetaData that are in one database; None for all there are."""

    key: str
    engine: Engine
    metadata: MetaData
    tables: list[Table] | None
    name: str | None


def parts_of(sqa: Sqa, base: Any, bind_key: str | None = None) -> list[Part]:
    """Return what *base* has in each database of *sqa*, or in the one called *bind_key*.

    Raises :class:`BindError` for a key that *sqa* does not know.
    """
    if bind_key is not None:
        sqa.engine_for(bind_key)
    parts = []
    for metadata in metadatas_of(base):
        for key, tables in _tables_by_key(sqa, metadata).items():
            if bind_key in {None, key}:
                name = sqa.settings.name if key == DEFAULT else None
                parts.append(Part(key, sqa.engine_for(key), metadata, tables, name))
    return parts


def metadatas_of(base: Any) -> Iterator[MetaData]:
    """Yield each MetaData that *base* has its tables in: a base of any kind, a registry, or one."""
    if isinstance(base, MetaData):
        yield base
        return
    registry = base if isinstance(base, Registry) else getattr(base, "registry", None)
    found = [base.metadata] if isinstance(getattr(base, "metadata", None), MetaData) else []
    if registry is not None:
        # An abstract base of another database may have a MetaData of its own.
        mapped = (table for mapper in registry.mappers for table in mapper.tables)
        found += sorted(
            {table.metadata for table in mapped if isinstance(table, Table)},
            key=key_of_metadata,
        )
    if not found:
        msg = f"{base!r} has no tables: write a declarative base, a registry or a MetaData."
        raise BindError(msg)
    yield from dict.fromkeys(found)


def key_of_metadata(metadata: MetaData) -> str:
    """Return the bind key of what has no other in *metadata*."""
    return str(metadata.info.get(BIND_KEY_INFO) or DEFAULT)


def _tables_by_key(sqa: Sqa, metadata: MetaData) -> dict[str, list[Table] | None]:
    if sqa.routes is None:
        return {DEFAULT: None}
    keys = [key_of_metadata(metadata), *map(bind_key_of, metadata.sorted_tables)]
    return {key: tables_with_bind_key(key, metadata) for key in dict.fromkeys(keys)}

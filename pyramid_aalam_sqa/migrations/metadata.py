"""Makes of an application's models what Alembic compares one database with.

In a portal the models name their database as their schema: ``schema="aalam_base"``. To Alembic the
current schema of a connection is no schema, so it would create each table again. The copy that is
made here has no schema either. So the revisions name no database, and fit in each portal.
"""

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from sqlalchemy import Column, Constraint, Index, MetaData, Table
from sqlalchemy.schema import BLANK_SCHEMA
from sqlalchemy.sql.schema import RETAIN_SCHEMA

from ..engines import bind_key_of
from ..exceptions import SettingError
from ..provisioning import find_metadatas
from ..settings import Settings

NameFilter = Callable[[str | None, str, Any], bool]


def models_of(settings: Settings) -> Sequence[MetaData]:
    """Return the MetaData of ``sqa.base``, or nothing: the application is not made for it."""
    return find_metadatas((), settings, "") if settings.sqa_options["base"] else []


def compared_metadata(
    metadatas: Sequence[MetaData], key: str | None, own: Iterable[str | None]
) -> list[MetaData]:
    """Return copies of *metadatas* with the tables of the bind *key*, in no schema of *own*.

    *own* are the names of the schema that the connection is in anyway. *key* is None where an
    application has one database. A MetaData from which nothing has to be removed is not copied.
    Raises :class:`SettingError` when a part of the models is in a schema of *own* and another part
    in none, because those would be one table for the database.
    """
    schemas = {name for name in own if name}
    return [_compared(metadata, key, schemas) for metadata in metadatas]


def _compared(metadata: MetaData, key: str | None, schemas: set[str]) -> MetaData:
    tables = list(metadata.tables.values())
    wanted = [table for table in tables if key is None or bind_key_of(table) == key]
    if len(wanted) == len(tables) and not any(table.schema in schemas for table in tables):
        return metadata
    _refuse_mixed(wanted, schemas)
    copy = MetaData(naming_convention=metadata.naming_convention)

    # SQLAlchemy's annotations leave out the two symbols, and None for the schema of the MetaData.
    def referred_schema(_table: Any, _to: Any, _constraint: Any, referred: Any) -> Any:
        return BLANK_SCHEMA if referred in schemas else RETAIN_SCHEMA

    for table in wanted:
        schema: Any = None if table.schema in schemas else RETAIN_SCHEMA
        made = table.to_metadata(copy, schema=schema, referred_schema_fn=referred_schema)
        _copy_names(table, made)
    return copy


def _refuse_mixed(tables: Iterable[Table], schemas: set[str]) -> None:
    named = sorted(table.fullname for table in tables if table.schema in schemas)
    bare = sorted(table.fullname for table in tables if table.schema is None)
    if named and bare:
        msg = (
            f"{named[0]} has a schema and {bare[0]} has none: write schema= on all models of an "
            "application, or on none."
        )
        raise SettingError(msg)


def _copy_names(table: Table, copy: Table) -> None:
    """Give the indexes and constraints of *copy* the names that they have in *table*.

    A name that SQLAlchemy makes may have the schema in it, and the copy has none.
    """
    for theirs, ours in ((table.indexes, copy.indexes), (table.constraints, copy.constraints)):
        # The name may be a symbol that says that there is none.
        names: dict[Any, Any] = {_signature(each): each.name for each in theirs}
        for each in ours:
            each.name = names.get(_signature(each), each.name)


def _signature(item: Index | Constraint) -> tuple[Any, ...]:
    """Return what tells *item* from the others of its table, but its name."""
    if isinstance(item, Index):
        return (Index, item.unique, *(_expression(each) for each in item.expressions))
    # A table may have several constraints on the same columns, and then they have names.
    text = str(getattr(item, "sqltext", ""))
    elements = getattr(item, "elements", ())
    targets = tuple(each.target_fullname.rpartition(".")[2] for each in elements)
    return (type(item), text, targets, *(column.key for column in getattr(item, "columns", ())))


def _expression(item: Any) -> str:
    return item.name if isinstance(item, Column) else str(item)


def other_schemas(metadatas: Iterable[MetaData]) -> set[str]:
    """Return the schemas that the tables of *metadatas* name."""
    return {
        table.schema
        for metadata in metadatas
        for table in metadata.tables.values()
        if table.schema is not None
    }


def differs_as_number(*defaults: Any) -> bool | None:
    """Return false if two defaults are one number; None leaves it to Alembic to compare them.

    MariaDB tells the default ``0`` of a ``NUMERIC(10, 2)`` as ``0.00``. *defaults* are Alembic's
    arguments; the last ones are the text in the database, the models' own, and that as SQL.
    """
    texts = [str(each).strip("'()") for each in (defaults[-3], defaults[-1])]
    try:
        return False if Decimal(texts[0]) == Decimal(texts[1]) else None
    except InvalidOperation:
        return None


def name_filter(schemas: set[str], hidden: set[str]) -> NameFilter:
    """Return an ``include_name``: the current schema and *schemas*, and no *hidden* table."""

    def include(name: str | None, kind: str, _parents: Any) -> bool:
        if kind == "schema":
            return name is None or name in schemas
        return not (kind == "table" and name in hidden)

    return include

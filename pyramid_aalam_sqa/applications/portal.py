"""The portal's vocabulary: what one application of many has to know of its database."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.engine import Engine

from ..engines import create_tables as create_missing_tables
from ..exceptions import SettingError
from ..interfaces import HasRegistry
from ..sessions import ScopedSession
from ..settings import name_in_environment
from .directory import NO_NAME_YET, directory, module_of_caller, sessions_of, sqa_for_init_engine
from .tables import tables_by_database

NAMELESS = (
    "The application's database has no name: set sqa.provider and sqa.app in the ini file, "
    "or SQA_PROVIDER and SQA_APP in the environment."
)


def get_database_name() -> str:
    """Return the name of the application's database, for ``__table_args__ = {"schema": ...}``.

    The name is known when ``config.include("pyramid_aalam_sqa")`` has returned. With
    ``SQA_PROVIDER`` and ``SQA_APP`` in the environment it is known before that. If the process has
    several applications, it is the name of the current request's or configuration's application,
    else of the application whose package the calling module is in. Raises :class:`SettingError`
    when the name is not known, or when several applications fit that have different names.
    """
    application = directory.find(module_of_caller(), for_name=True)
    name = application.name if application else name_in_environment()
    if not name:
        raise SettingError(NAMELESS if application else NO_NAME_YET)
    return name


def init_engine(
    db_name: str,
    declarative_base: Any,
    *,
    create_tables: bool = False,
    settings: Mapping[str, object] | None = None,
) -> Engine:
    """Return the engine of the application's database, which is called *db_name*.

    Call it in the application's entry point, before or after the include, as often as you like;
    ``request.sqa_session`` uses the same engine. *create_tables* creates the missing tables of
    *declarative_base* (a base of any kind, a registry, or a MetaData), each in the database of its
    bind key. It takes a lock, so that any number of workers may start at once. Outside an
    application give *settings*, such as ``get_appsettings("development.ini")``.

    Raises :class:`SettingError` when *db_name* is not a name that :func:`database_name` can make,
    or when the database is known with another name or other settings.
    """
    metadata = getattr(declarative_base, "metadata", declarative_base)
    if not isinstance(metadata, MetaData):
        msg = f"init_engine({db_name!r}, ...): write the declarative base of the models after it."
        raise SettingError(msg)
    sqa = sqa_for_init_engine(db_name, settings, module_of_caller())
    if metadata not in sqa.bases:
        sqa.bases.append(metadata)
    if create_tables:
        for part in tables_by_database(sqa, declarative_base):
            create_missing_tables(part.engine, part.metadata, part.name, part.tables)
    return sqa.engine


def Session(  # noqa: N802 - the portal's documents call it so
    db_name: str | HasRegistry | None = None, *, bind_key: str | None = None
) -> ScopedSession:
    """Return the session of this thread for the database *db_name*, for work outside a request.

    It is a SQLAlchemy session, made at its first use. Call ``commit()`` to store, and ``remove()``
    at the end of each job; or write ``with Session(db_name) as session:``. If a thread ends without
    ``remove()``, its connection goes back all the same, and the log says so. Calling the session
    returns the plain SQLAlchemy ``Session``, which has ``remove()`` too.

    *db_name* may also be an application or a request. Without it, the session is that of the
    application that :func:`get_database_name` names. With *bind_key* the session uses only that
    database, in a transaction of its own.

    Raises :class:`SettingError` when no database of that name is known in this process,
    :class:`BindError` for an unknown *bind_key*.
    """
    return sessions_of(db_name, module_of_caller()).scoped_session(bind_key)

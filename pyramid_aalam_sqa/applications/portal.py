"""The portal's vocabulary: all that one application among many needs to know of its database."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.engine import Engine

from ..engines import create_tables as create_missing_tables
from ..exceptions import SettingError
from ..interfaces import HasRegistry
from ..sessions import ScopedSession
from ..settings import name_in_environment
from .directory import NONE_YET, caller, engage, find, sqa_of
from .tables import parts_of

NAMELESS = (
    "The application's database has no name: set sqa.provider and sqa.app in the ini file, "
    "or SQA_PROVIDER and SQA_APP in the environment."
)


def get_database_name() -> str:
    """Return the name of the application's database, for ``__table_args__ = {"schema": ...}``.

    It is known as soon as ``config.include("pyramid_aalam_sqa")`` has returned, and before that
    where ``SQA_PROVIDER`` and ``SQA_APP`` are set in the environment. With several applications
    in the process it is that of the current request or configuration, else of the application
    whose package the calling module is in. Raises :class:`SettingError` when it is not known.
    """
    application = find(caller())
    name = application.name if application else name_in_environment()
    if not name:
        raise SettingError(NAMELESS if application else NONE_YET)
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
    ``request.sqa_session`` uses the same engine. *create_tables* creates the tables of
    *declarative_base* (a base of any kind, a registry, or a MetaData) that are missing, each in
    the database of its bind key, under a lock: any number of workers may start at once. Outside
    an application give *settings*, such as ``get_appsettings("development.ini")``.

    Raises :class:`SettingError` when *db_name* is no name (see :func:`database_name`), or when
    the database is known with another name or other settings already.
    """
    metadata = getattr(declarative_base, "metadata", declarative_base)
    if not isinstance(metadata, MetaData):
        msg = f"init_engine({db_name!r}, ...): write the declarative base of the models after it."
        raise SettingError(msg)
    sqa = engage(db_name, settings, caller())
    if create_tables:
        for part in parts_of(sqa, declarative_base):
            create_missing_tables(part.engine, part.metadata, part.name, part.tables)
    return sqa.engine


def Session(  # noqa: N802 - the portal's
    db_name: str | HasRegistry | None = None, *, bind_key: str | None = None
) -> ScopedSession:
    """Return the session of this thread for the database *db_name*, for work outside a request.

    It is a SQLAlchemy session, made at its first use: call ``commit()`` to store, and ``remove()``
    at the end of each job, or write ``with Session(db_name) as session:``. A thread that ends
    without it gives the connection back, and the log says so. Called, it returns the plain
    ``Session``, which has ``remove()`` too. Without a name it is the application that
    :func:`get_database_name` would name; an application or a request will do too. With *bind_key*
    it is a session wholly on that database, in a transaction of its own.

    Raises :class:`SettingError` when no database of that name is known in this process,
    :class:`BindError` for an unknown *bind_key*.
    """
    return sqa_of(db_name, caller()).thread_sessions(bind_key)

"""The portal's functions: the name, the engine and the sessions of an application's database."""

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

    The name is known after ``config.include("pyramid_aalam_sqa")``. If ``SQA_PROVIDER`` and
    ``SQA_APP`` are in the environment, it is known before. If the process has several applications,
    it is the name for the application of the current request or configuration, or else for the
    application whose package contains the calling module. Raises :class:`SettingError` if the name
    is not known, or if several applications with different names fit.
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

    Call it in the application's entry point, before or after the include, once or several times.
    ``request.sqa_session`` uses the same engine. *declarative_base* is a declarative base of any
    kind, a registry, or a MetaData. If *create_tables* is true, its missing tables are created,
    each in the database of its bind key. A lock is held meanwhile, so that several workers may
    start at the same time. Outside an application, pass *settings*, such as
    ``get_appsettings("development.ini")``.

    Raises :class:`SettingError` if *db_name* is not a name that :func:`database_name` can make,
    or if the database already has an engine with another name or other settings.
    """
    metadata = getattr(declarative_base, "metadata", declarative_base)
    if not isinstance(metadata, MetaData):
        msg = (
            f"init_engine({db_name!r}, ...): write the declarative base of the models as the "
            "second argument."
        )
        raise SettingError(msg)
    sqa = sqa_for_init_engine(db_name, settings, module_of_caller())
    if metadata not in sqa.bases:
        sqa.bases.append(metadata)
    if create_tables:
        for part in tables_by_database(sqa, declarative_base):
            create_missing_tables(part.engine, part.metadata, part.name, part.tables)
    return sqa.engine


def Session(  # noqa: N802 - its name in the portal's documents
    db_name: str | HasRegistry | None = None, *, bind_key: str | None = None
) -> ScopedSession:
    """Return the session of this thread for the database *db_name*, for work outside a request.

    It is used like a SQLAlchemy session. The session behind it is made at the first use. Call
    ``commit()`` to store the changes, and ``remove()`` at the end of each job. Or write
    ``with Session(db_name) as session:``. If a thread ends without ``remove()``, its transaction
    is rolled back, its connection goes back to the pool, and an error is logged. Calling the
    returned object returns the plain SQLAlchemy ``Session``, which has ``remove()`` too.

    *db_name* may also be an application or a request. Without it, the application is the one
    whose database :func:`get_database_name` names. With *bind_key* the session uses only that
    database, in a transaction of its own.

    Raises :class:`SettingError` if the database is not known in this process, and
    :class:`BindError` for an unknown *bind_key*.
    """
    return sessions_of(db_name, module_of_caller()).scoped_session(bind_key)

"""A small application on Pyramid and SQLAlchemy that uses only public names of this package.

``pserve development.ini`` serves it. Read ``book`` first: its views use ``request.sqa_session``
and never commit. ``landing`` is the page on which a visitor tries what the package does. Each thing
to try has a module: ``rule``, ``conflict``, ``order``, ``outage``, ``parcels``, ``drawers``.
"""

from collections.abc import Mapping
from secrets import token_hex
from typing import Any

from pyramid.config import Configurator
from pyramid.csrf import CookieCSRFStoragePolicy
from sqlalchemy import Engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.schema import CreateTable

from pyramid_aalam_sqa import get_sqa

from .models import Base, LedgerBase


def main(_global_config: Mapping[str, str], **settings: object) -> Any:
    """Return the WSGI application for an ini file's ``[app:main]``."""
    defaults = {
        # The addresses of the parcels' pages are signed. They need not outlive this process.
        "sqa.cursor_secret": token_hex(),
        # On SQLite each visitor's write is a conflict for all who have read and then want to write.
        "retry.attempts": "6",
    }
    settings = {**defaults, **settings}
    with Configurator(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
        config.include("pyramid_jinja2")
        config.set_csrf_storage_policy(CookieCSRFStoragePolicy(httponly=True, samesite="Lax"))
        config.set_default_csrf_options(require_csrf=True)
        config.add_static_view("static", "static")
        for module in ("visitor", "landing", "book", "errors"):
            config.include(f".{module}")
        config.commit()
        engines = get_sqa(config).engines
        create_tables(engines["default"], Base)
        create_tables(engines["ledger"], LedgerBase)
        for module in ("rule", "conflict", "order", "outage", "drawers"):
            config.include(f".{module}")
        return config.make_wsgi_app()


def create_tables(engine: Engine, base: type[DeclarativeBase]) -> None:
    """Create the missing tables. A real application uses Alembic for its tables.

    ``metadata.create_all()`` first checks and then creates, which is two steps. If several
    processes start at once, two of them may find that a table is missing. Then the second CREATE
    fails. CREATE with IF NOT EXISTS is one step.
    """
    with engine.begin() as connection:
        for table in base.metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))

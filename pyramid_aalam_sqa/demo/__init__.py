"""A guest book on Pyramid and SQLAlchemy that uses only public names of this package.

``pserve development.ini`` serves it. Read ``book`` first: its views use ``request.sqa_session``
and never commit. ``rule`` shows which responses store what the request wrote.
"""

from collections.abc import Mapping
from typing import Any

from pyramid.config import Configurator
from sqlalchemy import Engine
from sqlalchemy.schema import CreateTable

from pyramid_aalam_sqa import get_sqa

from .drawers import fill_drawers
from .models import Base


def main(_global_config: Mapping[str, str], **settings: object) -> Any:
    """Return the WSGI application for an ini file's ``[app:main]``."""
    with Configurator(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
        config.include("pyramid_jinja2")
        config.include(".book")
        config.include(".rule")
        config.include(".drawers")
        config.include(".errors")
        config.commit()
        create_tables(get_sqa(config).engine)
        fill_drawers(get_sqa(config).engine)
        return config.make_wsgi_app()


def create_tables(engine: Engine) -> None:
    """Create the missing tables. A real application uses Alembic for its tables.

    ``metadata.create_all()`` first checks and then creates, which is two steps. If several
    processes start at once, two of them may find that a table is missing. Then the second CREATE
    fails. CREATE with IF NOT EXISTS is one step.
    """
    with engine.begin() as connection:
        for table in Base.metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))

"""A guest book on Pyramid and SQLAlchemy, made with the public names of this package alone.

``pserve development.ini`` serves it. Read ``book`` first: its views use ``request.sqa_session``
and never commit. ``rule`` shows which answers keep what a request wrote.
"""

from collections.abc import Mapping
from typing import Any

from pyramid.config import Configurator
from sqlalchemy import Engine
from sqlalchemy.schema import CreateTable

from pyramid_aalam_sqa import get_sqa

from .models import Base


def main(_global_config: Mapping[str, str], **settings: object) -> Any:
    """Return the WSGI application for an ini file's ``[app:main]``."""
    with Configurator(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
        config.include("pyramid_jinja2")
        config.include(".book")
        config.include(".rule")
        config.include(".errors")
        config.commit()
        create_tables(get_sqa(config).engine)
        return config.make_wsgi_app()


def create_tables(engine: Engine) -> None:
    """Create the tables that are missing; a real application leaves its tables to Alembic.

    ``metadata.create_all()`` looks first and creates then, so that of several processes that start
    at once all but one may fail. IF NOT EXISTS is one step.
    """
    with engine.begin() as connection:
        for table in Base.metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))

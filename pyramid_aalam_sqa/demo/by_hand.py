"""What an application writes by hand without this package."""

from typing import Any

import zope.sqlalchemy
from pyramid.request import Request
from sqlalchemy import Engine, engine_from_config
from sqlalchemy.orm import Session, sessionmaker


def includeme(config: Any) -> None:
    """Connect SQLAlchemy with Pyramid."""
    settings = config.registry.settings
    settings["tm.manager_hook"] = "pyramid_tm.explicit_manager"
    settings["tm.commit_veto"] = "pyramid_tm.default_commit_veto"
    config.include("pyramid_tm")
    config.include("pyramid_retry")
    engine = make_engine(settings)
    config.registry["dbsession_factory"] = sessionmaker(engine)
    config.add_request_method(dbsession, reify=True)


def make_engine(settings: dict[str, Any]) -> Engine:
    """Make the engine from the settings of SQLAlchemy."""
    return engine_from_config(settings, "sqlalchemy.")


def make_session(factory: sessionmaker[Session], manager: Any) -> Session:
    """Make a session that ends with the transaction of its manager."""
    session = factory()
    zope.sqlalchemy.register(session, transaction_manager=manager)
    return session


def dbsession(request: Request) -> Session:
    """Return the session of the request, or that of a test."""
    given: Session | None = request.environ.get("app.dbsession")
    if given is not None:
        return given
    return make_session(request.registry["dbsession_factory"], request.tm)

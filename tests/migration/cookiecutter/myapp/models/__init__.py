"""The models, and all that is left here of the wiring: one include, and the name views know."""

from sqlalchemy.orm import configure_mappers

from pyramid_aalam_sqa import get_sqa

from .mymodel import MyModel

__all__ = ["MyModel", "get_tm_session", "includeme"]

configure_mappers()


def get_tm_session(app, transaction_manager):
    """Return a session in the transactions of *transaction_manager*, for tests and scripts."""
    return get_sqa(app).session(transaction_manager)


def includeme(config):
    """Make ``request.dbsession`` another name of ``request.sqa_session``."""
    config.include("pyramid_aalam_sqa")
    config.add_request_method(lambda request: request.sqa_session, "dbsession", reify=True)

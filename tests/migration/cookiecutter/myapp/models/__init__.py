"""The models, and all that is left here of the wiring: one include, and the name views know."""

from sqlalchemy.orm import configure_mappers

from .mymodel import MyModel

__all__ = ["MyModel", "includeme"]

configure_mappers()


def includeme(config):
    """Make ``request.dbsession`` another name of ``request.sqa_session``."""
    config.include("pyramid_aalam_sqa")
    config.add_request_method(lambda request: request.sqa_session, "dbsession", reify=True)

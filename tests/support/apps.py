"""Applications of a few lines, made as a user makes them and disposed at the end of a test."""

import os
from contextlib import contextmanager

from pyramid.config import Configurator

from pyramid_aalam_sqa import get_sqa

# With SQA_TEST_PLAIN in the environment, the tests run without the shortcuts.
MODE = {"sqa.shortcuts": "false"} if os.environ.get("SQA_TEST_PLAIN") else {}


def make_app(url, *setups, **settings):
    """Make a WSGI application on the database at *url*.

    Each of *setups* is called with the Configurator after the include, for routes and views.
    *settings* are written as in an ini file, with dots: ``**{"sqa.retry_pause": "0"}``.
    """
    with Configurator(settings={"sqlalchemy.url": url, **MODE, **settings}) as config:
        config.include("pyramid_aalam_sqa")
        for setup in setups:
            setup(config)
    return config.make_wsgi_app()


@contextmanager
def application(url, *setups, **settings):
    """Make an application as :func:`make_app` does, and close its connections at the end."""
    app = make_app(url, *setups, **settings)
    try:
        yield app
    finally:
        get_sqa(app).dispose()


def with_view(view, **options):
    """Return a setup that adds *view*."""
    return lambda config: config.add_view(view, **options)


def with_tween_above(tween_factory):
    """Return a setup that adds a tween above pyramid_tm's.

    Pyramid takes a tween by a dotted name only, which a function in a test does not have.
    """

    def setup(config):
        config.registry["test.tween_factory"] = tween_factory
        config.add_tween("support.apps.tween_of_the_registry", over="pyramid_tm.tm_tween_factory")

    return setup


def tween_of_the_registry(handler, registry):
    """Make the tween that :func:`with_tween_above` has put into the registry."""
    return registry["test.tween_factory"](handler, registry)

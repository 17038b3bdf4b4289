"""Applications of a few lines, made as a user makes them and disposed at the end of a test."""

from contextlib import contextmanager

from pyramid.config import Configurator

from pyramid_aalam_sqa import get_sqa


def make_app(url, *setups, **settings):
    """Make a WSGI application on the database at *url*.

    Each of *setups* is called with the Configurator after the include, for routes and views.
    *settings* are written as in an ini file, with dots: ``**{"sqa.retry_pause": "0"}``.
    """
    with Configurator(settings={"sqlalchemy.url": url, **settings}) as config:
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

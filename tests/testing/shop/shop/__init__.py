"""A small shop: products, orders, mails, a log in a database of its own, and jobs."""

from pyramid.config import Configurator


def main(global_config, **settings):
    """Return the WSGI application."""
    with Configurator(settings=settings) as config:
        config.include(".views")
    return config.make_wsgi_app()

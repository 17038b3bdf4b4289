"""An application in the layout of Pyramid's cookiecutter, with this package for its database."""

from pyramid.config import Configurator


def main(global_config, **settings):
    """Return the WSGI application."""
    with Configurator(settings=settings) as config:
        config.include("pyramid_jinja2")
        config.include(".models")
        config.include(".routes")
        config.scan()
    return config.make_wsgi_app()

"""An application for pshell, which wants one that an ini file can name."""

from pyramid.config import Configurator

from support import models


def main(_global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
        config.registry.models = models
    return config.make_wsgi_app()

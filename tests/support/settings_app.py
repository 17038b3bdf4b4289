"""Settings tried on a real application, and the objects that the tests' settings name."""

import sqlite3

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from sqlalchemy import create_engine
from sqlalchemy.dialects import plugins, registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import CreateEnginePlugin
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool, StaticPool

from pyramid_aalam_sqa import SettingError, get_sqa
from pyramid_aalam_sqa.settings.options import (
    all_options,
)
from pyramid_aalam_sqa.settings.reader import check_pyramid_options, read_settings

SQLITE = "sqlite:////nowhere/base.sqlite"
MYSQL = "mysql+pymysql://me:hidden@host/base"
POSTGRESQL = "postgresql+psycopg://me:hidden@host/base"
OPTIONS = {option.key: option for option in all_options()}


def connect_anew():
    return sqlite3.connect(":memory:", check_same_thread=False)


def loads(text):
    return f"read: {text}"


def dumps(value):
    return f"written: {value}"


class Shop(Session):
    """A session class of the application's own."""


class Plugin(CreateEnginePlugin):
    """A plugin of SQLAlchemy's that leaves a trace."""

    def update_url(self, url):
        return url

    def engine_created(self, engine):
        engine.was_plugged = True


class EmbeddedDialect(SQLiteDialect_pysqlite):
    """A database that this package knows nothing of, with a pool that is no queue."""

    name = "embedded"
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url):
        return StaticPool

    def get_isolation_level_values(self, dbapi_connection):
        raise NotImplementedError


POOL = QueuePool(connect_anew)
NUMBER = 7
ENGINE_READY = create_engine("sqlite://")
registry.register("embedded", "support.settings_app", "EmbeddedDialect")
plugins.register("trace", "support.settings_app", "Plugin")


def start(settings, *includes):
    """Start a real application."""
    config = Configurator(settings=settings)
    for include in (*includes, "pyramid_aalam_sqa"):
        config.include(include)
    config.make_wsgi_app()
    return get_sqa(config)


def refused(settings, *includes):
    """Return what a real application says when it refuses to start."""
    with pytest.raises(ConfigurationError) as caught:
        start(settings, *includes)
    assert isinstance(caught.value.evalue, SettingError)
    message = str(caught.value.evalue)
    assert message in str(caught.value)
    return message


def accept(settings):
    check_pyramid_options(settings)
    read_settings(settings)

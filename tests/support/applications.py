"""Applications of a portal: their database on MariaDB, their settings, their configuration."""

from contextlib import contextmanager

from pyramid.config import Configurator
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from support.databases import Database


@contextmanager
def mariadb_application(mariadb_url, code):
    """Make an empty database on MariaDB called aalam_<code>; drop it at the end."""
    server = Database(mariadb_url)
    server.run(f"CREATE DATABASE aalam_{code}")
    try:
        yield server, make_url(mariadb_url).set(database="").render_as_string(hide_password=False)
    finally:
        server.run(f"DROP DATABASE aalam_{code}")


def named(code):
    """Return the lines of an ini file that name the database aalam_<code>."""
    return ("sqa.provider = aalam", f"sqa.app = {code}")


def configured(settings, package=None):
    """Return a committed configuration of an application whose code is in *package*."""
    config = Configurator(settings=settings, package=package)
    config.include("pyramid_aalam_sqa")
    config.commit()
    return config


class NewBase(DeclarativeBase):
    """The base of Thing."""


class Thing(NewBase):
    """A row with a number."""

    __tablename__ = "thing"
    id: Mapped[int] = mapped_column(primary_key=True)

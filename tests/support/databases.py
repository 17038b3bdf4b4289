"""Databases of a test's own, seen through connections that know nothing of the package."""

import itertools
import os
from contextlib import contextmanager
from functools import cache

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

MISSING = {
    "mariadbd": "MariaDB tests skipped: no mariadbd found; install mariadb-server, "
    "or name a server in SQA_TEST_MYSQL_URL.",
    "initdb": "PostgreSQL tests skipped: no initdb found; install postgresql.",
}


_numbers = itertools.count(1)


def plain_engine(url, *, poolclass=NullPool, **options):
    """Make an engine that owes nothing to the package, with a connection for each use."""
    # PyMySQL would build a TLS context for each, which takes longer than the connection.
    arguments = {"ssl_disabled": True} if make_url(url).get_driver_name() == "pymysql" else {}
    return create_engine(url, poolclass=poolclass, connect_args=arguments, **options)


class Database:
    """A database of one test's own, looked at through connections of its own."""

    def __init__(self, url):
        self.url = url
        self.kind = make_url(url).get_backend_name()
        self._engine = plain_engine(url)

    def run(self, *statements):
        """Run and commit statements, independently of the application."""
        with self._engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def rows(self, statement):
        """What anybody else sees."""
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement))]

    def connect(self):
        """A connection of its own, for what has to stay open."""
        return self._engine.connect()

    def scalar(self, statement):
        return self.rows(statement)[0][0]


@cache
def _server_engine(server_url):
    # Made once: the first use of an engine asks the server what it can do.
    return plain_engine(server_url, isolation_level="AUTOCOMMIT")


@contextmanager
def own_database(server_url):
    """A new database on the server at *server_url*, dropped at the end."""
    name = f"sqa_{os.getpid()}_{next(_numbers)}"
    server = _server_engine(server_url)
    quoted = server.dialect.identifier_preparer.quote(name)
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {quoted}"))
    yield Database(make_url(server_url).set(database=name).render_as_string(hide_password=False))
    force = " WITH (FORCE)" if server.dialect.name == "postgresql" else ""
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {quoted}{force}"))

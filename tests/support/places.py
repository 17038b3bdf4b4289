"""Databases that belong to one application of a portal, on each product that can hold one."""

import itertools
import os

from sqlalchemy import text

from pyramid_aalam_sqa import engine_from_settings
from support.databases import plain_engine

PLACES = ["file", "memory", "mariadb", "postgresql"]


_numbers = itertools.count(1)


class Place:
    """The database of one application, and connections to it that know nothing of the package."""

    def __init__(self, url, *, look, prefix=""):
        self.provider, self.app = f"t{os.getpid()}", f"app{next(_numbers)}"
        self.name = f"{self.provider}_{self.app}"
        self.settings = {
            "sqlalchemy.url": url.format(name=self.name),
            "sqa.provider": self.provider,
            "sqa.app": self.app,
        }
        self._look = look
        self._prefix = prefix.format(name=self.name)
        self.engines = []

    def engine(self, **settings):
        """Return a new engine for the application; *settings* complete its own."""
        self.engines.append(engine_from_settings({**self.settings, **settings}))
        return self.engines[-1]

    def rows(self, table, columns="*"):
        """Return the rows that are committed in *table*, read on an independent connection."""
        statement = f"SELECT {columns} FROM {self._prefix}{table}"
        with self._look(self.name).connect() as connection:
            return sorted(tuple(row) for row in connection.execute(text(statement)))

    def dispose(self):
        """Check that every connection came back, and close them."""
        for engine in self.engines:
            assert engine.pool.checkedout() == 0
            engine.dispose()


def on_a_server(server_url, kind):
    """Yield a place on a server, created as a *kind* (DATABASE or SCHEMA); drop it at the end."""
    server = plain_engine(server_url, isolation_level="AUTOCOMMIT")
    place = Place(server_url, look=lambda name: server, prefix="{name}.")
    with server.connect() as connection:
        connection.execute(text(f"CREATE {kind} {place.name}"))
    yield place
    cascade = " CASCADE" if kind == "SCHEMA" else ""
    with server.connect() as connection:
        connection.execute(text(f"DROP {kind} {place.name}{cascade}"))


def in_a_file(folder):
    """Return a place that is an SQLite file in *folder*."""
    path = f"{folder}/{{name}}.sqlite"
    return Place(
        f"sqlite:///{path}", look=lambda name: plain_engine(f"sqlite:///{path.format(name=name)}")
    )


def in_memory():
    """Return a place in memory, in a shared cache so that independent connections see it."""
    url = "sqlite:///file:{name}?mode=memory&cache=shared&uri=true"
    return Place(url, look=lambda name: plain_engine(url.format(name=name)))


def places(kind, request):
    """Yield a place of *kind*, one of PLACES, made with the fixtures of *request*."""
    if kind == "file":
        yield in_a_file(request.getfixturevalue("tmp_path"))
    elif kind == "memory":
        yield in_memory()
    elif kind == "mariadb":
        yield from on_a_server(request.getfixturevalue("mariadb_url"), "DATABASE")
    else:
        yield from on_a_server(request.getfixturevalue("postgresql_server").url(), "SCHEMA")

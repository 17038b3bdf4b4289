"""A database of PostgreSQL in which applications live side by side, and their administrator."""

import itertools

from sqlalchemy import Column, Integer, MetaData, Table, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from pyramid_aalam_sqa.provisioning import Provisioning
from support.databases import Database, plain_engine
from support.servers import PostgreSQL

# Everybody but the administrator is asked for a password.
HBA = """\
local all postgres trust
host all postgres,manager 127.0.0.1/32 trust
host all open_user 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""

DENIED = "42501"

_numbers = itertools.count(1)


class Far(PostgreSQL):
    """One with a second address, to which a connection comes from the first."""

    def command(self):
        options = ("listen_addresses=127.0.0.1,127.0.0.2", "max_prepared_transactions=10")
        return [*super().command(), *(word for option in options for word in ("-c", option))]


class Site:
    """A database of one test, two applications that may live there, and their administrator."""

    def __init__(self, server, provider="aalam"):
        self.server = server
        self.provider = provider
        self.database = f"site_{next(_numbers)}"
        self.root = plain_engine(server.url(), isolation_level="AUTOCOMMIT")
        self.asked(self.root, f"CREATE DATABASE {self.database}")
        self.admin = Database(server.url(self.database))
        # The administrator in this database, as psqa connects.
        self.here = plain_engine(self.admin.url, isolation_level="AUTOCOMMIT")
        self.made = []
        self.before = set(self.roles())

    def roles(self):
        return [row[0] for row in self.admin.rows("SELECT quote_ident(rolname) FROM pg_roles")]

    # As hostile as a password may be.
    password = "it's 100% \\ sécret"

    def settings(self, app="base", user=None, password=password, **more):
        url = make_url(self.admin.url)._replace(
            username=user or f"{self.provider}_{app}", password=password
        )
        return {
            "sqlalchemy.url": url.render_as_string(hide_password=False),
            "sqa.provider": self.provider,
            "sqa.app": app,
            **more,
        }

    def provisioning(self, app="base", **more):
        made = Provisioning(self.settings(app, **more), self.admin.url)
        self.made.append(made)
        return made

    def rotation(self, settings):
        self.made.append(Provisioning(settings, self.admin.url))
        return self.made[-1]

    def create(self, app="base", **more):
        provisioning = self.provisioning(app, **more)
        return [str(step) for step in provisioning.apply()]

    def as_application(self, statement, app="base"):
        """Run *statement* as the application, by the driver; return rows, or the SQLSTATE."""
        return self.asked(plain_engine(self.settings(app)["sqlalchemy.url"]), statement)

    @staticmethod
    def asked(engine, statement):
        try:
            with engine.begin() as connection:
                found = connection.execute(text(statement))
                return [tuple(row) for row in found] if found.returns_rows else "done"
        except DBAPIError as error:
            return error.orig.sqlstate

    def table(self, app="base"):
        """Make a table note as the owner, with one row."""
        metadata = MetaData()
        Table(
            "note",
            metadata,
            Column("id", Integer, primary_key=True),
            schema=f"{self.provider}_{app}",
        )
        self.provisioning(app).create_tables(metadata)
        self.admin.run(f"INSERT INTO {self.provider}_{app}.note VALUES (0)")

    def remove(self):
        for made in self.made:
            made.__exit__()
        roles = set(self.roles()) - self.before
        for (gid,) in self.admin.rows("SELECT quote_literal(gid) FROM pg_prepared_xacts"):
            with self.here.connect() as connection:
                connection.exec_driver_sql(f"ROLLBACK PREPARED {gid}")
        self.asked(self.root, f"DROP DATABASE {self.database} WITH (FORCE)")
        for role in roles:
            self.asked(self.root, f"DROP OWNED BY {role}")
            self.asked(self.root, f"DROP ROLE {role}")
        self.root.dispose()
        self.here.dispose()


def problems(site, **more):
    return "\n".join(map(str, site.provisioning(**more).check()))

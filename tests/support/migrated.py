"""Applications with revisions: an ini file, a folder of Alembic's, and psqa on them."""

import itertools
import json
import os

from sqlalchemy.engine import make_url

from pyramid_aalam_sqa.migrations.migrate import Order, migrate
from support.databases import Database, plain_engine
from support.mysql_accounts import PLAIN
from support.provisioned import Provisioned, psqa

_numbers = itertools.count(1)
PASSWORD = "s3cr3t-0f-the-runtime"
REVISION = '''"""{message}"""

import sqlalchemy as sa
from alembic import op

revision = {number!r}
down_revision = {down!r}
{extra}

def upgrade():
    {up}


def downgrade():
    {down_code}
'''
CREATE = "op.create_table('{0}', sa.Column('id', sa.Integer, primary_key=True))"


class Revisions:
    """A folder of revisions, written one after the other."""

    def __init__(self, folder, env=None):
        self.folder = folder
        self.versions = folder / "versions"
        self.versions.mkdir(parents=True, exist_ok=True)
        self.last = None
        if env is not None:
            (folder / "env.py").write_text(env)

    def add(self, number, up, down="pass", extra="", versions=None):
        """Write a revision that follows the last one; *up* and *down* are lines of Python."""
        folder = versions or self.versions
        folder.mkdir(exist_ok=True)
        text = REVISION.format(
            message=f"revision {number}",
            number=number,
            down=self.last,
            extra=extra,
            up=up.replace("\n", "\n    "),
            down_code=down.replace("\n", "\n    "),
        )
        (folder / f"{number}_.py").write_text(text)
        self.last = number

    def add_table(self, number, name, **more):
        self.add(number, CREATE.format(name), f"op.drop_table('{name}')", **more)


class Migrated(Provisioned):
    """One application on a server, with accounts, a database, and revisions."""

    def __init__(self, folder, server_url, revisions, settings=(), app=None):
        self.provider = f"m{os.getpid()}"
        name = f"{self.provider}_{app or f'app{next(_numbers)}'}"
        url = make_url(server_url)
        self.kind = url.get_backend_name()
        self.revisions = revisions
        if self.kind == "sqlite":
            own = url.set(database=f"{folder}/{name}.sqlite")
            admin = None
        else:
            own = url.set(username=name, password=PASSWORD)
            admin = url.render_as_string(hide_password=False)
            if self.kind == "mysql":
                own = own.set(database=None)
                settings = (*settings, PLAIN)
        text = own.render_as_string(hide_password=False)
        super().__init__(
            folder, text, admin, name, [f"sqa.migrations = {revisions.folder}", *settings]
        )
        self.own_url = own.set(database=name) if self.kind == "mysql" else own
        if admin is None:
            self.eyes = Database(text)
        else:
            self.eyes = Database(
                url.set(database=name if self.kind == "mysql" else url.database).render_as_string(
                    hide_password=False
                )
            )

    def table(self, name):
        """The full name of a table, for eyes that look from elsewhere."""
        return f"{self.name}.{name}" if self.kind == "postgresql" else name

    def versions(self, table="alembic_version"):
        rows = self.eyes.rows(f"SELECT version_num FROM {self.table(table)}")
        return [row[0] for row in rows]

    def as_runtime(self):
        """An engine of the account that serves."""
        return plain_engine(self.own_url)

    def migrate(self, stop=bool, **order):
        """Migrate the database in this process, and return what the report has of it."""
        order.setdefault("admin_url", self.admin_url)
        return migrate(str(self.ini), Order(**order), stop).as_json()

    def report(self, *arguments, command="upgrade", **how):
        """Run a command and return what it answered, and its report for each database."""
        path = self.ini.with_suffix(".report.json")
        path.unlink(missing_ok=True)
        told = self.psqa(command, *arguments, "--report", path, **how)
        found = json.loads(path.read_text())["databases"] if path.exists() else None
        return told, found


def psqa_on(inis, command, *arguments, admin_url=None, **how):
    """Run a command on several ini files."""
    return psqa(command, *inis, *arguments, admin_url=admin_url, **how)

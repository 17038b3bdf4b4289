"""psqa check and psqa revision: what models and database differ in, on each of three databases."""

import importlib
import re
import sys

import pytest
from sqlalchemy import MetaData, text

from pyramid_aalam_sqa.migrations import commands
from support.databases import plain_engine

MODELS = """
import os
from sqlalchemy import (
    Boolean, Column, DateTime, Enum, ForeignKey, Index, Integer, JSON, MetaData, Numeric, String,
    Table, Text, UniqueConstraint, func,
)

NAME = "{name}"
metadata = MetaData()
author = Table(
    "author", metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(50), nullable=False, index=True),
    Column("mail", String(50), unique=True),
    Column("balance", Numeric(10, 2), nullable=False, server_default="0"),
    Column("kind", Enum("writer", "editor", name="kind", native_enum=False)),
    Column("is_known", Boolean, nullable=False),
    Column("data", JSON),
    Column("born", DateTime),
    schema=NAME,
)
book = Table(
    "book", metadata,
    Column("id", Integer, primary_key=True),
    Column("author_id", Integer, ForeignKey(author.c.id), nullable=False),
    Column("title", String(50), nullable=False),
    Column("about", Text),
    Column("price", Integer),
    UniqueConstraint("author_id", "title", name="uq_book"),
    Index("ix_title", "title"),
    schema=NAME,
)
"""
# A change of the models, and what psqa check says of it.
DRIFTS = {
    "a table that is missing": (
        'extra = Table("extra", metadata, Column("id", Integer, primary_key=True), schema=NAME)',
        "",
        "the models have the table extra, and the database has not",
    ),
    "a table too many": (
        "metadata.remove(book)",
        "",
        "the database has the table book, and the models have not",
    ),
    "a column that is missing": (
        'book.append_column(Column("more", Integer))',
        "",
        "the models have the column book.more, and the database has not",
    ),
    "a column too many": (
        "",
        '    Column("price", Integer),\n',
        "the database has the column book.price, and the models have not",
    ),
    "another type": ("book.c.price.type = String(20)", "", "book.price: the type is "),
    "another length": ("book.c.title.type = String(90)", "", "book.title: the type is VARCHAR(50"),
    "a column that may be empty": (
        "author.c.is_known.nullable = True",
        "",
        "author.is_known: nullable is False in the database, and True in the models",
    ),
    "an index that is missing": (
        'Index("ix_price", book.c.price)',
        "",
        "the models have the index ix_price on book(price), and the database has not",
    ),
    "an index too many": (
        "",
        '    Index("ix_title", "title"),\n',
        "the database has the index ix_title on book(title), and the models have not",
    ),
    "a unique constraint that is missing": (
        'UniqueConstraint(book.c.title, book.c.price, name="uq_more")',
        "",
        "the models have the unique constraint uq_more on book(title, price), and the database",
    ),
    "a foreign key too many": (
        "",
        "ForeignKey(author.c.id), ",
        "the database has the foreign key ",
    ),
    "another default": (
        "",
        'server_default="0"',
        "author.balance: the default is ",
    ),
}


@pytest.fixture
def app(site, tmp_path, monkeypatch):
    """An application whose models have been written into its first revision, and that has run."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    site.models = tmp_path / "drift_models.py"
    site.ini.write_text(site.ini.read_text() + "\nsqa.base = drift_models:metadata\n")

    def write(more="", without=""):
        source = MODELS.format(name=site.name)
        assert without in source
        site.models.write_text(source.replace(without, "") + more)
        sys.modules.pop("drift_models", None)
        importlib.invalidate_caches()

    site.write_models = write
    write()
    yield site
    sys.modules.pop("drift_models", None)


def findings(app):
    """What psqa check finds, without all that is not about migrations."""
    return [str(each) for each in commands.findings(str(app.ini), None)]


@pytest.mark.sweep(2)
def test_no_drift_and_then_each_of_twelve_that_are_planted(app, revisions):
    """The first revision is written by psqa, names no schema, and leaves no difference."""
    told = app.psqa("revision", "-m", "first", "--autogenerate", "--rev-id", "1")
    assert told.status == 0
    assert told.out.splitlines()[-1].startswith("Wrote ") or "1_first.py" in told.out
    [written] = revisions.versions.iterdir()
    code = written.read_text()
    # The name of an index that SQLAlchemy makes has the schema in it, as create_all() makes it.
    assert app.name not in re.sub(rf"ix_{app.name}_author_name", "", code)
    assert findings(app) == [
        "the database stands at base, and the last revision is 1: psqa upgrade"
    ]
    assert app.migrate()["state"] == "done"
    assert findings(app) == []
    assert app.psqa("check").status == 0
    app.write_models(*DRIFTS["a table that is missing"][:2])
    told = app.psqa("check", columns=400)
    assert (told.status, told.err) == (1, "")
    assert DRIFTS["a table that is missing"][2] in told.out
    for kind, (more, without, says) in DRIFTS.items():
        app.write_models(more, without)
        found = findings(app)
        assert says in "\n".join(found), (kind, found)
        # On MariaDB the indexes of a table are told beside it.
        assert len(found) <= 3, (kind, found)


@pytest.mark.sweep(1)
def test_tables_that_create_all_has_made_have_no_drift(app, revisions):
    """A project that begins with psqa tables comes to migrations with psqa revision."""
    assert app.psqa("tables").status == 0
    revisions.add("1", "pass")
    assert app.migrate()["state"] == "done"

    assert findings(app) == []


def test_a_revision_is_written_by_hand_too(app, revisions):
    """Its database is not asked then."""
    told = app.psqa("revision", "-m", "by hand", "--rev-id", "7")

    assert told.status == 0
    assert "7_by_hand.py" in "".join(told.out.split())
    assert "pass" in (revisions.versions / "7_by_hand.py").read_text()


def test_autogenerate_needs_a_database_at_its_last_revision(app, revisions):
    """Alembic's own words."""
    revisions.add_table("1", "note")
    told = app.psqa("revision", "-m", "x", "--autogenerate")
    assert (told.status, told.err) == (1, "psqa: Target database is not up to date.\n")


@pytest.mark.parametrize("server_url", ["sqlite"], indirect=True)
def test_autogenerate_needs_a_database(make, server_url):
    """It is not made by the way."""
    site = make(server_url, created=False)
    told = site.psqa("revision", "-m", "x", "--autogenerate")

    assert told.status == 1
    assert "is not there, and autogenerate compares it: run psqa create." in told.err
    assert site.psqa("check").status == 1


@pytest.mark.parametrize("server_url", ["mariadb", "postgresql"], indirect=True)
def test_a_database_that_is_not_there_is_told_by_the_administrator(make, server_url):
    """Its account is refused, as one with a wrong password is: that one is a failure."""
    site = make(server_url, created=False)
    told, [report] = site.report()
    assert (told.status, report["state"]) == (0, "not provisioned")
    assert site.psqa("create").status == 0
    site.ini.write_text(site.ini.read_text().replace("s3cr3t", "wrong"))
    told, [report] = site.report()
    assert (told.status, report["state"]) == (1, "failed")
    assert "s3cr3t" not in str(report)


def test_an_ini_file_without_migrations_has_no_commands_of_them(make, tmp_path):
    """An ini file that names no revisions has no findings about them, and no commands."""
    site = make("sqlite://")
    site.ini.write_text(re.sub("sqa.migrations.*", "", site.ini.read_text()))
    told = site.psqa("upgrade")

    assert site.psqa("check").status == 0
    assert told.status == 1
    assert "write sqa.migrations = package:folder" in told.out


def test_a_folder_that_cannot_be_found_is_told(make):
    """A package that is not installed."""
    site = make("sqlite://")
    site.ini.write_text(
        re.sub("sqa.migrations.*", "sqa.migrations = nothing:x", site.ini.read_text())
    )
    told = site.psqa("revision", "-m", "x")

    assert told.status == 2
    assert "sqa.migrations: 'nothing:x' cannot be found" in told.err


def test_the_tables_of_another_schema_are_compared_too(postgresql_accounts, tmp_path):
    """Without a name of its own an application may have several schemas."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import Column, Index, Integer, Table

    from pyramid_aalam_sqa.migrations.metadata import (
        compared_metadata,
        name_filter,
        other_schemas,
    )
    from support.databases import own_database

    metadata = MetaData()
    bare = Table("bare", metadata, Column("id", Integer, primary_key=True), schema="public")
    Table("named", metadata, Column("id", Integer, primary_key=True), schema="other")
    Index("ix_lower", text("id"), _table=bare)
    with own_database(postgresql_accounts.url()) as database:
        database.run("CREATE SCHEMA other", "CREATE SCHEMA foreign_one")
        database.run("CREATE TABLE foreign_one.alien (id INTEGER)", "CREATE TABLE hidden (a INT)")
        engine = plain_engine(database.url)
        metadata.create_all(engine)
        copies = compared_metadata([metadata], None, [None, "public"])
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection,
                opts={
                    "include_schemas": True,
                    "include_name": name_filter(other_schemas(copies), {"hidden"}),
                },
            )
            assert compare_metadata(context, copies[0]) == []

"""What an env.py of three lines does, run by Alembic itself."""

import io
import sys

import pytest
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import create_engine, inspect, text

from pyramid_aalam_sqa.exceptions import SettingError
from pyramid_aalam_sqa.migrations import MigrationError, run
from support.migrated import Revisions

ENV = """
from pyramid_aalam_sqa.migrations import run
import shelf
run(*shelf.bases)
"""
MODELS = """
from sqlalchemy import Column, Integer, MetaData, Table
bases = []
for key in ("default", "audit"):
    metadata = MetaData(info={"bind_key": key})
    Table(f"of_{key}", metadata, Column("id", Integer, primary_key=True))
    bases.append(metadata)
"""
INI = """
[app:main]
use = call:support.rule_app:main
sqlalchemy.url = sqlite:///%(here)s/one.sqlite
sqlalchemy.binds.audit.url = sqlite:///%(here)s/two.sqlite
sqa.migrations = %(here)s/migrations

[alembic]
script_location = %(here)s/migrations

[audit]
script_location = %(here)s/migrations
version_locations = %(here)s/migrations/versions_audit
path_separator = newline
sqa.bind = audit
"""
TEMPLATE = """
revision, down_revision = ${repr(up_revision)}, ${repr(down_revision)}
from alembic import op
import sqlalchemy as sa
def upgrade():
    ${upgrades if upgrades else "pass"}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An application of two databases."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "shelf.py").write_text(MODELS)
    (tmp_path / "development.ini").write_text(INI)
    Revisions(tmp_path / "migrations", ENV)
    (tmp_path / "migrations" / "script.py.mako").write_text(TEMPLATE)
    yield tmp_path
    sys.modules.pop("shelf", None)


@pytest.fixture
def config(folder):
    def config(section="alembic", ini="development.ini"):
        return Config(
            str(folder / ini),
            ini_section=section,
            stdout=io.StringIO(),
            output_buffer=io.StringIO(),
        )

    return config


def tables(folder, name):
    engine = create_engine(f"sqlite:///{folder}/{name}.sqlite")
    found = set(inspect(engine).get_table_names())
    engine.dispose()
    return found


def test_each_bind_has_its_own_version_table_and_its_own_tables(folder, config):
    """A bind is a section for Alembic's -n; neither sees the other's tables, even in one file."""
    for section in ("alembic", "audit"):
        command.revision(config(section), section, autogenerate=True, rev_id=section)
        command.upgrade(config(section), "head")
    assert tables(folder, "one") == {"of_default", "alembic_version"}
    assert tables(folder, "two") == {"of_audit", "alembic_version_audit"}

    ini = folder / "development.ini"
    ini.write_text(ini.read_text().replace("two.sqlite", "one.sqlite"))
    command.upgrade(config("audit"), "head")
    for section in ("alembic", "audit"):
        command.check(config(section))
        command.current(config(section))


def test_statements_are_printed_without_a_connection(folder, config):
    """For a database that an administrator migrates by hand."""
    revisions = Revisions(folder / "migrations")
    revisions.add_table("1", "note")
    made = config()
    command.upgrade(made, "head", sql=True)

    assert "CREATE TABLE note" in made.output_buffer.getvalue()
    assert not (folder / "one.sqlite").exists()


def test_an_ini_file_of_alembic_alone_names_its_url_itself(folder, config):
    """A project that is no Pyramid application has the three lines as well."""
    Revisions(folder / "migrations").add_table("1", "note")
    (folder / "alembic.ini").write_text(
        "[alembic]\nscript_location = %(here)s/migrations\n"
        "sqlalchemy.url = sqlite:///%(here)s/one.sqlite\n"
    )
    command.upgrade(config(ini="alembic.ini"), "head")
    assert tables(folder, "one") == {"note", "alembic_version"}

    (folder / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/migrations\n")
    with pytest.raises(SettingError, match=r"write sqlalchemy\.url"):
        command.upgrade(config(ini="alembic.ini"), "head")


def test_an_unknown_bind_is_told_with_those_there_are(folder, config):
    """The key in Alembic's section."""
    made = config("audit")
    made.set_main_option("sqa.bind", "nothing")
    with pytest.raises(SettingError, match="'nothing', only: audit, default"):
        command.upgrade(made, "head")


def test_a_connection_in_a_transaction_is_left_to_its_owner(folder, config):
    """A test may migrate inside its own transaction, and roll back."""
    Revisions(folder / "migrations").add_table("1", "note")
    engine = create_engine(f"sqlite:///{folder}/other.sqlite")
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        made = config()
        made.attributes["connection"] = connection
        command.upgrade(made, "head")
        assert connection.in_transaction()
        assert inspect(connection).has_table("note")
    engine.dispose()


def test_a_stop_takes_no_lock_and_no_step(folder, config):
    """To stamp a database is a step too, and needs no revision to run."""
    Revisions(folder / "migrations").add_table("1", "note")
    command.stamp(config(), "head")

    assert tables(folder, "one") == {"alembic_version"}


def test_models_in_part_with_a_schema_are_refused(folder, config):
    """They would be one table for the database, and two for Alembic."""
    (folder / "shelf.py").write_text(
        "from sqlalchemy import Column, Integer, MetaData, Table\n"
        "metadata = MetaData()\n"
        "Table('bare', metadata, Column('id', Integer, primary_key=True))\n"
        "Table('named', metadata, Column('id', Integer, primary_key=True), schema='aalam_base')\n"
        "bases = [metadata]\n"
    )
    ini = folder / "development.ini"
    ini.write_text(
        ini.read_text().replace("[app:main]", "[app:main]\nsqa.provider = aalam\nsqa.app = base")
    )
    with pytest.raises(SettingError, match=r"aalam_base.named has a schema and bare has none"):
        command.revision(config(), "x", autogenerate=True)


def test_a_database_in_memory_needs_no_lock(folder, config):
    """It has no file beside it."""
    Revisions(folder / "migrations").add_table("1", "note")
    ini = folder / "development.ini"
    ini.write_text(
        ini.read_text().replace(
            "sqlite:///%(here)s/one.sqlite", "sqlite:///file:x?mode=memory&uri=true"
        )
    )
    engine = create_engine("sqlite://")
    made = config()
    made.attributes["connection"] = engine
    command.upgrade(made, "head")
    assert inspect(engine).has_table("note")
    engine.dispose()


def test_the_lock_of_a_database_names_its_holder(folder, config):
    """The second run waits, and then says who holds it; a file that was left behind is no lock."""
    from pyramid_aalam_sqa.migrations.products import product_of

    Revisions(folder / "migrations").add_table("1", "note")
    (folder / "migrations" / "env.py").write_text(ENV.replace("*shelf.bases", "wait=0.2"))
    engine = create_engine(f"sqlite:///{folder}/one.sqlite")
    lock = folder / "one.sqlite-migrating"
    lock.write_text("left by a crash")
    with (
        product_of(engine.dialect).locked(engine, "one", 1),
        pytest.raises(MigrationError, match=r"process \d+ on .*waited for 0.2 seconds"),
    ):
        command.upgrade(config(), "head")
    assert not lock.exists()
    command.upgrade(config(), "head")


def test_run_can_be_told_what_alembic_is_told(folder, config):
    """Options for context.configure() win over ours, and so do the waits."""
    Revisions(folder / "migrations").add_table("1", "note")
    (folder / "migrations" / "env.py").write_text(
        ENV.replace("*shelf.bases", "*shelf.bases, version_table='versions', lock_timeout=1")
    )
    command.upgrade(config(), "head")
    assert tables(folder, "one") == {"note", "versions"}
    assert run.__doc__


def test_a_revision_that_fails_is_undone_and_told(folder, config):
    """The name of the revision, and no half of it."""
    Revisions(folder / "migrations").add(
        "1", "op.execute('CREATE TABLE a (b INT)')\nop.execute('X')"
    )
    with pytest.raises(MigrationError, match="revision 1 has failed, and nothing of it is stored"):
        command.upgrade(config(), "head")
    assert tables(folder, "one") <= {"alembic_version"}
    with pytest.raises(CommandError):
        command.upgrade(config(), "nowhere")

"""Alembic, with the env.py of docs/portal/schemas.md."""

import importlib
import io
import re
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import (
    Column,
    Integer,
)

from support.portable_app import models

NOTES = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    __table_args__ = {{"schema": "{name}"}}


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id))
"""
INI = "[app:main]\nuse = call:support.rule_app:main\n"
REVISION = """
revision, down_revision = ${repr(up_revision)}, ${repr(down_revision)}
from alembic import op
import sqlalchemy as sa
def upgrade():
    ${upgrades if upgrades else "pass"}
"""


@pytest.fixture
def alembic(place, tmp_path, monkeypatch):
    """Return a function that runs an Alembic command on a module of models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    lines = "".join(f"{key} = {value}\n" for key, value in place.settings.items())
    (tmp_path / "development.ini").write_text(INI + lines)
    page = (Path(__file__).parents[2] / "docs" / "portal" / "schemas.md").read_text()
    [env] = re.findall(r"^```py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    scripts = tmp_path / "migrations"
    (scripts / "versions").mkdir(parents=True)
    (scripts / "env.py").write_text(env)
    (scripts / "script.py.mako").write_text(REVISION)
    config = Config("development.ini", output_buffer=io.StringIO(), stdout=io.StringIO())
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("path_separator", "os")

    def run(command, models, *args, **options):
        (tmp_path / "notes.py").write_text("from sqlalchemy import ForeignKey\n" + models)
        sys.modules.pop("notes", None)
        importlib.invalidate_caches()
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            return command(config, *args, **options)
        finally:
            sys.dont_write_bytecode = before

    yield run
    sys.modules.pop("notes", None)


@pytest.mark.parametrize("place", ["file", "mariadb", "postgresql"], indirect=True)
def test_alembic_finds_no_difference_and_then_the_new_column(alembic, place):
    """Alembic creates the tables, finds no difference, and then finds one new column."""
    old = NOTES.format(name=place.name)
    new = old + "    body: Mapped[str | None]\n".replace("str | None", "int | None")
    alembic(command.revision, old, "first", autogenerate=True, rev_id="1")
    alembic(command.upgrade, old, "head")
    alembic(command.check, old)
    second = alembic(command.revision, new, "second", autogenerate=True, rev_id="2")
    alembic(command.upgrade, new, "head")
    alembic(command.check, new)
    written = Path(second.path).read_text()

    assert (written.count("op."), written.count("add_column")) == (
        2 if "batch_alter_table" in written else 1,
        1,
    )
    assert place.name not in written
    assert place.rows("note", "id, user_id, body") == []
    assert place.rows("alembic_version") == [("2",)]
    with pytest.raises(CommandError, match="New upgrade operations"):
        alembic(command.check, old)


def test_models_without_a_schema_need_nothing_of_alembic(place):
    """Alembic without options finds no difference, and then one new column."""
    model = models(None)
    engine = place.engine()
    model.Base.metadata.create_all(engine)
    with engine.connect() as connection:
        same = compare_metadata(MigrationContext.configure(connection), model.Base.metadata)
        model.odd.append_column(Column("more", Integer))
        [found] = compare_metadata(MigrationContext.configure(connection), model.Base.metadata)

    assert same == []
    assert found[0] == "add_column"

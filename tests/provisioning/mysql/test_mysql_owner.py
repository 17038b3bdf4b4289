"""On MariaDB the owner account makes tables, and its password is random unless a file has it."""

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from pyramid_aalam_sqa.provisioning import Provisioning
from pyramid_aalam_sqa.provisioning.mysql.server import MySQLServer
from support.mysql_accounts import as_account, denied


def test_tables_are_created_by_their_owner(created, server, admin, tmp_path, monkeypatch):
    """It has a password for that run alone, and a random one afterwards."""
    (tmp_path / "catalogue.py").write_text(
        "from sqlalchemy import Column, Integer\n"
        "from sqlalchemy.orm import declarative_base\n"
        "Base = declarative_base()\n"
        "class Book(Base):\n"
        "    __tablename__ = 'book'\n"
        "    id = Column(Integer, primary_key=True)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    planned = created.psqa("tables", "--base", "catalogue:Base", "--dry-run")
    done = created.psqa("tables", "--base", "catalogue:Base")
    again = created.psqa("tables", "--base", "catalogue:Base", "--dry-run")

    assert (planned.status, done.status, again.status) == (1, 0, 0)
    assert planned.out.startswith("CREATE TABLE book (")
    assert done.out == "Created book\n"
    assert again.out == "Nothing to change.\n"
    assert admin.rows("SELECT * FROM aalam_base.book") == []
    assert created.psqa("create").lines[0] == "Nothing to change."


def test_the_password_for_one_run_is_none_afterwards(created, admin):
    """Not even when the run fails."""
    with Provisioning(created.settings) as provisioning:
        engine = create_engine(admin.url, poolclass=NullPool)
        server = MySQLServer(provisioning.tenant, engine, wait=1)

    def run():
        with server.as_owner(None) as engine:
            passwords.append(engine.url.password)
            engine.connect().close()
            raise RuntimeError

    passwords = []
    for _ in range(2):
        with pytest.raises(RuntimeError):
            run()
    with (
        server.tenant.login("aalam_base__own", passwords[-1]) as engine,
        pytest.raises(OperationalError, match="1045"),
    ):
        engine.connect()

    assert len(set(passwords)) == 2


def test_the_owner_may_have_a_password_that_a_file_has(make, server, tmp_path, monkeypatch):
    """For Alembic: create sets it, tables uses it, and neither changes it again."""
    file = tmp_path / "owner"
    file.write_text("owner's\n")
    option = ("--owner-password-file", file)
    (tmp_path / "empty_base.py").write_text("from sqlalchemy import MetaData\nBase = MetaData()\n")
    monkeypatch.syspath_prepend(tmp_path)
    app = make()
    assert app.psqa("create", *option).status == 0
    assert app.psqa("create", *option).lines[0] == "Nothing to change."
    assert app.psqa("tables", "--base", "empty_base:Base", *option).status == 0

    with as_account(server, "aalam_base__own", "owner's", "aalam_base") as connection:
        assert denied(connection, "CREATE TABLE mine (id INT PRIMARY KEY)") == 0
        assert denied(connection, "DROP TABLE mine") == 0

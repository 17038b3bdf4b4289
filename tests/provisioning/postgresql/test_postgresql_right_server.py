"""On PostgreSQL psqa changes the server of sqlalchemy.url, and no other one with the same names."""

import socket
import subprocess
import sys

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from pyramid_aalam_sqa import ProvisioningError
from pyramid_aalam_sqa.provisioning.servers import server_class
from support.databases import plain_engine
from support.provisioned import Provisioned
from support.servers import PostgreSQL, find, free_port

COMMANDS = (
    ["create"],
    ["create", "--dry-run"],
    ["tables", "--base", "empty_base:Base"],
    ["check"],
    ["rotate"],
    ["drop", "--yes"],
    ["drop", "--dry-run"],
)


class Decoy(PostgreSQL):
    """A server with the same port as another one, on a socket of its own."""

    def __init__(self, port):
        super().__init__()
        self.port = port

    def command(self):
        return [*super().command(), "-c", "listen_addresses="]

    def answers(self):
        ready = [find("pg_isready"), "-h", str(self.folder), "-p", str(self.port), "-q"]
        return subprocess.run(ready, check=False).returncode == 0


@pytest.fixture(scope="session")
def decoy(server):
    """Another server on this machine, with the same port, database and roles."""
    decoy = Decoy(server.port)
    try:
        yield decoy.start()
    finally:
        decoy.remove()


@pytest.fixture
def same_names(site, decoy, tmp_path, monkeypatch):
    """The decoy's database and roles of the application, and its password in a file."""
    (tmp_path / "empty_base.py").write_text("from sqlalchemy import MetaData\nBase = MetaData()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PGHOST", str(decoy.folder))
    monkeypatch.setenv("PGUSER", "postgres")
    (tmp_path / "password").write_text("secret\n")
    url = f"postgresql+psycopg://postgres@/{{}}?host={decoy.folder}&port={decoy.port}"
    root = plain_engine(url.format("postgres"), isolation_level="AUTOCOMMIT")
    with root.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {site.database}"))
        if not connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = 'aalam_base'")):
            connection.execute(text("CREATE ROLE aalam_base LOGIN PASSWORD 'old'"))
    here = plain_engine(url.format(site.database), isolation_level="AUTOCOMMIT")
    with here.connect() as connection:
        connection.execute(text("CREATE SCHEMA aalam_base CREATE TABLE note (id INT)"))
    return here


def everything(engine):
    """All that psqa could change on a server."""
    queries = (
        "SELECT rolname, rolcanlogin, rolpassword FROM pg_authid ORDER BY 1",
        "SELECT nspname, nspowner, nspacl::text FROM pg_namespace ORDER BY 1",
        "SELECT relname, relowner, relacl::text FROM pg_class WHERE relname = 'note'",
        "SELECT datname, datacl::text FROM pg_database ORDER BY 1",
        "SELECT setconfig::text FROM pg_db_role_setting ORDER BY 1",
    )
    with engine.connect() as connection:
        return [connection.execute(text(query)).all() for query in queries]


def app_at(site, tmp_path, address, admin_url=None):
    settings = [f"sqa.password_file = {tmp_path}/password"]
    url = f"postgresql+psycopg://aalam_base@{address}/{site.database}"
    return Provisioned(tmp_path, url, admin_url, settings=settings)


@pytest.mark.parametrize("where", ["another machine", "the same port", "nothing"])
@pytest.mark.sweep(1)
def test_a_server_with_the_same_names_on_the_usual_socket_is_left_alone(
    site, same_names, tmp_path, where
):
    """The URL leads elsewhere, and without an administrator's URL psqa goes by it all the same."""
    addresses = {
        "another machine": "db.example.invalid",
        "the same port": f"127.0.0.1:{site.server.port}",
        "nothing": f"127.0.0.1:{free_port()}",
    }
    before = everything(same_names), everything(site.here)
    app = app_at(site, tmp_path, addresses[where])
    tolds = [app.psqa(*command) for command in COMMANDS]

    assert {told.status for told in tolds} == {1}
    assert {told.server for told in tolds} == {""}
    assert (everything(same_names), everything(site.here)) == before


@pytest.mark.deep
def test_an_administrators_url_of_another_server_changes_nothing(site, decoy, same_names, tmp_path):
    """Neither there nor on the application's own server."""
    admin_url = f"postgresql+psycopg://postgres@/x?host={decoy.folder}&port={decoy.port}"
    before = everything(same_names), everything(site.here)
    app = app_at(site, tmp_path, f"127.0.0.1:{site.server.port}", admin_url)
    tolds = [app.psqa(*command) for command in COMMANDS]

    refusal = "the administrator is on another server"
    assert [(told.status, refusal in told.err) for told in tolds] == [(1, True)] * len(COMMANDS)
    assert (everything(same_names), everything(site.here)) == before


def test_each_command_says_which_server_it_talks_to(site, tmp_path):
    """Its product, version and address, and as whom."""
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "password").chmod(0o600)
    app = app_at(site, tmp_path, f"127.0.0.1:{site.server.port}", site.admin.url)
    tolds = [app.psqa(*command) for command in (["create"], ["check"], ["drop", "--yes"])]

    assert [told.status for told in tolds] == [0, 0, 0]
    for told in tolds:
        assert told.server.startswith("Server: PostgreSQL 1")
        assert told.server.endswith(f" at 127.0.0.1, port {site.server.port}, as postgres.")


def test_the_usual_socket_is_used_where_it_is_the_servers_own(site, tmp_path):
    """Its folder is that of libpq, its port that of the URL."""
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "password").chmod(0o600)
    app = app_at(site, tmp_path, f"127.0.0.1:{site.server.port}")
    told = app.psqa("create", PGHOST=str(site.server.folder), PGUSER="postgres")

    assert told.status == 0
    assert app.psqa("drop", "--yes", admin_url=site.admin.url).status == 0


@pytest.mark.parametrize("mode", ["prefer", "disable"])
def test_a_server_that_says_nothing_is_not_waited_for_without_end(
    site, tmp_path, monkeypatch, mode
):
    """It takes the connection, and never answers: neither to TLS nor to the name of the user."""
    monkeypatch.setenv("PGSSLMODE", mode)
    monkeypatch.setattr("pyramid_aalam_sqa.provisioning.postgresql.identity.PATIENCE", 0.2)
    (tmp_path / "password").write_text("secret\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        told = app_at(site, tmp_path, f"127.0.0.1:{port}", site.admin.url).psqa("create")

    assert told.status == 1
    assert "the administrator is on another server (" in told.err


def test_without_psycopg_it_is_told_what_to_install(monkeypatch):
    """An application on another driver may have no psycopg."""
    room = "pyramid_aalam_sqa.provisioning.postgresql"
    for name in (f"{room}.server", f"{room}.identity"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ProvisioningError, match="psqa needs psycopg for postgresql: pip install"):
        server_class(make_url("postgresql+psycopg2://h/d"))

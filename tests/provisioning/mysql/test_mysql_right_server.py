"""On MariaDB psqa changes the server of sqlalchemy.url, and no other one with the same names."""

import socket
import threading

import pytest

from pyramid_aalam_sqa.provisioning import Provisioning
from pyramid_aalam_sqa.provisioning.mysql.identity import address_of
from support.databases import Database
from support.mysql_accounts import PASSWORD, PLAIN, everything
from support.provisioned import Provisioned
from support.servers import MariaDB, free_port

COMMANDS = (
    ["create"],
    ["create", "--dry-run"],
    ["tables", "--base", "empty_base:Base"],
    ["check"],
    ["rotate"],
    ["drop", "--yes"],
    ["drop", "--dry-run"],
)


@pytest.fixture(scope="session")
def decoy():
    """Another server on this machine, with the same databases and accounts."""
    server = MariaDB()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture
def same_names(decoy, tmp_path, monkeypatch):
    """The decoy's database and account of the application, and its password in a file."""
    (tmp_path / "empty_base.py").write_text("from sqlalchemy import MetaData\nBase = MetaData()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LOGNAME", "root")
    monkeypatch.setenv("MYSQL_UNIX_PORT", f"{decoy.folder}/socket")
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    admin = Database(decoy.url("mysql"))
    admin.run(
        "CREATE DATABASE IF NOT EXISTS aalam_base",
        "CREATE TABLE IF NOT EXISTS aalam_base.note (id INT PRIMARY KEY)",
        "CREATE USER IF NOT EXISTS aalam_base IDENTIFIED BY 'old'",
    )
    return admin


def app_at(tmp_path, address, admin_url=None):
    settings = [PLAIN, f"sqa.password_file = {tmp_path}/password"]
    return Provisioned(
        tmp_path, f"mysql+pymysql://aalam_base@{address}", admin_url, settings=settings
    )


@pytest.mark.parametrize(
    "where", ["another machine", "another port", "nothing", "a fixed greeting"]
)
@pytest.mark.sweep(1)
def test_a_server_with_the_same_names_on_the_usual_socket_is_left_alone(
    server, same_names, tmp_path, where
):
    """The URL leads elsewhere, and without an administrator's URL psqa goes by it all the same."""
    with socket.create_server(("127.0.0.1", 0)) as fake:
        addresses = {
            "another machine": "db.example.invalid",
            "another port": f"127.0.0.1:{server.port}",
            "nothing": f"127.0.0.1:{free_port()}",
            "a fixed greeting": f"127.0.0.1:{fake.getsockname()[1]}",
        }
        threading.Thread(target=greet, args=[fake], daemon=True).start()
        before = everything(same_names)
        app = app_at(tmp_path, addresses[where])
        tolds = [app.psqa(*command) for command in COMMANDS]

    assert {told.status for told in tolds} == {1}
    assert {told.server for told in tolds} == {""}
    # Without an administrator psqa check looks as the application, which cannot log in.
    assert all("sqlalchemy.url" in told.err for told in tolds[:3] + tolds[4:])
    assert everything(same_names) == before
    assert same_names.rows("SHOW TABLES FROM aalam_base") == [("note",)]


def greet(listener):
    """Answer as a server that always gives the number 1, which is never a new connection's."""
    greeting = b"\x0a10.11.6-MariaDB\x00" + (1).to_bytes(4, "little") + b"12345678\x00" + bytes(40)
    try:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(len(greeting).to_bytes(3, "little") + b"\x00" + greeting)
                connection.recv(1)
    except OSError:
        pass  # The test is over.


@pytest.mark.deep
def test_an_administrators_url_of_another_server_changes_nothing(
    server, decoy, same_names, tmp_path
):
    """Neither there nor on the application's own server."""
    own = Database(server.url("mysql"))
    before = everything(same_names), everything(own)
    app = app_at(tmp_path, f"127.0.0.1:{server.port}", decoy.url())
    tolds = [app.psqa(*command) for command in COMMANDS]

    refusal = "the administrator is on another server: nothing was changed"
    assert [(told.status, refusal in told.err) for told in tolds] == [(1, True)] * len(COMMANDS)
    assert (everything(same_names), everything(own)) == before


@pytest.mark.parametrize("broken", ["refused", "not a database"])
def test_an_address_without_a_mariadb_is_told(server, tmp_path, broken):
    """It is neither taken for the administrator's server nor waited for without end."""
    (tmp_path / "password").write_text("x\n")
    with socket.create_server(("127.0.0.1", 0)) as fake:
        port = fake.getsockname()[1] if broken == "not a database" else free_port()

        def hang_up():
            connection, _ = fake.accept()
            connection.sendall(b"\x05\x00\x00\x00\xff\x10\x04no")
            connection.close()

        if broken == "not a database":
            threading.Thread(target=hang_up, daemon=True).start()
        told = app_at(tmp_path, f"127.0.0.1:{port}", server.url()).psqa("create")

    assert told.status == 1
    assert f"sqlalchemy.url: the server at 127.0.0.1:{port} does not answer" in told.err


def test_each_command_says_which_server_it_talks_to(created, server):
    """Its product, version and address, and as whom."""
    tolds = [created.psqa(*command) for command in (["create"], ["check"], ["drop", "--dry-run"])]

    for told in tolds:
        assert told.server.startswith("Server: MariaDB 1")
        assert told.server.endswith(f" at 127.0.0.1:{server.port}, as root@127.0.0.1.")


def test_the_usual_socket_is_used_where_it_is_the_servers_own(make, server, monkeypatch):
    """For a URL whose host is this machine and whose port is that socket's."""
    monkeypatch.setenv("LOGNAME", "root")
    app = make()
    app.admin_url = None
    told = app.psqa("create", MYSQL_UNIX_PORT=f"{server.folder}/socket")

    assert told.status == 0
    assert app.psqa("drop", "--yes", MYSQL_UNIX_PORT=f"{server.folder}/socket").status == 0


def test_a_socket_without_a_server_is_told(server, tmp_path):
    """Its file may be left behind; and a URL without a host means this machine."""
    (tmp_path / "password").write_text("x\n")
    (tmp_path / "socket").touch()
    url = f"mysql+pymysql://aalam_base@/?unix_socket={tmp_path}/socket"
    settings = [PLAIN, f"sqa.password_file = {tmp_path}/password"]
    told = Provisioned(tmp_path, url, server.url(), settings=settings).psqa("create")
    here = address_of(Provisioning({"sqlalchemy.url": "mysql+pymysql://u:p@/notes"}).tenant)

    assert told.status == 1
    assert f"the server at {tmp_path}/socket does not answer: Connection refused" in told.err
    assert str(here) == "localhost:3306"

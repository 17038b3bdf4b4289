"""On MariaDB: who the administrator is, and what psqa does not tell of it."""

import logging

import pytest
from sqlalchemy import create_engine

from pyramid_aalam_sqa import ProvisioningError
from pyramid_aalam_sqa.provisioning import Provisioning, Step
from pyramid_aalam_sqa.provisioning.mysql.server import MySQLServer
from support.mysql_accounts import PASSWORD, PLAIN, everything
from support.ordinary_user import STATUSES, home, whole_life


@pytest.mark.parametrize("user", ["root", "mariadb.sys"])
def test_an_administrator_keeps_its_grants(make, admin, user):
    """An ini file that names one as the application's account is refused."""
    before = everything(admin)
    told = make(user=user).psqa("create")

    assert told.status == 1
    assert told.err == (
        f"psqa: sqlalchemy.url: '{user}' is an administrator's account; "
        "give the application one of its own.\n"
    )
    assert everything(admin) == before


def test_the_one_who_provisions_is_an_administrator_too(make, admin, server):
    """Under whatever name: it would take its own grants away."""
    admin.run("CREATE USER chief IDENTIFIED BY 'c'", "GRANT ALL ON *.* TO chief WITH GRANT OPTION")
    app = make(user="chief")
    app.admin_url = server.url().replace("root", "chief:c")

    assert "'chief' is an administrator's account" in app.psqa("create").err


def test_an_ordinary_user_needs_no_sudo(server, admin):
    """Every command in a process of that user, who has the administrator's URL."""
    url = f"mysql+pymysql://users_own@127.0.0.1:{server.port}/users_own"
    with home() as folder:
        file = f"sqa.password_file = {folder}/password"
        told = whole_life(folder, url, file, PLAIN, admin_url=server.url())
        password = (folder / "password").read_text()

    assert [each.status for each in told] == STATUSES
    assert {each.err for each in told} == {""}
    assert told[3].out == "Nothing is wrong.\n"
    assert told[5].lines[0] == "Nothing to change."
    assert password != "first\n"
    assert admin.rows("SHOW DATABASES LIKE 'users_own'") == []


def test_two_administrators_wait_for_each_other(with_file):
    """The second one gives up after its wait."""
    created, _file = with_file
    with (
        Provisioning(created.settings, created.admin_url) as first,
        Provisioning(created.settings, created.admin_url, wait=0) as second,
    ):
        # Not yet at its end: it holds the lock.
        rotation = first.rotate()
        next(rotation)
        with pytest.raises(ProvisioningError) as refused:
            list(second.apply())
        list(rotation)
        assert list(first.apply()) == []

    assert str(refused.value) == "Another psqa is at work for aalam_base: try again later."


def test_nothing_is_changed_without_an_administrator(created):
    """What the application's own account may see is for looking at."""
    with Provisioning(created.settings, created.admin_url) as provisioning:
        server = MySQLServer(provisioning.tenant, None, wait=1)
    with pytest.raises(ProvisioningError, match="needs an administrator's account"):
        server.plan()


def test_no_password_is_printed_or_told_or_logged(make, server, tmp_path, caplog):
    """Neither the application's nor the owner's nor the administrator's, whatever is refused."""
    caplog.set_level(logging.DEBUG, "sqlalchemy")
    file = tmp_path / "owner"
    file.write_text("Tr0ub4dor-owner\n")
    app = make(password="Tr0ub4dor-app")
    outputs = []
    for url in (app.admin_url, app.admin_url.replace("root", "root:Tr0ub4dor-admin")):
        app.admin_url = url
        for command in ("create", "check", "rotate", "drop"):
            options = ("--owner-password-file", file) if command == "create" else ()
            outputs += [app.psqa(command, *options)]
            if command in ("create", "drop"):
                outputs += [app.psqa(command, "--dry-run", *options)]
    outputs += [app.psqa("show")]

    assert {told.status for told in outputs} == {0, 1, 2}
    assert "CREATE DATABASE `aalam_base`" in caplog.text
    assert "Tr0ub4dor" not in "".join(told.out + told.err for told in outputs) + caplog.text


@pytest.mark.parametrize("shown", ["ALTER USER a IDENTIFIED BY '***'", None])
def test_a_syntax_error_does_not_quote_the_statement(created, admin, shown):
    """A server of another version may not understand one, and repeats what it did not."""
    statement = "ALTER USER a IDENTIFIED WITH_A 'Tr0ub4dor'"
    with Provisioning(created.settings) as provisioning:
        server = MySQLServer(provisioning.tenant, create_engine(admin.url), wait=1)
    with pytest.raises(ProvisioningError, match="You have an error in your SQL syntax") as caught:
        list(server.run([Step(statement, shown or "")]))
    server.admin.dispose()

    assert str(caught.value).count("Tr0ub4dor") == (shown is None)


def test_an_administrator_that_is_refused_is_named_without_the_password(make, server):
    """One sentence with the address, exit status 1."""
    app = make()
    app.admin_url = server.url().replace("root", "nobody:wrong")
    told = app.psqa("create")

    assert told.status == 1
    assert told.err == (
        f"psqa: mysql+pymysql://nobody:***@127.0.0.1:{server.port}: "
        "Access denied for user 'nobody'@'127.0.0.1' (using password: YES) (1045)\n"
    )


def test_without_a_url_the_administrator_logs_in_on_the_applications_socket(
    make, server, monkeypatch
):
    """As the user of the system."""
    monkeypatch.setenv("LOGNAME", "root")
    app = make(query={"unix_socket": f"{server.folder}/socket"})
    app.admin_url = None

    assert app.psqa("create").status == 0
    assert app.psqa("check").lines == ["Nothing is wrong."]


def test_without_a_socket_the_error_names_the_places_and_the_way_out(make, monkeypatch, tmp_path):
    """The socket of the environment, else the usual ones, of which none may be there."""
    app = make()
    app.admin_url = None
    told = app.psqa("create", MYSQL_UNIX_PORT=f"{tmp_path}/nothing")
    monkeypatch.setattr(MySQLServer, "SOCKETS", (f"{tmp_path}/no", f"{tmp_path}/nor"))
    usual = app.psqa("create", MYSQL_UNIX_PORT="")

    assert (told.status, usual.status) == (1, 1)
    assert told.err == (
        f"psqa: There is no socket of a server here ({tmp_path}/nothing): "
        "write the URL of an administrator into a file for --admin-url-file, or into "
        "SQA_ADMIN_URL.\n"
    )
    assert f"({tmp_path}/no, {tmp_path}/nor)" in usual.err


def test_an_error_while_looking_is_one_sentence(created, admin, server):
    """An account that may not read the accounts is no administrator."""
    admin.run("CREATE USER clerk IDENTIFIED BY 'c'")
    created.admin_url = server.url().replace("root", "clerk:c")
    blind = created.psqa("create")
    admin.run("GRANT PROCESS ON *.* TO clerk")
    told = created.psqa("create")

    assert blind.err == (
        "psqa: The administrator's account lacks PROCESS, and cannot see the server's "
        "connections.\n"
    )
    assert told.status == 1
    assert told.err.startswith("psqa: mysql+pymysql://clerk:***@127.0.0.1:")
    assert "denied" in told.err


def test_the_python_interface_tells_the_same(created, admin):
    """Steps as text have no password, and errors are of one class."""
    admin.run("DROP USER aalam_base@'%'")
    with Provisioning(created.settings, created.admin_url) as provisioning:
        steps = [str(step) for step in provisioning.plan()]
        assert [repr(PASSWORD) in repr(step) for step in provisioning.plan()] == [False, False]
        with pytest.raises(ProvisioningError, match="There is no account"):
            list(provisioning.rotate())
        assert [str(step) for step in provisioning.apply()] == steps
        assert provisioning.plan() == []

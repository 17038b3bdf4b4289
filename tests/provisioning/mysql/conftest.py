"""A MariaDB on which tests grant to everybody, and the applications that psqa makes there."""

import pytest
import trustme
from sqlalchemy.engine import make_url

from support.databases import MISSING, Database
from support.mysql_accounts import PASSWORD, PLAIN
from support.provisioned import Provisioned
from support.servers import MariaDB, find


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server for these tests alone: they grant to everybody, and look at all accounts."""
    if find("mariadbd") is None:
        pytest.skip(MISSING["mariadbd"])
    folder = tmp_path_factory.mktemp("tls")
    certificate = trustme.CA().issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    server = MariaDB(f"--ssl-key={folder}/key.pem", f"--ssl-cert={folder}/cert.pem")
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture
def admin(server):
    return Database(server.url("mysql"))


@pytest.fixture
def make(server, tmp_path, admin):
    """Make applications; whatever is on the server afterwards is removed."""

    def make(name="aalam_base", user=None, password=PASSWORD, settings=(PLAIN,), **url):
        user = name if user is None else user
        full = make_url(server.url()).set(username=user, password=password, **url)
        shown = full.render_as_string(hide_password=False)
        return Provisioned(tmp_path, shown, server.url(), name, settings)

    yield make
    ours = {"information_schema", "mysql", "performance_schema", "sys"}
    # By the driver alone: names of tests have colons and percent signs.
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW DATABASES")
        for name in {row[0] for row in cursor.fetchall()} - ours:
            cursor.execute("DROP DATABASE `{}`".format(name.replace("`", "``")))
        cursor.execute("SELECT User, Host, is_role FROM mysql.user")
        for user, host, is_role in cursor.fetchall():
            if user in {"root", "mariadb.sys", "PUBLIC"}:
                continue
            if is_role == "Y":
                cursor.execute("DROP ROLE %s", (user,))
            else:
                cursor.execute("DROP USER %s@%s", (user, host))
        cursor.execute("DELETE FROM mysql.db WHERE User = 'PUBLIC'")
        cursor.execute("FLUSH PRIVILEGES")


@pytest.fixture
def created(make):
    """An application whose database and accounts are there."""
    app = make()
    told = app.psqa("create")
    assert (told.status, told.err) == (0, "")
    return app


@pytest.fixture
def with_file(make, tmp_path):
    """The same with its password in a file."""
    file = tmp_path / "password"
    file.write_text("first\n")
    file.chmod(0o600)
    app = make(password=None, settings=[f"sqa.password_file = {file}", PLAIN])
    assert app.psqa("create").status == 0
    return app, file

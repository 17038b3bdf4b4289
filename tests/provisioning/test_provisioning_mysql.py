"""On MariaDB an application gets a database, two accounts, and nothing of anybody else's."""

import logging
import re
import threading
from dataclasses import replace
from pathlib import Path
from queue import Queue

import pymysql
import pytest
import trustme
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from pyramid_aalam_sqa import ProvisioningError
from pyramid_aalam_sqa.provisioning.mysql.accounts import Account, is_wrong, plain, read_grants
from pyramid_aalam_sqa.provisioning.mysql.server import MySQLServer
from pyramid_aalam_sqa.provisioning.provisioning import Provisioning
from pyramid_aalam_sqa.provisioning.server import Step
from pyramid_aalam_sqa.provisioning.servers import server_for
from support.databases import MISSING, Database
from support.provisioned import Provisioned, ask
from support.servers import MariaDB, find

# To encrypt on loopback takes longer than all else.
PLAIN = "sqa.mysql.tls = off"
PASSWORD = "it's 100% \\secret\"`ä"
HOSTILE = ["o'br\"i`e%s\\", "x' OR '1'='1", "a\nb :c ünï"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of this module's own: the tests grant to everybody, and look at all accounts."""
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
    app = make(password=None, settings=[f"sqa.password_file = {file}", PLAIN])
    assert app.psqa("create").status == 0
    return app, file


def grants(admin, account="aalam_base@'%'"):
    return {row[0] for row in admin.rows(f"SHOW GRANTS FOR {account}") if "USAGE" not in row[0]}


def as_account(server, user, password, database=None):
    """The account as anybody has it who knows the password, without the package."""
    return pymysql.connect(
        host="127.0.0.1",
        port=server.port,
        user=user,
        password=password.encode(),
        database=database,
        autocommit=True,
        ssl_disabled=True,
    )


def denied(connection, statement):
    """The number of the error that *statement* is refused with; 0 when it is not."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    except pymysql.err.MySQLError as error:
        return error.args[0]
    return 0


def everything(admin):
    """All that create could change."""
    users = "SELECT User, Host FROM mysql.user WHERE is_role = 'N' AND User LIKE 'aalam%'"
    with create_engine(admin.url, poolclass=NullPool).connect() as connection:
        shown = [
            connection.exec_driver_sql("SHOW CREATE USER %s@%s", account).scalar()
            for account in admin.rows(f"{users} ORDER BY 1, 2")
        ]
    schemata = "SELECT * FROM information_schema.SCHEMATA ORDER BY SCHEMA_NAME"
    return shown, admin.rows("SELECT * FROM mysql.db ORDER BY 1, 2, 3"), admin.rows(schemata)


def test_two_applications_see_nothing_of_each_other(make, server, admin):
    """Neither reads, lists, writes or creates anything in a database that is not its own.

    Nor in one whose name is like its own where an underscore is any character.
    """
    admin.run("CREATE DATABASE aalamXbase", "CREATE TABLE aalamXbase.secret (id INT PRIMARY KEY)")
    base, shop = make("aalam_base"), make("other_shop", password="shop's")
    assert [app.psqa("create").status for app in (base, shop)] == [0, 0]
    for name in ("aalam_base", "other_shop"):
        admin.run(f"CREATE TABLE {name}.secret (id INT PRIMARY KEY)")
    for name, password in (("aalam_base", PASSWORD), ("other_shop", "shop's")):
        with as_account(server, name, password, name) as connection:
            assert denied(connection, "INSERT INTO secret VALUES (1)") == 0
            for other in {"aalam_base", "other_shop", "aalamXbase", "mysql"} - {name}:
                for statement in (
                    f"USE `{other}`",
                    f"SELECT * FROM `{other}`.secret",
                    f"INSERT INTO `{other}`.secret VALUES (2)",
                    f"UPDATE `{other}`.secret SET id = 3",
                    f"DELETE FROM `{other}`.secret",
                    f"CREATE TABLE `{other}`.mine (id INT PRIMARY KEY)",
                    f"CREATE TEMPORARY TABLE `{other}`.mine (id INT PRIMARY KEY)",
                    f"DROP TABLE `{other}`.secret",
                    f"DROP DATABASE `{other}`",
                    f"SHOW TABLES FROM `{other}`",
                    f"CREATE OR REPLACE VIEW `{name}`.v AS SELECT * FROM `{other}`.secret",
                ):
                    assert denied(connection, statement) in {1044, 1142}, statement
            assert denied(connection, "CREATE DATABASE aalamYbase") == 1044
            assert denied(connection, "CREATE TABLE mine (id INT PRIMARY KEY)") == 1142
            assert denied(connection, "DROP TABLE secret") == 1142
            assert denied(connection, "SELECT 1 INTO OUTFILE '/tmp/sqa-never'") in {1045, 1227}
            with connection.cursor() as cursor:
                cursor.execute("SHOW DATABASES")
                seen = {row[0] for row in cursor.fetchall()}
                cursor.execute(
                    "SELECT DISTINCT TABLE_SCHEMA FROM information_schema.TABLES "
                    "WHERE TABLE_SCHEMA NOT IN ('information_schema', 'performance_schema')"
                )
                listed = {row[0] for row in cursor.fetchall()}

        assert (seen, listed) == ({"information_schema", name}, {name})
    assert admin.rows("SELECT id FROM aalamXbase.secret") == []
    assert admin.rows("SELECT id FROM aalam_base.secret") == [(1,)]


def test_create_makes_the_database_and_both_accounts(created, admin):
    """Escaped grants, utf8mb4; the application may not change its tables, their owner may."""
    rows = "SELECT, INSERT, UPDATE, DELETE, CREATE TEMPORARY TABLES, EXECUTE ON"

    assert grants(admin) == {f"GRANT {rows} `aalam\\_base`.* TO `aalam_base`@`%`"}
    [owner] = grants(admin, "aalam_base__own@'%'")
    assert "DROP" in owner
    assert "GRANT OPTION" not in owner
    assert admin.rows(
        "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME "
        "FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'aalam_base'"
    ) == [("utf8mb4", "utf8mb4_unicode_ci")]


def test_create_twice_changes_nothing(created, admin):
    """The second run sends no statement that changes anything, and proves it all again."""
    admin.run("CREATE DATABASE neighbour")
    before = everything(admin)
    admin.run("SET GLOBAL log_output = 'TABLE'", "SET GLOBAL general_log = 1")
    try:
        told = created.psqa("create")
    finally:
        admin.run("SET GLOBAL general_log = 0")
    sent = [str(row[0]) for row in admin.rows("SELECT argument FROM mysql.general_log")]
    admin.run("TRUNCATE mysql.general_log")

    assert told.status == 0
    assert told.lines == [
        "Nothing to change.",
        "Proved: aalam_base logs in, reads and writes in aalam_base.",
        "Proved: aalam_base is denied neighbour, and sees no other database.",
    ]
    assert everything(admin) == before
    changing = ("CREATE ", "ALTER ", "GRANT ", "REVOKE ", "DROP ")
    mine = ("CREATE TEMPORARY TABLE sqa_proof", "DROP TEMPORARY TABLE sqa_proof")
    assert [
        statement
        for statement in sent
        if statement.startswith(changing) and not statement.startswith(mine)
    ] == []


# What somebody did, and how many findings it makes.
DRIFTS = {
    "too much": (
        [
            "GRANT SELECT, FILE ON *.* TO {u} WITH GRANT OPTION",
            "GRANT ALL ON `aalam\\_base`.* TO {u} WITH GRANT OPTION",
            "GRANT SELECT ON `aalam_base`.* TO {u}",
            "GRANT SELECT ON `%`.* TO {u}",
            "GRANT INSERT ON aalamXbase.* TO {u}",
            "GRANT INSERT ON aalamXbase.secret TO {u}",
            "GRANT SELECT (id), UPDATE (id) ON aalamXbase.spare TO {u}",
            "CREATE OR REPLACE PROCEDURE aalamXbase.p() SELECT 1",
            "GRANT EXECUTE ON PROCEDURE aalamXbase.p TO {u}",
            "GRANT USAGE ON other.* TO {u} WITH GRANT OPTION",
            "CREATE ROLE boss",
            "GRANT SELECT ON *.* TO boss",
            "GRANT boss TO {u}",
            "SET DEFAULT ROLE boss FOR {u}",
            "GRANT ALL ON *.* TO 'aalam_base__own'@'%'",
        ],
        11,
    ),
    "some of its own": (["GRANT DROP, CREATE ON `aalam\\_base`.* TO {u}"], 1),
    "everything": (["GRANT ALL ON *.* TO {u} WITH GRANT OPTION"], 1),
    "too little": (["REVOKE EXECUTE ON `aalam\\_base`.* FROM {u}"], 1),
    "an unescaped grant alone": (
        [
            "REVOKE ALL PRIVILEGES, GRANT OPTION FROM {u}",
            "GRANT ALL ON `aalam_base`.* TO {u}",
        ],
        2,
    ),
    "another password": (["ALTER USER {u} IDENTIFIED BY 'other'"], 1),
    "another plugin": (["ALTER USER {u} IDENTIFIED VIA unix_socket"], 1),
    "a lock": (["ALTER USER {u} ACCOUNT LOCK"], 1),
    "latin1": (["ALTER DATABASE aalam_base CHARACTER SET latin1"], 1),
    "nothing left": (["DROP DATABASE aalam_base", "DROP USER {u}"], 2),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_create_repairs_what_somebody_changed_and_check_had_said_so(created, admin, drift):
    """Each change is a finding. Afterwards all is as it was; nothing was missing in between."""
    admin.run("CREATE DATABASE aalamXbase", "CREATE DATABASE other")
    for table in ("secret", "spare"):
        admin.run(f"CREATE TABLE aalamXbase.{table} (id INT PRIMARY KEY)")
    before = everything(admin)
    statements, count = DRIFTS[drift]
    admin.run(*(statement.format(u="aalam_base@'%'") for statement in statements))
    checked, planned = created.psqa("check"), created.psqa("create", "--dry-run")
    repaired = created.psqa("create")

    assert (checked.status, planned.status, repaired.status) == (1, 1, 0)
    assert [line.endswith(": psqa create repairs it.") for line in checked.lines] == [True] * count
    done = [line for line in repaired.lines if not line.startswith("Proved")]
    assert done == planned.lines
    revokes = [line.startswith("REVOKE") for line in done if "base'@" in line]
    assert revokes == sorted(revokes)
    assert everything(admin) == before


def test_another_host_of_the_account_is_made_like_the_first(created, admin):
    """It would be the one that logs in from there."""
    admin.run("CREATE USER aalam_base@localhost", "GRANT ALL ON *.* TO aalam_base@localhost")
    assert created.psqa("check").status == 1
    assert created.psqa("create").status == 0

    [own], [other] = grants(admin), grants(admin, "aalam_base@localhost")
    assert other == own.replace("%", "localhost")
    assert created.psqa("create").lines[0] == "Nothing to change."


def test_create_keeps_an_account_to_the_hosts_that_it_was_given(make, server, admin):
    """Where somebody made it for one host, it is not opened for every other."""
    admin.run("CREATE USER aalam_base@'127.0.0.1'")
    app = make()
    assert app.psqa("create").status == 0

    hosts = admin.rows("SELECT Host FROM mysql.user WHERE User = 'aalam_base'")
    assert hosts == [("127.0.0.1",)]


def test_where_the_digest_is_the_servers_secret_a_login_tells(created, admin, server):
    """An account that may log in in two ways keeps both; with a wrong password it has one."""
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "ALTER USER aalam_base@'%%' IDENTIFIED VIA unix_socket OR "
            "mysql_native_password USING PASSWORD(%s)",
            (PASSWORD,),
        )
    kept = created.psqa("create")
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "ALTER USER aalam_base@'%%' IDENTIFIED VIA unix_socket OR "
            "mysql_native_password USING PASSWORD(%s)",
            ("other",),
        )
    changed = created.psqa("create")

    assert kept.lines[0] == "Nothing to change."
    assert changed.lines[0] == "ALTER USER 'aalam_base'@'%' IDENTIFIED BY '***';"


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_name_and_no_password_is_more_than_text(make, server, admin, hostile):
    """User and password are written by the driver, so that they end no string of a statement."""
    app = make(user=hostile, password=hostile)
    told = app.psqa("create")
    assert (told.status, told.err) == (0, "")
    with as_account(server, hostile, hostile, "aalam_base") as connection:
        assert denied(connection, "SELECT 1") == 0
    assert app.psqa("create").lines[0] == "Nothing to change."
    assert app.psqa("drop", "--yes").status == 0

    users = {row[0] for row in admin.rows("SELECT User FROM mysql.user")}
    assert users <= {"root", "mariadb.sys", "PUBLIC"}


@pytest.mark.parametrize("name", ["x`; DROP DATABASE mysql; --", "100%s :name it's"])
def test_a_neighbour_may_have_any_name(make, admin, server, name):
    """The application is proved to be denied it all the same."""
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE `{}`".format(name.replace("`", "``")))
    told = make().psqa("create")

    assert told.status == 0
    assert f"aalam_base is denied {name}" in " ".join(told.out.split())


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


def test_whoever_provisions_is_an_administrator_too(make, admin, server):
    """Under whatever name: it would take its own grants away."""
    admin.run("CREATE USER chief IDENTIFIED BY 'c'", "GRANT ALL ON *.* TO chief WITH GRANT OPTION")
    app = make(user="chief")
    app.admin_url = server.url().replace("root", "chief:c")

    assert "'chief' is an administrator's account" in app.psqa("create").err


def test_create_fails_when_the_proof_does(created, admin):
    """What everybody may do is not the application's, and yet opens its neighbour."""
    admin.run("CREATE DATABASE neighbour", "GRANT SELECT ON neighbour.* TO PUBLIC")
    told = created.psqa("create")
    found = created.psqa("check")
    admin.run("REVOKE SELECT ON neighbour.* FROM PUBLIC")

    assert told.status == 1
    assert told.err == (
        "psqa: The account 'aalam_base' can enter neighbour: psqa check says why.\n"
    )
    [finding] = found.lines
    assert finding == (
        "- Every account may use the databases called `neighbour`: REVOKE ALL PRIVILEGES ON "
        "`neighbour`.* FROM PUBLIC, or delete the row from mysql.db."
    )


def test_create_fails_when_the_application_cannot_log_in_from_here(make, admin):
    """Its account is for another host, which may be right; nothing was proved, and psqa says so."""
    admin.run("CREATE USER aalam_base@'10.1.2.3'")
    told = make().psqa("create")

    assert told.status == 1
    assert "cannot use its database: Access denied" in told.err


def test_check_finds_what_is_wrong_with_tables_and_accounts(created, admin, server):
    """Each kind of finding once, with what to do about it."""
    admin.run(
        "CREATE TABLE aalam_base.old (id INT PRIMARY KEY) CHARACTER SET latin1",
        "CREATE TABLE aalam_base.flat (id INT PRIMARY KEY) ENGINE MyISAM",
        "CREATE TABLE aalam_base.loose (id INT)",
        "CREATE USER ''@localhost",
        "GRANT SELECT ON `test\\_%`.* TO PUBLIC",
        "CREATE USER thief",
        "GRANT SELECT ON `aalam%`.* TO thief",
        "CREATE USER picker",
        "GRANT SELECT ON aalam_base.old TO picker",
        "CREATE USER greedy",
        "GRANT SELECT ON `greedy\\_own`.* TO greedy",
        "GRANT SELECT ON *.* TO greedy",
        "CREATE USER backup",
        "GRANT SELECT ON *.* TO backup",
        "SET GLOBAL wait_timeout = 600",
    )
    try:
        told = created.psqa("check")
    finally:
        admin.run("SET GLOBAL wait_timeout = 28800")

    assert told.status == 1
    problems = [line.removeprefix("- ").partition(": ")[0] for line in told.lines]
    assert problems == [
        "Anybody on 'localhost' may log in, and is taken for nobody",
        "Every account may use the databases called `test\\_%`",
        "'greedy'@'%' can use aalam_base through its grant on *.*",
        "'picker'@'%' can use aalam_base through its grant on tables of aalam_base",
        "'thief'@'%' can use aalam_base through its grant on `aalam%`.*",
        "These tables do not keep every character (old)",
        "These tables keep what a rollback should undo (flat)",
        "These tables have no primary key (loose)",
        "The server closes connections after 600 s, and sqlalchemy.pool_recycle is 1800",
    ]


def test_check_finds_a_pool_that_keeps_connections_for_ever(make):
    """The setting -1 is no number of seconds."""
    app = make(settings=["sqlalchemy.pool_recycle = -1"])
    app.psqa("create")

    assert "sqlalchemy.pool_recycle is -1" in " ".join(app.psqa("check").out.split())


@pytest.mark.parametrize(
    ("host", "settings", "found"),
    [
        ("127.0.0.1", [PLAIN], False),
        ("127.1", [], False),
        ("127.1", [PLAIN], True),
    ],
)
def test_check_finds_a_connection_that_leaves_the_machine_in_clear(make, host, settings, found):
    """The address 127.1 is one that nobody knows to be this machine."""
    app = make(host=host, settings=settings)
    app.psqa("create")

    assert ("The connection to 127.1 is not encrypted" in app.psqa("check").out) == found


def test_without_an_administrator_check_tells_what_the_application_sees(
    created, admin, tmp_path, monkeypatch
):
    """And says that it is not all; an administrator who was named and is refused is an error."""
    monkeypatch.setattr(
        "pyramid_aalam_sqa.provisioning.mysql.server.SOCKETS", (f"{tmp_path}/no-socket",)
    )
    before = created.psqa("check", admin_url=None)
    admin.run("GRANT SELECT ON mysql.* TO aalam_base", "CREATE TABLE aalam_base.loose (id INT)")
    after = created.psqa("check", admin_url=None)
    refused = created.psqa("check", admin_url=created.admin_url.replace("root", "nobody"))

    admin.run("ALTER USER aalam_base IDENTIFIED BY 'other'")
    nobody = created.psqa("check", admin_url=None)

    first = "No administrator's account: this is what the application's own can see."
    assert (before.status, after.status, refused.status) == (0, 1, 1)
    assert before.lines == [first, "Nothing is wrong."]
    assert after.lines == [
        first,
        "- The account 'aalam_base' has SELECT on `mysql`.*: run psqa create.",
        "- These tables have no primary key (loose): add one.",
    ]
    assert "nobody" in refused.err
    assert nobody.status == 1
    assert nobody.err.startswith("psqa: Access denied for user 'aalam_base'@")


def test_drop_with_a_connected_application_is_a_503_for_its_next_request(created, admin):
    """Nothing hangs: its connection is ended, and a new one is refused."""
    with created.served(ask) as client:
        assert client.get("/ask").text == "42"
        told = created.psqa("drop", "--yes")
        client.get("/ask", status=503)
        client.get("/ask", status=503)

    assert told.status == 0
    kinds = [line.split()[0] for line in told.lines]
    assert kinds == ["ALTER", "ALTER", "KILL", "DROP", "DROP", "DROP"]
    assert admin.rows("SHOW DATABASES LIKE 'aalam%'") == []
    assert admin.rows("SELECT User FROM mysql.user WHERE User LIKE 'aalam%'") == []
    assert created.psqa("drop", "--yes").lines == ["Nothing to change."]


def test_drop_ends_a_statement_that_is_running(created, admin, server):
    """It does not wait until that has ended by itself."""
    started, ended = threading.Event(), []

    def run():
        with as_account(server, "aalam_base", PASSWORD, "aalam_base") as connection:
            started.set()
            ended.append(denied(connection, "SELECT SLEEP(60)"))

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)
    sleeping = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP%'"
    while not admin.scalar(sleeping):
        pass
    told = created.psqa("drop", "--yes")
    thread.join(10)

    assert told.status == 0
    assert ended in ([2013], [1317], [1927])


def test_a_crowd_that_keeps_coming_is_locked_out_before_it_is_ended(created, server):
    """No connection is there when the database goes."""
    stop, refused = threading.Event(), set()

    def come():
        while not stop.is_set():
            try:
                with as_account(server, "aalam_base", PASSWORD, "aalam_base") as connection:
                    denied(connection, "SELECT 1")
            except pymysql.err.MySQLError as error:
                refused.add(error.args[0])
            except OSError:
                pass  # Ended while it was saying goodbye.

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    told = created.psqa("drop", "--yes")
    stop.set()
    for thread in threads:
        thread.join(10)

    assert told.status == 0


def test_rotation_fails_no_request(with_file, admin, server):
    """Ten new passwords, while four threads ask for a new connection with each request."""
    app, file = with_file
    stop, answers = threading.Event(), Queue()
    seen = {file.read_text()}

    def visit(client):
        while not stop.is_set():
            answers.put(client.get("/ask", expect_errors=True).text)

    with app.served(ask, **{"sqa.reset_connection": "true"}) as client:
        threads = [threading.Thread(target=visit, args=(client,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            assert app.psqa("rotate").status == 0
            seen.add(file.read_text())
            # Two more of each thread, on average: with this password or the one before.
            assert {answers.get(timeout=30) for _ in range(8)} == {"42"}
        stop.set()
        for thread in threads:
            thread.join(30)

    assert set(answers.queue) <= {"42"}
    assert len(seen) == 11
    assert not Path(f"{file}.next").exists()
    with pytest.raises(pymysql.err.OperationalError, match="1045"):
        as_account(server, "aalam_base", "first")


def test_a_rotation_that_crashed_is_finished_by_the_next(with_file, server, admin):
    """After the server had learnt the new one; the application had gone on meanwhile."""
    app, file = with_file
    Path(f"{file}.next").write_text("second\n")
    admin.run("ALTER USER aalam_base@'%' IDENTIFIED BY 'second'")
    with app.served(ask) as client:
        assert client.get("/ask").text == "42"
    with Provisioning(app.settings, app.admin_url) as provisioning:
        steps = provisioning.rotate()
        assert str(next(steps)) == "ALTER USER 'aalam_base'@'%' IDENTIFIED BY '***'"
        assert file.read_text() == "second\n"
        assert list(steps) == []

    assert file.read_text() not in {"first\n", "second\n"}
    assert not Path(f"{file}.next").exists()
    as_account(server, "aalam_base", file.read_text().strip()).close()


def test_a_rotation_that_crashed_before_the_server_knew_is_begun_again(with_file, server):
    """What stands beside the file was never a password."""
    app, file = with_file
    Path(f"{file}.next").write_text("never\n")
    assert app.psqa("rotate").status == 0

    assert file.read_text() not in {"first\n", "never\n"}
    as_account(server, "aalam_base", file.read_text().strip()).close()


def test_a_rotation_that_the_server_refuses_keeps_the_password(with_file, server, admin):
    """The application goes on with the one it has."""
    app, file = with_file
    admin.run("CREATE USER clerk IDENTIFIED BY 'c'", "GRANT SELECT ON mysql.* TO clerk")
    app.admin_url = server.url().replace("root", "clerk:c")
    told = app.psqa("rotate")

    assert told.status == 1
    assert told.err.startswith("psqa: ALTER USER 'aalam_base'@'%' IDENTIFIED BY '***': Access")
    assert file.read_text() == "first\n"
    as_account(server, "aalam_base", "first").close()


def test_the_new_password_is_read_by_whoever_read_the_old_one(with_file):
    """Its mode without that of others, its owner, and what a link leads to."""
    app, file = with_file
    real = file.with_name("real")
    file.rename(real)
    file.symlink_to(real)
    real.chmod(0o644)
    assert app.psqa("rotate").status == 0

    assert file.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert app.psqa("check").status == 0


def test_a_password_that_cannot_be_written_changes_nothing(with_file, server):
    """Something stands in its place."""
    app, file = with_file
    Path(f"{file}.next").mkdir()
    told = app.psqa("rotate")

    assert told.status == 1
    assert told.err.startswith(f"psqa: The new password cannot be written to {file}.next: ")
    as_account(server, "aalam_base", "first").close()


def test_rotation_begins_with_a_password_that_logs_in(with_file, admin):
    """Else nobody could tell afterwards which one does."""
    app, file = with_file
    admin.run("ALTER USER aalam_base IDENTIFIED BY 'other'")
    Path(f"{file}.next").write_text("")
    told = app.psqa("rotate")

    assert told.status == 1
    assert told.err == (
        f"psqa: 'aalam_base' does not log in with the password in {file}: run psqa create.\n"
    )
    assert file.read_text() == "first\n"


def test_a_dry_run_of_rotation_changes_nothing(with_file):
    """It prints the statement without the password."""
    app, file = with_file
    told = app.psqa("rotate", "--dry-run")

    assert (told.status, told.out) == (1, "ALTER USER 'aalam_base'@'%' IDENTIFIED BY '***';\n")
    assert file.read_text() == "first\n"


def test_rotation_needs_a_file(created):
    """Where the application can find the new password."""
    told = created.psqa("rotate")

    assert told.status == 2
    assert told.err.startswith("psqa: sqa.password_file is not set: ")


def test_rotation_needs_an_account(with_file, admin):
    """And says how to get one."""
    app, _file = with_file
    admin.run("DROP USER aalam_base@'%'")

    assert app.psqa("rotate").err == (
        "psqa: There is no account 'aalam_base': run psqa create first.\n"
    )


def test_two_administrators_wait_for_each_other(with_file, monkeypatch):
    """And the second gives up some time."""
    created, _file = with_file
    monkeypatch.setattr("pyramid_aalam_sqa.provisioning.mysql.server.LOCK_WAIT", 0)
    with Provisioning(created.settings, created.admin_url) as provisioning:
        # Not yet at its end: it holds the lock.
        rotation = provisioning.rotate()
        next(rotation)
        told = created.psqa("create")
        list(rotation)
        assert list(provisioning.apply()) == []

    assert told.status == 1
    assert told.err == "psqa: Another psqa is at work for aalam_base: try again later.\n"


def test_connections_that_do_not_end_are_told(created, server, monkeypatch):
    """Rather than to wait for ever."""
    monkeypatch.setattr("pyramid_aalam_sqa.provisioning.mysql.server.KILL_WAIT", -1)
    with as_account(server, "aalam_base", PASSWORD):
        told = created.psqa("drop", "--yes")

    assert told.status == 1
    assert told.err == "psqa: The connections of 'aalam_base' do not end: try again.\n"


def test_an_administrator_who_may_end_no_connection_is_told(created, server, admin):
    """The accounts are locked by then, and the next drop goes on."""
    admin.run(
        "CREATE USER clerk IDENTIFIED BY 'c'",
        "GRANT CREATE USER, PROCESS ON *.* TO clerk",
        "GRANT SELECT ON mysql.* TO clerk",
        "GRANT ALL ON aalam_base.* TO clerk",
    )
    clerk = server.url().replace("root", "clerk:c")
    with as_account(server, "aalam_base", PASSWORD):
        told = created.psqa("drop", "--yes", admin_url=clerk)
        assert created.psqa("drop", "--yes").status == 0

    assert told.status == 1
    assert re.match(r"psqa: KILL CONNECTION \d+: You are not owner of thread", told.err)


def test_a_connection_that_has_gone_by_itself_is_no_error(created, monkeypatch):
    """It was there when it was looked for."""
    kills = iter([[plain("KILL CONNECTION 999999")], []])
    monkeypatch.setattr(MySQLServer, "_kills", lambda *_: next(kills))

    assert created.psqa("drop", "--yes").status == 0


def test_a_login_tells_what_the_digest_does_not(created):
    """Where the server keeps it to itself, as for every plugin but one."""
    with Provisioning(created.settings, created.admin_url) as provisioning:
        app = provisioning.application
        account = Account("aalam_base", "%", "", "another_plugin", "", locked=False)
        assert not is_wrong(app, account, PASSWORD)
        assert is_wrong(app, account, "other")
        nowhere = replace(app, url=app.url.set(port=1))
        with pytest.raises(OperationalError, match="2003"):
            is_wrong(nowhere, account, PASSWORD)


def test_nothing_is_changed_without_an_administrator(created):
    """What the application's own account may see is for looking at."""
    with Provisioning(created.settings, created.admin_url) as provisioning:
        server = server_for(provisioning.application, None)
    with pytest.raises(ProvisioningError, match="needs an administrator's account"):
        server.differences()


def test_tables_are_created_by_their_owner(created, server, admin, tmp_path, monkeypatch):
    """With a password for that run alone, and none that anybody knows afterwards."""
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
        server = server_for(provisioning.application, create_engine(admin.url, poolclass=NullPool))

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
        server.application.login("aalam_base__own", passwords[-1]) as engine,
        pytest.raises(OperationalError, match="1045"),
    ):
        engine.connect()

    assert len(set(passwords)) == 2


def test_the_owner_may_have_a_password_that_somebody_knows(make, server, tmp_path, monkeypatch):
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


def test_a_long_name_has_an_owner_that_every_server_takes(make, admin):
    """MySQL allows 32 characters: the beginning, and a hash that no other name has."""
    name = "aalam_" + "a" * 57
    app = make(name, user="short")
    assert app.psqa("create").status == 0

    [(owner,)] = admin.rows("SELECT User FROM mysql.user WHERE User LIKE 'aalam%'")
    assert len(owner) == 32
    assert owner.startswith("aalam_aaaaaaaaaaaaaaaaa")
    assert app.psqa("create").lines[0] == "Nothing to change."
    assert app.psqa("drop", "--yes").status == 0


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
        server = server_for(provisioning.application, create_engine(admin.url))
    with pytest.raises(ProvisioningError, match="You have an error in your SQL syntax") as caught:
        list(server.run([Step(statement, shown or statement)]))
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
    monkeypatch.setattr("pyramid_aalam_sqa.provisioning.mysql.server.getuser", lambda: "root")
    app = make(query={"unix_socket": f"{server.folder}/socket"})
    app.admin_url = None

    assert app.psqa("create").status == 0
    assert app.psqa("check").lines == ["Nothing is wrong."]


@pytest.mark.parametrize("there", [True, False])
def test_else_on_the_usual_socket(make, server, monkeypatch, tmp_path, there):
    """The first of the usual places that is there; when none is, the error names one."""
    monkeypatch.setattr("pyramid_aalam_sqa.provisioning.mysql.server.getuser", lambda: "root")
    last = f"{server.folder}/socket" if there else f"{tmp_path}/nothing"
    monkeypatch.setattr(
        "pyramid_aalam_sqa.provisioning.mysql.server.SOCKETS", (f"{tmp_path}/no-socket", last)
    )
    app = make()
    app.admin_url = None
    told = app.psqa("create")

    assert told.status == (0 if there else 1)
    assert there or told.err == (
        f"psqa: There is no socket of a server here ({tmp_path}/no-socket, {tmp_path}/nothing): "
        "write the URL of an administrator into a file for --admin-url-file, or into "
        "SQA_ADMIN_URL.\n"
    )


def test_the_lines_of_other_versions_are_read():
    """As MySQL 8 and MariaDB print them; what is no grant to the account is left out."""
    found = read_grants(
        [
            "GRANT USAGE ON *.* TO `a`@`%`",
            "GRANT SELECT ON `x``. TO`.* TO `a`@`%` WITH GRANT OPTION",
            "GRANT BACKUP_ADMIN,XA_RECOVER_ADMIN ON *.* TO `a`@`%` WITH GRANT OPTION",
            "GRANT PROXY ON 'b'@'%' TO 'a'@'%' WITH GRANT OPTION",
            "GRANT EXECUTE ON PROCEDURE `x`.`p` TO `a`@`%`",
            "GRANT `boss`@`%`,`chief`@`%` TO `a`@`%`",
            "GRANT SELECT ON *.* TO `boss`",
            "SET DEFAULT ROLE `boss` FOR `a`@`%`",
            "REVOKE SELECT ON `mysql`.* FROM `a`@`%`",
        ]
    )

    assert [(grant.what, grant.target, grant.grant_option) for grant in found] == [
        ("USAGE", "*.*", False),
        ("SELECT", "`x``. TO`.*", True),
        ("BACKUP_ADMIN,XA_RECOVER_ADMIN", "*.*", True),
        ("PROXY", "'b'@'%'", True),
        ("EXECUTE", "PROCEDURE `x`.`p`", False),
        ("`boss`@`%`,`chief`@`%`", None, False),
    ]


def test_the_right_to_be_somebody_else_is_taken_away(created, server, admin):
    """PROXY is a grant of its own kind."""
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("GRANT PROXY ON root@localhost TO aalam_base@'%' WITH GRANT OPTION")
        created.admin_url += f"?unix_socket={server.folder}/socket"
    told = created.psqa("create")

    assert told.status == 0
    assert told.lines[:2] == [
        "REVOKE GRANT OPTION ON *.* FROM 'aalam_base'@'%';",
        "REVOKE PROXY ON `root`@`localhost` FROM 'aalam_base'@'%';",
    ]


def test_an_error_while_looking_is_one_sentence(created, admin, server):
    """An account that may not read the accounts is no administrator."""
    admin.run("CREATE USER clerk IDENTIFIED BY 'c'")
    created.admin_url = server.url().replace("root", "clerk:c")
    told = created.psqa("create")

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

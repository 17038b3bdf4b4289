"""On MariaDB no account of another application is touched, and no password is left lying about."""

import pymysql
import pytest
from sqlalchemy import create_engine

from pyramid_aalam_sqa.provisioning.mysql.accounts import new_account, password_step
from support.mysql_accounts import PASSWORD, PLAIN, as_account, denied, everything, grants

OWNER = "aalam_base__own@'%'"


def created_as(admin, account):
    return admin.rows(f"SHOW CREATE USER {account}")[0][0]


@pytest.mark.parametrize("password", ["", "old"])
def test_an_owner_account_that_was_there_before_cannot_log_in(make, server, admin, password):
    """Whoever made it may know its password, or needs none."""
    admin.run(f"CREATE USER aalam_base__own IDENTIFIED BY '{password}'")
    app = make()
    found = app.psqa("check")
    assert app.psqa("create").status == 0

    assert "can log in, and its password may be known: psqa create repairs it" in (
        " ".join(found.out.split())
    )
    assert "ACCOUNT LOCK" in created_as(admin, OWNER)
    with pytest.raises(pymysql.err.OperationalError):
        as_account(server, "aalam_base__own", password)
    admin.run("ALTER USER aalam_base__own ACCOUNT UNLOCK")
    with pytest.raises(pymysql.err.OperationalError, match="1045"):
        as_account(server, "aalam_base__own", password)


def test_an_owner_account_with_a_file_keeps_its_password(make, server, admin, tmp_path):
    """create, check and tables are told of the file; without it, the account is locked again."""
    file = tmp_path / "owner"
    file.write_text("owner's\n")
    option = ("--owner-password-file", file)
    app = make()
    assert app.psqa("create", *option).status == 0
    as_account(server, "aalam_base__own", "owner's").close()
    assert app.psqa("check", *option).out == "Nothing is wrong.\n"
    admin.run(f"ALTER USER {OWNER} IDENTIFIED BY 'other'")
    assert "does not log in with the password in the file" in app.psqa("check", *option).out
    assert app.psqa("create", *option).status == 0
    as_account(server, "aalam_base__own", "owner's").close()
    assert app.psqa("create").lines[0] == (
        "ALTER USER 'aalam_base__own'@'%' IDENTIFIED BY '***' ACCOUNT LOCK;"
    )


# What the administrator did for others, and the account that an ini file names then.
OTHERS = {
    "a neighbour": ([], "other_shop", "the application of the database other_shop"),
    "a neighbour's owner": ([], "other_shop__own", "the application of the database other_shop"),
    "a neighbour with a grant here": (
        ["GRANT SELECT ON `aalam\\_base`.* TO other_shop"],
        "other_shop",
        "the application of the database other_shop",
    ),
    "by hand": (
        ["CREATE USER wordpress", "GRANT ALL ON wordpress.* TO wordpress"],
        "wordpress",
        "`wordpress`.*",
    ),
    "a backup": (["CREATE USER backup", "GRANT SELECT ON *.* TO backup"], "backup", "*.*"),
    "of one table": (
        ["CREATE USER clerk", "GRANT SELECT ON other_shop.note TO clerk"],
        "clerk",
        "`other_shop`.`note`",
    ),
    "with a role": (
        ["CREATE USER boss", "CREATE ROLE chief", "GRANT chief TO boss"],
        "boss",
        "a role",
    ),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.sweep(2)
def test_an_account_that_is_used_elsewhere_is_refused(make, admin, tmp_path, other):
    """Before its password is changed, its grants are taken away, or it is dropped."""
    assert make("other_shop", password="shop's").psqa("create").status == 0
    assert make("aalam_base").psqa("create").status == 0
    admin.run("CREATE TABLE other_shop.note (id INT PRIMARY KEY)")
    statements, user, use = OTHERS[other]
    admin.run(*statements)
    (tmp_path / "password").write_text("mine\n")
    settings = [f"sqa.password_file = {tmp_path}/password", PLAIN]
    app = make("aalam_base", user=user, password=None, settings=settings)
    admin.run("CREATE TABLE seen (id INT)")
    users = "SELECT User, Host, authentication_string FROM mysql.user ORDER BY 1, 2"
    before = everything(admin), admin.rows(users), grants(admin, user)
    tolds = [
        app.psqa(*command)
        for command in (["create"], ["check"], ["rotate"], ["drop", "--yes"], ["drop", "--dry-run"])
    ]
    after = everything(admin), admin.rows(users), grants(admin, user)
    admin.run("DROP TABLE seen")

    assert [told.status for told in tolds] == [1] * 5
    assert all(f"{user!r} is used for {use}; give the" in told.err for told in tolds)
    assert after == before


def test_an_account_without_any_grant_may_be_taken(make, server, admin):
    """An administrator may have made it for the application."""
    admin.run("CREATE USER fresh IDENTIFIED BY 'x'")
    app = make(user="fresh")

    assert app.psqa("create").status == 0
    as_account(server, "fresh", PASSWORD, "aalam_base").close()


def test_check_finds_what_is_granted_to_every_account(created, admin):
    """On all databases, on tables and on procedures."""
    admin.run(
        "CREATE DATABASE other",
        "CREATE TABLE other.note (id INT PRIMARY KEY)",
        "CREATE PROCEDURE other.p() SELECT 1",
        "GRANT SELECT ON other.note TO PUBLIC",
        "GRANT EXECUTE ON PROCEDURE other.p TO PUBLIC",
        "GRANT SELECT ON *.* TO PUBLIC",
    )
    try:
        told = created.psqa("check")
    finally:
        admin.run(
            "REVOKE SELECT ON *.* FROM PUBLIC",
            "REVOKE SELECT ON other.note FROM PUBLIC",
            "REVOKE EXECUTE ON PROCEDURE other.p FROM PUBLIC",
        )

    assert [line.partition(": ")[0] for line in told.lines] == [
        "- Every account may use all databases",
        "- Every account may use the procedure other.p",
        "- Every account may use the table other.note",
    ]
    assert told.lines[0].endswith("REVOKE ALL ON *.* FROM PUBLIC.")
    assert created.psqa("check").status == 0


def test_check_finds_what_runs_with_the_rights_of_another_account(created, server, admin):
    """A procedure of root in its database shows an application the rows of its neighbour."""
    admin.run(
        "CREATE DATABASE other",
        "CREATE TABLE other.note (id INT PRIMARY KEY)",
        "CREATE TABLE aalam_base.own (id INT PRIMARY KEY)",
        "CREATE PROCEDURE aalam_base.read_it() SELECT * FROM other.note",
        "CREATE FUNCTION aalam_base.count_it() RETURNS INT RETURN (SELECT 1 FROM other.note)",
        "CREATE VIEW aalam_base.see_it AS SELECT * FROM other.note",
        "CREATE TRIGGER aalam_base.do_it BEFORE INSERT ON aalam_base.own FOR EACH ROW SET @x = 1",
        "CREATE EVENT aalam_base.later ON SCHEDULE EVERY 1 DAY DO SELECT 1",
        "CREATE DEFINER = aalam_base VIEW other.their_rows AS SELECT * FROM aalam_base.own",
        "CREATE SQL SECURITY INVOKER VIEW aalam_base.fine AS SELECT 1",
        "CREATE DEFINER = aalam_base__own VIEW aalam_base.mine AS SELECT 1 AS one",
    )
    with as_account(server, "aalam_base", PASSWORD, "aalam_base") as connection:
        reads = [denied(connection, "CALL read_it()"), denied(connection, "SELECT * FROM see_it")]
    told = created.psqa("check")

    assert reads == [0, 0]
    assert [line.partition(": ")[0] for line in told.lines] == [
        "- The event later in aalam_base runs with the rights of root@127.0.0.1",
        "- The function count_it in aalam_base runs with the rights of root@127.0.0.1",
        "- The procedure read_it in aalam_base runs with the rights of root@127.0.0.1",
        "- The trigger do_it in aalam_base runs with the rights of root@127.0.0.1",
        "- The view see_it in aalam_base runs with the rights of root@127.0.0.1",
        "- The view their_rows in other runs with the rights of aalam_base@%",
    ]


@pytest.mark.parametrize(
    "mode", ["ANSI_QUOTES", "ANSI", "NO_BACKSLASH_ESCAPES", "ORACLE", "NO_BACKSLASH_ESCAPES,ANSI"]
)
@pytest.mark.sweep(2)
def test_how_the_server_quotes_does_not_matter(make, admin, mode):
    """Its sql_mode, its sql_quote_show_create, and the sql_mode that the ini file asks for."""
    admin.run(
        f"SET GLOBAL sql_mode = '{mode}'",
        "SET GLOBAL sql_quote_show_create = 0",
        "CREATE USER x",
        "GRANT SELECT ON `aalam_base`.* TO x",
    )
    try:
        app = make(user="o'br\"i`e\\", settings=[PLAIN, f"sqa.mysql.sql_mode = {mode}"])
        tolds = [app.psqa("create"), app.psqa("create")]
        admin.run(
            "GRANT DROP, SELECT ON `aalam\\_base`.* TO `o'br\"i``e\\\\`".replace("\\\\", "\\")
        )
        found, repaired = app.psqa("check"), app.psqa("create")
        seen = app.psqa("check", admin_url="", MYSQL_UNIX_PORT="/nowhere")
        dropped = app.psqa("drop", "--yes")
    finally:
        admin.run("SET GLOBAL sql_mode = DEFAULT", "SET GLOBAL sql_quote_show_create = 1")

    assert [told.status for told in (*tolds, repaired, dropped)] == [0] * 4
    assert tolds[1].lines[0] == "Nothing to change."
    assert "has DROP on" in " ".join(found.out.split())
    assert seen.lines[1:] == ["Nothing is wrong."]


def test_no_log_of_the_server_has_a_password(make, server, admin, tmp_path):
    """The statements have hashes: the general log and the list of processes show no more."""
    app_file, owner_file = tmp_path / "password", tmp_path / "owner"
    app_file.write_text("Tr0ub4dor-app\n")
    owner_file.write_text("Tr0ub4dor-owner\n")
    app = make(password=None, settings=[f"sqa.password_file = {app_file}", PLAIN])
    admin.run("SET GLOBAL log_output = 'TABLE'", "SET GLOBAL general_log = 1")
    try:
        assert app.psqa("create", "--owner-password-file", owner_file).status == 0
        assert app.psqa("rotate").status == 0
        assert app.psqa("create").status == 0
    finally:
        admin.run("SET GLOBAL general_log = 0")
    sent = "\n".join(str(row[0]) for row in admin.rows("SELECT argument FROM mysql.general_log"))
    admin.run("TRUNCATE mysql.general_log")

    assert "ALTER USER 'aalam_base'@'%' IDENTIFIED VIA mysql_native_password USING '*" in sent
    assert "Tr0ub4dor" not in sent
    assert app_file.read_text().strip() not in sent


def test_check_finds_a_password_file_that_others_can_read(with_file):
    """And what a rotation has left beside it."""
    app, file = with_file
    file.chmod(0o644)
    file.with_name("password.next").write_text("old\n")
    file.with_name("password.next").chmod(0o604)
    told = app.psqa("check")

    assert told.status == 1
    assert [line.partition(": ")[0] for line in told.lines] == [
        f"- {file}, which has a password, is open to every user of the system",
        f"- {file}.next, which has a password, is open to every user of the system",
    ]


def test_a_lock_that_the_application_holds_blocks_nothing(with_file, server):
    """GET_LOCK asks for no privilege; the connection that holds psqa's lock is ended."""
    app, _file = with_file
    for command in (["create"], ["rotate"], ["drop", "--yes"]):
        password = (_file).read_text().strip()
        with as_account(server, "aalam_base", password) as connection:
            assert denied(connection, "SELECT GET_LOCK('psqa aalam_base__own', 0)") == 0
            assert app.psqa(*command).status == 0
            assert denied(connection, "SELECT 1") in {2006, 2013, 1927}


@pytest.mark.deep
def test_a_prepared_transaction_of_the_application_is_told(created, server, admin):
    """It keeps its locks without a connection, and whose it is the server does not say."""
    admin.run("CREATE TABLE aalam_base.note (id INT PRIMARY KEY)")
    with as_account(server, "aalam_base", PASSWORD, "aalam_base") as connection:
        for statement in (
            "XA START 'x'",
            "INSERT INTO note VALUES (1)",
            "XA END 'x'",
            "XA PREPARE 'x'",
        ):
            assert denied(connection, statement) == 0
    try:
        checked, dropped = created.psqa("check"), created.psqa("drop", "--yes")
    finally:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("XA ROLLBACK 'x'")
    again = created.psqa("drop", "--yes")

    assert checked.status == 0
    assert dropped.status in {0, 1}
    assert dropped.status == 0 or "XA RECOVER lists prepared transactions" in dropped.err
    assert again.status == 0


def test_mysql_is_told_the_password_which_it_keeps_out_of_its_logs_itself(admin, monkeypatch):
    """Its accounts have another kind of hash; psqa shows none of it."""
    engine = create_engine(admin.url)
    with engine.connect() as connection:
        monkeypatch.setattr(connection.dialect, "is_mariadb", False)
        account = new_account(connection, "aalam_base")
        step = password_step("CREATE USER", connection, account, "it's", "ACCOUNT LOCK")
    engine.dispose()

    assert step.statement == "CREATE USER 'aalam_base'@'%' IDENTIFIED BY 'it\\'s' ACCOUNT LOCK"
    assert str(step) == "CREATE USER 'aalam_base'@'%' IDENTIFIED BY '***' ACCOUNT LOCK"

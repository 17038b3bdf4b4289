"""On MariaDB `psqa create` makes a database, two accounts and escaped grants, and repairs them."""

from dataclasses import replace

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from pyramid_aalam_sqa.provisioning import Provisioning
from pyramid_aalam_sqa.provisioning.mysql.accounts import Account, login_fails
from pyramid_aalam_sqa.provisioning.mysql.grants import read_grants
from support.mysql_accounts import HOSTILE, PASSWORD, PLAIN, as_account, denied, everything, grants
from support.provisioned import INI, psqa


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


def test_the_first_application_of_a_server_may_have_a_name_of_one_word(
    make, server, admin, tmp_path
):
    """It is proved that it enters no other database: one is made for that, and removed."""
    url = make_url(server.url("shop")).set(username="shop", password="s3cret")
    ini = tmp_path / "shop.ini"
    ini.write_text(INI.format(url=url.render_as_string(hide_password=False), settings=PLAIN))
    told = psqa("create", ini, admin_url=server.url())

    assert (told.status, told.err) == (0, "")
    assert told.lines[-1] == "Proved: shop is denied shopx, and sees no other database."
    assert admin.rows("SHOW DATABASES LIKE 'shop%'") == [("shop",)]


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
@pytest.mark.sweep(2)
def test_create_repairs_what_others_changed_and_check_had_said_so(created, admin, drift):
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
    """An account that was made for one host is not opened for every other."""
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


def test_a_login_tells_what_the_digest_does_not(created):
    """Where the server keeps it to itself, as for every plugin but one."""
    with Provisioning(created.settings, created.admin_url) as provisioning:
        app = provisioning.tenant
        account = Account("aalam_base", "%", "", "another_plugin", "", locked=False)
        assert not login_fails(app, account, PASSWORD)
        assert login_fails(app, account, "other")
        nowhere = replace(app, url=app.url.set(port=1))
        with pytest.raises(OperationalError, match="2003"):
            login_fails(nowhere, account, PASSWORD)


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


def test_the_right_to_be_another_account_is_taken_away(created, server, admin):
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

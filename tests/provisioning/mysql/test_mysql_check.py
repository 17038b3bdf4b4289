"""On MariaDB `psqa check` finds what is wrong, with what to do about it."""

import pytest

from support.mysql_accounts import PLAIN


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
        "Everybody on 'localhost' may log in without a name and a password",
        "Every account may use the databases called `test\\_%`",
        "'greedy'@'%' can use aalam_base through its grant on *.*",
        "'picker'@'%' can use aalam_base through its grant on tables of aalam_base",
        "'thief'@'%' can use aalam_base through its grant on `aalam%`.*",
        "These tables do not keep every character (old)",
        "These tables ignore a rollback (flat)",
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
    """The address 127.1 is this machine, and psqa does not know that."""
    app = make(host=host, settings=settings)
    app.psqa("create")

    assert ("The connection to 127.1 is not encrypted" in app.psqa("check").out) == found


def test_without_an_administrator_check_tells_what_the_application_sees(
    created, admin, tmp_path, monkeypatch
):
    """And says that it is not all; an administrator who was named and is refused is an error."""
    monkeypatch.setenv("MYSQL_UNIX_PORT", f"{tmp_path}/no-socket")
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

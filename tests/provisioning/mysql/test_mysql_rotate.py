"""On MariaDB `psqa rotate` changes the password, and no request fails meanwhile."""

import threading
from pathlib import Path
from queue import Queue

import pymysql
import pytest

from pyramid_aalam_sqa import get_sqa
from pyramid_aalam_sqa.provisioning import Provisioning
from support.mysql_accounts import PLAIN, as_account
from support.provisioned import ask


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
    admin.run("GRANT PROCESS ON *.* TO clerk")
    app.admin_url = server.url().replace("root", "clerk:c")
    told = app.psqa("rotate")

    assert told.status == 1
    assert told.err.startswith("psqa: ALTER USER 'aalam_base'@'%' IDENTIFIED BY '***': Access")
    assert file.read_text() == "first\n"
    as_account(server, "aalam_base", "first").close()


def test_the_new_password_is_read_by_those_who_read_the_old_one(with_file):
    """Its owner, and its mode without that of others."""
    app, file = with_file
    file.chmod(0o644)
    owner = file.stat().st_uid
    assert app.psqa("rotate").status == 0

    assert file.stat().st_mode & 0o777 == 0o640
    assert file.stat().st_uid == owner
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
    """Afterwards it would be unknown which one does."""
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


def test_a_mounted_secret_is_read_through_its_links_and_never_written(make, tmp_path, server):
    """As Kubernetes mounts it: links of root, which it swaps when the secret changes.

    The application reads the new password for its next connection, and `psqa create` gives it to
    the account.
    """
    secret = tmp_path / "secret"
    for number, password in enumerate(("first", "second")):
        folder = secret / f"..2026_{number}"
        folder.mkdir(parents=True)
        (folder / "password").write_text(f"{password}\n")
        (folder / "password").chmod(0o640)
    (secret / "..data").symlink_to("..2026_0")
    (secret / "password").symlink_to("..data/password")
    app = make(password=None, settings=[f"sqa.password_file = {secret}/password", PLAIN])
    made, checked = app.psqa("create"), app.psqa("check")
    refused = [app.psqa("rotate", *option) for option in ([], ["--dry-run"])]
    with app.served(ask, **{"sqa.reset_connection": "true"}) as client:
        before = client.get("/ask").text
        (secret / "..new").symlink_to("..2026_1")
        (secret / "..new").rename(secret / "..data")
        repaired = app.psqa("create")
        get_sqa(client.app).dispose()
        after = client.get("/ask").text

    assert (made.status, checked.out) == (0, "Nothing is wrong.\n")
    assert [told.status for told in refused] == [1, 1]
    assert "is a link, and psqa writes through none" in refused[0].err
    assert (before, repaired.status, after) == ("42", 0, "42")
    as_account(server, "aalam_base", "second").close()
    assert (secret / "password").is_symlink()
    assert sorted(path.name for path in secret.iterdir()) == [
        "..2026_0",
        "..2026_1",
        "..data",
        "password",
    ]

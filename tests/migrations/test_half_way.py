"""MariaDB stores each change of a table at once: a revision may end half-way, and is told so."""

import os
import signal
import subprocess
import sys
import time

import pytest

from support.migrated import CREATE
from support.processes import PATHS

HALF = "\n".join(
    [
        CREATE.format("one"),
        "op.execute('INSERT INTO one VALUES (1)')",
        CREATE.format("two"),
        "op.execute('INSERT INTO two VALUES (1)')",
        "op.execute('ALTER TABLE two ADD COLUMN id INTEGER')",
        CREATE.format("three"),
    ]
)


@pytest.fixture
def half(mariadb_site, revisions):
    """A database whose second revision has failed at its fifth statement."""
    revisions.add_table("1", "note")
    revisions.add("2", HALF)
    revisions.add_table("3", "page")
    return mariadb_site


def test_the_report_is_enough_to_repair_the_database_by_hand(half):
    """What is done, what was rolled back, what failed; the rest is in the revision."""
    report = half.migrate()
    states = [each["state"] for each in report["statements"]]
    error = report["error"]

    assert (report["from"], report["to"], report["state"]) == ("base", "1", "failed")
    assert states == ["done", "done", "done", "done", "failed"]
    assert "The revision 2 is half-way, and the database stands at 1." in error
    assert "5. failed: ALTER TABLE two ADD COLUMN id INTEGER" in error
    assert "Duplicate column name 'id'" in error
    assert half.versions() == ["!2", "1"]
    # The change that failed has stored the rows before it.
    assert half.eyes.rows("SELECT * FROM two") == [(1,)]

    # Every other run refuses, with the same words; so does Alembic itself, which knows no such row.
    again, [refused] = half.report()
    assert (again.status, refused["state"]) == (1, "failed")
    assert refused["error"] in again.out
    assert "The revision 2 is half-way" in refused["error"]
    assert refused["statements"] == report["statements"]
    where = half.psqa("migrations")
    assert where.status == 1
    assert "half-way" in where.out
    assert "a revision is half-way (!2)" in half.psqa("check").out

    # A person follows the report: undoes what is done, in the opposite order.
    undo = {"CREATE TABLE one": "DROP TABLE one", "CREATE TABLE two": "DROP TABLE two"}
    for each in reversed(report["statements"]):
        for begin, statement in undo.items():
            if each["state"] == "done" and each["statement"].startswith(begin):
                half.eyes.run(statement)
    (half.revisions.versions / "2_.py").write_text(
        (half.revisions.versions / "2_.py").read_text().replace("COLUMN id", "COLUMN more")
    )
    report = half.migrate(repaired="undone")
    assert (report["state"], report["to"], report["revisions"]) == ("done", "3", ["2", "3"])
    assert half.versions() == ["3"]
    assert half.eyes.rows("SELECT * FROM two") == [(1, None)]


def test_a_revision_that_was_completed_by_hand_is_done(half):
    """--repaired done moves the version on."""
    half.migrate()
    half.eyes.run("CREATE TABLE three (id INTEGER PRIMARY KEY)")
    report = half.migrate(repaired="done")

    assert (report["state"], report["from"], report["to"]) == ("done", "2", "3")
    assert half.versions() == ["3"]


def test_only_a_half_way_revision_can_be_repaired(half):
    """Otherwise a slip of the hand would move the version."""
    report = half.migrate(repaired="done", to="1")

    assert "No revision is half-way here" in report["error"]


def test_a_downgrade_may_be_half_way_as_well(half, revisions):
    """Done means that it is undone."""
    revisions.add("4", CREATE.format("last"), "op.drop_table('last')\nop.drop_table('nothing')")
    (revisions.versions / "2_.py").write_text(
        (revisions.versions / "2_.py").read_text().replace("COLUMN id", "COLUMN more")
    )
    assert half.migrate()["state"] == "done"
    report = half.migrate(direction="downgrade", to="3")

    assert half.versions() == ["!-4", "4"]
    assert "The downgrade of 4 is half-way, and the database stands at 4." in report["error"]
    report = half.migrate(direction="downgrade", to="3", repaired="done")
    assert (report["state"], half.versions()) == ("done", ["3"])


def test_a_downgrade_to_nothing_can_be_repaired(mariadb_site, revisions):
    """Below the first revision there is none."""
    revisions.add("1", CREATE.format("a"), "op.drop_table('a')\nraise RuntimeError('own')")
    mariadb_site.migrate()
    report = mariadb_site.migrate(direction="downgrade", to="base")
    assert "RuntimeError: own" in report["error"]
    mariadb_site.migrate(direction="downgrade", to="base", repaired="done")

    assert mariadb_site.versions() == []


@pytest.mark.parametrize(
    "code",
    [
        "op.execute('ALTER TABLE nothing ADD COLUMN id INTEGER')",
        "op.execute('INSERT INTO note VALUES (1)')\nop.execute('INSERT INTO note VALUES (1)')",
    ],
)
def test_a_revision_that_has_stored_nothing_may_run_again(code, mariadb_site, revisions):
    """A first statement that fails, or rows alone, are undone by the server itself."""
    revisions.add_table("1", "note")
    revisions.add("2", code)
    report = mariadb_site.migrate()

    assert "The revision 2 has failed, and nothing of it is stored" in report["error"]
    assert mariadb_site.versions() == ["1"]
    assert mariadb_site.eyes.rows("SELECT * FROM note") == []


def test_rows_after_the_last_change_of_a_table_are_rolled_back(mariadb_site, revisions):
    """And those in an autocommit block are not."""
    revisions.add(
        "1",
        CREATE.format("note")
        + "\nwith op.get_context().autocommit_block():\n"
        + "    op.execute('INSERT INTO note VALUES (1)')\n"
        + "op.execute('INSERT INTO note VALUES (2)')\nop.execute('SELECT nothing')",
    )
    report = mariadb_site.migrate()

    assert [each["state"] for each in report["statements"]] == ["done", "done", "rolled back"]
    assert mariadb_site.eyes.rows("SELECT * FROM note") == [(1,)]


def test_a_process_that_is_killed_leaves_the_mark_and_what_is_not_known(mariadb_site, revisions):
    """Whatever happens to it: the mark is there before the first statement."""
    signalled = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    revisions.add("1", CREATE.format("one") + "\n" + signalled)
    told, [report] = mariadb_site.report()

    assert (told.status, report["error"]) == (1, "its process has ended with -9")
    assert mariadb_site.versions() == ["!1"]
    report = mariadb_site.migrate()
    assert [each["state"] for each in report["statements"]] == ["done"]
    # The account that the dead process had opened is closed again.
    assert mariadb_site.psqa("create").lines[0] == "Nothing to change."


def test_a_lost_connection_leaves_what_is_not_known(mariadb_site, revisions):
    """The server may have done it."""
    revisions.add(
        "1",
        CREATE.format("one")
        + "\nop.execute('KILL CONNECTION ' "
        + "+ str(op.get_bind().exec_driver_sql('SELECT CONNECTION_ID()').scalar()))",
    )
    report = mariadb_site.migrate()

    assert [each["state"] for each in report["statements"]] == ["done", "unknown"]
    assert mariadb_site.versions() == ["!1"]


@pytest.mark.deep
def test_ctrl_c_lets_the_revision_end(mariadb_site, revisions, tmp_path):
    """The next one is not begun, and the report says where it stopped."""
    flag = tmp_path / "in the revision"
    wait = f"import pathlib, time\npathlib.Path({str(flag)!r}).touch()\n"
    revisions.add(
        "1", wait + CREATE.format("one") + "\nop.execute('DO SLEEP(1)')\n" + CREATE.format("two")
    )
    revisions.add_table("2", "page")
    report = tmp_path / "report.json"
    command = [sys.executable, "-W", "ignore", "-m", "pyramid_aalam_sqa.provisioning.cli"]
    process = subprocess.Popen(
        [*command, "upgrade", str(mariadb_site.ini), "--report", str(report)],
        env={
            **os.environ,
            "SQA_ADMIN_URL": mariadb_site.admin_url,
            "PYTHONPATH": os.pathsep.join(PATHS),
        },
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not flag.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    # As a terminal does: to every process of the group, twice.
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "stopped, base -> 1" in out
    assert mariadb_site.versions() == ["1"]
    assert '"state": "stopped"' in report.read_text()

"""Many databases: one failure stops none of the others, and the next run does what is left."""

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from pyramid_aalam_sqa.migrations.migrate import Order, Outcome
from pyramid_aalam_sqa.migrations.processes import Workers
from pyramid_aalam_sqa.migrations.report import Reporter, print_table
from support.databases import Database
from support.migrated import psqa_on
from support.processes import PATHS

INI = """
[app:main]
use = call:support.rule_app:main
sqlalchemy.url = sqlite:///%(here)s/{name}.sqlite
sqa.migrations = %(here)s/migrations
"""


@pytest.fixture
def many(tmp_path, revisions, monkeypatch):
    """Five databases in files, and a revision that all lack."""
    monkeypatch.delenv("SQA_ADMIN_URL", raising=False)
    revisions.add_table("1", "note")
    names = [f"db{number}" for number in range(5)]
    for name in names:
        (tmp_path / f"{name}.ini").write_text(INI.format(name=name))
        sqlite3.connect(tmp_path / f"{name}.sqlite").close()
    listed = tmp_path / "all.txt"
    listed.write_text("# All of them.\n" + "\n".join(f"{name}.ini" for name in names) + "\n")
    return listed


def run(many, command, *arguments, inis=()):
    report = many.with_name("report.json")
    report.unlink(missing_ok=True)
    more = ("--report", report) if command != "migrations" else ()
    told = psqa_on(inis, command, "--databases", many, *more, *arguments, columns=250)
    found = json.loads(report.read_text())["databases"] if report.exists() else []
    return told, {each["ini"].rpartition("/")[2]: each for each in found}


def versions(folder, name):
    return Database(f"sqlite:///{folder}/{name}.sqlite").rows(
        "SELECT version_num FROM alembic_version"
    )


def test_one_failure_does_not_stop_the_others(many, tmp_path, revisions):
    """A broken file, an ini file that is missing, a database that is not there: each is told."""
    (tmp_path / "db1.sqlite").write_bytes(b"x" * 4096)
    (tmp_path / "db2.sqlite").unlink()
    (tmp_path / "db3.ini").unlink()
    told, found = run(many, "upgrade", "--jobs", "2")

    assert told.status == 1
    assert {name: each["state"] for name, each in found.items()} == {
        "db0.ini": "done",
        "db1.ini": "failed",
        "db2.ini": "not provisioned",
        "db3.ini": "failed",
        "db4.ini": "done",
    }
    assert "file is not a database" in found["db1.ini"]["error"]
    assert "No such file" in found["db3.ini"]["error"]
    assert not (tmp_path / "db2.sqlite").exists()
    assert "2 failed, 1 not provisioned, 2 done." in told.out
    again, found = run(many, "upgrade")
    assert [each["state"] for each in found.values()].count("current") == 2
    assert again.status == 1
    assert [row[0] for row in versions(tmp_path, "db4")] == ["1"]


def test_where_each_database_stands_is_told_for_people_and_for_programs(many, tmp_path, revisions):
    """Status 0 when all are at the last revision, or are not there."""
    told, _ = run(many, "migrations")
    assert told.status == 1
    assert told.out.splitlines()[-1] == "5 behind."
    run(many, "upgrade")
    (tmp_path / "db2.sqlite").unlink()
    told, _ = run(many, "migrations", "--json")
    assert told.status == 0
    assert [each["state"] for each in json.loads(told.out)].count("current") == 4
    sqlite3.connect(tmp_path / "db2.sqlite").executescript(
        "CREATE TABLE alembic_version (version_num VARCHAR(32)); "
        "INSERT INTO alembic_version VALUES ('of tomorrow')"
    )
    told, _ = run(many, "migrations")
    assert "the database stands at of tomorrow, which is not among the revisions" in told.out


def test_what_is_to_do_is_printed_and_nothing_is_done(many, tmp_path):
    """Status 1 when there is something."""
    (tmp_path / "db2.sqlite").unlink()
    told, _ = run(many, "upgrade", "--dry-run", "--to", "1")

    assert told.status == 1
    assert told.out.count("base -> 1 (1);") == 4
    assert "not provisioned" in told.out
    with pytest.raises(Exception, match="no such table"):
        versions(tmp_path, "db0")
    run(many, "upgrade")
    assert run(many, "upgrade", "--dry-run")[0].status == 0


def test_the_statements_are_written_into_files(many, tmp_path, revisions):
    """For an administrator who runs them by hand; nothing is changed."""
    (tmp_path / "db2.sqlite").unlink()
    told, found = run(many, "upgrade", "--sql", tmp_path / "out")

    assert told.status == 0
    assert found["db2.ini"]["state"] == "not provisioned"
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["db0.sqlite.sql", "db1.sqlite.sql", "db3.sqlite.sql", "db4.sqlite.sql"]
    text = (tmp_path / "out" / "db0.sqlite.sql").read_text()
    assert "CREATE TABLE note" in text
    sqlite3.connect(tmp_path / "db0.sqlite").executescript(text)
    assert [row[0] for row in versions(tmp_path, "db0")] == ["1"]
    run(many, "upgrade", inis=())
    told, found = run(many, "downgrade", "--to", "base", "--sql", tmp_path / "down")
    assert "DROP TABLE note" in (tmp_path / "down" / "db4.sqlite.sql").read_text()


def test_two_processes_at_once_run_each_revision_once(many, tmp_path, revisions):
    """The second one waits for the lock, and finds the work done."""
    revisions.add("2", "import time\ntime.sleep(0.3)\nop.execute('INSERT INTO note VALUES (NULL)')")
    ini = str(tmp_path / "db0.ini")
    found = list(Workers(2).run([ini, ini], Order()))

    assert sorted((each.state, each.error) for each in found) == [("current", None), ("done", None)]
    assert len(Database(f"sqlite:///{tmp_path}/db0.sqlite").rows("SELECT * FROM note")) == 1


def test_a_run_that_is_stopped_begins_nothing_more(many, tmp_path, revisions):
    """What runs ends its revision; what is left is told."""
    flag = tmp_path / "begun"
    wait = f"import pathlib, time\npathlib.Path({str(flag)!r}).touch()\ntime.sleep(0.5)"
    revisions.add("2", wait)
    revisions.add("3", "pass")
    workers = Workers(1)

    def stop_soon():
        while not flag.exists():
            time.sleep(0.01)
        workers.stop()
        workers.stop()

    stopper = threading.Thread(target=stop_soon)
    stopper.start()
    inis = [str(tmp_path / f"db{number}.ini") for number in range(3)]
    found = list(workers.run(inis, Order()))
    stopper.join()

    assert sorted((each.state, str(each.after)) for each in found) == [
        ("stopped", "2"),
        ("stopped", "None"),
        ("stopped", "None"),
    ]


def test_a_bar_shows_what_is_not_well_above_it(monkeypatch):
    """The rest is in its rate and its remaining time."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Reporter(2) as reporter:
        reporter.show(Outcome("db0", "", state="done"))
        reporter.show(Outcome("db1", "", error="why"))
    shown = terminal.getvalue()

    assert "db1: failed, 0.0 s: why" in shown
    assert "2/2" in shown
    assert "db0" not in shown


@pytest.mark.deep
def test_two_runs_at_once_run_each_revision_once(many, tmp_path, revisions):
    """The second one finds the work done."""
    revisions.add("2", "op.execute('INSERT INTO note VALUES (NULL)')")
    command = [sys.executable, "-W", "ignore", "-m", "pyramid_aalam_sqa.provisioning.cli"]
    both = [
        subprocess.Popen(
            [*command, "upgrade", "--databases", str(many), "--jobs", "2"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    told = [each.communicate(timeout=120)[0] for each in both]

    assert [each.returncode for each in both] == [0, 0], told
    for number in range(5):
        rows = Database(f"sqlite:///{tmp_path}/db{number}.sqlite").rows("SELECT * FROM note")
        assert len(rows) == 1


@pytest.mark.deep
def test_what_had_not_begun_when_the_run_was_stopped_is_told(many, tmp_path, revisions):
    """SIGTERM, as a service manager sends it; afterwards the rest is done."""
    flag = tmp_path / "begun"
    revisions.add(
        "2", f"import pathlib, time\npathlib.Path({str(flag)!r}).touch()\ntime.sleep(0.5)"
    )
    command = [sys.executable, "-W", "ignore", "-m", "pyramid_aalam_sqa.provisioning.cli"]
    process = subprocess.Popen(
        [*command, "upgrade", "--databases", str(many), "--jobs", "1"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)},
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not flag.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert out.count("not begun: the run was stopped") == 2 * 4
    told, found = run(many, "upgrade")
    assert (told.status, sorted(each["state"] for each in found.values())) == (
        0,
        ["current", *["done"] * 4],
    )


def test_a_list_of_databases_is_asked_for(tmp_path, many):
    """No ini file at all is a wrong call."""
    told = psqa_on([], "upgrade")
    missing = psqa_on([], "upgrade", "--databases", tmp_path / "nothing")

    assert (told.status, missing.status) == (2, 2)
    assert "Name an ini file" in told.err
    assert "No such file" in missing.err


def test_a_revision_that_cannot_be_imported_is_told(many, tmp_path, revisions):
    """One sentence for each database, no traceback."""
    (revisions.versions / "2_.py").write_text("import nothing_of_the_kind")
    told, found = run(many, "upgrade")

    assert told.status == 1
    assert "No module named 'nothing_of_the_kind'" in found["db0.ini"]["error"]


def test_two_last_revisions_are_both_run(many, tmp_path, revisions):
    """As Alembic's heads."""
    revisions.last = "1"
    revisions.add_table("2a", "left")
    revisions.last = "1"
    revisions.add_table("2b", "right")
    told, _ = run(many, "upgrade")
    again, found = run(many, "upgrade")

    assert (told.status, again.status) == (0, 0)
    assert {(each["from"], each["state"]) for each in found.values()} == {("2a, 2b", "current")}


def test_a_long_table_shows_what_is_not_well(many, tmp_path, capsys):
    """The rest is a number."""
    outcomes = [Outcome(f"db{number}", "", state="done") for number in range(50)]
    print_table([*outcomes, Outcome("bad", "", error="why")])
    shown = capsys.readouterr().out

    assert [line.split()[0] for line in shown.splitlines()] == ["database", "bad", "50"]


@pytest.mark.deep
def test_a_terminal_has_a_bar_with_rate_and_remaining_time(many, tmp_path):
    """What fails is told above it."""
    import fcntl
    import pty
    import struct
    import termios

    (tmp_path / "db1.sqlite").write_bytes(b"x" * 4096)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-W", "ignore", "-m", "pyramid_aalam_sqa.provisioning.cli"]
    process = subprocess.Popen(
        [*command, "upgrade", "--databases", str(many)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)},
        stdout=subprocess.DEVNULL,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 65536):
            shown += part
    except OSError:
        # Linux says so at the end of a terminal.
        pass
    process.wait()
    os.close(master)

    assert b"4/4" in shown
    assert b"db/s" in shown

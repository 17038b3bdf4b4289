"""A busy database: a change of a table waits for seconds, lets the others pass, and tries again."""

import threading
import time

import pytest

from pyramid_aalam_sqa.migrations.waits import Patience
from support.migrated import CREATE

COLUMN = "op.add_column('note', sa.Column('more', sa.Integer))"
SHORT = ("--lock-timeout", "1", "--retries", "1")


@pytest.fixture(params=["mariadb", "postgresql"])
def server_url(request):
    """SQLite has one writer, and no queue behind it."""
    names = {"mariadb": "mariadb_server", "postgresql": "postgresql_accounts"}
    return request.getfixturevalue(names[request.param]).url()


@pytest.fixture
def busy(site, revisions):
    """A database with a table, and a revision that changes it."""
    revisions.add_table("1", "note")
    assert site.migrate()["state"] == "done"
    revisions.add("2", COLUMN)
    return site


@pytest.mark.deep
def test_an_open_reader_is_waited_for_and_then_reported(busy, make, server_url):
    """Its database is left as it was, the other is migrated, and a writer waits for the bound."""
    other = make(server_url)
    waits = []
    ended = threading.Event()

    def write():
        number = 0
        while not ended.is_set():
            begin = time.monotonic()
            number += 1
            busy.eyes.run(f"INSERT INTO {busy.table('note')} (id) VALUES ({number})")
            waits.append(time.monotonic() - begin)
            time.sleep(0.05)

    writer = threading.Thread(target=write)
    with busy.eyes.connect() as reader:
        reader.exec_driver_sql(f"SELECT * FROM {busy.table('note')}").fetchall()
        writer.start()
        try:
            told, reports = busy.report(other.ini, *SHORT)
        finally:
            ended.set()
            writer.join()
    by_name = {each["database"]: each for each in reports}

    assert told.status == 1
    assert (by_name[busy.name]["state"], by_name[other.name]["state"]) == ("failed", "done")
    assert "nothing of it is stored" in by_name[busy.name]["error"]
    assert by_name[busy.name]["seconds"] > 2
    assert busy.versions() == ["1"]
    # One second of --lock-timeout, and what a busy machine of tests adds.
    assert max(waits) < 1 + 2
    assert busy.migrate()["state"] == "done"
    assert busy.versions() == ["2"]


@pytest.mark.sweep(1)
def test_a_reader_that_goes_is_only_a_delay(busy):
    """The statement is tried again."""
    reader = busy.eyes.connect()
    reader.exec_driver_sql(f"SELECT * FROM {busy.table('note')}").fetchall()
    timer = threading.Timer(1.5, reader.close)
    timer.start()
    report = busy.migrate(patience=Patience(1, 20))
    timer.join()

    assert (report["state"], busy.versions()) == ("done", ["2"])


@pytest.mark.parametrize("server_url", ["mariadb"], indirect=True)
def test_online_refuses_what_would_keep_others_from_writing(busy, revisions):
    """The server itself decides; a revision can opt out."""
    assert busy.migrate(online=True)["state"] == "done"
    revisions.add("3", "op.create_index('ix', 'note', ['more'])")
    assert busy.migrate(online=True)["state"] == "done"
    revisions.add("4", "op.alter_column('note', 'more', type_=sa.String(50))")
    report = busy.migrate(online=True)
    assert (
        "The server cannot do this while others write: ALTER TABLE note MODIFY" in report["error"]
    )
    assert busy.versions() == ["3"]

    path = revisions.versions / "4_.py"
    path.write_text(path.read_text().replace("down_revision", "online = False\ndown_revision", 1))
    assert busy.migrate(online=True)["state"] == "done"
    revisions.add("5", "op.drop_index('ix', 'note')\n" + CREATE.format("other"))
    assert busy.migrate(online=True)["state"] == "done"
    revisions.add("6", "op.execute('ALTER TABLE nothing ADD COLUMN a INT')")
    report = busy.migrate(online=True)
    assert "nothing' doesn't exist" in report["error"]


@pytest.mark.parametrize("server_url", ["postgresql"], indirect=True)
def test_online_is_for_servers_that_know_it(busy):
    """PostgreSQL and SQLite have other ways."""
    report = busy.migrate(online=True)

    assert report["error"] == "--online is for MySQL and MariaDB, not for postgresql."

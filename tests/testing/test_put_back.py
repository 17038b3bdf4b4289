"""After a test with real COMMITs each table is as it was before, with its automatic numbers."""

import pytest
import transaction
from sqlalchemy import text

from pyramid_aalam_sqa import get_sqa
from support.sandboxed import Site, read

NUMBERED = {
    "sqlite": "CREATE TABLE item (id INTEGER PRIMARY KEY AUTOINCREMENT, {})",
    "mysql": "CREATE TABLE item (id INTEGER PRIMARY KEY AUTO_INCREMENT, {})",
    "postgresql": "CREATE TABLE item (id INTEGER PRIMARY KEY GENERATED ALWAYS AS IDENTITY, {})",
}
REST = "name VARCHAR(50), size INTEGER, twice INTEGER GENERATED ALWAYS AS (size * 2) STORED"


@pytest.fixture
def numbered(site):
    """A site with a numbered table, a computed column and a table that refers to it."""
    site.database.run(
        NUMBERED[site.database.kind].format(REST),
        "CREATE TABLE part (item_id INTEGER, below INTEGER, FOREIGN KEY (item_id) REFERENCES item "
        "(id))",
        "CREATE TABLE empty_one (id INTEGER)",
        "INSERT INTO item (name, size) VALUES ('one', 1)",
        "INSERT INTO item (name, size) VALUES ('two', 2)",
        "INSERT INTO part VALUES (1, NULL)",
        "DELETE FROM item WHERE id = 2",
    )
    return site


def everything(database):
    tables = ("item", "part", "empty_one", "note")
    return [sorted(map(str, database.rows(f"SELECT * FROM {table}"))) for table in tables]


def test_rows_numbers_and_computed_columns_are_put_back(numbered):
    """The next row gets the number that it would have got before the test."""
    database = numbered.database
    before = everything(database)
    for _ in range(2):
        with numbered.isolated(commits=True) as sandbox:
            for sql in (
                "INSERT INTO item (name, size) VALUES ('three', 3)",
                "INSERT INTO part VALUES (3, 1)",
                "UPDATE item SET name = 'uno' WHERE id = 1",
                "INSERT INTO empty_one VALUES (1)",
            ):
                sandbox.client.get("/raw", {"sql": sql})
            assert (3, "three") in database.rows("SELECT id, name FROM item")
        assert everything(database) == before
    database.run("INSERT INTO item (name, size) VALUES ('next', 3)")

    assert database.scalar("SELECT id FROM item WHERE name = 'next'") == 3


def test_a_test_that_changes_nothing_leaves_everything(numbered):
    """Also without any table."""
    before = everything(numbered.database)
    with numbered.isolated(commits=True) as sandbox:
        assert read(sandbox.session) == []

    assert everything(numbered.database) == before


def test_a_database_without_tables_is_put_back(any_database, serve):
    """There is nothing to do."""
    with Site(any_database, serve(any_database.url)).isolated(commits=True) as sandbox:
        assert sandbox.session.scalar(text("SELECT 1")) == 1


def test_tables_in_a_circle_are_put_back_when_their_rows_allow_it(postgresql, make_site):
    """Their rows are inserted in the order that the foreign keys need, as far as there is one."""
    site = make_site(postgresql)
    postgresql.run(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, b_id INTEGER)",
        "CREATE TABLE b (id INTEGER PRIMARY KEY, a_id INTEGER REFERENCES a)",
        "ALTER TABLE a ADD FOREIGN KEY (b_id) REFERENCES b",
        "INSERT INTO a VALUES (1, NULL)",
        "INSERT INTO b VALUES (1, 1)",
    )
    with site.isolated(commits=True) as sandbox:
        sandbox.client.get("/raw", {"sql": "DELETE FROM b"})

    assert postgresql.rows("SELECT * FROM b") == [(1, 1)]


def test_what_cannot_be_put_back_is_an_error(postgresql, make_site):
    """It says why."""
    site = make_site(postgresql)
    postgresql.run("INSERT INTO note VALUES ('old')")
    with site.isolated(fails="could not be put back after the test", commits=True) as sandbox:
        sandbox.client.get("/raw", {"sql": "ALTER TABLE note ADD CHECK (body <> 'old') NOT VALID"})


@pytest.mark.usefixtures("alone")
def test_a_transaction_that_was_left_open_holds_no_lock(site):
    """It is reported, and the tables are put back."""
    from pyramid_aalam_sqa import Session

    site.database.run("INSERT INTO note VALUES ('old')")
    with site.isolated(fails="in use by thread MainThread", commits=True):
        forgotten = Session(site.app)
        forgotten.execute(text("INSERT INTO note VALUES ('forgotten')"))
    try:
        forgotten.remove()
    finally:
        assert site.stored == ["old"]


def test_an_attached_file_is_put_back(sqlite, serve, tmp_path):
    """The tables of a schema are in a file of their own."""
    settings = {"sqa.provider": "aalam", "sqa.app": "shop"}
    app = serve(sqlite.url, **settings)
    with get_sqa(app).engine.begin() as connection:
        connection.execute(text("CREATE TABLE aalam_shop.item (id INTEGER)"))
    count = text("SELECT count(*) FROM aalam_shop.item")
    with Site(None, app).isolated(commits=True) as sandbox:
        sandbox.session.execute(text("INSERT INTO aalam_shop.item VALUES (1)"))
        sandbox.session.commit()
        assert sandbox.session.scalar(count) == 1
    with get_sqa(app).engine.connect() as connection:
        assert connection.scalar(count) == 0


def test_several_transactions_of_one_thread_are_real(any_database, make_site):
    """Two connections of the pool, one of which is lost."""
    site = make_site(any_database)
    with site.isolated(commits=True) as sandbox:
        sandbox.client.get("/outer?status=400", status=400)
        with get_sqa(site.app).engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
            connection.invalidate()
        sandbox.client.get("/write?body=new")
        assert read(sandbox.session) == ["inner", "new"]
        assert sandbox.outcomes == ["commit", "commit"]
    assert site.stored == []


def test_a_row_that_refers_to_its_own_table_is_put_back(postgresql, make_site):
    """All rows of a table come in one statement."""
    site = make_site(postgresql)
    postgresql.run(
        "CREATE TABLE node (id INTEGER PRIMARY KEY, above INTEGER REFERENCES node)",
        "INSERT INTO node VALUES (2, NULL), (1, 2)",
    )
    with site.isolated(commits=True) as sandbox:
        sandbox.client.get("/raw", {"sql": "DELETE FROM node"})

    assert postgresql.rows("SELECT id, above FROM node ORDER BY id") == [(1, 2), (2, None)]


def test_a_temporary_table_is_left_alone(serve):
    """It belongs to one connection."""
    app = serve("sqlite://")
    with get_sqa(app).engine.begin() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE passing (id INTEGER)"))
    with Site(None, app).isolated(commits=True) as sandbox:
        assert sandbox.session.scalar(text("SELECT count(*) FROM passing")) == 0


def test_a_session_that_only_reads_has_no_outcome(any_database, make_site):
    """Outside its transaction a session of the application reads, and rolls back."""
    site = make_site(any_database)
    with site.isolated(commits=True) as sandbox:
        session = get_sqa(site.app).session(transaction.TransactionManager(explicit=True))
        assert read(session) == []
        session.end()
        assert sandbox.outcomes == []


def test_the_driver_s_own_connection_is_real_too(mariadb, make_site):
    """begin() and close() are the driver's own."""
    site = make_site(mariadb)
    with site.isolated(commits=True):
        pooled = get_sqa(site.app).engine.raw_connection()
        driver = pooled.dbapi_connection
        driver.begin()
        assert driver.open
        driver.close()
        pooled.invalidate()
        pooled.close()

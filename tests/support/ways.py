"""Every way to write, each with the table that it leaves behind."""

from sqlalchemy import delete, insert, text, update

from support.models import Note

BEFORE = {(1, "before")}
ADDED = {(1, "before"), (2, "new")}
CHANGED = {(1, "changed")}
GONE = set()
TWO_MORE = {(1, "before"), (2, "new"), (3, "newer")}
ROWS = [{"id": 2, "body": "new"}, {"id": 3, "body": "newer"}]

WAYS = {}


def way(after, only=("sqlite", "mariadb", "postgresql")):
    """Register a way to write, and what the table contains after it."""

    def register(function):
        WAYS[function.__name__] = (function, after, only)
        return function

    return register


@way(ADDED)
def orm_add(session):
    session.add(Note(id=2, body="new"))


@way(ADDED)
def orm_add_and_flush(session):
    session.add(Note(id=2, body="new"))
    session.flush()


@way(ADDED)
def orm_merge_of_a_new_object(session):
    session.merge(Note(id=2, body="new"))


@way(CHANGED)
def orm_merge_of_a_known_object(session):
    session.merge(Note(id=1, body="changed"))


@way(GONE)
def orm_delete(session):
    session.delete(session.get(Note, 1))


@way(CHANGED)
def attribute_change(session):
    session.get(Note, 1).body = "changed"


@way(TWO_MORE)
def orm_add_all(session):
    session.add_all([Note(**row) for row in ROWS])


@way(TWO_MORE)
def bulk_save_objects(session):
    session.bulk_save_objects([Note(**row) for row in ROWS])


@way(TWO_MORE)
def bulk_insert_mappings(session):
    session.bulk_insert_mappings(Note, ROWS)


@way(CHANGED)
def bulk_update_mappings(session):
    session.bulk_update_mappings(Note, [{"id": 1, "body": "changed"}])


@way(TWO_MORE)
def orm_insert_of_many(session):
    session.execute(insert(Note), ROWS)


@way(CHANGED)
def orm_update_by_primary_key(session):
    session.execute(update(Note), [{"id": 1, "body": "changed"}])


@way(CHANGED)
def orm_update(session):
    session.execute(update(Note).where(Note.id == 1).values(body="changed"))


@way(GONE)
def orm_delete_statement(session):
    session.execute(delete(Note).where(Note.id == 1))


@way(ADDED)
def core_insert(session):
    session.execute(insert(Note.__table__).values(id=2, body="new"))


@way(CHANGED)
def core_update(session):
    session.execute(update(Note.__table__).values(body="changed"))


@way(GONE)
def core_delete(session):
    session.execute(delete(Note.__table__))


@way(ADDED, only=["sqlite", "postgresql"])
def insert_returning(session):
    assert session.scalar(insert(Note).values(id=2, body="new").returning(Note.body)) == "new"


@way(ADDED, only=["mariadb"])
def insert_returning_on_mariadb(session):
    statement = text("INSERT INTO note (id, body) VALUES (2, 'new') RETURNING body")
    assert session.scalar(statement) == "new"


@way(CHANGED, only=["sqlite", "postgresql"])
def update_returning(session):
    statement = update(Note).values(body="changed").returning(Note.body)
    assert session.scalars(statement).all() == ["changed"]


@way(GONE, only=["sqlite", "postgresql"])
def delete_returning(session):
    assert session.scalars(delete(Note).returning(Note.id)).all() == [1]


@way(GONE, only=["mariadb"])
def delete_returning_on_mariadb(session):
    assert session.scalars(text("DELETE FROM note RETURNING id")).all() == [1]


@way(ADDED)
def legacy_query(session):
    session.add(Note(id=2, body="newer"))
    session.query(Note).filter_by(id=2).update({"body": "new"})


@way(CHANGED)
def text_update(session):
    session.execute(text("UPDATE note SET body = 'changed'"))


@way(ADDED)
def text_insert(session):
    session.execute(text("INSERT INTO note (id, body) VALUES (2, 'new')"))


@way(ADDED)
def connection(session):
    session.connection().execute(insert(Note.__table__).values(id=2, body="new"))


@way(ADDED)
def driver_sql(session):
    session.connection().exec_driver_sql("INSERT INTO note (id, body) VALUES (2, 'new')")


@way(ADDED)
def savepoint_kept(session):
    with session.begin_nested():
        session.add(Note(id=2, body="new"))


@way(ADDED)
def savepoint_rolled_back(session):
    session.add(Note(id=2, body="new"))
    with session.begin_nested() as savepoint:
        session.add(Note(id=3, body="undone"))
        session.flush()
        savepoint.rollback()


@way(ADDED)
def savepoint_around_a_failure(session):
    session.add(Note(id=2, body="new"))
    session.flush()
    try:
        with session.begin_nested():
            session.execute(insert(Note.__table__).values(id=1, body="twice"))
    except Exception:  # noqa: BLE001 - any error of the three databases; the rest goes on
        pass


@way(ADDED)
def transaction_savepoint(session):
    session.add(Note(id=2, body="new"))
    savepoint = session.tm.savepoint()
    session.add(Note(id=3, body="undone"))
    session.flush()
    savepoint.rollback()


@way(ADDED, only=["mariadb"])
def stored_procedure(session):
    session.execute(text("CALL add_note(2, 'new')"))


@way(ADDED, only=["sqlite", "postgresql"])
def cte_write(session):
    session.execute(text("WITH n AS (SELECT 2 AS id) INSERT INTO note SELECT id, 'new' FROM n"))


@way(ADDED, only=["sqlite", "postgresql"])
def write_beside_ddl(session):
    session.execute(text("CREATE TABLE extra (id INTEGER)"))
    session.execute(text("INSERT INTO note (id, body) VALUES (2, 'new')"))


CASES = [(name, kind) for name, (_, _, only) in WAYS.items() for kind in only]


def prepare(database):
    """Make the table, with one row, and the procedure that the ways use."""
    database.run("CREATE TABLE note (id INTEGER PRIMARY KEY, body VARCHAR(50) NOT NULL)")
    database.run("INSERT INTO note (id, body) VALUES (1, 'before')")
    if database.kind in {"mysql", "mariadb"}:
        database.run(
            "CREATE PROCEDURE add_note(IN i INT, IN b VARCHAR(50)) "
            "INSERT INTO note (id, body) VALUES (i, b)"
        )
    return database

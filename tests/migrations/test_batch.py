"""SQLite changes a table by making it again; the rows that refer to it stay."""

import pytest

BATCH = """
with op.batch_alter_table("parent", recreate="always") as batch:
    batch.add_column(sa.Column("more", sa.Integer))
""".strip()
PARENTS = """
op.create_table("parent", sa.Column("id", sa.Integer, primary_key=True))
op.create_table(
    "child",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("parent_id", sa.Integer, nullable=False),
    sa.ForeignKeyConstraint(["parent_id"], ["parent.id"], ondelete="CASCADE"),
)
op.execute("INSERT INTO parent VALUES (1)")
op.execute("INSERT INTO child VALUES (1, 1)")
""".strip()


@pytest.fixture
def site(make, revisions):
    revisions.add("1", PARENTS)
    return make("sqlite://")


def test_a_table_that_is_made_again_keeps_the_rows_that_refer_to_it(site, revisions):
    """Foreign keys are not checked meanwhile: DROP TABLE would delete those rows."""
    revisions.add("2", BATCH)
    assert site.migrate()["state"] == "done"
    assert site.eyes.rows("SELECT id, parent_id FROM child") == [(1, 1)]
    assert site.eyes.rows("SELECT id, more FROM parent") == [(1, None)]


def test_a_revision_that_leaves_rows_without_what_they_refer_to_is_undone(site, revisions):
    """All rows are checked at its end."""
    revisions.add("2", "op.execute('DELETE FROM parent')")
    report = site.migrate()

    assert "rows refer to rows that are not there: child" in report["error"]
    assert site.versions() == ["1"]
    assert site.eyes.rows("SELECT id FROM parent") == [(1,)]


def test_a_table_in_sql_of_ones_own_is_told_where_it_belongs(site, revisions):
    """SQL of a revision names the application, as all SQL on SQLite does."""
    revisions.add("2", "op.execute('CREATE TABLE lost (id INTEGER)')")
    report = site.migrate()

    assert (
        "nothing of it is stored: not authorized The application's tables are in" in report["error"]
    )
    assert site.versions() == ["1"]

"""The tables of an application are found with its schema and without it."""

import pytest
from sqlalchemy import (
    MetaData,
    Table,
    inspect,
    select,
    text,
)

from support.portable_app import TABLES


def test_the_tables_are_seen_under_their_schema(named, place):
    """Inspection finds columns, indexes, and foreign keys with their schema."""
    inspector = inspect(named.engine)

    assert sorted(inspector.get_table_names(schema=place.name)) == TABLES
    assert place.name in inspector.get_schema_names()
    assert inspector.has_table("posts", schema=place.name)
    columns = inspector.get_columns("posts", schema=place.name)
    assert [column["name"] for column in columns] == ["id", "title", "user_id"]
    indexes = inspector.get_indexes("posts", schema=place.name)
    assert "ix_posts_title" in [index["name"] for index in indexes]
    [key] = inspector.get_foreign_keys("posts", schema=place.name)
    assert (key["referred_schema"], key["referred_table"]) == (place.name, "users")
    assert inspector.get_pk_constraint("users", schema=place.name)["constrained_columns"] == ["id"]


def test_the_tables_are_seen_without_a_schema(made, place):
    """The application's database is the current one."""
    inspector = inspect(made.engine)

    assert inspector.default_schema_name == place.name
    assert sorted(inspector.get_table_names()) == TABLES
    assert inspector.has_table("posts")
    assert not inspector.has_table("nothing")
    assert len(inspector.get_columns("posts")) == 3
    assert "ix_posts_title" in [index["name"] for index in inspector.get_indexes("posts")]
    assert inspector.get_foreign_keys("posts")[0]["referred_table"] == "users"
    assert inspector.get_unique_constraints("users")[0]["column_names"] == ["name"]


def test_views_are_seen_and_read(named, place):
    """Views are listed, their definition is found, and they can be read."""
    with named.engine.begin() as connection:
        connection.execute(text(f"CREATE VIEW {place.name}.names AS SELECT name FROM users"))
    inspector = inspect(named.engine)

    assert inspector.get_view_names() == inspector.get_view_names(schema=place.name) == ["names"]
    assert "name" in inspector.get_view_definition("names")
    assert place.rows("names") == []


def test_metadata_is_reflected_with_its_schema(named, place):
    """All tables of the schema, and the table that a foreign key refers to."""
    everything, one = MetaData(), MetaData()
    everything.reflect(named.engine, schema=place.name)
    posts = Table("posts", one, schema=place.name, autoload_with=named.engine)

    assert sorted(everything.tables) == [f"{place.name}.{table}" for table in TABLES]
    [key] = posts.c.user_id.foreign_keys
    assert key.column.table.fullname == f"{place.name}.users"
    with named.engine.connect() as connection:
        assert connection.execute(select(posts.join(key.column.table))).all() == []


def test_metadata_is_reflected_without_a_schema(named, place):
    """The reflected tables can be queried."""
    everything, one = MetaData(), MetaData()
    everything.reflect(named.engine)
    posts = Table("posts", one, autoload_with=named.engine)

    assert set(TABLES) <= set(everything.tables)
    [key] = posts.c.user_id.foreign_keys
    assert key.column.table.name == "users"
    with named.engine.connect() as connection:
        assert connection.execute(select(posts.join(key.column.table))).all() == []


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_only_the_applications_schema_is_searched(place):
    """A table in public is not used in place of the application's own that is missing."""
    with place.engine().connect() as connection:
        assert connection.scalar(text("SHOW search_path")) == f'"{place.name}"'
        assert connection.scalar(text("SELECT current_schema()")) == place.name

"""Every wait for a database is bounded by default."""

import psycopg
import pytest
from sqlalchemy import text

from pyramid_aalam_sqa import get_sqa
from pyramid_aalam_sqa.settings.options import all_options


@pytest.mark.parametrize(
    ("url", "arguments"),
    [
        ("mysql+pymysql://h/d", {"connect_timeout": 5, "read_timeout": 60, "write_timeout": 60}),
        ("postgresql+psycopg://h/d", {"connect_timeout": 5}),
        ("sqlite:///file.sqlite", {"timeout": 10}),
    ],
    ids=["mysql", "postgresql", "sqlite"],
)
def test_every_wait_of_the_driver_and_of_the_pool_is_bounded_by_default(
    serve_pages, monkeypatch, tmp_path, url, arguments
):
    """No wait is unlimited, even without a line in the ini file."""
    monkeypatch.chdir(tmp_path)
    engine = get_sqa(serve_pages(url).app).engine
    given = {}

    def look(*_arguments, **options):
        given.update(options)
        raise ConnectionRefusedError

    monkeypatch.setattr(engine.dialect, "connect", look)
    # The backend connects by the class, to limit each wait of the connection.
    monkeypatch.setattr(psycopg.Connection, "connect", look)
    with pytest.raises(ConnectionRefusedError):
        engine.connect()

    assert given.items() >= arguments.items()
    assert engine.pool.timeout() == 5


def test_every_wait_of_the_server_is_bounded_by_default(serve_pages, any_database):
    """Each server reports its limits for lock waits and for statements."""
    asked, bounds = {
        "mysql": (
            "SELECT @@innodb_lock_wait_timeout, @@lock_wait_timeout, @@max_statement_time",
            (10, 10, 55),
        ),
        "postgresql": (
            "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')",
            ("10s", "55s"),
        ),
        "sqlite": ("PRAGMA busy_timeout", (10000,)),
    }[any_database.kind]
    with get_sqa(serve_pages(any_database.url).app).engine.connect() as connection:
        assert tuple(connection.execute(text(asked)).one()) == bounds


def test_every_bound_is_in_the_table_of_settings():
    """The table has the meaning of each bound, so that a user can find and change it."""
    bounds = {"sqlalchemy.pool_timeout", "sqlalchemy.connect_args"}
    bounds |= {"sqa.lock_timeout", "sqa.statement_timeout", "sqa.retry_after"}

    assert bounds <= {option.key for option in all_options() if option.meaning}

"""A password in a file is read for each connection, so that it can be changed."""

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from pyramid_aalam_sqa import SettingError, engine_from_settings
from pyramid_aalam_sqa.engines import password_file
from pyramid_aalam_sqa.engines.create import make_engine
from pyramid_aalam_sqa.settings.reader import read_settings


@pytest.fixture
def change(mariadb_server):
    """Give the account a new password. Its connections stay open."""

    def change(password):
        with mariadb_server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("ALTER USER changing IDENTIFIED BY %s", (password,))

    with mariadb_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE USER changing IDENTIFIED BY 'first'")
    yield change
    with mariadb_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("DROP USER changing")


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "password"
    file.write_text("first\n")
    return file


@pytest.fixture
def settings(mariadb_server, file):
    url = mariadb_server.url().replace("root", "changing")
    return {
        "sqlalchemy.url": url,
        "sqlalchemy.poolclass": "NullPool",
        "sqa.password_file": str(file),
    }


@pytest.fixture
def log_in(settings, change):
    """Open a connection of the application, and return the account's name."""
    engine = engine_from_settings(settings)

    def log_in():
        with engine.connect() as connection:
            return connection.exec_driver_sql("SELECT CURRENT_USER()").scalar()

    yield log_in
    engine.dispose()


def test_the_password_is_read_for_each_connection(log_in, change, file):
    """All kinds of line endings work. Letters that are not ASCII are sent as they are written."""
    assert log_in() == "changing@%"
    for password in ("sec'ond", "dritt€s ", "%(x)s"):
        change(password)
        file.write_text(f"{password}\r\n", "utf-8", newline="")
        assert log_in() == "changing@%"


def test_a_login_that_is_refused_is_tried_with_the_next_password(log_in, change, file):
    """The next password is beside the file before the server knows it."""
    beside = file.with_name("password.next")
    beside.write_text("second\n")
    assert log_in() == "changing@%"
    change("second")
    assert log_in() == "changing@%"
    beside.rename(file)
    assert log_in() == "changing@%"


def test_a_login_that_is_refused_with_both_is_an_error(log_in, change, file):
    """Each password is tried once."""
    file.with_name("password.next").write_text("second\n")
    change("third")
    with pytest.raises(OperationalError, match="1045"):
        log_in()


def test_a_file_that_changes_during_the_login_is_read_again(settings, change, file, monkeypatch):
    """The next password has become the password before it was looked for."""
    engine = engine_from_settings(settings)
    beside = file.with_name("password.next")
    connect, tried = password_file.connect_through, []

    def slowly(listener, dialect, record, args, kwargs):
        tried.append(kwargs["password"])
        if len(tried) == 1:
            change("second")
            file.write_text("second\n")
        elif len(tried) == 2:
            change("third")
            beside.write_text("third\n")
        return connect(listener, dialect, record, args, kwargs)

    monkeypatch.setattr(password_file, "connect_through", slowly)
    engine.connect().close()

    assert tried == ["first", "second", "third"]


def test_an_unfinished_file_beside_the_password_file_is_not_read(log_in, change, file):
    """An empty file with the next password is ignored."""
    file.with_name("password.next").write_text("")
    change("second")
    with pytest.raises(OperationalError, match="1045"):
        log_in()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "write the password, and nothing else, in its only line"),
        (b"\n", "write the password, and nothing else, in its only line"),
        (b"secret\nsecret\n", "write the password, and nothing else, in its only line"),
        (b"secret\xff", "it is not UTF-8"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_without_a_password_is_named(log_in, file, content, reason):
    """The error is raised by the connection, and does not show what is in the file."""
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(SettingError, match=reason) as caught:
        log_in()

    assert str(file) in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"sqlalchemy.connect_args.password": "x"}, "sqlalchemy.connect_args.password"),
        ({"sqlalchemy.connect_args.passwd": "x"}, "sqlalchemy.connect_args.passwd"),
        ({"sqlalchemy.url": "mysql+pymysql://changing:x@localhost/"}, "sqlalchemy.url"),
    ],
)
def test_a_password_in_two_places_is_refused_at_start_up(settings, more, where):
    """It would not be clear which password is used."""
    with pytest.raises(SettingError) as caught:
        engine_from_settings({**settings, **more})

    assert str(caught.value) == (
        f"sqa.password_file: {where} has a password as well; remove it there."
    )


def test_sqlite_has_no_password(file):
    """The setting would have no effect, so it is refused."""
    with pytest.raises(SettingError, match="SQLite has no passwords; remove the line"):
        engine_from_settings({"sqlalchemy.url": "sqlite://", "sqa.password_file": str(file)})


def test_a_ready_engine_has_its_own_password(file):
    """The engine would not use the password file, so the setting is refused."""
    engine = create_engine("sqlite://")
    read = read_settings({"sqlalchemy.engine": engine, "sqa.password_file": str(file)})
    with pytest.raises(SettingError, match="is used as it is"):
        make_engine(read.database, read.sqa_options)


def test_on_another_driver_the_password_is_read_too(postgresql, file):
    """The listener then connects in the same way as SQLAlchemy does."""
    engine = engine_from_settings(
        {"sqlalchemy.url": postgresql.url, "sqa.password_file": str(file)}
    )
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    engine.dispose()

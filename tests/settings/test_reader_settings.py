"""sqa.reader.*: how replicas are named, and one clear error for each way in which it is wrong."""

import pytest
from pyramid.exceptions import ConfigurationError
from sqlalchemy.pool import NullPool

from pyramid_aalam_sqa import SettingError
from pyramid_aalam_sqa.settings.reader import read_settings
from support.apps import application

WRITER = "mysql+pymysql://me:hidden@db1/base"
REPLICAS = "mysql+pymysql://me:hidden@db2/base mysql+pymysql://me:hidden@db3:3307/base"
SECRET = "sixteen characters and more"
OWN = {"sqa.provider": "aalam", "sqa.app": "base"}


def read(readers=REPLICAS, url=WRITER, **more):
    given = {"sqlalchemy.url": url, "sqa.reader.url": readers, "sqa.reader.secret": SECRET}
    return read_settings({name: value for name, value in (given | more).items() if value})


def wrong(*args, **more):
    with pytest.raises(SettingError) as caught:
        read(*args, **more)
    text = str(caught.value)
    assert "hidden" not in text
    return text


def test_replicas_are_urls_separated_by_spaces():
    """Each is a database of its own server, whose password is never shown."""
    settings = read()

    hosts = [(url.host, url.port) for url in settings.sqa_options["reader.url"]]
    assert hosts == [("db2", None), ("db3", 3307)]
    assert "hidden" not in repr(settings)


def test_the_name_of_the_application_completes_their_urls_too():
    """As it completes that of the database."""
    url = "mysql+pymysql://me:hidden@db2/"
    settings = read(url, "mysql+pymysql://me:hidden@db1/", **OWN)

    assert [each.database for each in settings.sqa_options["reader.url"]] == ["aalam_base"]


def test_the_replicas_of_a_bind_are_its_own():
    """A bind without the setting has none, whatever the default database has."""
    more = {
        "sqlalchemy.binds.audit.url": WRITER,
        "sqlalchemy.binds.log.url": WRITER,
        "sqa.binds.audit.reader.url": "mysql+pymysql://me:hidden@db9/base",
    }
    settings = read(**more)

    assert settings.options_for("audit")["reader.url"][0].host == "db9"
    assert settings.options_for("log")["reader.url"] is None
    assert len(settings.options_for("default")["reader.url"]) == 2


@pytest.mark.parametrize(
    ("readers", "url", "text"),
    [
        ("sqlite:///a", "sqlite:///b", "sqa.reader.url: this is for servers of MySQL, MariaDB and"),
        ("postgresql+psycopg://me:hidden@db/x", WRITER, "a replica of MySQL or MariaDB is MySQL"),
        ("db2 db3", WRITER, "sqa.reader.url: this is not a database URL"),
        (f"{WRITER} {WRITER}", WRITER, "one of the URLs is listed twice"),
        ("mysql+pymysql://me:hid@den@db/x", WRITER, "sqa.reader.url: in the user name and"),
    ],
)
def test_a_wrong_replica_is_refused(readers, url, text):
    """The message names the setting, and says what to write."""
    assert text in wrong(readers, url)


@pytest.mark.parametrize("option", ["creator", "pool"])
def test_what_connects_to_one_server_is_refused(option):
    """It would lead to the server that writes."""
    value = {"creator": print, "pool": NullPool(print)}[option]

    assert f"sqlalchemy.{option} says where" in wrong(**{f"sqlalchemy.{option}": value})


def test_a_secret_is_needed():
    """The one of the cursors will do. Without one, each process would have its own."""
    assert "sqa.reader.secret is missing" in wrong(**{"sqa.reader.secret": None})
    settings = read(**{"sqa.reader.secret": None, "sqa.cursor_secret": SECRET})
    assert settings.sqa_options["reader.url"]


@pytest.mark.parametrize("methods", ["POST", "GET POST", "get delete"])
def test_a_method_that_writes_is_refused(methods):
    """A form that was sent twice would be stored twice."""
    assert "sqa.reader.methods" in wrong(**{"sqa.reader.methods": methods})


def test_one_attempt_is_too_few_for_methods(sqlite):
    """The second one is that of a request which writes."""
    settings = {"sqa.reader.methods": "get head", "retry.attempts": "1"}
    refused = pytest.raises(ConfigurationError, match=r"retry\.attempts = 1")
    with refused, application(sqlite.url, **settings):
        pass

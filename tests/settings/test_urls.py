"""A database URL is read, or an error says what is wrong and shows no password."""

import re
import traceback

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from pyramid_aalam_sqa import SettingError
from pyramid_aalam_sqa.settings.reader import read_settings
from support.settings_app import (
    MYSQL,
    refused,
)

WRONG_URLS = {
    "no url": ("hidden", "this is not a database URL; write for example mysql+pymysql://"),
    "one slash": ("sqlite:/app.sqlite", "this is not a database URL"),
    "two lines": (
        "mysql+pymysql://me:hidden@host/base\n?charset=utf8",
        "this is not a database URL",
    ),
    "quoted": ("'mysql+pymysql://me:hidden@host/base'", "remove the quotes"),
    "quoted twice": ('"sqlite://"', "remove the quotes"),
    "unknown dialect": (
        "mysqql://me:hidden@host/base",
        "no dialect 'mysqql'; write mysql+pymysql:",
    ),
    "other tool": ("postgres://me:hidden@host/base", "write postgresql://"),
    "other number": ("sqlite3:///app.sqlite", "write sqlite://"),
    "capitals": ("SQLite:///app.sqlite", "write sqlite://"),
    "unknown driver": ("mysql+pymsql://me:hidden@host/base", "write mysql+pymysql://"),
    "no driver": ("mysql+types://me:hidden@host/base", "write mysql+pymysql://"),
    "three names": ("mysql+a+b://me:hidden@host/base", "write mysql+pymysql://"),
    "unheard of": ("zzz://me:hidden@host/base", "no dialect 'zzz'; write for example mysql"),
    "asyncio": ("mysql+aiomysql://me:hidden@host/base", "is for asyncio, which Pyramid does"),
    "bad port": ("mysql+pymysql://me:hidden@host:three/base", "the port is not a number"),
    "no host": ("mysql+pymysql://me:hidden/base", "the port is not a number"),
    "port of a script": ("mysql+pymysql://me:hidden@host:٣٣/base", "the port is not a number"),
    "port with a joint": ("mysql+pymysql://me:hidden@host:33_06/base", "the port is not a number"),
    "port zero": ("mysql+pymysql://me:hidden@host:0/base", "write a number from 1 to 65535"),
    "port too high": ("mysql+pymysql://me:hidden@host:70000/base", "from 1 to 65535"),
    "at": ("mysql+pymysql://me:hid@den@host/base", "write @ as %40"),
    "at and slash": ("mysql+pymysql://me:hid@de/n@host/base", "write @ as %40"),
    "at and question": ("mysql+pymysql://me:hid@de?n@host/base", "write @ as %40"),
    "slash in the user": ("mysql+pymysql://m/e:hidden@host/base", "/ as %2F"),
    "parsed before": (make_url("mysql+pymysql://me:hid@den@host/base"), "write @ as %40"),
    "password as parameter": (
        "postgresql+psycopg://host/base?user=me&password=hidden",
        "write password as sqlalchemy.connect_args.password",
    ),
    "file with a host": ("sqlite://app.sqlite", "write three slashes before a relative path"),
    "parameter": ("mysql+pymysql://me@host/base?connect_timeout=soon", "one of the parameters"),
    "of another type": (5, "sqlalchemy.url: write a database URL."),
    "no type": (None, "sqlalchemy.url: write a database URL."),
}


@pytest.mark.parametrize("case", WRONG_URLS)
def test_a_wrong_url_is_explained_and_never_shown(case):
    """The error names the setting, never the URL: any part of it may be the password."""
    url, expected = WRONG_URLS[case]
    message = refused({"sqlalchemy.url": url})

    assert message.startswith("sqlalchemy.url: ")
    assert expected in message
    assert not re.search("hid|den|hidden", message)


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("mysql://me:hidden@host/base", "pip install 'mysqlclient' (or write mysql+pymysql://"),
        ("mariadb://me:hidden@host/base", "(or write mariadb+pymysql://"),
        ("postgresql+psycopg2://host", "pip install 'psycopg2-binary'"),
        ("oracle+oracledb://host", "pip install 'oracledb'"),
    ],
)
def test_a_driver_that_is_missing_is_named_with_the_command(only_our_drivers, url, command):
    """The error contains a pip command that can be copied."""
    name = make_url(url).drivername
    message = refused({"sqlalchemy.url": url})

    assert message.startswith(f"sqlalchemy.url: the driver of {name}:// is not installed; run: pip")
    assert command in message


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("mysql+mysqlconnector://host", "mysql+pymysql:// (installed) or mysql+mysqldb:// (pip"),
        ("mariadb+mariadbconnector://host", "mariadb+mysqldb:// (pip install 'mysqlclient')"),
        ("mysql+cymysql://host", "mysql+pymysql:// (installed)"),
        ("mysql+pyodbc://host", "mysql+pymysql:// (installed)"),
        ("postgresql+pg8000://host", "psycopg2:// (pip install 'psycopg2-binary')"),
        ("postgresql+psycopg2cffi://host", "(pip install 'pyramid_aalam_sqa[postgresql]')"),
        ("sqlite+pysqlcipher:///file", "sqlite+pysqlite:// (installed)"),
    ],
)
def test_a_driver_whose_codes_are_not_known_is_refused_with_those_that_are(url, advice):
    """With such a driver, conflicts and lost connections would not be recognized."""
    message = refused({"sqlalchemy.url": url})

    assert message.startswith(f"sqlalchemy.url: {make_url(url).drivername}:// is not supported")
    assert advice in message


@pytest.mark.parametrize(
    ("url", "name", "advice"),
    [
        ("mysql+pymysql://host/base?conect_timeout=5", "conect_timeout", "connect_timeout?"),
        (
            "postgresql+psycopg://host/base?aplication_name=x",
            "aplication_name",
            "application_name?",
        ),
        ("postgresql://host/base?sslmod=require", "sslmod", "sslmode?"),
        ("sqlite:///app.sqlite?timeuot=5", "timeuot", "timeout?"),
        ("sqlite:///app.sqlite?mode=ro", "mode", "remove it"),
        ("sqlite:///file:app.sqlite?immutabel=1&uri=true", "immutabel", "immutable?"),
    ],
)
def test_an_unknown_parameter_of_the_url_is_refused_at_once(url, name, advice):
    """Else the driver would refuse it at each request. On SQLite, SQLAlchemy would ignore it."""
    message = refused({"sqlalchemy.url": url})

    assert message.startswith(f"sqlalchemy.url: ?{name}: the driver has no such argument; ")
    assert advice in message


def test_an_encoded_password_is_what_it_stands_for(engine):
    """The escapes that the errors advise are read as the characters they stand for."""
    url = engine("mysql+pymysql://m%2Fe:p%40ss%3Aw%2Ford%25@host/base").url

    assert (url.username, url.password, url.host) == ("m/e", "p@ss:w/ord%", "host")


@pytest.mark.parametrize(
    "url",
    ["mysql+pymysql://host/base?connect_timeout=2", make_url("mysql+pymysql://host")],
)
def test_a_url_is_shown_without_what_its_parameters_hold(url):
    """The values of parameters are hidden, because one may be a secret."""
    database = read_settings({"sqlalchemy.url": url}).database

    assert str(database).startswith("mysql+pymysql://host")
    assert "connect_timeout" not in str(database)


def test_a_parameter_of_the_url_wins_over_a_default_of_ours(engine, mariadb):
    """An argument in the URL wins over our default for the driver."""
    with engine(mariadb.url + "?charset=latin1").connect() as connection:
        assert connection.exec_driver_sql("SELECT @@character_set_client").scalar() == "latin1"


def test_an_unknown_argument_of_the_driver_is_refused_at_once():
    """Otherwise the driver would refuse it at every request, and not when the server starts."""
    near = refused({"sqlalchemy.url": MYSQL, "sqlalchemy.connect_args.conect_timeout": "5"})
    far = refused({"sqlalchemy.url": MYSQL, "sqlalchemy.connect_args": '{"zzzz": "hidden"}'})

    assert near == (
        "sqlalchemy.connect_args.conect_timeout: the driver has no such argument; "
        "did you mean connect_timeout?"
    )
    assert far == "sqlalchemy.connect_args.zzzz: the driver has no such argument; remove it."


SECRET = "Tr0ub4dor"
AROUND = st.text(max_size=5)


@hypothesis_settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(["mysql+pymysql", "mysql", "postgresql+psycopg", "mysqql", "oracle", "zz", ""]),
    AROUND,
    AROUND,
    AROUND,
    st.sampled_from(["@host/base", "@host:port/base", "@host:99999/", "@[::1", "@", "@@"]),
)
def test_no_wrong_url_shows_its_password(scheme, user, before, after, rest):
    """Random text around the password, and several mistakes in the rest of the URL."""
    url = f"{scheme}://{user}:{before}{SECRET}{after}{rest}"
    try:
        shown = repr(read_settings({"sqlalchemy.url": url}))
    except SettingError as error:
        shown = "".join(traceback.format_exception(error))

    assert SECRET not in shown

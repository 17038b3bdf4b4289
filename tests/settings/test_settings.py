"""Every option is read as what it is, and every wrong one is a sentence that helps."""
# ruff: noqa: SLF001 - SQLAlchemy keeps most of what it was told in names of its own

import json
import logging
import re
import runpy
import sqlite3
import traceback
from pathlib import Path

import pymysql
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.response import Response
from sqlalchemy import JSON, create_engine, literal, literal_column, select
from sqlalchemy.dialects import plugins, registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL, CreateEnginePlugin, make_url
from sqlalchemy.exc import SAWarning
from sqlalchemy.orm import Session
from sqlalchemy.pool import AssertionPool, NullPool, QueuePool, StaticPool
from transaction import TransactionManager
from webtest import TestApp

from pyramid_aalam_sqa import SettingError, commit_veto, engine_from_settings, get_sqa
from pyramid_aalam_sqa.backends.registry import backend_for
from pyramid_aalam_sqa.settings.options import ENGINE, PYRAMID_OPTIONS, SQA_OPTIONS, table
from pyramid_aalam_sqa.settings.reader import check_pyramid_options, read_settings

SQLITE = "sqlite:////nowhere/base.sqlite"
MYSQL = "mysql+pymysql://me:hidden@host/base"
POSTGRESQL = "postgresql+psycopg://me:hidden@host/base"
OPTIONS = {option.key: option for option in table()}
GENERATOR = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "make_settings.py"))


# What the settings below name by its dotted name.


def connect_anew():
    return sqlite3.connect(":memory:", check_same_thread=False)


def loads(text):
    return f"read: {text}"


def dumps(value):
    return f"written: {value}"


class Shop(Session):
    """A session class of the application's own."""


class Plugin(CreateEnginePlugin):
    """A plugin of SQLAlchemy's that leaves a trace."""

    def update_url(self, url):
        return url

    def engine_created(self, engine):
        engine.was_plugged = True


class EmbeddedDialect(SQLiteDialect_pysqlite):
    """A database that this package knows nothing of, with a pool that is no queue."""

    name = "embedded"
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url):
        return StaticPool

    def get_isolation_level_values(self, dbapi_connection):
        raise NotImplementedError


POOL = QueuePool(connect_anew)
NUMBER = 7
ENGINE_READY = create_engine("sqlite://")
registry.register("embedded", "test_settings", "EmbeddedDialect")
plugins.register("trace", "test_settings", "Plugin")


@pytest.fixture(autouse=True)
def _quiet_again():
    """``echo`` gives SQLAlchemy's logger a handler for good."""
    logger = logging.getLogger("sqlalchemy")
    handlers = list(logger.handlers)
    yield
    logger.handlers[:] = handlers


@pytest.fixture
def engine():
    """Make the engine of settings as an application does; dispose it in the end."""
    started = []

    def engine(url=SQLITE, **options):
        given = {f"sqlalchemy.{name}": value for name, value in options.items()}
        started.append(start({"sqlalchemy.url": url, **given}))
        return started[-1].engine

    yield engine
    for sqa in started:
        sqa.engine.echo = sqa.engine.pool.echo = False
        sqa.dispose()


def start(settings, *includes):
    """Start a real application."""
    config = Configurator(settings=settings)
    for include in (*includes, "pyramid_aalam_sqa"):
        config.include(include)
    config.make_wsgi_app()
    return get_sqa(config)


def refused(settings, *includes):
    """Return what a real application says when it refuses to start."""
    with pytest.raises(ConfigurationError) as caught:
        start(settings, *includes)
    assert isinstance(caught.value.evalue, SettingError)
    message = str(caught.value.evalue)
    assert message in str(caught.value)
    return message


# How each option of create_engine shows on the engine: what to write, where to look, what is there.
SEEN = {
    "echo": ("true", lambda e: e.echo or False, True),
    "echo_pool": ("debug", lambda e: e.pool.echo or False, "debug"),
    "enable_from_linting": ("false", lambda e: bool(e.dialect.compiler_linting), False),
    "execution_options": (
        '{"logging_token": "shop"}',
        lambda e: dict(e.get_execution_options()),
        {"logging_token": "shop"},
    ),
    "future": ("true", lambda e: hasattr(e, "begin"), True),
    "hide_parameters": ("yes", lambda e: e.hide_parameters, True),
    "insertmanyvalues_page_size": ("7", lambda e: e.dialect.insertmanyvalues_page_size, 7),
    "isolation_level": (
        "serializable",
        lambda e: e.dialect._on_connect_isolation_level,
        "SERIALIZABLE",
    ),
    "json_deserializer": (
        "test_settings:loads",
        lambda e: e.dialect._json_deserializer or json.loads,
        loads,
    ),
    "json_serializer": (
        "test_settings.dumps",
        lambda e: e.dialect._json_serializer or json.dumps,
        dumps,
    ),
    "label_length": ("9", lambda e: e.dialect.label_length, 9),
    "logging_name": ("shop", lambda e: e.logging_name, "shop"),
    "max_identifier_length": ("99", lambda e: e.dialect.max_identifier_length, 99),
    "max_overflow": ("-1", lambda e: e.pool._max_overflow, -1),
    "paramstyle": ("named", lambda e: e.dialect.paramstyle, "named"),
    "plugins": ("trace", lambda e: getattr(e, "was_plugged", False), True),
    "pool": ("test_settings:POOL", lambda e: e.pool, POOL),
    "pool_logging_name": ("shop", lambda e: e.pool.logging_name, "shop"),
    "pool_pre_ping": ("on", lambda e: e.pool._pre_ping, True),
    "pool_recycle": ("7", lambda e: e.pool._recycle, 7),
    "pool_reset_on_return": ("None", lambda e: e.pool._reset_on_return.name, "reset_none"),
    "pool_size": ("20", lambda e: e.pool.size(), 20),
    "pool_timeout": ("0.5", lambda e: e.pool._timeout, 0.5),
    "pool_use_lifo": ("1", lambda e: e.pool._pool.use_lifo, True),
    "poolclass": ("NullPool", lambda e: type(e.pool), NullPool),
    "query_cache_size": ("0", lambda e: e._compiled_cache and e._compiled_cache.capacity, None),
    "skip_autocommit_rollback": ("true", lambda e: e.dialect.skip_autocommit_rollback, True),
    "use_insertmanyvalues": ("false", lambda e: e.dialect.use_insertmanyvalues, False),
}
# These show elsewhere, in tests of their own below.
SEEN_ELSEWHERE = {"url", "engine", "connect_args", "creator", "module"}
# Named in create_engine's documentation, and nothing to set.
NOTHING_TO_SET = {
    "empty_in_strategy": "SQLAlchemy no longer uses it",
    "implicit_returning": "may only be true, and does nothing",
}


def test_every_parameter_of_create_engine_is_an_option():
    """SQLAlchemy's own documentation is the list."""
    documented = set(re.findall(r"^    :param (\w+)", create_engine.__doc__, re.MULTILINE))

    assert documented - NOTHING_TO_SET.keys() <= {option.key for option in ENGINE}
    assert SEEN.keys() | SEEN_ELSEWHERE == {option.key for option in ENGINE}


@pytest.mark.parametrize("name", SEEN)
def test_an_option_reaches_the_engine_with_its_real_type(engine, name):
    """As text of an ini file it has the effect of the real thing."""
    text, look, expected = SEEN[name]
    found = look(engine(**{name: text}))

    assert found == expected
    assert type(found) is type(expected)


def documented_default(url, name):
    defaults = backend_for(make_url(url), GENERATOR["SWITCH_DEFAULTS"]).engine_defaults()
    return GENERATOR["default_in"](defaults, OPTIONS[f"sqlalchemy.{name}"])


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (url, name)
        for url in (SQLITE, "sqlite://", MYSQL, POSTGRESQL)
        for name in SEEN
        if documented_default(url, name) is not None
    ],
)
def test_the_table_tells_the_true_default(engine, name, url):
    """What an option is when nobody sets it is what the documentation says for this database."""
    look = SEEN[name][1]

    assert look(engine(url)) == look(engine(url, **{name: documented_default(url, name)}))


def test_json_is_written_and_read_by_the_applications_own(engine):
    """Both options are called, not only kept."""
    made = engine("sqlite://", json_serializer=dumps, json_deserializer="test_settings:loads")
    with made.connect() as connection:
        found = connection.scalar(select(literal([1], JSON)))

    assert found == "read: written: [1]"


def test_a_creator_makes_the_connections(engine, tmp_path):
    """The URL's file is not even made."""
    made = engine(f"sqlite:///{tmp_path}/file", creator="test_settings:connect_anew")
    with made.connect():
        pass

    assert list(tmp_path.iterdir()) == []


def test_a_module_takes_the_place_of_the_urls_driver(engine):
    """mysql:// stands for mysqlclient, which need not be installed then."""
    made = engine("mysql://me:hidden@host/base", module="pymysql")

    assert made.dialect.dbapi is pymysql


@pytest.mark.parametrize(
    "arguments",
    [
        {"connect_args": '{"isolation_level": "IMMEDIATE"}'},
        {"connect_args": {"isolation_level": "IMMEDIATE"}},
        {"connect_args.isolation_level": " IMMEDIATE "},
        {
            "connect_args": '{"isolation_level": "EXCLUSIVE"}',
            "connect_args.isolation_level": "IMMEDIATE",
        },
    ],
)
def test_connect_args_reach_the_driver(engine, arguments):
    """As one JSON object, as one line each, or both: the line of its own wins."""
    with engine("sqlite://", **arguments).connect() as connection:
        driver = connection.connection.dbapi_connection

        assert driver.isolation_level == "IMMEDIATE"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("connect_timeout", "3", 3),
        ("connect_timeout", "2.5", 2.5),
        ("local_infile", "True", True),
        ("use_unicode", "no", False),
        ("init_command", "SELECT 1", "SELECT 1"),
        ("ssl", '{"ca": "a.pem"}', {"ca": "a.pem"}),
        ("bind_address", "null", None),
        ("program_name", "[" * 100_000, "[" * 100_000),
        ("password", "0123", "0123"),
        ("password", "12345", "12345"),
        ("password", "true", "true"),
        ("user", "7", "7"),
        ("password", b"\xff", b"\xff"),
    ],
)
def test_an_argument_of_the_driver_is_text_or_json(name, text, value):
    """A password stays text however much it looks like a number."""
    found = read_settings({"sqlalchemy.url": MYSQL, f"sqlalchemy.connect_args.{name}": text})

    assert found.database.options["connect_args"] == {name: value}
    assert type(found.database.options["connect_args"][name]) is type(value)


@pytest.mark.parametrize(
    ("url", "name", "text", "expected"),
    [
        (SQLITE, "native_datetime", "yes", True),
        (SQLITE, "native_datetime", "no", False),
        (POSTGRESQL, "use_native_hstore", "off", False),
        (POSTGRESQL, "client_encoding", "utf8", "utf8"),
    ],
)
def test_an_option_of_sqlalchemys_dialect_is_an_option(engine, url, name, text, expected):
    """Dialects take some of their own."""
    dialect = engine(url, **{name: text}).dialect

    assert getattr(dialect, name, getattr(dialect, f"_{name}", None)) == expected


OBJECTS = {
    "url": URL.create("sqlite"),
    "echo": False,
    "pool_size": 3,
    "pool_timeout": 0.5,
    "pool_pre_ping": True,
    "pool_reset_on_return": None,
    "poolclass": StaticPool,
    "json_serializer": dumps,
    "creator": connect_anew,
    "module": sqlite3,
    "plugins": ["trace"],
    "execution_options": {"logging_token": "shop"},
    "connect_args": {"cached_statements": 3},
    "isolation_level": "SERIALIZABLE",
}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_setting_need_not_be_text(engine, name):
    """Applications set objects in Python."""
    made = engine(**{"url": "sqlite://", name: OBJECTS[name]})
    usual = engine("sqlite://")
    with made.connect() as connection:
        assert connection.scalar(select(literal(1))) == 1
    if name in SEEN:
        assert (SEEN[name][1](made) == SEEN[name][1](usual)) is (name == "echo")


@pytest.mark.parametrize("given", [ENGINE_READY, "test_settings:ENGINE_READY"])
def test_a_ready_engine_takes_the_place_of_everything(given):
    """A test hands one in beside the ini file of production."""
    sqa = start(
        {"sqlalchemy.url": "no url", "sqlalchemy.pool_size": "5", "sqlalchemy.engine": given}
    )

    assert sqa.engine is ENGINE_READY


BOOLEANS = [key for key, option in OPTIONS.items() if option.kind.write == "true or false"]
SPELLINGS = {
    True: ["true", "True", "TRUE", "yes", "on", "1", " true ", True],
    False: ["false", "False", "no", "No", "off", "0", False],
}


@pytest.mark.parametrize("key", BOOLEANS)
@pytest.mark.parametrize("value", SPELLINGS)
def test_every_boolean_has_its_usual_spellings(key, value):
    """None of them means the opposite, as pool_pre_ping = false did."""
    assert [OPTIONS[key].kind.value(str(word).strip()) for word in SPELLINGS[value]] == [
        value
    ] * len(SPELLINGS[value])
    for word in SPELLINGS[value]:
        accept({key: word})


def accept(settings):
    check_pyramid_options(settings)
    read_settings(settings)


def test_session_options_reach_the_session():
    """expire_on_commit, autoflush and class_."""
    sqa = start(
        {
            "sqlalchemy.url": "sqlite://",
            "sqa.session.expire_on_commit": "true",
            "sqa.session.autoflush": "off",
            "sqa.session.class_": "test_settings.Shop",
        }
    )
    own = sqa.session(TransactionManager())
    usual = start({"sqlalchemy.url": "sqlite://"}).session(TransactionManager())

    assert (own.expire_on_commit, own.autoflush, isinstance(own, Shop)) == (True, False, True)
    assert (usual.expire_on_commit, usual.autoflush) == (False, True)


def test_a_session_class_may_be_the_class_itself():
    """An object is as good as its name."""
    sqa = start({"sqlalchemy.url": "sqlite://", "sqa.session.class_": Shop})

    assert isinstance(sqa.session(TransactionManager()), Shop)


NO_NUMBERS = ["1_000", "\u0663", "\uff11", "nan", "inf", "1e3", "0x10", "five", "--1", "1,5", "."]
NUMBERS = {
    "a whole number from 0 up": ["-1", "1.0", 1.0],
    "a whole number from 1 up": ["0", "1.0", 0],
    "a whole number from 0 up, or -1 for no limit": ["-2", "1.0", -2],
    "seconds, a number from 0 to 1000000": ["-0.1", "1000000.5", -1, 10**7, float("nan")],
}


@pytest.mark.parametrize(
    "option", [o for o in OPTIONS.values() if o.kind.write in NUMBERS], ids=lambda o: o.key
)
def test_what_is_no_number_of_the_right_size_is_refused(option):
    """Nor are the digits of other scripts, underscores or a boolean a number."""
    for value in [*NO_NUMBERS, "9" * 5000 + ".", True, [], None, *NUMBERS[option.kind.write]]:
        with pytest.raises(SettingError, match=re.escape(option.kind.write)):
            accept({option.key: value})


WRONG = {
    "blank": ("sqlalchemy.pool_size", " ", "pool_size is blank: write a whole number from 0 up"),
    "blank url": ("sqlalchemy.url", "", "sqlalchemy.url is blank: write a database URL, or remove"),
    "blank switch": ("sqa.lock_timeout", "", "sqa.lock_timeout is blank: write seconds"),
    "misspelt boolean": ("sqlalchemy.pool_pre_ping", "ture", "= 'ture': write true or false."),
    "negative size": ("sqlalchemy.pool_size", "-3", "sqlalchemy.pool_size = '-3': write a whole"),
    "too many zeros": ("sqa.statement_timeout", "55000000", "from 0 to 1000000"),
    "echo": ("sqlalchemy.echo", "loud", "write true, false or debug"),
    "reset": ("sqlalchemy.pool_reset_on_return", "reset", "write rollback, commit or none"),
    "reset object": ("sqlalchemy.pool_reset_on_return", {}, "= dict: write rollback"),
    "no module": ("sqlalchemy.json_serializer", "nowhere:dumps", "No module named 'nowhere'"),
    "no such name": ("sqlalchemy.json_serializer", "json:dump5", "has no attribute 'dump5'"),
    "no dotted name": ("sqlalchemy.creator", "a b", "write the dotted name of a callable"),
    "not callable": ("sqlalchemy.creator", "test_settings:NUMBER", "dotted name of a callable"),
    "no driver": ("sqlalchemy.module", "json", "write the dotted name of a driver's module"),
    "no pool": ("sqlalchemy.poolclass", "QueuePol", "write a pool of sqlalchemy.pool"),
    "other class": ("sqlalchemy.poolclass", "collections.OrderedDict", "write a pool"),
    "pool made": ("sqlalchemy.poolclass", POOL, "sqlalchemy.poolclass = QueuePool: write a pool"),
    "no ready pool": ("sqlalchemy.pool", 5, "sqlalchemy.pool = 5: write a ready pool"),
    "no engine": ("sqlalchemy.engine", MYSQL, "sqlalchemy.engine: write a ready Engine"),
    "no json": ("sqlalchemy.execution_options", "a=b", "write a JSON object"),
    "deep json": ("sqlalchemy.execution_options", "[" * 100_000, "write a JSON object"),
    "json list": ("sqlalchemy.connect_args", "[1]", "sqlalchemy.connect_args: write a JSON object"),
    "paramstyle": ("sqlalchemy.paramstyle", "dollar", "pyformat or numeric_dollar"),
    "future": ("sqlalchemy.future", "false", "sqlalchemy.future: this does not go with"),
    "plugin": ("sqlalchemy.plugins", "unheard", "sqlalchemy.plugins: this does not go with"),
    "level": (
        "sqlalchemy.isolation_level",
        "READ COMMITTED",
        "= 'READ COMMITTED': write AUTOCOMMIT, READ UNCOMMITTED or SERIALIZABLE.",
    ),
    "level object": ("sqlalchemy.isolation_level", 5, "= 5: write AUTOCOMMIT, READ UNCOMMITTED or"),
    "session class": ("sqa.session.class_", "sqlalchemy.orm:sessionmaker", "a subclass of"),
    "expire": ("sqa.session.expire_on_commit", "never", "= 'never': write true or false"),
    "tls": ("sqa.mysql.tls", "on", "write auto, off, required, verify_ca or verify_identity"),
    "no file": ("sqa.mysql.tls_ca", "/nowhere/ca.pem", "= '/nowhere/ca.pem': write the path"),
    "sql mode": ("sqa.mysql.sql_mode", "ANSI', x = '", "write the server's names, separated"),
    "sql mode object": ("sqa.mysql.sql_mode", 5, "write the server's names"),
    "time zone": ("sqa.mysql.time_zone", "Europe/'", "write an offset, +00:00, or a zone"),
    "journal": ("sqa.sqlite.journal_mode", "fast", "write wal, delete"),
    "attempts": ("retry.attempts", "0", "retry.attempts = '0': write a whole number from 1 up"),
    "veto": ("tm.commit_veto", "nowhere.veto", "tm.commit_veto = 'nowhere.veto': write"),
    "veto object": ("tm.commit_veto", NUMBER, "tm.commit_veto = 7: write"),
    "hook": ("tm.manager_hook", "test_settings.NUMBER", "tm.manager_hook = 'test_settings.NUMBER'"),
    "annotate": ("tm.annotate_user", "maybe", "tm.annotate_user = 'maybe': write true or false"),
    "argument": (
        "sqlalchemy.connect_args.",
        "5",
        "There is no setting sqlalchemy.connect_args.; did you mean sqlalchemy.connect_args?",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_one_sentence_that_names_the_key(case):
    """It is in the text of Pyramid's own error, with what to write instead."""
    key, value, expected = WRONG[case]
    message = refused({"sqlalchemy.url": SQLITE, key: value})

    assert key.removesuffix(".") in message
    assert expected in message


@pytest.mark.parametrize("key", [key for key in OPTIONS if key != "tm.commit_veto"])
def test_every_option_refuses_a_blank_value(key):
    """A line that was left empty by mistake is no choice."""
    with pytest.raises(SettingError, match=f"^{re.escape(key)} is blank: write .*, or remove"):
        accept({"sqlalchemy.url": SQLITE, key: ""})


@pytest.mark.parametrize("veto", ["", None, commit_veto, "pyramid_tm.default_commit_veto"])
def test_a_veto_may_be_blank(veto):
    """It is pyramid_tm's way to say that every response commits."""
    assert start({"sqlalchemy.url": "sqlite://", "tm.commit_veto": veto})


@pytest.mark.parametrize("includes", [[], ["pyramid_retry", "pyramid_tm"]])
@pytest.mark.parametrize(
    ("key", "value"),
    [("retry.attempts", "no"), ("tm.commit_veto", "no.veto"), ("tm.manager_hook", "no.hook")],
)
def test_our_sentence_comes_first_whatever_was_included_before(includes, key, value):
    """pyramid_retry and pyramid_tm would say less."""
    settings = {"sqlalchemy.url": SQLITE, key: value}

    assert refused(settings, *includes).startswith(f"{key} = '{value}': write")


def test_what_a_module_raises_is_the_cause(tmp_path, monkeypatch):
    """The application's own mistake can be found."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    with pytest.raises(SettingError, match=r"\(ZeroDivisionError: division by zero\)") as caught:
        read_settings({"sqlalchemy.creator": "broken_module:connect"})

    assert "1 / 0" in "".join(traceback.format_exception(caught.value))


UNKNOWN = {
    "sqlalchemy.pool_szie": "sqlalchemy.pool_size",
    "sqlalchemy.poolsize": "sqlalchemy.pool_size",
    "sqlalchemy.uri": "sqlalchemy.url",
    "sqlalchemy.native_datetme": "sqlalchemy.native_datetime",
    "sqlalchemy.Echo": "sqlalchemy.echo",
    "sqa.url": "sqlalchemy.url",
    "sqa.session.expire_on_comit": "sqa.session.expire_on_commit",
    "sqa.session.class": "sqa.session.class_",
    "sqa.lock_timout": "sqa.lock_timeout",
    "sqa.tls": "sqa.mysql.tls",
}


@pytest.mark.parametrize("key", UNKNOWN)
def test_an_unknown_key_is_refused_with_the_nearest_spelling(key):
    """A typo is found when the application starts."""
    message = refused({"sqlalchemy.url": SQLITE, key: "5"})

    assert message.startswith(f"There is no setting {key}; did you mean {UNKNOWN[key]}")


@pytest.mark.parametrize("key", ["sqlalchemy.dbapi", "sqlalchemy.compiler_linting", "sqa.???"])
def test_what_is_nothing_to_set_is_no_setting(key):
    """What SQLAlchemy passes on inside is not for an ini file."""
    assert refused({"sqlalchemy.url": SQLITE, key: "5"}).startswith(f"There is no setting {key};")


def test_a_key_without_any_likeness_is_referred_to_the_table():
    """A guess that has nothing to do with it would mislead."""
    message = refused({"sqlalchemy.url": SQLITE, "sqa." + "%" * 40: "5"})

    assert message.endswith("see the table of settings.")


WRONG_URLS = {
    "no url": ("hidden", "this is no database URL; write for example mysql+pymysql://"),
    "one slash": ("sqlite:/app.sqlite", "this is no database URL"),
    "two lines": ("mysql+pymysql://me:hidden@host/base\n?charset=utf8", "this is no database URL"),
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
    "asyncio": ("mysql+aiomysql://me:hidden@host/base", "is for asyncio, which Pyramid is not"),
    "bad port": ("mysql+pymysql://me:hidden@host:three/base", "the port is no number"),
    "no host": ("mysql+pymysql://me:hidden/base", "the port is no number"),
    "port of a script": ("mysql+pymysql://me:hidden@host:٣٣/base", "the port is no number"),
    "port with a joint": ("mysql+pymysql://me:hidden@host:33_06/base", "the port is no number"),
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
    """Nobody can tell which part of it is the password."""
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
        ("mysql+mysqlconnector://host", "pip install 'mysql-connector-python'"),
        ("mariadb+mariadbconnector://host", "pip install 'mariadb'"),
        ("postgresql+psycopg2://host", "pip install 'psycopg2-binary'"),
        ("postgresql+pg8000://host", "pip install 'pg8000'"),
        ("oracle://host", "pip install 'oracledb'"),
    ],
)
def test_a_driver_that_is_missing_is_named_with_the_command(url, command):
    """One line to copy."""
    name = make_url(url).drivername
    message = refused({"sqlalchemy.url": url})

    assert message.startswith(f"sqlalchemy.url: the driver of {name}:// is not installed; run: pip")
    assert command in message


def test_an_encoded_password_is_what_it_stands_for(engine):
    """The advice of the errors above is right."""
    url = engine("mysql+pymysql://m%2Fe:p%40ss%3Aw%2Ford%25@host/base").url

    assert (url.username, url.password, url.host) == ("m/e", "p@ss:w/ord%", "host")


@pytest.mark.parametrize(
    "url",
    ["mysql+pymysql://host/base?connect_timeout=2", make_url("mysql+pymysql://host")],
)
def test_a_url_is_shown_without_what_its_parameters_hold(url):
    """An argument of a driver may be anything."""
    database = read_settings({"sqlalchemy.url": url}).database

    assert str(database).startswith("mysql+pymysql://host")
    assert "connect_timeout" not in str(database)


def test_a_parameter_of_the_url_wins_over_a_default_of_ours(engine, mariadb):
    """Whoever wrote it meant it."""
    with engine(mariadb.url + "?charset=latin1").connect() as connection:
        assert connection.exec_driver_sql("SELECT @@character_set_client").scalar() == "latin1"


def test_an_unknown_argument_of_the_driver_is_refused_at_once():
    """The driver itself would say so at the first request, and at each that follows."""
    near = refused({"sqlalchemy.url": MYSQL, "sqlalchemy.connect_args.conect_timeout": "5"})
    far = refused({"sqlalchemy.url": MYSQL, "sqlalchemy.connect_args": '{"zzzz": "hidden"}'})

    assert near == (
        "sqlalchemy.connect_args.conect_timeout: the driver has no such argument; "
        "did you mean connect_args.connect_timeout?"
    )
    assert far == "sqlalchemy.connect_args.zzzz: the driver has no such argument; remove it."


TOGETHER = {
    "no queue": (
        {"sqlalchemy.poolclass": "NullPool", "sqlalchemy.max_overflow": "5"},
        "sqlalchemy.max_overflow: this does not go with the other options: ",
    ),
    "ready pool": (
        {"sqlalchemy.pool": POOL, "sqlalchemy.pool_recycle": "5"},
        "sqlalchemy.pool_recycle: this does not go with the other options: ",
    ),
    "foreign driver": (
        {"sqlalchemy.module": "pymysql"},
        "sqlalchemy.module: this does not go with the other options: ",
    ),
    "no name in the text": (
        {"sqlalchemy.poolclass": "AsyncAdaptedQueuePool"},
        "sqlalchemy.*: this does not go with the other options: ",
    ),
}


@pytest.mark.parametrize("case", TOGETHER)
def test_options_that_do_not_go_together_are_one_sentence(case):
    """SQLAlchemy's own sentence, after the names of the settings."""
    settings, expected = TOGETHER[case]

    assert refused({"sqlalchemy.url": SQLITE, **settings}).startswith(expected)


@pytest.mark.parametrize("poolclass", ["NullPool", "StaticPool", "AssertionPool", AssertionPool])
@pytest.mark.parametrize("url", [SQLITE, "sqlite://", MYSQL, POSTGRESQL])
def test_any_pool_may_be_chosen(engine, url, poolclass):
    """Our defaults do not stand in its way."""
    made = engine(url, poolclass=poolclass)

    assert type(made.pool).__name__ == getattr(poolclass, "__name__", poolclass)


@pytest.mark.parametrize("url", [SQLITE, MYSQL, POSTGRESQL])
def test_the_usual_pool_chosen_by_name_keeps_our_defaults(engine, url):
    """The name of the default changes nothing."""
    assert engine(url, poolclass="QueuePool").pool._timeout == 5


def test_a_database_we_know_nothing_of_works(engine):
    """Of whatever pool, and with the defaults that hold everywhere."""
    made = engine("embedded://")
    with made.connect() as connection:
        assert connection.scalar(select(literal(1))) == 1

    assert type(made.pool) is StaticPool
    assert made.pool._pre_ping is True


def test_a_database_without_isolation_levels_says_so():
    """The option has no right value then."""
    message = refused(
        {"sqlalchemy.url": "embedded://", "sqlalchemy.isolation_level": "SERIALIZABLE"}
    )

    assert message == (
        "sqlalchemy.isolation_level = 'SERIALIZABLE': write nothing, since this database has none."
    )


def test_without_a_url_the_first_touch_names_the_key():
    """An application with no database starts and serves what needs none."""

    def view(request):
        if "touch" in request.params:
            request.sqa_session.execute("SELECT 1")
        return Response("ok")

    config = Configurator(settings={"sqlalchemy.pool_size": "5"})
    config.include("pyramid_aalam_sqa")
    config.add_view(view)
    app = TestApp(config.make_wsgi_app())
    assert app.get("/").text == "ok"

    with pytest.raises(SettingError, match=r"write sqlalchemy\.url in the application's section"):
        app.get("/?touch=1")
    with pytest.raises(SettingError, match="No database is set"):
        engine_from_settings({})


def test_without_a_url_a_wrong_option_is_still_refused():
    """It would be wrong with every database."""
    assert "sqlalchemy.pool_size = 'x'" in refused({"sqlalchemy.pool_size": "x"})
    assert "did you mean sqlalchemy.pool_size?" in refused({"sqlalchemy.pool_siz": "5"})


def test_linting_can_be_turned_off(engine):
    """enable_from_linting = false is no warning of a cartesian product."""
    statement = select(literal_column("1")).select_from(
        select(literal(1).label("a")).subquery(), select(literal(2).label("b")).subquery()
    )
    with engine("sqlite://").connect() as connection, pytest.warns(SAWarning, match="cartesian"):
        connection.execute(statement)
    with engine("sqlite://", enable_from_linting="false").connect() as connection:
        assert connection.execute(statement)


ANY_TEXT = st.one_of(
    st.text(),
    st.text("0123456789.-+e_", max_size=8),
    st.sampled_from(["true", "none", "debug", "{}", "json:loads", "NullPool", "os", "[]", "null"]),
)


@hypothesis_settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(OPTIONS)), ANY_TEXT)
@example("sqlalchemy.poolclass", "__name__")
@example("sqlalchemy.module", "\x00")
@example("sqa.mysql.tls_ca", "\x00")
@example("sqa.mysql.tls_ca", "x" * 5000)
def test_any_text_has_its_real_type_or_is_refused(key, text):
    """Nothing else comes of whatever is written in an ini file."""
    settings = {"sqlalchemy.url": "sqlite://", key: text}
    kind = OPTIONS[key].kind
    try:
        accept(settings)
        engine_from_settings(settings).dispose()
        right = kind.fits(kind.value(text.strip()))
    except SettingError as error:
        right = key in str(error)

    assert right


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
    """Whatever stands around it, and whatever is wrong."""
    url = f"{scheme}://{user}:{before}{SECRET}{after}{rest}"
    try:
        shown = repr(read_settings({"sqlalchemy.url": url}))
    except SettingError as error:
        shown = "".join(traceback.format_exception(error))

    assert SECRET not in shown


def test_the_table_of_the_documentation_is_that_of_the_code():
    """Else run: make docs."""
    page = GENERATOR["PAGE"].read_text()

    assert GENERATOR["page"](page) == page
    assert all(f"| `{key}` |" in page for key in OPTIONS)


@pytest.mark.parametrize("option", [*SQA_OPTIONS, *PYRAMID_OPTIONS], ids=lambda option: option.key)
def test_each_default_is_a_right_value(option):
    """It is spelled as it would be written."""
    assert option.default is None or option.kind.value(option.default) is not None

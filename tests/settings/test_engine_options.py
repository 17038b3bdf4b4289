"""Every option of create_engine and of the session is read in its type, and takes effect."""
# ruff: noqa: SLF001 - SQLAlchemy keeps most of what it was told in names of its own

import json
import re
import runpy
import sqlite3
from pathlib import Path

import pymysql
import pytest
from sqlalchemy import JSON, create_engine, literal, literal_column, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SAWarning
from sqlalchemy.pool import AssertionPool, StaticPool
from transaction import TransactionManager

from pyramid_aalam_sqa.backends.registry import backend_for
from pyramid_aalam_sqa.settings.options import (
    ENGINE_OPTIONS,
    PYRAMID_OPTIONS,
    SQA_OPTIONS,
)
from support.settings_app import (
    ENGINE_READY,
    MYSQL,
    OPTIONS,
    POOL,
    POSTGRESQL,
    SQLITE,
    Shop,
    connect_anew,
    dumps,
    loads,
    refused,
    start,
)

GENERATOR = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "make_settings.py"))


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
        "support.settings_app:loads",
        lambda e: e.dialect._json_deserializer or json.loads,
        loads,
    ),
    "json_serializer": (
        "support.settings_app.dumps",
        lambda e: e.dialect._json_serializer or json.dumps,
        dumps,
    ),
    "label_length": ("9", lambda e: e.dialect.label_length, 9),
    "logging_name": ("shop", lambda e: e.logging_name, "shop"),
    "max_identifier_length": ("99", lambda e: e.dialect.max_identifier_length, 99),
    "max_overflow": ("-1", lambda e: e.pool._max_overflow, -1),
    "paramstyle": ("named", lambda e: e.dialect.paramstyle, "named"),
    "plugins": ("trace", lambda e: getattr(e, "was_plugged", False), True),
    "pool": ("support.settings_app:POOL", lambda e: e.pool, POOL),
    "pool_logging_name": ("shop", lambda e: e.pool.logging_name, "shop"),
    "pool_pre_ping": ("on", lambda e: e.pool._pre_ping, True),
    "pool_recycle": ("7", lambda e: e.pool._recycle, 7),
    "pool_reset_on_return": (
        "Rollback",
        lambda e: e.pool._reset_on_return.name,
        "reset_rollback",
    ),
    "pool_size": ("20", lambda e: e.pool.size(), 20),
    "pool_timeout": ("0.5", lambda e: e.pool._timeout, 0.5),
    "pool_use_lifo": ("1", lambda e: e.pool._pool.use_lifo, True),
    "poolclass": ("NullPool", lambda e: type(e.pool).__name__, "NullPool"),
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
    """The list is read from the docstring of create_engine."""
    documented = set(re.findall(r"^    :param (\w+)", create_engine.__doc__, re.MULTILINE))

    assert documented - NOTHING_TO_SET.keys() <= {option.key for option in ENGINE_OPTIONS}
    assert SEEN.keys() | SEEN_ELSEWHERE == {option.key for option in ENGINE_OPTIONS}


@pytest.mark.parametrize("name", SEEN)
def test_an_option_reaches_the_engine_with_its_real_type(engine, name):
    """Text from an ini file has the same effect as the value of the real type."""
    text, look, expected = SEEN[name]
    found = look(engine(**{name: text}))

    assert found == expected
    assert type(found) is type(expected)


def documented_default(url, name):
    defaults = backend_for(make_url(url), GENERATOR["SQA_DEFAULTS"]).engine_defaults()
    return GENERATOR["default_in"](defaults, OPTIONS[f"sqlalchemy.{name}"])


@pytest.mark.parametrize("url", [SQLITE, "sqlite://", MYSQL, POSTGRESQL])
def test_the_table_tells_the_true_default(engine, url):
    """The documented default has the same effect as leaving the option out."""
    bare = engine(url)
    documented = {name: documented_default(url, name) for name in SEEN}
    given = {name: default for name, default in documented.items() if default is not None}
    seen = {name: SEEN[name][1](engine(url, **{name: given[name]})) for name in given}

    assert seen == {name: SEEN[name][1](bare) for name in given}
    assert len(seen) > 10


def test_json_is_written_and_read_by_the_applications_own(engine):
    """SQLAlchemy calls both functions for a JSON column."""
    made = engine(
        "sqlite://", json_serializer=dumps, json_deserializer="support.settings_app:loads"
    )
    with made.connect() as connection:
        found = connection.scalar(select(literal([1], JSON)))

    assert found == "read: written: [1]"


def test_a_creator_makes_the_connections(engine, tmp_path):
    """The creator is called, and the URL's file is not made."""
    made = engine(f"sqlite:///{tmp_path}/file", creator="support.settings_app:connect_anew")
    with made.connect():
        pass

    assert list(tmp_path.iterdir()) == []


def test_a_module_takes_the_place_of_the_urls_driver(engine):
    """mysql:// means mysqlclient, which need not be installed if a module replaces it."""
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
    """connect_args may be one JSON object, a line for each argument, or both.

    Then the line wins.
    """
    with engine("sqlite://", **arguments).connect() as connection:
        driver = connection.connection.dbapi_connection

        assert driver.isolation_level == "IMMEDIATE"


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
    """A dialect of SQLAlchemy may have options that create_engine does not list."""
    dialect = engine(url, **{name: text}).dialect

    assert getattr(dialect, name, getattr(dialect, f"_{name}", None)) == expected


OBJECTS = {
    "url": URL.create("sqlite"),
    "echo": False,
    "pool_size": 1,
    "pool_timeout": 0.5,
    "pool_pre_ping": True,
    "pool_reset_on_return": "rollback",
    "poolclass": AssertionPool,
    "json_serializer": dumps,
    "creator": connect_anew,
    "module": sqlite3,
    "plugins": ["trace"],
    "execution_options": {"logging_token": "shop"},
    "connect_args": {"cached_statements": 3},
    "isolation_level": "SERIALIZABLE",
}


# Those of OBJECTS that do not differ from the default.
SAME_AS_USUAL = {"echo", "pool_size", "pool_reset_on_return"}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_setting_need_not_be_text(engine, name):
    """Settings from Python may hold a number, a class or a dict in place of text."""
    made = engine(**{"url": "sqlite://", name: OBJECTS[name]})
    usual = engine("sqlite://")
    with made.connect() as connection:
        assert connection.scalar(select(literal(1))) == 1
    if name in SEEN:
        assert (SEEN[name][1](made) == SEEN[name][1](usual)) is (name in SAME_AS_USUAL)


@pytest.mark.parametrize("given", [ENGINE_READY, "support.settings_app:ENGINE_READY"])
def test_a_ready_engine_takes_the_place_of_all_other_options(given):
    """An application's test passes an engine and leaves the settings of production in place."""
    sqa = start(
        {"sqlalchemy.url": "no url", "sqlalchemy.pool_size": "5", "sqlalchemy.engine": given}
    )

    assert sqa.engine is ENGINE_READY


def test_session_options_reach_the_session():
    """expire_on_commit, autoflush and class_ take effect on the session."""
    sqa = start(
        {
            "sqlalchemy.url": "sqlite://",
            "sqa.session.expire_on_commit": "true",
            "sqa.session.autoflush": "off",
            "sqa.session.class_": "support.settings_app.Shop",
        }
    )
    own = sqa.session(TransactionManager())
    usual = start({"sqlalchemy.url": "sqlite://"}).session(TransactionManager())

    assert (own.expire_on_commit, own.autoflush, isinstance(own, Shop)) == (True, False, True)
    assert (usual.expire_on_commit, usual.autoflush) == (False, True)


def test_a_session_class_may_be_the_class_itself():
    """The setting holds the class itself instead of its dotted name."""
    sqa = start({"sqlalchemy.url": "sqlite://", "sqa.session.class_": Shop})

    assert isinstance(sqa.session(TransactionManager()), Shop)


TOGETHER = {
    "no queue": (
        {"sqlalchemy.poolclass": "NullPool", "sqlalchemy.max_overflow": "5"},
        "sqlalchemy.max_overflow: this does not fit the other options: ",
    ),
    "ready pool": (
        {"sqlalchemy.pool": POOL, "sqlalchemy.pool_recycle": "5"},
        "sqlalchemy.pool_recycle: this does not fit the other options: ",
    ),
    "foreign driver": (
        {"sqlalchemy.module": "pymysql"},
        "sqlalchemy.module: this does not fit the other options: ",
    ),
    "no name in the text": (
        {"sqlalchemy.poolclass": "AsyncAdaptedQueuePool"},
        "sqlalchemy.*: this does not fit the other options: ",
    ),
}


@pytest.mark.parametrize("case", TOGETHER)
def test_options_that_do_not_go_together_are_one_sentence(case):
    """The error has the names of the settings before SQLAlchemy's own sentence."""
    settings, expected = TOGETHER[case]

    assert refused({"sqlalchemy.url": SQLITE, **settings}).startswith(expected)


@pytest.mark.parametrize("poolclass", ["NullPool", "AssertionPool", AssertionPool])
@pytest.mark.parametrize("url", [SQLITE, MYSQL, POSTGRESQL])
def test_any_pool_may_be_chosen(engine, url, poolclass):
    """Our defaults for queue pools are left out for other classes."""
    made = engine(url, poolclass=poolclass)

    assert type(made.pool).__name__ == getattr(poolclass, "__name__", poolclass)


@pytest.mark.parametrize("url", [SQLITE, MYSQL, POSTGRESQL])
def test_the_usual_pool_chosen_by_name_keeps_our_defaults(engine, url):
    """Naming the default pool class does not switch our defaults off."""
    assert engine(url, poolclass="QueuePool").pool._timeout == 5


def test_an_unknown_product_works_with_the_general_defaults(engine):
    """It gets the defaults that hold everywhere, and keeps its dialect's own pool."""
    made = engine("embedded://")
    with made.connect() as connection:
        assert connection.scalar(select(literal(1))) == 1

    assert isinstance(made.pool, StaticPool)
    assert made.pool._pre_ping is True


def test_an_isolation_level_is_refused_where_there_are_none():
    """The error says to write nothing for the option."""
    message = refused(
        {"sqlalchemy.url": "embedded://", "sqlalchemy.isolation_level": "SERIALIZABLE"}
    )

    assert message == (
        "sqlalchemy.isolation_level = 'SERIALIZABLE': write nothing, since this database has none."
    )


def test_linting_can_be_turned_off(engine):
    """enable_from_linting = false turns off the warning about a cartesian product."""
    statement = select(literal_column("1")).select_from(
        select(literal(1).label("a")).subquery(), select(literal(2).label("b")).subquery()
    )
    with engine("sqlite://").connect() as connection, pytest.warns(SAWarning, match="cartesian"):
        connection.execute(statement)
    with engine("sqlite://", enable_from_linting="false").connect() as connection:
        assert connection.execute(statement)


def test_the_table_of_the_documentation_is_that_of_the_code():
    """If this fails, run: make docs."""
    page = GENERATOR["PAGE"].read_text()

    assert GENERATOR["page"](page) == page
    assert all(f"| `{key}` |" in page for key in OPTIONS)


@pytest.mark.parametrize("option", [*SQA_OPTIONS, *PYRAMID_OPTIONS], ids=lambda option: option.key)
def test_each_default_is_a_right_value(option):
    """The default is text that a user could write in an ini file."""
    assert option.default is None or option.type.value(option.default) is not None

"""The one table of settings: key, kind, default and meaning.

The parser, the error messages and the table in the documentation are all made from it.
It knows nothing of a particular database beyond the names of its switches.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pkgutil import resolve_name

from sqlalchemy import pool
from sqlalchemy.engine import URL, Engine
from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Kind:
    """What an option takes: what to write, how its text is read, and which values are right."""

    write: str
    read: Callable[[str], object]
    fits: Callable[[object], bool]

    def value(self, given: object) -> object:
        """Return *given* as the option's own type.

        Raises ValueError when it has none, ImportError when it names what cannot be imported.
        """
        value = self.read(given) if isinstance(given, str) else given
        if not self.fits(value):
            raise ValueError(given)
        return value


@dataclass(frozen=True, slots=True)
class Option:
    """One setting, its default spelled as in an ini file (None: SQLAlchemy's own)."""

    key: str
    kind: Kind
    meaning: str
    default: str | None = None
    secret: bool = False


WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
DIGITS = {"1": True, "0": False}


def _boolean(text: str) -> object:
    # Not pyramid's asbool: it takes every misspelling of "true" for false.
    return (WORDS | DIGITS).get(text.lower())


def _number(text: str) -> float:
    # int() and float() alone would take "1_000", "nan" and the digits of every script.
    if not re.fullmatch(r"-?[0-9]*\.?[0-9]*", text):
        raise ValueError(text)
    return float(text) if "." in text else int(text)


def _same(text: str) -> str:
    return text


def _named(text: str) -> object:
    """Return what a dotted name names; importing runs code, which may raise anything."""
    try:
        return resolve_name(text)
    except Exception as error:
        msg = f"{type(error).__name__}: {error}"
        raise ImportError(msg) from error


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(text) from None


def _driver_value(text: str) -> object:
    """A driver's arguments have no types that could be looked up, so each value has its own."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return _json(text)
    except ValueError:
        return text


def _is(*types: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, types)


def _is_class(parent: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, type) and issubclass(value, parent)


def _whole(lowest: int) -> Callable[[object], bool]:
    return lambda value: type(value) is int and value >= lowest


def _seconds(value: object) -> bool:
    # Eleven days: all that every server and Python's own clocks can count.
    return isinstance(value, (int, float)) and type(value) is not bool and 0 <= value <= 10**6


def one_of(*words: str, fold: Callable[[str], str] = str.lower) -> Kind:
    """Return the kind of an option that has a few words for its values."""
    write = " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    return Kind(write, fold, lambda value: value in words)


def _matching(write: str, pattern: str) -> Kind:
    found = re.compile(pattern, re.ASCII).fullmatch
    return Kind(write, _same, lambda value: isinstance(value, str) and bool(found(value)))


TEXT = Kind("text", _same, _is(str))
LEVEL = Kind("a level that the database knows, such as READ COMMITTED", _same, _is(str))
BOOLEAN = Kind("true or false", _boolean, _is(bool))
ECHO = Kind(
    "true, false or debug",
    lambda text: "debug" if text.lower() == "debug" else _boolean(text),
    lambda value: value == "debug" or isinstance(value, bool),
)
RESET = Kind(
    "rollback, commit or none",
    lambda text: None if text.lower() == "none" else text.lower(),
    lambda value: value in ("rollback", "commit", None),
)
SIZE = Kind("a whole number from 0 up", _number, _whole(0))
POSITIVE = Kind("a whole number from 1 up", _number, _whole(1))
SIZE_OR_NONE = Kind("a whole number from 0 up, or -1 for no limit", _number, _whole(-1))
SECONDS = Kind("seconds, a number from 0 to 1000000", _number, _seconds)
CALLABLE = Kind("the dotted name of a callable, package.module:name", _named, callable)
VETO = Kind(
    "the dotted name of a callable, package.module:name (blank: every response commits)",
    lambda text: _named(text) if text else None,
    lambda value: value is None or callable(value),
)
MODULE = Kind(
    "the dotted name of a driver's module", _named, lambda value: hasattr(value, "connect")
)
READY_ENGINE = Kind("a ready Engine, from Python, or its dotted name", _named, _is(Engine))
READY_POOL = Kind("a ready pool, from Python, or its dotted name", _named, _is(pool.Pool))
POOL_CLASS = Kind(
    "a pool of sqlalchemy.pool such as NullPool, or a dotted name",
    lambda text: getattr(pool, text, None) or _named(text),
    _is_class(pool.Pool),
)
SESSION_CLASS = Kind(
    "the dotted name of a subclass of sqlalchemy.orm.Session", _named, _is_class(Session)
)
DATABASE_URL = Kind("a database URL", _same, _is(str, URL))
DRIVER_VALUE = Kind("text, or a JSON value", _driver_value, _is(object))
JSON_OBJECT = Kind('a JSON object, {"name": value}', _json, _is(dict))
NAMES = Kind("names, separated by spaces", str.split, _is(list, tuple))
# Path.is_file() raises where the text cannot be a path at all.
FILE = Kind("the path of a file", _same, lambda value: os.path.isfile(str(value)))  # noqa: PTH113
# These two become part of a statement.
SQL_MODE = _matching("the server's names, separated by commas", r"\w+(,\w+)*")
TIME_ZONE = _matching("an offset, +00:00, or a zone the server knows", r"[\w+:/-]+")

ENGINE = (
    Option("url", DATABASE_URL, "The database.", secret=True),
    Option(
        "engine",
        READY_ENGINE,
        "Used as it is, in place of all other sqlalchemy options; its maker disposes it.",
    ),
    Option("connect_args", JSON_OBJECT, "Arguments for the driver's connect().", secret=True),
    Option("creator", CALLABLE, "Makes the driver's connections in place of the URL."),
    Option("echo", ECHO, "Log every statement; debug: every row too.", "false"),
    Option("echo_pool", ECHO, "Log the pool; debug: every use of it too.", "false"),
    Option("enable_from_linting", BOOLEAN, "Warn of cartesian products.", "true"),
    Option("execution_options", JSON_OBJECT, "Options of every statement."),
    Option("future", BOOLEAN, "What SQLAlchemy 1.4 needed; nothing but true is left.", "true"),
    Option("hide_parameters", BOOLEAN, "Leave values out of logs and errors.", "false"),
    Option("insertmanyvalues_page_size", POSITIVE, "Rows in one INSERT of many.", "1000"),
    Option("isolation_level", LEVEL, "What concurrent transactions see of each other."),
    Option("json_deserializer", CALLABLE, "Reads JSON columns.", "json:loads"),
    Option("json_serializer", CALLABLE, "Writes JSON columns.", "json:dumps"),
    Option("label_length", POSITIVE, "Longest label of a column."),
    Option("logging_name", TEXT, "The engine's name in the log."),
    Option("max_identifier_length", POSITIVE, "Longest name the database takes."),
    Option("max_overflow", SIZE_OR_NONE, "Connections beyond pool_size when all are in use.", "10"),
    Option("module", MODULE, "The driver, in place of the URL's."),
    Option(
        "paramstyle",
        one_of("qmark", "numeric", "named", "format", "pyformat", "numeric_dollar"),
        "How parameters are written.",
    ),
    Option("plugins", NAMES, "SQLAlchemy's engine plugins."),
    Option("pool", READY_POOL, "Used as it is, in place of the pool options."),
    Option("pool_logging_name", TEXT, "The pool's name in the log."),
    Option("pool_pre_ping", BOOLEAN, "Test a connection before it is used.", "false"),
    Option(
        "pool_recycle",
        SIZE_OR_NONE,
        "Seconds after which a connection is replaced; -1: never.",
        "-1",
    ),
    Option(
        "pool_reset_on_return", RESET, "What a connection is sent when it comes back.", "rollback"
    ),
    Option("pool_size", SIZE, "Connections kept open; 0: no limit.", "5"),
    Option("pool_timeout", SECONDS, "Seconds to wait for a connection when all are in use.", "30"),
    Option("pool_use_lifo", BOOLEAN, "Hand out the connection that came back last.", "false"),
    Option("poolclass", POOL_CLASS, "How connections are kept.", "QueuePool"),
    Option("query_cache_size", SIZE, "Statements whose SQL is kept ready.", "500"),
    Option(
        "skip_autocommit_rollback",
        BOOLEAN,
        "Send no ROLLBACK to a connection in AUTOCOMMIT.",
        "false",
    ),
    Option("use_insertmanyvalues", BOOLEAN, "Send many rows in one INSERT.", "true"),
)
SESSION = (
    Option(
        "expire_on_commit",
        BOOLEAN,
        "Reload objects after a commit; false keeps what was loaded readable.",
        "false",
    ),
    Option("autoflush", BOOLEAN, "Send pending changes before a query.", "true"),
    Option("class_", SESSION_CLASS, "The class of request.sqa_session.", "sqlalchemy.orm:Session"),
)
# Waits and habits that every database spells in its own way.
SWITCHES = (
    Option(
        "lock_timeout",
        SECONDS,
        "Seconds a statement waits for a lock that another transaction holds.",
        "10",
    ),
    Option(
        "statement_timeout",
        SECONDS,
        "Seconds after which MariaDB, PostgreSQL, MySQL (SELECT only) end a statement; 0: never.",
        "55",
    ),
    Option(
        "retry_codes",
        NAMES,
        "More errors after which a request is tried again: numbers of MySQL, MariaDB and SQLite, "
        "SQLSTATEs of PostgreSQL.",
    ),
    Option("retry_pause", SECONDS, "Seconds at most before another attempt; doubles.", "0.05"),
    Option("retry_after", SIZE, "Seconds that a 503 asks its client to wait.", "5"),
    Option("mysql.sql_mode", SQL_MODE, "MySQL, MariaDB: how strict the server is.", "TRADITIONAL"),
    Option(
        "mysql.time_zone", TIME_ZONE, "MySQL, MariaDB: the zone of TIMESTAMP and NOW().", "+00:00"
    ),
    Option(
        "mysql.tls",
        one_of("auto", "off", "required", "verify_ca", "verify_identity"),
        "PyMySQL: encrypt the connection. auto: when the server can, but not on a unix socket; "
        "with tls_ca it is verify_identity.",
        "auto",
    ),
    Option("mysql.tls_ca", FILE, "PyMySQL: the authority that signed the server's certificate."),
    Option("sqlite.foreign_keys", BOOLEAN, "SQLite: check foreign keys.", "true"),
    Option(
        "sqlite.journal_mode",
        one_of("wal", "delete", "truncate", "persist", "memory", "off"),
        "SQLite files: wal lets readers and a writer work at once.",
        "wal",
    ),
)
# Settings of pyramid_tm and pyramid_retry for which this package has a default or a check.
NEIGHBOURS = (
    Option(
        "tm.commit_veto",
        VETO,
        "Tells which response rolls back.",
        "pyramid_aalam_sqa.commit_veto",
    ),
    Option(
        "tm.manager_hook",
        CALLABLE,
        "Makes the transaction manager of a request.",
        "pyramid_tm.explicit_manager",
    ),
    Option("tm.annotate_user", BOOLEAN, "Note the user on each transaction.", "false"),
    Option("retry.attempts", POSITIVE, "How often a request is tried; 1: retries are off.", "3"),
)


def table() -> Iterator[Option]:
    """Yield every option under its full key, in the order of the documentation."""
    for prefix, options in (
        ("sqlalchemy.", ENGINE),
        ("sqa.session.", SESSION),
        ("sqa.", SWITCHES),
        ("", NEIGHBOURS),
    ):
        for option in options:
            yield replace(option, key=prefix + option.key)

"""The one table of settings: key, kind, default and meaning.

The parser, the error messages and the table in the documentation are all made from it.
It knows nothing of a particular database beyond the names of its switches.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pkgutil import resolve_name

from sqlalchemy import pool
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Kind:
    """What values an option takes: what to write, how text is read, which objects pass as they are."""

    write: str
    read: Callable[[str], object]
    objects: tuple[type, ...] = (object,)

    def value(self, given: object) -> object:
        """Return *given* as the option's own type; raise ValueError when it has none."""
        if isinstance(given, str):
            return self.read(given)
        if not isinstance(given, self.objects) or (
            isinstance(given, bool) and bool not in self.objects
        ):
            raise ValueError(given)
        return self.read(str(given)) if isinstance(given, (int, float)) else given


@dataclass(frozen=True, slots=True)
class Option:
    """One setting, its default spelled as in an ini file (None: SQLAlchemy's own)."""

    key: str
    kind: Kind
    meaning: str
    default: str | None = None
    secret: bool = False


WORDS = {"true": True, "yes": True, "on": True, "1": True}
WORDS |= {"false": False, "no": False, "off": False, "0": False}


def _boolean(text: str) -> bool:
    # Not pyramid's asbool: it takes every misspelling of "true" for false.
    if text.lower() not in WORDS:
        raise ValueError(text)
    return WORDS[text.lower()]


def _whole(lowest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        # int() alone would take "1_000" and the digits of every script.
        if not re.fullmatch(r"-?[0-9]+", text) or (number := int(text)) < lowest:
            raise ValueError(text)
        return number

    return read


def _seconds(text: str) -> float:
    # Written so that "nan" is refused too: it compares false with everything.
    if not 0 <= (number := float(text)) < float("inf"):
        raise ValueError(text)
    return number


def _one_of(*words: str) -> Kind:
    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(text)
        return text.lower()

    return Kind(" or ".join(words), read, (str,))


def _echo(text: str) -> bool | str:
    return "debug" if text.lower() == "debug" else _boolean(text)


def _reset(text: str) -> str | bool | None:
    return {"rollback": "rollback", "commit": "commit", "none": None}[text.lower()]


def _dotted(text: str) -> object:
    return resolve_name(text)


def _callable(text: str) -> object:
    found = resolve_name(text)
    if not callable(found):
        raise TypeError(text)
    return found


def _veto(text: str) -> object:
    """A blank veto is pyramid_tm's way to say that every response commits."""
    return _callable(text) if text else None


def _module(text: str) -> object:
    return import_module(text)


def _pool_class(text: str) -> object:
    found = getattr(pool, text) if text.isidentifier() else resolve_name(text)
    if not issubclass(found, pool.Pool):
        raise TypeError(text)
    return found


def _session_class(text: str) -> object:
    found = resolve_name(text)
    if not issubclass(found, Session):
        raise TypeError(text)
    return found


def _json_object(text: str) -> dict[str, object]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError(text)
    return found


def _names(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _driver_value(text: str) -> object:
    """The driver's options have no types that could be looked up, so JSON's words have theirs."""
    try:
        return json.loads(text.lower() if text.lower() in {"true", "false", "null"} else text)
    except ValueError:
        return text


def _text(text: str) -> str:
    return text


BOOLEAN = Kind("true or false", _boolean, (bool,))
SIZE = Kind("a whole number from 0 up", _whole(0), (int,))
POSITIVE = Kind("a whole number from 1 up", _whole(1), (int,))
SIZE_OR_NONE = Kind("a whole number from 0 up, or -1 for no limit", _whole(-1), (int,))
SECONDS = Kind("seconds, a number from 0 up", _seconds, (int, float))
TEXT = Kind("text", _text, (str,))
DOTTED = Kind("a dotted name, package.module:name", _dotted)
CALLABLE = Kind("the dotted name of a callable, package.module:name", _callable)
VETO = Kind("the dotted name of a callable, package.module:name (blank: all commit)", _veto)
OBJECT = Kind("a ready object, handed in from Python", _dotted)
URL_KIND = Kind("a database URL", _text, (str, URL))
DRIVER_VALUE = Kind("text, or a JSON value", _driver_value, (object, bool))
JSON_OBJECT = Kind('a JSON object, {"name": value}', _json_object, (dict,))
POOL_CLASS = Kind(
    "a pool of sqlalchemy.pool such as NullPool, or a dotted name", _pool_class, (type,)
)
SESSION_CLASS = Kind(
    "the dotted name of a subclass of sqlalchemy.orm.Session", _session_class, (type,)
)
NAMES = Kind("names, separated by spaces", _names, (list, tuple))

ENGINE = (
    Option("url", URL_KIND, "The database.", secret=True),
    Option("engine", OBJECT, "A ready Engine to use as it is; it stays its maker's to dispose."),
    Option("connect_args", JSON_OBJECT, "Arguments for the driver's connect().", secret=True),
    Option("creator", CALLABLE, "Makes the driver's connections in place of the URL."),
    Option("echo", Kind("true, false or debug", _echo, (bool,)), "Log every statement.", "false"),
    Option("echo_pool", Kind("true, false or debug", _echo, (bool,)), "Log the pool.", "false"),
    Option("enable_from_linting", BOOLEAN, "Warn of cartesian products."),
    Option("execution_options", JSON_OBJECT, "Options of every statement."),
    Option("future", BOOLEAN, "Must be true; SQLAlchemy 1.4 had it.", "true"),
    Option("hide_parameters", BOOLEAN, "Leave values out of logs and errors.", "false"),
    Option("insertmanyvalues_page_size", POSITIVE, "Rows in one INSERT of many."),
    Option("isolation_level", TEXT, "What concurrent transactions see of each other."),
    Option("json_deserializer", CALLABLE, "Reads JSON columns."),
    Option("json_serializer", CALLABLE, "Writes JSON columns."),
    Option("label_length", POSITIVE, "Longest label of a column."),
    Option("logging_name", TEXT, "The engine's name in the log."),
    Option("max_identifier_length", POSITIVE, "Longest name the database takes."),
    Option("max_overflow", SIZE_OR_NONE, "Connections beyond pool_size when all are in use."),
    Option(
        "module", Kind("the dotted name of a module", _module), "The driver, in place of the URL's."
    ),
    Option(
        "paramstyle",
        _one_of("qmark", "numeric", "named", "format", "pyformat", "numeric_dollar"),
        "How parameters are written.",
    ),
    Option("plugins", NAMES, "SQLAlchemy's engine plugins."),
    Option("pool", OBJECT, "A ready connection pool."),
    Option("pool_logging_name", TEXT, "The pool's name in the log."),
    Option("pool_pre_ping", BOOLEAN, "Test a connection before it is used."),
    Option(
        "pool_recycle", SIZE_OR_NONE, "Seconds after which a connection is replaced, -1: never."
    ),
    Option(
        "pool_reset_on_return",
        Kind("rollback, commit or none", _reset, (str, type(None))),
        "What a connection is sent when it comes back.",
    ),
    Option("pool_size", SIZE, "Connections kept open; 0 is no limit."),
    Option("pool_timeout", SECONDS, "Seconds to wait for a connection when all are in use."),
    Option("pool_use_lifo", BOOLEAN, "Hand out the connection that came back last."),
    Option("poolclass", POOL_CLASS, "How connections are kept."),
    Option("query_cache_size", SIZE, "Statements whose SQL is kept ready."),
    Option("skip_autocommit_rollback", BOOLEAN, "Send no ROLLBACK to autocommit connections."),
    Option("use_insertmanyvalues", BOOLEAN, "Send many rows in one INSERT."),
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
        "Seconds after which MySQL (SELECT only), MariaDB and PostgreSQL end a statement; 0: never.",
        "55",
    ),
    Option("mysql.sql_mode", TEXT, "MySQL, MariaDB: how strict the server is.", "TRADITIONAL"),
    Option("mysql.time_zone", TEXT, "MySQL, MariaDB: the zone of TIMESTAMP and NOW().", "+00:00"),
    Option(
        "mysql.tls",
        _one_of("auto", "off", "required", "verify_ca", "verify_identity"),
        "PyMySQL: encrypt the connection. auto: not on this machine; elsewhere when the server can, "
        "and with tls_ca as verify_identity.",
        "auto",
    ),
    Option(
        "mysql.tls_ca", TEXT, "PyMySQL: the file of the authority that signed the server's key."
    ),
    Option("sqlite.foreign_keys", BOOLEAN, "SQLite: check foreign keys.", "true"),
    Option(
        "sqlite.journal_mode",
        _one_of("wal", "delete", "truncate", "persist", "memory", "off"),
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
    Option("retry.attempts", POSITIVE, "How often a request is tried; 1 turns retries off.", "3"),
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
            yield Option(
                prefix + option.key, option.kind, option.meaning, option.default, option.secret
            )

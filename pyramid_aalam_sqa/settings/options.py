"""The one table of settings: key, type, default and meaning.

The parser, the error messages and the table in docs/reference/settings.md use this table. To add a
setting, add a line here; its type comes from option_types.py.
"""

from collections.abc import Iterator
from typing import NamedTuple

from .option_types import (
    APP,
    ATTRIBUTE,
    BLANK_OR_CALLABLE,
    BOOLEAN,
    CALLABLE,
    DATABASE_URL,
    DATABASE_URLS,
    ECHO,
    FILE,
    HOSTS,
    JSON_OBJECT,
    LEVEL,
    METHODS,
    MODULE,
    NAMES,
    PASSWORD_FILE,
    POOL_CLASS,
    POSITIVE,
    PROVIDER,
    READY_ENGINE,
    READY_POOL,
    RESET,
    SECONDS,
    SECRET,
    SESSION_CLASS,
    SIZE,
    SIZE_OR_NONE,
    SQL_MODE,
    TEXT,
    TIME_ZONE,
    OptionType,
    one_of,
)


class Option(NamedTuple):
    """One setting.

    ``default`` is written as in an ini file; None means the default of SQLAlchemy or the server.
    If ``secret`` is true, error messages never show the value.
    """

    key: str
    type: OptionType
    meaning: str
    default: str | None = None
    secret: bool = False


# The options of create_engine, after sqlalchemy. in an ini file.
ENGINE_OPTIONS = (
    Option("url", DATABASE_URL, "The database.", secret=True),
    Option(
        "engine",
        READY_ENGINE,
        "A ready Engine, used as it is instead of all other sqlalchemy options. The code that made "
        "it disposes it.",
    ),
    Option("connect_args", JSON_OBJECT, "Arguments for the driver's connect().", secret=True),
    Option("creator", CALLABLE, "The function that makes the driver's connections, not the URL."),
    Option("echo", ECHO, "Log every statement; debug: every row too.", "false"),
    Option("echo_pool", ECHO, "Log the pool; debug: every use of it too.", "false"),
    Option("enable_from_linting", BOOLEAN, "Warn of cartesian products.", "true"),
    Option("execution_options", JSON_OBJECT, "Options of every statement."),
    Option("future", BOOLEAN, "Only true is possible; SQLAlchemy 1.4 needed it.", "true"),
    Option("hide_parameters", BOOLEAN, "Leave values out of logs and errors.", "false"),
    Option("insertmanyvalues_page_size", POSITIVE, "Rows in one INSERT at most.", "1000"),
    Option("isolation_level", LEVEL, "What concurrent transactions see of each other."),
    Option("json_deserializer", CALLABLE, "Reads JSON columns.", "json:loads"),
    Option("json_serializer", CALLABLE, "Writes JSON columns.", "json:dumps"),
    Option("label_length", POSITIVE, "Most characters in the label of a column."),
    Option("logging_name", TEXT, "The engine's name in the log."),
    Option("max_identifier_length", POSITIVE, "Most characters in a name of the database."),
    Option("max_overflow", SIZE_OR_NONE, "Connections beyond pool_size when all are in use.", "10"),
    Option("module", MODULE, "The driver's module, instead of the one that the URL names."),
    Option(
        "paramstyle",
        one_of("qmark", "numeric", "named", "format", "pyformat", "numeric_dollar"),
        "How parameters are written in a statement.",
    ),
    Option("plugins", NAMES, "SQLAlchemy's engine plugins."),
    Option("pool", READY_POOL, "A ready pool, used as it is instead of the pool options."),
    Option("pool_logging_name", TEXT, "The pool's name in the log."),
    Option("pool_pre_ping", BOOLEAN, "Test a connection before it is used.", "false"),
    Option(
        "pool_recycle",
        SIZE_OR_NONE,
        "A connection that is older than these seconds is replaced; -1: never.",
        "-1",
    ),
    Option("pool_reset_on_return", RESET, "What is sent when a connection comes back.", "rollback"),
    Option("pool_size", SIZE, "Connections kept open; 0: no limit.", "5"),
    Option("pool_timeout", SECONDS, "Seconds to wait for a connection when all are in use.", "30"),
    Option("pool_use_lifo", BOOLEAN, "Take the connection that came back most recently.", "false"),
    Option("poolclass", POOL_CLASS, "The class of the connection pool.", "QueuePool"),
    Option("query_cache_size", SIZE, "Number of statements whose SQL is cached.", "500"),
    Option(
        "skip_autocommit_rollback",
        BOOLEAN,
        "Send no ROLLBACK to a connection in AUTOCOMMIT.",
        "false",
    ),
    Option("use_insertmanyvalues", BOOLEAN, "Send many rows in one INSERT.", "true"),
)


# The options of the session class, after sqa.session.
SESSION_OPTIONS = (
    Option(
        "expire_on_commit",
        BOOLEAN,
        "Reload objects after a commit. If false, they keep the values that were loaded.",
        "false",
    ),
    Option("autoflush", BOOLEAN, "Send pending changes before each query.", "true"),
    Option("class_", SESSION_CLASS, "The class of request.sqa_session.", "sqlalchemy.orm:Session"),
)


# The options of this package, after sqa.
SQA_OPTIONS = (
    Option(
        "provider",
        PROVIDER,
        "The publisher of the application, which is the first part of the database's name, "
        "<provider>_<app>. SQA_PROVIDER in the environment sets it too.",
    ),
    Option(
        "app",
        APP,
        "The application, which is the second part of the database's name. SQA_APP in the "
        "environment sets it too.",
    ),
    Option(
        "password_file",
        PASSWORD_FILE,
        "A file with the database's password, used instead of a password in the URL. "
        "It is read for each new connection.",
    ),
    Option(
        "hosts",
        HOSTS,
        "The servers of the database. A new connection is made to the first of them that takes "
        "writes. For a bind write sqa.binds.<key>.hosts.",
    ),
    Option(
        "reader.url",
        DATABASE_URLS,
        "The replicas that read-only requests read from. For a bind write "
        "sqa.binds.<key>.reader.url.",
        secret=True,
    ),
    Option(
        "reader.secret",
        SECRET,
        "The secret that signs the position of a client's last write, the same for all processes. "
        "Without it, sqa.cursor_secret is used.",
        secret=True,
    ),
    Option(
        "reader.wait",
        SECONDS,
        "Seconds that a request waits at most for a replica to have what its client has written, "
        "and for a connection to it. After that the server that writes is used.",
        "1",
    ),
    Option(
        "reader.pause",
        SECONDS,
        "Seconds for which a replica that is down or behind is left alone.",
        "5",
    ),
    Option(
        "reader.methods",
        METHODS,
        "The methods whose requests are read-only unless their route or view says otherwise, such "
        "as GET HEAD. One that writes is made again, and may write then.",
    ),
    Option(
        "max_connections",
        POSITIVE,
        "The most connections that this process may have open, to all databases together.",
    ),
    Option(
        "base",
        NAMES,
        "The declarative bases whose tables psqa creates, each as package.module:Base. Without "
        "this setting they are the bases that the application gives to init_engine().",
    ),
    Option(
        "request_attribute",
        ATTRIBUTE,
        "A second name of request.sqa_session, for views that were written for another one: "
        "dbsession, as in Pyramid's cookiecutter.",
    ),
    Option(
        "migrations",
        TEXT,
        "The folder of Alembic's revisions, as package:folder or as a path; without it, that which "
        "script_location in [alembic] names.",
    ),
    Option(
        "commit_order",
        NAMES,
        "The keys of the databases in the order of their COMMITs. Keys that are not named come "
        "after these, and default is the last of them.",
    ),
    Option(
        "lock_timeout",
        SECONDS,
        "Seconds that a statement waits at most for a lock that another transaction holds.",
        "10",
    ),
    Option(
        "statement_timeout",
        SECONDS,
        "Seconds after which MariaDB, PostgreSQL and MySQL (SELECT only) cancel a statement; "
        "0: never.",
        "55",
    ),
    Option(
        "retry_codes",
        NAMES,
        "More errors after which a request is tried again: error numbers of MySQL, MariaDB and "
        "SQLite, SQLSTATEs of PostgreSQL.",
    ),
    Option(
        "retry_pause",
        SECONDS,
        "Seconds at most before the second attempt; doubles up to 2.",
        "0.05",
    ),
    Option("retry_after", SIZE, "Seconds that a 503 asks the client to wait.", "5"),
    Option(
        "ping_after",
        SECONDS,
        "Seconds without an answer after which a pooled connection is asked for a sign of life.",
        "5",
    ),
    Option(
        "shortcuts",
        BOOLEAN,
        "Leave out what is known to be needless, such as a ROLLBACK after a COMMIT.",
        "true",
    ),
    Option(
        "reset_connection",
        BOOLEAN,
        "Make a new connection for each request, so that nothing that one request sets on its "
        "connection reaches the next.",
        "false",
    ),
    Option(
        "page_size",
        POSITIVE,
        "Rows of a page, unless the call or the URL asks for another number.",
        "20",
    ),
    Option(
        "max_page_size", POSITIVE, "The most rows of a page, even if more are asked for.", "100"
    ),
    Option(
        "cursor_secret",
        SECRET,
        "The secret that signs the cursors of keyset pages, the same for all processes. Without "
        "it, the application makes a random one each time it starts.",
        secret=True,
    ),
    Option(
        "record",
        BOOLEAN,
        "Record the statements of each request in request.sqa_statements, for development.",
        "false",
    ),
    Option(
        "n_plus_one",
        one_of("off", "log", "raise"),
        "What happens when an attribute is loaded row by row, with one statement for each row of "
        "a query: log writes a warning, raise raises NPlusOneError. The view option "
        "sqa_n_plus_one wins.",
        "off",
    ),
    Option(
        "slow_statement",
        SECONDS,
        "A statement or COMMIT that takes this many seconds or more is logged, without its "
        "parameters.",
    ),
    Option(
        "server_timing",
        BOOLEAN,
        "Send the time that the database took in the header Server-Timing, for development.",
        "false",
    ),
    Option(
        "stats",
        BOOLEAN,
        "Count commits and rollbacks, and note who holds each connection, for "
        "get_sqa(app).stats().",
        "false",
    ),
    Option("mysql.sql_mode", SQL_MODE, "MySQL, MariaDB: how strict the server is.", "TRADITIONAL"),
    Option(
        "mysql.time_zone", TIME_ZONE, "MySQL, MariaDB: the zone of TIMESTAMP and NOW().", "+00:00"
    ),
    Option(
        "mysql.tls",
        one_of("auto", "off", "required", "verify_ca", "verify_identity"),
        "PyMySQL: encrypt the connection. auto encrypts if the server can, but not on a unix "
        "socket; if tls_ca is set, auto means verify_identity.",
        "auto",
    ),
    Option(
        "mysql.tls_ca",
        FILE,
        "PyMySQL: the certificate of the authority that signed the server's certificate.",
    ),
    Option(
        "mysql.wsrep_sync_wait",
        SIZE,
        "Galera: what waits until the node has all that the other nodes have stored before; 1: "
        "reads, 3: writes too.",
    ),
    Option("sqlite.foreign_keys", BOOLEAN, "SQLite: check foreign keys.", "true"),
    Option(
        "sqlite.journal_mode",
        one_of("wal", "delete", "truncate", "persist", "memory", refused=("off",)),
        "SQLite files: wal lets readers and a writer work at once.",
        "wal",
    ),
)


# Those of them that each bind may have for itself, as sqa.binds.<key>.<option>.
BIND_OPTIONS = tuple(option for option in SQA_OPTIONS if option.key in {"hosts", "reader.url"})


# Settings of pyramid_tm and pyramid_retry. This package checks them and sets their defaults.
PYRAMID_OPTIONS = (
    Option(
        "tm.commit_veto",
        BLANK_OR_CALLABLE,
        "The function that decides which response rolls back.",
        "pyramid_aalam_sqa.commit_veto",
    ),
    Option(
        "tm.manager_hook",
        CALLABLE,
        "The function that makes the transaction manager of a request.",
        "pyramid_aalam_sqa.request_manager",
    ),
    Option("tm.annotate_user", BOOLEAN, "Note the user's id on each transaction.", "false"),
    Option("retry.attempts", POSITIVE, "How often a request is tried at most; 1: once.", "3"),
)


def all_options() -> Iterator[Option]:
    """Yield every option with its full key, in the order of the documentation."""
    for prefix, options in (
        ("sqlalchemy.", ENGINE_OPTIONS),
        ("sqa.session.", SESSION_OPTIONS),
        ("sqa.", SQA_OPTIONS),
        ("", PYRAMID_OPTIONS),
    ):
        for option in options:
            yield option._replace(key=prefix + option.key)

"""The one table of settings: key, type, default and meaning.

The parser, the error messages and the table in docs/reference/settings.md are made from it. Add a
setting here; its type is one of option_types.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .option_types import (
    APP,
    ATTRIBUTE,
    BLANK_OR_CALLABLE,
    BOOLEAN,
    CALLABLE,
    DATABASE_URL,
    ECHO,
    FILE,
    JSON_OBJECT,
    LEVEL,
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


@dataclass(frozen=True, slots=True)
class Option:
    """One setting.

    ``default`` is spelled as in an ini file; None means that SQLAlchemy or the server has its own.
    ``secret``: an error message never shows the value.
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
        "Used as it is, in place of all other sqlalchemy options. Whoever made it disposes it.",
    ),
    Option("connect_args", JSON_OBJECT, "Arguments for the driver's connect().", secret=True),
    Option("creator", CALLABLE, "Makes the driver's connections in place of the URL."),
    Option("echo", ECHO, "Log every statement; debug: every row too.", "false"),
    Option("echo_pool", ECHO, "Log the pool; debug: every use of it too.", "false"),
    Option("enable_from_linting", BOOLEAN, "Warn of cartesian products.", "true"),
    Option("execution_options", JSON_OBJECT, "Options of every statement."),
    Option("future", BOOLEAN, "Only true is left; SQLAlchemy 1.4 needed it.", "true"),
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


# The options of the session class, after sqa.session.
SESSION_OPTIONS = (
    Option(
        "expire_on_commit",
        BOOLEAN,
        "Reload objects after a commit; false keeps what was loaded readable.",
        "false",
    ),
    Option("autoflush", BOOLEAN, "Send pending changes before a query.", "true"),
    Option("class_", SESSION_CLASS, "The class of request.sqa_session.", "sqlalchemy.orm:Session"),
)


# The options of this package, after sqa.
SQA_OPTIONS = (
    Option(
        "provider",
        PROVIDER,
        "Who publishes the application: the first part of its database's name, "
        "<provider>_<app>; SQA_PROVIDER in the environment sets it too.",
    ),
    Option("app", APP, "Which application it is; SQA_APP in the environment sets it too."),
    Option(
        "password_file",
        PASSWORD_FILE,
        "A file with the database's password, in place of one in the URL; "
        "read for each new connection.",
    ),
    Option(
        "max_connections",
        POSITIVE,
        "Connections that all databases of this process together may have open.",
    ),
    Option(
        "base",
        NAMES,
        "The declarative bases whose tables psqa creates, each as package.module:Base; without it "
        "they are those of the application's init_engine().",
    ),
    Option(
        "request_attribute",
        ATTRIBUTE,
        "A second name of request.sqa_session, for views that were written for another one: "
        "dbsession, as in Pyramid's cookiecutter.",
    ),
    Option(
        "commit_order",
        NAMES,
        "The keys of the databases in the order of their COMMITs; those that are not named follow, "
        "default last.",
    ),
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
    Option(
        "retry_pause",
        SECONDS,
        "Seconds at most before the second attempt; doubles up to 2.",
        "0.05",
    ),
    Option("retry_after", SIZE, "Seconds that a 503 asks its client to wait.", "5"),
    Option(
        "reset_connection",
        BOOLEAN,
        "Make a new connection for each request, so that no request finds what another has set.",
        "false",
    ),
    Option(
        "page_size",
        POSITIVE,
        "Rows of a page, unless the call or the URL asks for another number.",
        "20",
    ),
    Option(
        "max_page_size", POSITIVE, "Rows that a page has at most, whatever is asked for.", "100"
    ),
    Option(
        "cursor_secret",
        SECRET,
        "Signs the cursors of keyset pages; the same for all processes. Without it, each start "
        "of the application makes a new one.",
        secret=True,
    ),
    Option(
        "record",
        BOOLEAN,
        "Keep what each request has sent in request.sqa_statements, for development.",
        "false",
    ),
    Option(
        "n_plus_one",
        one_of("off", "log", "raise"),
        "What follows when a lazy load is sent for two or more rows of one query: a warning in "
        "the log, or NPlusOneError. The view option sqa_n_plus_one wins.",
        "off",
    ),
    Option(
        "slow_statement",
        SECONDS,
        "Seconds from which on a statement or a COMMIT is logged, without its parameters.",
    ),
    Option(
        "server_timing",
        BOOLEAN,
        "Send the seconds of the database in the header Server-Timing, for development.",
        "false",
    ),
    Option(
        "stats",
        BOOLEAN,
        "Count commits and rollbacks, note who holds each connection: for get_sqa(app).stats().",
        "false",
    ),
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
        one_of("wal", "delete", "truncate", "persist", "memory", refused=("off",)),
        "SQLite files: wal lets readers and a writer work at once.",
        "wal",
    ),
)


# Settings of pyramid_tm and pyramid_retry that this package gives a default or checks.
PYRAMID_OPTIONS = (
    Option(
        "tm.commit_veto",
        BLANK_OR_CALLABLE,
        "Decides which response rolls back.",
        "pyramid_aalam_sqa.commit_veto",
    ),
    Option(
        "tm.manager_hook",
        CALLABLE,
        "Makes the transaction manager of a request.",
        "pyramid_tm.explicit_manager",
    ),
    Option("tm.annotate_user", BOOLEAN, "Note the user on each transaction.", "false"),
    Option("retry.attempts", POSITIVE, "How often a request is tried; 1: never again.", "3"),
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
            yield replace(option, key=prefix + option.key)

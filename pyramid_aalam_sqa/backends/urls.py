"""Reads a database URL, and says what is wrong with it without repeating a secret.

A URL that is wrong is never shown: nobody can tell which part of it is the password.
"""

import re
from contextlib import suppress
from difflib import get_close_matches

from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.exc import NoSuchModuleError

from ..exceptions import SettingError

EXAMPLE = "mysql+pymysql://user:password@host/database or sqlite:///%(here)s/app.sqlite"


# Else a part of the password would become the host or the database, which errors print.
ENCODE = (
    "in the user name and the password write @ as %40, / as %2F and : as %3A "
    "(in an ini file %%40, %%2F and %%3A)"
)


# What to install for a driver that SQLAlchemy knows and this environment lacks.
PIP_NAMES = {
    "mariadbconnector": "mariadb",
    "mysqlconnector": "mysql-connector-python",
    "mysqldb": "mysqlclient",
    "psycopg": "pyramid_aalam_sqa[postgresql]",
    "psycopg2": "psycopg2-binary",
    "pysqlcipher": "sqlcipher3-binary",
}


# Dialects, and spellings from other tools, with what to write.
DIALECT_NAMES = {
    "mariadb": "mariadb+pymysql",
    "mssql": "mssql+pyodbc",
    "mysql": "mysql+pymysql",
    "mysql2": "mysql+pymysql",
    "oracle": "oracle+oracledb",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "psql": "postgresql",
    "pymysql": "mysql+pymysql",
    "sqlite": "sqlite",
}


def read_url(label: str, given: str | URL, *, needs_driver: bool = True) -> URL:
    """Return the URL that was *given*; raise :class:`SettingError`, naming *label*, if it is none.

    Its driver has to be installed unless another module was set to take its place.
    """
    url = given if isinstance(given, URL) else _parsed(label, given)
    problem = _problem(url)
    if problem:
        msg = f"{label}: {problem}."
        raise SettingError(msg)
    dialect = _dialect(label, url)
    if needs_driver:
        _require_driver(label, dialect, url.drivername)
    return url


def masked(url: URL) -> str:
    """Return *url* as text that may be shown: no password, no parameter of the driver."""
    text = url.set(query={}).render_as_string(hide_password=True)
    return text + "?..." if url.query else text


def with_name(label: str, url: URL, name: str) -> URL:
    """Return *url* as the URL of the application whose database is called *name*.

    Where a server has many databases it is one of them. In PostgreSQL it is a schema of the URL's
    database, in SQLite the URL's file. Raises :class:`SettingError` when *url* says otherwise.
    """
    if url.get_backend_name() in {"postgresql", "sqlite"}:
        return url
    if url.database and url.database != name:
        msg = (
            f"{label}: its database is {url.database!r}, but the application's is {name!r}: "
            "remove it from the URL, or correct sqa.provider and sqa.app."
        )
        raise SettingError(msg)
    return url.set(database=name)


def is_memory(url: URL) -> bool:
    """Tell whether *url* names an SQLite database that lives in memory."""
    in_memory = {None, "", ":memory:", "file::memory:"}
    return url.database in in_memory or url.query.get("mode") == "memory"


def is_file(url: URL) -> bool:
    """Tell whether *url* names an SQLite database by the path of its file, and by no URI."""
    path = url.database or ""
    return url.get_backend_name() == "sqlite" and not is_memory(url) and path[:5] != "file:"


def _parsed(label: str, text: str) -> URL:
    if text[:1] in {"'", '"'}:
        msg = f"{label}: remove the quotes; a value in an ini file has none."
        raise SettingError(msg)
    # make_url would not look at what stands on a second line.
    if not re.fullmatch(r"[\w+]+://.*", text):
        msg = f"{label}: this is no database URL; write for example {EXAMPLE}."
        raise SettingError(msg)
    url: URL | None = None
    with suppress(ValueError):
        url = make_url(text)
    # int() alone would take "3_306" and the digits of every script.
    if url is None or str(url.port or "") not in text:
        msg = f"{label}: the port is no number; write for example user:password@host:3306."
        raise SettingError(msg)
    if url.get_backend_name() != "sqlite" and text.count("@") > (url.username is not None):
        msg = f"{label}: {ENCODE}."
        raise SettingError(msg)
    return url


def _problem(url: URL) -> str | None:
    if url.get_backend_name() != "sqlite" and "@" in f"{url.host}{url.database}":
        return ENCODE
    if url.port is not None and not 0 < url.port < 2**16:
        return "the port is out of range; write a number from 1 to 65535"
    if url.get_backend_name() == "sqlite" and (url.host or url.username or url.port):
        return (
            "an SQLite URL has no host; write three slashes before a relative path, "
            "sqlite:///app.sqlite, and four before an absolute one"
        )
    secret = next((name for name in url.query if "passw" in name.lower()), None)
    if secret:
        # SQLAlchemy shows parameters wherever it shows a URL.
        return f"write {secret} as sqlalchemy.connect_args.{secret}, where it is never shown"
    return None


def _dialect(label: str, url: URL) -> type[Dialect]:
    name = url.drivername
    near = get_close_matches(name.partition("+")[0].lower(), DIALECT_NAMES, n=1)
    advice = f"write {DIALECT_NAMES[near[0]]}://" if near else f"write for example {EXAMPLE}"
    try:
        dialect: type[Dialect] = url.get_dialect()
    except (NoSuchModuleError, AttributeError, ValueError):
        msg = f"{label}: there is no dialect {name!r}; {advice}."
        raise SettingError(msg) from None
    if dialect.is_async:
        msg = f"{label}: {name}:// is for asyncio, which Pyramid is not; {advice}."
        raise SettingError(msg)
    return dialect


def _require_driver(label: str, dialect: type[Dialect], name: str) -> None:
    try:
        dialect.import_dbapi()
    except ImportError:
        pip_name = PIP_NAMES.get(dialect.driver, dialect.driver)
        msg = f"{label}: the driver of {name}:// is not installed; run: pip install '{pip_name}'"
        if dialect.driver == "mysqldb":
            msg += f" (or write {name.partition('+')[0]}+pymysql:// to use PyMySQL)"
        raise SettingError(msg) from None

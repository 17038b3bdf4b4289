"""Reads a database URL, and says what is wrong with it without repeating a secret.

A URL that is wrong is never shown: nobody can tell which part of it is the password.
"""

import re

from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from .exceptions import SettingError

EXAMPLE = "mysql+pymysql://user:password@host/database or sqlite:///%(here)s/app.sqlite"

# What to install for a driver that SQLAlchemy knows and this environment lacks.
PIP_NAMES = {
    "mysqldb": "mysqlclient",
    "psycopg": "pyramid_aalam_sqa[postgresql]",
    "psycopg2": "psycopg2-binary",
}
# Spellings from other tools, and what SQLAlchemy calls the same thing.
DIALECT_NAMES = {
    "postgres": "postgresql",
    "psql": "postgresql",
    "sqlite3": "sqlite",
    "mysql2": "mysql+pymysql",
    "pymysql": "mysql+pymysql",
}


def read_url(label: str, text: str | URL) -> URL:
    """Return the URL in *text*; raise :class:`SettingError`, naming *label*, when it is none."""
    problem = None
    if isinstance(text, URL):
        url = text
    else:
        _refuse_what_is_no_url(label, text)
        try:
            url = make_url(text)
        except (ArgumentError, ValueError):
            # Not chained: the cause quotes what it stumbled over, which may be a password.
            problem = f"this URL cannot be read; write for example {EXAMPLE}"
            if re.search(r":[^/?@]*\D[^/?@]*(?:[/?]|$)", text.rpartition("@")[2]):
                problem = "the port is no number; write for example user:password@host:3306"
        else:
            problem = _unencoded_at(text, url)
    problem = problem or _problem(url)
    if problem:
        raise SettingError(f"{label}: {problem}.") from None
    dialect_class(label, url)
    return url


def dialect_class(label: str, url: URL) -> type[Dialect]:
    """Return SQLAlchemy's dialect for *url*, refusing one that is unknown or has no driver."""
    name = url.drivername
    try:
        dialect: type[Dialect] = url.get_dialect()
    except NoSuchModuleError:
        known = DIALECT_NAMES.get(name.partition("+")[0])
        advice = f"write {known}://" if known else f"write for example {EXAMPLE}"
        msg = f"{label}: there is no dialect {name!r}; {advice}."
        raise SettingError(msg) from None
    try:
        dialect.import_dbapi()
    except ImportError:
        pip_name = PIP_NAMES.get(dialect.driver, dialect.driver)
        msg = f"{label}: the driver of {name}:// is not installed; run: pip install '{pip_name}'"
        if dialect.driver == "mysqldb":
            msg += "  (or write mysql+pymysql:// to use PyMySQL, which is installed)"
        raise SettingError(msg) from None
    return dialect


def masked(url: URL) -> str:
    """Return *url* as text that may be shown: no password, no parameter of the driver."""
    text = url.set(query={}).render_as_string(hide_password=True)
    return text + "?..." if url.query else text


def is_memory(url: URL) -> bool:
    """Tell whether *url* names an SQLite database that lives in memory."""
    return url.database in {None, "", ":memory:"} or url.query.get("mode") == "memory"


def _refuse_what_is_no_url(label: str, text: str) -> None:
    if text[:1] in {"'", '"'}:
        msg = f"{label}: remove the quotes; a value in an ini file has none."
        raise SettingError(msg)
    if not re.match(r"[\w+]+://", text):
        msg = f"{label}: this is no database URL; write for example {EXAMPLE}."
        raise SettingError(msg)


def _unencoded_at(text: str, url: URL) -> str | None:
    """The rest of such a password would become the host, which every connect error prints."""
    if url.get_backend_name() == "sqlite" or text.count("@") <= 1:
        return None
    return "write an @ in the user name or the password as %40 (in an ini file %%40)"


def _problem(url: URL) -> str | None:
    if "@" in (url.host or ""):
        return "the host holds an @; write an @ in the password as %40 (in an ini file %%40)"
    if url.port is not None and not 0 < url.port < 2**16:
        return "the port is out of range; write a number from 1 to 65535"
    if url.get_backend_name() == "sqlite" and (url.host or url.username or url.port):
        return (
            "an SQLite URL has no host; write three slashes before a relative path, "
            "sqlite:///app.sqlite, and four before an absolute one"
        )
    return None

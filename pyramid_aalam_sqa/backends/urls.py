"""Reads a database URL, and says what is wrong with it without repeating a secret.

A wrong URL is never shown, because it is unknown which part of it is the password.
"""

import re
from contextlib import suppress

from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.exc import NoSuchModuleError

from ..exceptions import SettingError
from .backend import ESCAPE_ADVICE, Backend
from .registry import backend_class, backend_classes
from .spelling import most_similar

EXAMPLE = "mysql+pymysql://user:password@host/database or sqlite:///%(here)s/app.sqlite"


def read_url(label: str, given: str | URL, *, needs_driver: bool = True) -> URL:
    """Return *given* as a URL, checked; *label* is the setting that error messages name.

    Raises :class:`SettingError` if it is wrong, or if its driver is not installed. Where another
    module takes the place of the driver, *needs_driver* is false.
    """
    url = given if isinstance(given, URL) else _parsed(label, given)
    problem = _problem(url)
    if problem:
        msg = f"{label}: {problem}."
        raise SettingError(msg)
    dialect = _dialect(label, url)
    problem = backend_class(url.get_backend_name()).driver_problem(dialect)
    if problem:
        msg = f"{label}: {problem}"
        raise SettingError(msg)
    if needs_driver:
        _require_driver(label, dialect, url.drivername)
    return url


def masked(url: URL) -> str:
    """Return *url* as text to show: without its password and the arguments of its driver."""
    text = url.set(query={}).render_as_string(hide_password=True)
    return text + "?..." if url.query else text


def with_name(label: str, url: URL, name: str) -> URL:
    """Return *url* as the URL of the application whose database is called *name*.

    On MySQL and MariaDB *name* is a database. On PostgreSQL it is a schema of the URL's database,
    on SQLite the schema that the URL's file is attached as. Raises :class:`SettingError`, which
    names the setting *label*, if *url* names another database.
    """
    if not backend_class(url.get_backend_name()).NAME_IS_DATABASE:
        return url
    if url.database and url.database != name:
        msg = (
            f"{label}: its database is {url.database!r}, but the application's is {name!r}: "
            "remove it from the URL, or correct sqa.provider and sqa.app."
        )
        raise SettingError(msg)
    return url.set(database=name)


def is_memory(url: URL) -> bool:
    """Return whether the database at *url* lives in this process's memory."""
    return backend_class(url.get_backend_name()).is_memory(url)


def is_file(url: URL) -> bool:
    """Return whether *url* names its database by the path of a file, not by a file: URI."""
    return backend_class(url.get_backend_name()).is_file(url)


def _parsed(label: str, text: str) -> URL:
    if text[:1] in {"'", '"'}:
        msg = f"{label}: remove the quotes; a value in an ini file has none."
        raise SettingError(msg)
    # make_url() would ignore a second line.
    if not re.fullmatch(r"[\w+]+://.*", text):
        msg = f"{label}: this is not a database URL; write for example {EXAMPLE}."
        raise SettingError(msg)
    url: URL | None = None
    with suppress(ValueError):
        url = make_url(text)
    # int() alone would accept "3_306" and the digits of every script.
    if url is None or str(url.port or "") not in text:
        msg = f"{label}: the port is not a number; write for example user:password@host:3306."
        raise SettingError(msg)
    has_host = backend_class(url.get_backend_name()).HAS_HOST
    if has_host and text.count("@") > (url.username is not None):
        msg = f"{label}: {ESCAPE_ADVICE}."
        raise SettingError(msg)
    return url


def _problem(url: URL) -> str | None:
    # First, because it finds a URL whose parts are not what they seem.
    problem = backend_class(url.get_backend_name()).url_problem(url)
    if problem:
        return problem
    if url.port is not None and not 0 < url.port < 2**16:
        return "the port is out of range; write a number from 1 to 65535"
    secret = next((name for name in url.query if "passw" in name.lower()), None)
    if secret:
        # SQLAlchemy shows these arguments wherever it shows a URL.
        return f"write {secret} as sqlalchemy.connect_args.{secret}, where it is never shown"
    return None


def _dialect(label: str, url: URL) -> type[Dialect]:
    """Return SQLAlchemy's class for *url*; raise if there is none, or if it needs asyncio."""
    name = url.drivername
    try:
        dialect: type[Dialect] = url.get_dialect()
    except (NoSuchModuleError, AttributeError, ValueError):
        msg = f"{label}: there is no dialect {name!r}; {_scheme_advice(name)}."
        raise SettingError(msg) from None
    if dialect.is_async:
        advice = _scheme_advice(name)
        msg = f"{label}: {name}:// is for asyncio, which Pyramid does not use; {advice}."
        raise SettingError(msg)
    return dialect


def _scheme_advice(name: str) -> str:
    """Return what to write instead of *name*, a wrong name of a dialect."""
    schemes = dict(Backend.URL_SCHEMES)
    for each in backend_classes():
        schemes.update(each.URL_SCHEMES)
    near = most_similar(name.partition("+")[0].lower(), schemes)
    return f"write {schemes[near]}://" if near else f"write for example {EXAMPLE}"


def _require_driver(label: str, dialect: type[Dialect], name: str) -> None:
    try:
        dialect.import_dbapi()
    except ImportError:
        product = name.partition("+")[0]
        backend = backend_class(product)
        package = backend.DRIVER_PACKAGES.get(dialect.driver, dialect.driver)
        msg = f"{label}: the driver of {name}:// is not installed; run: pip install '{package}'"
        if backend.BUNDLED_DRIVER:
            msg += f" (or write {product}+{backend.BUNDLED_DRIVER}://, which is installed)"
        raise SettingError(msg) from None

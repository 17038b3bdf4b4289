"""The replicas of a database: whether what ``sqa.reader.url`` names can be read from."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import URL

from ..backends import backend_class, read_url, with_name
from ..exceptions import SettingError
from .settings import Database

# Options that connect to one server, whatever the URL says.
SERVER_OPTIONS = ("creator", "pool")

NOT_SIGNED = (
    "sqa.reader.secret is missing: write 16 characters or more, chosen at random, the same for all "
    "processes; it signs the position of a client's last write, which the client keeps."
)


def read_readers(key: str, database: Database, given: Sequence[str | URL]) -> tuple[URL, ...]:
    """Return the URLs *given* by the setting *key*, of the replicas of *database*.

    Raises :class:`SettingError` if one of them is wrong, or of another product.
    """
    backend = backend_class(database.url.get_backend_name())
    problem = None
    if not backend.POSITION_SQL:
        problem = (
            f"this is for servers of MySQL, MariaDB and PostgreSQL, not for {backend.PRODUCT}; "
            "remove it"
        )
    for option in SERVER_OPTIONS:
        if option in database.options:
            problem = f"{database.prefix}{option} says where to connect as well; remove one of them"
    if problem:
        msg = f"{key}: {problem}."
        raise SettingError(msg)
    urls = tuple(_read(key, database, each) for each in given)
    if len(set(urls)) < len(urls):
        msg = f"{key}: one of the URLs is listed twice; write each once."
        raise SettingError(msg)
    return urls


def check_secret(sqa_options: Mapping[str, Any]) -> None:
    """Raise :class:`SettingError` if there is no secret to sign with."""
    if not (sqa_options["reader.secret"] or sqa_options["cursor_secret"]):
        raise SettingError(NOT_SIGNED)


def _read(key: str, database: Database, given: str | URL) -> URL:
    url = read_url(key, given, needs_driver=True)
    if database.name:
        url = with_name(key, url, database.name)
    own = backend_class(database.url.get_backend_name())
    if backend_class(url.get_backend_name()) is not own:
        msg = f"{key}: a replica of {own.PRODUCT} is {own.PRODUCT} too; correct the URL."
        raise SettingError(msg)
    return url

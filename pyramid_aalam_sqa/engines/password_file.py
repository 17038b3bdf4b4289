"""Reads the password of a database from a file for each new connection, so that it may change.

``psqa rotate`` changes a password in three steps: it writes the new one to ``<file>.next``, sets
it on the server, and renames ``<file>.next`` over the file. A login that the server refuses
between these steps is tried again with the other password.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Dialect, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection

from ..backends import backend_class
from ..exceptions import SettingError
from .connecting import connect_through

KEY = "sqa.password_file"


def use_password_file(engine: Engine, path: str, arguments: dict[str, Any]) -> None:
    """Make *engine* log in with the password in the file at *path*.

    *engine* must not have a do_connect listener yet that connects by itself. *arguments* are the
    driver's. Raises :class:`SettingError` when the URL or *arguments* have a password too.
    """
    backend = backend_class(engine.dialect.name)
    if not backend.HAS_ACCOUNTS:
        msg = f"{KEY}: {backend.PRODUCT} has no passwords; remove the line."
        raise SettingError(msg)
    given = [name for name in ("password", "passwd") if name in arguments]
    if engine.url.password is not None or given:
        where = f"sqlalchemy.connect_args.{given[0]}" if given else "sqlalchemy.url"
        msg = f"{KEY}: {where} has a password as well; remove it there."
        raise SettingError(msg)
    event.listen(engine, "do_connect", PasswordFile(path))


def read_password(path: Path, opener: Callable[[str, int], int] | None = None) -> str:
    """Return the password in the file at *path*, its first and only line.

    *opener* is what :func:`open` takes. Raises :class:`SettingError` when the file cannot be read
    or has no or several lines.
    """
    try:
        with open(path, encoding="utf-8", opener=opener) as file:
            text = file.read()
    except (OSError, UnicodeError) as error:
        # The text of a UnicodeError would show the bytes, which are the password.
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        msg = f"The password in {path} cannot be read: {reason}."
        raise SettingError(msg) from None
    password = text.rstrip("\r\n")
    if not password or "\n" in password:
        msg = f"{path}: write the password, and nothing else, in its only line."
        raise SettingError(msg)
    return password


def next_password_path(path: Path) -> Path:
    """Return the path of the file with the next password, while the one at *path* is changed."""
    return path.with_name(f"{path.name}.next")


class PasswordFile:
    """Opens the connections of one engine with the password that its file holds at that time."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def __call__(
        self, dialect: Dialect, record: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> DBAPIConnection:
        """Return a new connection; SQLAlchemy calls this as a listener for ``do_connect``."""
        password: str | None = self._read()
        tried: set[str] = set()
        while True:
            try:
                own = {**kwargs, "password": password}
                return connect_through(self, dialect, record, args, own)
            except dialect.loaded_dbapi.Error:
                # After any error: not every driver tells a refused login from other errors.
                tried.add(str(password))
                password = self._untried(tried)
                if password is None:
                    raise

    def _read(self) -> str:
        # Resolved each time: the path may be a symbolic link whose target changes.
        return read_password(self.path.resolve())

    def _untried(self, tried: set[str]) -> str | None:
        """Return a password that was not tried yet; None if there is none.

        The next password is read before the current one: when the next file is missing, it has
        just been renamed over the current one.
        """
        beside = next_password_path(self.path.resolve())
        try:
            found = [read_password(beside)] if beside.exists() else []
        except SettingError:
            found = []  # It was renamed just now, or it is being written.
        return next((each for each in [*found, self._read()] if each not in tried), None)

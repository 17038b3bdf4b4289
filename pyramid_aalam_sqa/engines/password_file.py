"""Reads the password of a database from a file for each connection, so that it may change.

Whoever changes it writes the new one beside the file first, as ``<file>.next``, then tells the
server, and renames it over the file. A login that is refused meanwhile is tried with the other one.
"""

from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Dialect, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection

from ..exceptions import SettingError

KEY = "sqa.password_file"


def use_password_file(engine: Engine, path: str, arguments: dict[str, Any]) -> None:
    """Have *engine*, which has no listener yet, log in with the password in the file at *path*.

    Raises :class:`SettingError` when the URL or *arguments*, those of the driver, have one too.
    """
    if engine.dialect.name == "sqlite":
        msg = f"{KEY}: SQLite has no passwords; remove the line."
        raise SettingError(msg)
    given = [name for name in ("password", "passwd") if name in arguments]
    if engine.url.password is not None or given:
        where = f"sqlalchemy.connect_args.{given[0]}" if given else "sqlalchemy.url"
        msg = f"{KEY}: {where} has a password as well; remove it there."
        raise SettingError(msg)
    event.listen(engine, "do_connect", PasswordFile(path))


def read_password(path: Path) -> str:
    """Return the password in the file at *path*, its first and only line."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeError) as error:
        # What a UnicodeError says holds what it could not read.
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        msg = f"The password in {path} cannot be read: {reason}."
        raise SettingError(msg) from None
    password = text.rstrip("\r\n")
    if not password or "\n" in password:
        msg = f"{path}: write the password, and nothing else, in its only line."
        raise SettingError(msg)
    return password


def next_password_path(path: Path) -> Path:
    """Return where the password is that the one in the file at *path* is being changed to."""
    return path.with_name(f"{path.name}.next")


class PasswordFile:
    """Opens the connections of one engine with the password that is in its file at the time."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def __call__(
        self, dialect: Dialect, record: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> DBAPIConnection:
        password: str | None = self._read()
        tried: set[str] = set()
        while True:
            try:
                return self._connect(dialect, record, args, {**kwargs, "password": password})
            except dialect.loaded_dbapi.Error:
                # Not every driver can tell a login that was refused.
                tried.add(str(password))
                password = self._untried(tried)
                if password is None:
                    raise

    def _read(self) -> str:
        # What it links to may change with it.
        return read_password(self.path.resolve())

    def _untried(self, tried: set[str]) -> str | None:
        """Return the password that the server may have been told since.

        The file is read last: where there is nothing beside it, it has been renamed.
        """
        beside = next_password_path(self.path.resolve())
        try:
            found = [read_password(beside)] if beside.exists() else []
        except SettingError:
            found = []  # It went away just now, or is being written.
        return next((each for each in [*found, self._read()] if each not in tried), None)

    def _connect(
        self, dialect: Dialect, record: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> DBAPIConnection:
        """Connect as SQLAlchemy would, through the other listeners."""
        listeners: Any = dialect.dispatch
        for listener in listeners.do_connect:
            connection = None if listener is self else listener(dialect, record, args, kwargs)
            if connection is not None:
                opened: DBAPIConnection = connection
                return opened
        return dialect.connect(*args, **kwargs)

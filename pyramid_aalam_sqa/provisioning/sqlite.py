"""SQLite: a file, which is kept from others by the system's permissions alone."""

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from shlex import quote as quote_argument
from urllib.parse import quote, unquote, urlsplit

from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from ..backends import is_memory
from ..exceptions import ProvisioningError
from .server import Finding, Server, Step, words

OWNER_ONLY = 0o600


PRIMARY_CODE = 0xFF


OTHERS = stat.S_IRWXO


# What stands beside the file while it is in use, and is left behind by a crash.
ENDINGS = ("-journal", "-wal", "-shm")


REPAIRED = "psqa create repairs it"


class SQLiteServer(Server):
    """A file that its owner alone can open; the application is to run as that owner.

    Its steps are no statements but commands of the system, which show what is done.
    """

    def differences(self, owner_password: str | None = None) -> Sequence[Step]:
        """Return the steps that make the folder and the file, or shut the file for others."""
        path = self._path()
        steps = [] if path.parent.is_dir() else [_step("mkdir -p", path.parent)]
        if not path.exists():
            steps.append(_step("touch", path))
        return steps + [_step("chmod o-rwx", file) for file in self._files() if _is_open(file)]

    def run(self, steps: Sequence[Step]) -> Iterator[Step]:
        """Run *steps*, yielding each that is done; ProvisioningError when the system refuses."""
        for step in steps:
            command, _, path = step.statement.partition("\0")
            try:
                COMMANDS[command](Path(path))
            except (OSError, sqlite3.Error) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                msg = f"{step}: {reason}"
                raise ProvisioningError(msg) from None
            yield step

    def prove(self) -> Sequence[str]:
        """Make a table in the file, and undo it."""
        path = self._path()
        table = f'"{self.application.name}".sqa_proof'
        try:
            with self._engine() as engine, engine.connect() as connection:
                connection.exec_driver_sql(f"CREATE TABLE {table} (body TEXT)")
                connection.exec_driver_sql(f"INSERT INTO {table} VALUES ('written')")  # noqa: S608 - a name by the rule, quoted
                connection.rollback()
        except DBAPIError as error:
            msg = f"{path} cannot be written: {words(error)}"
            raise ProvisioningError(msg) from None
        return [f"{path} can be read and written", f"{path} is closed to other users of the system"]

    def findings(self) -> Sequence[Finding]:
        """Return what is wrong with the file; it is only read."""
        path = self._path()
        if not path.exists():
            return [Finding(f"{path} is not there", "psqa create makes it")]
        found = [
            Finding(f"{file} is open to every user of the system", REPAIRED)
            for file in self._files()
            if _is_open(file)
        ]
        mode = path.parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            problem = f"every user of the system can replace the files of {path.parent}"
            found.append(Finding(problem, f"chmod o-w {path.parent}"))
        try:
            with closing(_opened(path, "ro")) as connection:
                found += self._inside(connection)
        except sqlite3.Error as error:
            found.append(Finding(f"{path} cannot be read", f"{error}; restore it from a backup"))
        return found

    def _inside(self, connection: sqlite3.Connection) -> Iterator[Finding]:
        path = self._path()
        [result] = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if result != "ok":
            lines = str(result).splitlines()
            yield Finding(f"{path} is damaged ({lines[-1]})", "restore it from a backup")
        for table in {row[0] for row in connection.execute("PRAGMA foreign_key_check")}:
            problem = f"rows of {table} refer to rows that are not there"
            yield Finding(problem, "PRAGMA foreign_key_check names them; correct or delete them")
        [mode] = connection.execute("PRAGMA journal_mode").fetchone()
        wanted = self.application.sqa_options["sqlite.journal_mode"]
        # A file without a byte has never been connected to, which sets the mode.
        if mode != wanted and path.stat().st_size:
            problem = f"the journal mode of {path} is {mode}, not {wanted}"
            yield Finding(problem, "the application sets it when it connects, unless it cannot")

    def password_steps(self, account: str, password: str) -> Sequence[Step]:
        """Refuse: raises ProvisioningError."""
        msg = "A file of SQLite has no accounts and no passwords: there is nothing to rotate."
        raise ProvisioningError(msg)

    def removal(self) -> Sequence[Step]:
        """Return the steps that remove the file and what stands beside it."""
        path = self._path()
        return [_step("rm" if file == path else "rm -f", file) for file in self._files()]

    def locked(self) -> AbstractContextManager[None]:
        """Do nothing: each step may be done twice."""
        return nullcontext()

    @contextmanager
    def as_owner(self, password: str | None) -> Iterator[Engine]:
        """Lend the application's own engine: the file has no accounts."""
        with self._engine() as engine:
            yield engine

    def _engine(self) -> AbstractContextManager[Engine]:
        return self.application.login(self.application.user, None)

    def _path(self) -> Path:
        url = self.application.url
        database = url.database
        if not database or is_memory(url):
            msg = (
                "sqlalchemy.url: a database in memory ends with its process; write a file, "
                "for example sqlite:///%(here)s/app.sqlite."
            )
            raise ProvisioningError(msg)
        if database.startswith("file:"):
            database = unquote(urlsplit(database).path)
        return Path(database).absolute()

    def _files(self) -> Sequence[Path]:
        path = self._path()
        files = (path, *(path.with_name(path.name + ending) for ending in ENDINGS))
        return [file for file in files if file.exists()]


def _step(command: str, path: Path) -> Step:
    return Step(f"{command}\0{path}", f"{command} {quote_argument(str(path))}")


def _is_open(file: Path) -> bool:
    return bool(file.stat().st_mode & OTHERS)


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _give_to_the_folders_owner(folder)


def _make_file(path: Path) -> None:
    # With its mode from the first: chmod afterwards would leave it open for a moment.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, OWNER_ONLY))
    _give_to_the_folders_owner(path)


def _give_to_the_folders_owner(path: Path) -> None:
    """Let an application open what the administrator makes for it; only root can give."""
    with suppress(PermissionError):
        os.chown(path, path.parent.stat().st_uid, -1)


def _close_to_others(file: Path) -> None:
    # What its group may do was somebody's decision, and an application may depend on it.
    file.chmod(file.stat().st_mode & ~OTHERS)


def _remove(file: Path) -> None:
    _refuse_in_use(file)
    file.unlink()


def _refuse_in_use(path: Path) -> None:
    """Make sure that nobody has the file open.

    Who has would go on writing to a file that has no name, and all of it would be lost. Leaving
    WAL needs the file for itself. In the other modes SQLite looks whether the file has its name.
    """
    with closing(_opened(path, "rw")) as connection:
        try:
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        except sqlite3.DatabaseError as error:
            # All else, such as that it is no database, is no reason to keep it.
            if error.sqlite_errorcode & PRIMARY_CODE == sqlite3.SQLITE_BUSY:
                msg = f"{path} is in use: stop the application first."
                raise ProvisioningError(msg) from None


def _remove_if_there(file: Path) -> None:
    file.unlink(missing_ok=True)


COMMANDS: Mapping[str, Callable[[Path], None]] = {
    "mkdir -p": _make_folder,
    "touch": _make_file,
    "chmod o-rwx": _close_to_others,
    "rm": _remove,
    "rm -f": _remove_if_there,
}

"""SQLite: a file, which only the permissions of the system keep from others."""

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
from .server import Finding, Server, Step, error_text

OWNER_ONLY = 0o600
PRIMARY_CODE = 0xFF
OTHERS = stat.S_IRWXO
# What stands beside the file while it is in use, and stays there after a crash.
ENDINGS = ("-journal", "-wal", "-shm")
REPAIRED = "psqa create repairs it"


class SQLiteServer(Server):
    """A file that only its owner can open; the application has to run as that owner.

    A step is a command of the system, for example ``touch``, a zero byte, and the path. It is shown
    as a shell would take it; psqa runs no shell.
    """

    def plan(self, owner_password: str | None = None) -> Sequence[Step]:
        """Return the steps that make the folder and the file, or close the file to others."""
        path = self._path()
        steps = [] if path.parent.is_dir() else [_command("mkdir -p", path.parent)]
        if not path.exists():
            steps.append(_command("touch", path))
        return steps + [_command("chmod o-rwx", file) for file in self._files() if _is_open(file)]

    def run(self, steps: Sequence[Step]) -> Iterator[Step]:
        """Run *steps* and yield each that is done; ProvisioningError if the system refuses one."""
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
        """Create a table in the file, write a row, and roll both back."""
        path = self._path()
        table = f'"{self.tenant.name}".sqa_proof'
        try:
            with self._engine() as engine, engine.connect() as connection:
                connection.exec_driver_sql(f"CREATE TABLE {table} (body TEXT)")
                connection.exec_driver_sql(f"INSERT INTO {table} VALUES ('written')")  # noqa: S608 - a name by the rule, quoted
                connection.rollback()
        except DBAPIError as error:
            msg = f"{path} cannot be written: {error_text(error)}"
            raise ProvisioningError(msg) from None
        return [f"{path} can be read and written", f"{path} is closed to other users of the system"]

    def check(self) -> Sequence[Finding]:
        """Return what is wrong with the file, which is only read."""
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
            with closing(_open(path, "ro")) as connection:
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
        wanted = self.tenant.sqa_options["sqlite.journal_mode"]
        # The first connection sets the mode; a file without a byte has had none.
        if mode != wanted and path.stat().st_size:
            problem = f"the journal mode of {path} is {mode}, not {wanted}"
            yield Finding(problem, "the application sets it when it connects, unless it cannot")

    def password_steps(self, account: str, password: str) -> Sequence[Step]:
        """Raise ProvisioningError: SQLite has no passwords."""
        msg = "A file of SQLite has no accounts and no passwords: there is nothing to rotate."
        raise ProvisioningError(msg)

    def plan_removal(self) -> Sequence[Step]:
        """Return the steps that remove the file and what stands beside it."""
        path = self._path()
        return [_command("rm" if file == path else "rm -f", file) for file in self._files()]

    def locked(self) -> AbstractContextManager[None]:
        """Take no lock: each step may be done twice."""
        return nullcontext()

    @contextmanager
    def as_owner(self, password: str | None) -> Iterator[Engine]:
        """Lend the application's own engine, because the file has no accounts."""
        with self._engine() as engine:
            yield engine

    def _engine(self) -> AbstractContextManager[Engine]:
        return self.tenant.login(self.tenant.user, None)

    def _path(self) -> Path:
        url = self.tenant.url
        database = url.database
        if not database or is_memory(url):
            msg = (
                f"{self.tenant.url_key}: a database in memory ends with its process; write a file, "
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


def _command(command: str, path: Path) -> Step:
    return Step(f"{command}\0{path}", f"{command} {quote_argument(str(path))}")


def _is_open(file: Path) -> bool:
    return bool(file.stat().st_mode & OTHERS)


def _open(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _give_to_the_folders_owner(folder)


def _make_file(path: Path) -> None:
    # The mode is set as the file is made: with chmod it would be open to others for a moment.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, OWNER_ONLY))
    _give_to_the_folders_owner(path)


def _give_to_the_folders_owner(path: Path) -> None:
    """Give *path* to the owner of its folder, who runs the application; only root may do that."""
    with suppress(PermissionError):
        os.chown(path, path.parent.stat().st_uid, -1)


def _close_to_others(file: Path) -> None:
    # The rights of the group stay as they are: an application may depend on them.
    file.chmod(file.stat().st_mode & ~OTHERS)


def _remove(file: Path) -> None:
    _refuse_in_use(file)
    file.unlink()


def _refuse_in_use(path: Path) -> None:
    """Raise when a process has the file open in WAL mode.

    It would go on writing to a file that has no name any more, and all of it would be lost. SQLite
    leaves WAL mode only when nothing else has the file open. In the other modes a process notices
    by itself that the file has lost its name.
    """
    with closing(_open(path, "rw")) as connection:
        try:
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        except sqlite3.DatabaseError as error:
            # Another error, for example that the file is not a database, does not keep it.
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

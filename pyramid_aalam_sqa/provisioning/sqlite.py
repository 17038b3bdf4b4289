"""SQLite: a file, which only the permissions of the system keep from others.

The folder may belong to the application's user, and psqa may be run by root: see ``files``.
"""

import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    closing,
    contextmanager,
    nullcontext,
    suppress,
)
from pathlib import Path
from shlex import quote as quote_argument
from urllib.parse import quote, unquote, urlsplit

from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from ..backends import is_memory
from ..exceptions import ProvisioningError
from .files import acting_as, open_folder, open_regular
from .server import Finding, Server, Step, error_text

PRIMARY_CODE = 0xFF
OTHERS = stat.S_IRWXO
# What stands beside the file while it is in use, and stays there after a crash.
ENDINGS = ("-journal", "-wal", "-shm")
# The first bytes of every database of SQLite.
MAGIC = b"SQLite format 3\0"
REPAIRED = "psqa create repairs it"


class SQLiteServer(Server):
    """A file that only its owner can open; the application has to run as that owner.

    A step is a command of the system, for example ``touch``, a zero byte, and the path. It is shown
    as a shell would take it; psqa runs no shell.
    """

    def describe(self) -> str:
        """Return the path of the file."""
        return f"SQLite file {self._path()}"

    def locked(self) -> AbstractContextManager[None]:
        """Take no lock: each step may be done twice."""
        return nullcontext()

    def plan(self, owner_password: str | None = None) -> Sequence[Step]:
        """Return the steps that make the folder and the file, or close the file to others."""
        path = self._path()
        with self._folder() as folder:
            if folder is None:
                return [_command("mkdir -p", path.parent), _command("touch", path)]
            modes = self._modes(folder)
        steps = [] if path.name in modes else [_command("touch", path)]
        open_files = [name for name, mode in modes.items() if mode & OTHERS]
        return steps + [_command("chmod o-rwx", path.with_name(name)) for name in open_files]

    def run(self, steps: Sequence[Step]) -> Iterator[Step]:
        """Run *steps* and yield each that is done; ProvisioningError if the system refuses one."""
        for step in steps:
            command, _, path = step.statement.partition("\0")
            try:
                self._run(command, Path(path))
            except (OSError, sqlite3.Error) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                msg = f"{step}: {reason}"
                raise ProvisioningError(msg) from None
            yield step

    def _run(self, command: str, path: Path) -> None:
        if command == "mkdir -p":
            _make_folder(path)
            return
        with open_folder(path.parent) as (folder, owner), acting_as(owner):
            if command == "touch":
                os.close(open_regular(path.name, os.O_CREAT | os.O_EXCL | os.O_RDWR, folder))
            elif command == "chmod o-rwx":
                file = open_regular(path.name, os.O_RDONLY, folder)
                try:
                    # The group keeps its rights: an application may depend on them.
                    os.fchmod(file, stat.S_IMODE(os.fstat(file).st_mode) & ~OTHERS)
                finally:
                    os.close(file)
            else:
                if command == "rm":
                    _refuse_other_files(path, folder)
                    _refuse_in_use(path)
                # SQLite itself may have removed what stands beside the file.
                with suppress(FileNotFoundError):
                    os.unlink(path.name, dir_fd=folder)

    def prove(self, owner_password: str | None = None) -> Sequence[str]:
        """Create a table in the file, write a row, and roll both back."""
        path = self._path()
        table = f'"{self.tenant.schema or "main"}".sqa_proof'
        try:
            with self.as_owner(None) as engine, engine.connect() as connection:
                connection.exec_driver_sql(f"CREATE TABLE {table} (body TEXT)")
                connection.exec_driver_sql(f"INSERT INTO {table} VALUES ('written')")  # noqa: S608 - a name by the rule, quoted
                connection.rollback()
        except DBAPIError as error:
            msg = f"{path} cannot be written: {error_text(error)}"
            raise ProvisioningError(msg) from None
        return [f"{path} can be read and written", f"{path} is closed to other users of the system"]

    def check(self, owner_password: str | None = None) -> Sequence[Finding]:
        """Return what is wrong with the file, which is only read."""
        path = self._path()
        with self._folder() as folder:
            modes = {} if folder is None else self._modes(folder)
            if folder is None or path.name not in modes:
                return [Finding(f"{path} is not there", "psqa create makes it")]
            found = [
                Finding(f"{path.with_name(name)} is open to every user of the system", REPAIRED)
                for name, mode in modes.items()
                if mode & OTHERS
            ]
            mode = os.fstat(folder).st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                problem = f"every user of the system can replace the files of {path.parent}"
                found.append(Finding(problem, f"chmod o-w {path.parent}"))
            try:
                with closing(_open(path, "ro")) as connection:
                    found += self._inside(connection, path)
            except sqlite3.Error as error:
                advice = f"{error}; restore it from a backup"
                found.append(Finding(f"{path} cannot be read", advice))
        return found

    def _inside(self, connection: sqlite3.Connection, path: Path) -> Iterator[Finding]:
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
        with self._folder() as folder:
            names = [] if folder is None else list(self._modes(folder))
        return [
            _command("rm" if name == path.name else "rm -f", path.with_name(name)) for name in names
        ]

    @contextmanager
    def as_owner(self, password: str | None) -> Iterator[Engine]:
        """Lend the application's own engine, because the file has no accounts."""
        tenant = self.tenant
        with self.as_user_of_file(), tenant.login(tenant.user, None) as engine:
            yield engine

    def as_application(self) -> AbstractContextManager[Engine]:
        """Lend the application's own engine."""
        return self.as_owner(None)

    @contextmanager
    def as_user_of_file(self) -> Iterator[None]:
        """Run the block with the rights of the owner of the folder, and refuse planted links."""
        with self._folder() as folder:
            if folder is not None:
                self._modes(folder)
            yield

    @contextmanager
    def _folder(self) -> Iterator[int | None]:
        """Lend the folder of the file, and act as its owner; None when there is no folder."""
        parent = self._path().parent
        nearest = next(each for each in (parent, *parent.parents) if os.path.lexists(each))
        with ExitStack() as stack:
            try:
                folder, owner = stack.enter_context(open_folder(nearest))
            except NotADirectoryError:
                # The step that makes the folder says so.
                yield None
                return
            stack.enter_context(acting_as(owner))
            yield folder if nearest == parent else None

    def _modes(self, folder: int) -> dict[str, int]:
        """Return the names of the files that are there, and their modes.

        Raises ProvisioningError when one of them is a link, or is not a file.
        """
        path = self._path()
        modes = {}
        for name in (path.name, *(path.name + ending for ending in ENDINGS)):
            try:
                mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            except FileNotFoundError:
                continue
            if not stat.S_ISREG(mode):
                kind = "a link" if stat.S_ISLNK(mode) else "not a file"
                msg = f"{path.with_name(name)} is {kind}: psqa does not touch it."
                raise ProvisioningError(msg)
            modes[name] = mode
        return modes

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


def _command(command: str, path: Path) -> Step:
    return Step(f"{command}\0{path}", f"{command} {quote_argument(str(path))}")


def _open(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True)


def _make_folder(path: Path) -> None:
    """Make the folder at *path* and those above it, as the owner of the one that is there."""
    if not os.path.lexists(path.parent):
        _make_folder(path.parent)
    with open_folder(path.parent) as (parent, owner), acting_as(owner):
        os.mkdir(path.name, dir_fd=parent)


def _refuse_other_files(path: Path, folder: int) -> None:
    """Raise when the file is neither a database of SQLite nor empty."""
    file = open_regular(path.name, os.O_RDONLY, folder)
    try:
        begin = os.read(file, len(MAGIC))
    finally:
        os.close(file)
    if begin not in {b"", MAGIC}:
        msg = f"{path} is not a database of SQLite: psqa does not remove it."
        raise ProvisioningError(msg)


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
            # Another error, for example that the file is damaged, does not keep it.
            if error.sqlite_errorcode & PRIMARY_CODE == sqlite3.SQLITE_BUSY:
                msg = f"{path} is in use: stop the application first."
                raise ProvisioningError(msg) from None

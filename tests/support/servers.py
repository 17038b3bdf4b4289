"""Private database servers: in a temporary folder, on their own port, stopped by their own pid."""

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

import pymysql

SYSTEM_FOLDERS = ":/usr/sbin:/usr/local/sbin"
POSTGRES_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
AS_ROOT = os.geteuid() == 0
# initdb refuses root.
POSTGRES_ACCOUNT = {"user": "nobody", "group": "nogroup"} if AS_ROOT else {}
# Of InnoDB: a server would begin by changing what is larger.
LOG_FILE_SIZE = "16M"


def find(program):
    path = os.environ["PATH"] + SYSTEM_FOLDERS
    return shutil.which(program, path=":".join([path, *map(str, POSTGRES_FOLDERS)]))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server process with a folder, a port and a log."""

    def __init__(self, prefix):
        # Under /tmp, whatever TMPDIR says: the path of a socket may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
        self.folder.chmod(0o755)
        self.port = free_port()
        self.process = None

    def command(self):
        raise NotImplementedError

    def answers(self):
        raise NotImplementedError

    def start(self, **popen):
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd="/", **popen
            )
        deadline = time.monotonic() + 60
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text(errors="replace")[-3000:])
            time.sleep(0.05)
        return self

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def kill(self):
        """End the server at once, as a power cut does."""
        self.process.kill()
        self.process.wait()

    def remove(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _folder_of_files(prefix):
    """Return a folder for the files of a new server: to make them takes longer than a copy."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _mariadb_files():
    """Return a folder with the files of a new MariaDB."""
    folder = _folder_of_files("sqa-mariadb-files-")
    subprocess.run(
        [
            find("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={folder}/data",
            # As below: another server may be starting in /tmp at this moment.
            f"--tmpdir={folder}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            f"--innodb-log-file-size={LOG_FILE_SIZE}",
            *(["--user=root"] if AS_ROOT else []),
        ],
        check=True,
        capture_output=True,
    )
    return folder / "data"


class MariaDB(Server):
    """A MariaDB whose root has no password; the same folder can be started again."""

    def __init__(self, *options):
        super().__init__("sqa-mariadb-")
        self.options = options
        self.account = ["--user=root"] if AS_ROOT else []
        shutil.copytree(_mariadb_files(), self.folder / "data")

    def command(self):
        return [
            find("mariadbd"),
            "--no-defaults",
            *self.account,
            f"--datadir={self.folder}/data",
            # A server that starts removes the temporary tables that it finds, of others too.
            f"--tmpdir={self.folder}",
            f"--socket={self.folder}/socket",
            f"--pid-file={self.folder}/pid",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=64M",
            f"--innodb-log-file-size={LOG_FILE_SIZE}",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-flush-method=nosync",
            "--innodb-doublewrite=0",
            "--innodb-file-per-table=0",
            "--max-connections=200",
            *self.options,
        ]

    def answers(self):
        # Asked first without the driver, which does not close the socket of a refused connection.
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(f"{self.folder}/socket")
            self.connect().close()
        except (OSError, pymysql.err.OperationalError):
            return False
        return True

    def connect(self, **options):
        """A connection of root by the driver alone, independent of the package."""
        return pymysql.connect(
            unix_socket=f"{self.folder}/socket",
            user="root",
            autocommit=True,
            ssl_disabled=True,
            **options,
        )

    def url(self, database=""):
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/{database}"


@cache
def _postgresql_files(initdb):
    """Return a folder with the files of a new PostgreSQL, made by the program *initdb*."""
    folder = _folder_of_files("sqa-postgresql-files-")
    if AS_ROOT:
        shutil.chown(folder, **POSTGRES_ACCOUNT)
    subprocess.run(
        [
            initdb,
            *("-D", f"{folder}/data", "-U", "postgres", "-A", "trust"),
            *("--locale=C.UTF-8", "-E", "UTF8", "--no-sync"),
        ],
        check=True,
        capture_output=True,
        cwd="/",
        **POSTGRES_ACCOUNT,
    )
    return folder / "data"


class PostgreSQL(Server):
    """A PostgreSQL that trusts everybody on this machine."""

    def __init__(self, find=find):
        super().__init__("sqa-postgresql-")
        # Finds the programs of the version to run.
        self.find = find
        self.account = POSTGRES_ACCOUNT
        if AS_ROOT:
            shutil.chown(self.folder, **self.account)
        self.make()

    def make(self):
        """Make the files of the server."""
        # With their owner, which shutil.copytree() does not keep.
        subprocess.run(
            ["cp", "-a", _postgresql_files(self.find("initdb")), self.folder], check=True
        )

    def command(self):
        return [
            self.find("postgres"),
            *("-D", f"{self.folder}/data", "-p", str(self.port), "-k", str(self.folder)),
            *("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"),
            *("-c", "max_prepared_transactions=2"),
        ]

    def start(self):
        return super().start(**self.account)

    def answers(self):
        ready = [self.find("pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        return subprocess.run(ready, check=False).returncode == 0

    def url(self, database="postgres"):
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"


def running(server):
    """Start *server* and yield it; remove it at the end. For fixtures."""
    try:
        yield server.start()
    finally:
        server.remove()

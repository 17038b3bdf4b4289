"""A writer and its replica, of MariaDB (GTID) and of PostgreSQL, which change places."""

import shutil
import signal
import subprocess
import time

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from support.servers import MariaDB, PostgreSQL

PATIENCE = 60


def until(condition):
    """Wait until *condition* is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class MariaDBPair:
    """Two servers of MariaDB; the second follows the first, until :meth:`switch`."""

    def __init__(self):
        self.servers = [
            MariaDB(
                f"--server-id={number}",
                "--log-bin=log",
                "--binlog-format=ROW",
                "--gtid-strict-mode=1",
                # A small group of transactions each time: the application may read at once.
                "--slave-parallel-threads=0",
            )
            for number in (1, 2)
        ]

    def start(self):
        for server in self.servers:
            server.start()
        self.follow(*self.servers)
        return self

    def remove(self):
        for server in self.servers:
            server.remove()

    def run(self, server, *statements):
        with server.connect() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall()

    def follow(self, source, replica):
        self.run(
            replica,
            "SET GLOBAL read_only = ON",
            f"CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {source.port}, "
            "MASTER_USER = 'root', MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1",
            "START SLAVE",
        )

    def catch_up(self, source, replica):
        """Wait until *replica* has all that *source* has."""
        [(position,)] = self.run(source, "SELECT @@gtid_binlog_pos")
        [(waited,)] = self.run(replica, f"SELECT MASTER_GTID_WAIT('{position}', {PATIENCE})")
        assert waited == 0

    def switch(self):
        """Make the first read-only, and the second the writer when it has everything."""
        old, new = self.servers
        self.run(old, "SET GLOBAL read_only = ON")
        # What had begun before is still stored: the position is read when it has ended.
        self.run(old, "FLUSH TABLES WITH READ LOCK", "UNLOCK TABLES")
        self.catch_up(old, new)
        self.run(new, "STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = OFF")
        self.follow(new, old)
        self.servers = [new, old]

    def rows(self, server, query):
        return self.run(server, "USE ledger", query)


class Standby(PostgreSQL):
    """A copy of a running server, which follows it."""

    def __init__(self, source):
        super().__init__()
        data = self.folder / "data"
        shutil.rmtree(data)
        subprocess.run(
            [
                self.find("pg_basebackup"),
                *("-D", data, "-h", "127.0.0.1", "-p", str(source.port), "-U", "postgres"),
                *("-R", "-X", "stream", "-c", "fast", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            cwd="/",
            **self.account,
        )


class PostgreSQLPair:
    """Two servers of PostgreSQL; the second follows the first, until :meth:`switch`."""

    def __init__(self):
        self.servers = [PostgreSQL()]

    def start(self):
        self.servers[0].start()
        self.servers.append(Standby(self.servers[0]))
        self.servers[1].start()
        return self

    def remove(self):
        for server in self.servers:
            if server.process is not None and server.process.poll() is None:
                # At once: a server in good order waits for its clients and for its standby.
                server.process.send_signal(signal.SIGQUIT)
                server.process.wait(PATIENCE)
            server.remove()

    def asked(self, server, statement, database="postgres"):
        engine = create_engine(
            server.url(database), poolclass=NullPool, isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            found = connection.execute(text(statement))
            return [tuple(row) for row in found] if found.returns_rows else []

    def switch(self):
        """End the first in good order, which sends everything, and promote the second."""
        old, new = self.servers
        # SIGINT: connections are closed, and the standby gets the rest.
        old.process.send_signal(signal.SIGINT)
        old.process.wait(PATIENCE)
        self.asked(new, "SELECT pg_promote()")
        until(lambda: self.asked(new, "SELECT pg_is_in_recovery()") == [(False,)])
        self.servers = [new, old]

    def rows(self, server, query):
        return self.asked(server, query, "ledger")

"""A server that writes and a replica of it: MariaDB with GTIDs, PostgreSQL with streaming."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from support.databases import Database
from support.servers import MariaDB, PostgreSQL

NAME = "aalam_replica"
TABLE = "CREATE TABLE note (id INTEGER PRIMARY KEY, body INTEGER NOT NULL)"
SECONDS = 30


class Pair:
    """The database of one application on two servers: ``primary`` and ``replica``."""

    def __init__(self, primary, replica, name):
        self.servers = primary, replica
        self.primary, self.replica = Database(primary.url(name)), Database(replica.url(name))

    @property
    def ports(self):
        return [server.port for server in self.servers]

    def catch_up(self):
        """Wait until the replica has what the primary has now."""
        number = self.primary.scalar("SELECT count(*) FROM mark") + 1
        self.primary.run(f"INSERT INTO mark VALUES ({number})")
        deadline = time.monotonic() + SECONDS
        while self.replica.scalar("SELECT count(*) FROM mark") < number:
            assert time.monotonic() < deadline, "the replica does not follow"
            time.sleep(0.02)

    def kill(self):
        """End the replica at once, as a power cut does."""
        self.servers[1].kill()

    def start_again(self):
        self.servers[1].start()

    def freeze(self):
        """Let the replica, with all its processes, be silent."""
        self._signal(signal.SIGSTOP)

    def thaw(self):
        self._signal(signal.SIGCONT)

    def _signal(self, number):
        pid = self.servers[1].process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        for each in [pid, *(children.read_text().split() if children.exists() else ())]:
            with suppress(ProcessLookupError):
                os.kill(int(each), number)

    def remove(self):
        self.thaw()
        for server in self.servers:
            server.remove()


class MariaDBPair(Pair):
    """Asynchronous replication with GTIDs."""

    port = "@@port"

    def __init__(self):
        primary = MariaDB("--server-id=1", "--log-bin=bin").start()
        # It is killed, and has to know then how far it was.
        safe = ("--innodb-flush-log-at-trx-commit=1", "--relay-log-recovery=1")
        replica = MariaDB("--server-id=2", "--read-only=1", *safe).start()
        super().__init__(primary, replica, NAME)
        self._run(primary, "CREATE USER repl@'%' IDENTIFIED BY 'r'")
        self._run(primary, "GRANT REPLICATION SLAVE ON *.* TO repl@'%'")
        self.delay(0)
        self._run(primary, f"CREATE DATABASE {NAME}")
        self.primary.run(TABLE, "CREATE TABLE mark (id INTEGER)", "INSERT INTO note VALUES (1, 0)")
        deadline = time.monotonic() + SECONDS
        while f"('{NAME}',)" not in str(self._run(replica, "SHOW DATABASES")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.2)
        self.catch_up()

    def delay(self, seconds):
        """Let the replica apply everything *seconds* late."""
        self._run(self.servers[1], "STOP SLAVE")
        self._run(
            self.servers[1],
            f"CHANGE MASTER TO master_host='127.0.0.1', master_port={self.servers[0].port}, "
            "master_user='repl', master_password='r', master_use_gtid=slave_pos, "
            f"master_connect_retry=1, master_delay={seconds}",
        )
        self._run(self.servers[1], "START SLAVE")

    def stop(self):
        self._run(self.servers[1], "STOP SLAVE SQL_THREAD")

    def go_on(self):
        self._run(self.servers[1], "START SLAVE SQL_THREAD")

    @staticmethod
    def _run(server, statement):
        connection = server.connect()
        try:
            cursor = connection.cursor()
            cursor.execute(statement)
            return cursor.fetchall()
        finally:
            connection.close()


class Standby(PostgreSQL):
    """A standby server, made from *primary* by pg_basebackup."""

    def __init__(self, primary):
        self.primary = primary
        super().__init__()

    def make(self):
        address = ("-h", "127.0.0.1", "-p", str(self.primary.port), "-U", "postgres")
        subprocess.run(
            [self.find("pg_basebackup"), *address, "-D", f"{self.folder}/data", "-R", "--no-sync"],
            check=True,
            capture_output=True,
            cwd="/",
            **self.account,
        )


class PostgreSQLPair(Pair):
    """Streaming replication."""

    port = "inet_server_port()"

    def __init__(self):
        primary = PostgreSQL().start()
        Database(primary.url()).run("SELECT 1")
        replica = Standby(primary).start()
        super().__init__(primary, replica, "postgres")
        self.primary.run(TABLE, "CREATE TABLE mark (id INTEGER)", "INSERT INTO note VALUES (1, 0)")
        time.sleep(0.2)
        self.catch_up()

    def delay(self, seconds):
        """Let the replica apply each COMMIT *seconds* late."""
        with self.replica.connect() as connection:
            alone = connection.execution_options(isolation_level="AUTOCOMMIT")
            alone.exec_driver_sql(f"ALTER SYSTEM SET recovery_min_apply_delay = '{seconds}s'")
            alone.exec_driver_sql("SELECT pg_reload_conf()")

    def stop(self):
        self.replica.run("SELECT pg_wal_replay_pause()")

    def go_on(self):
        self.replica.run("SELECT pg_wal_replay_resume()")

    def kill(self):
        """A SIGQUIT ends the children as well."""
        self.servers[1].process.send_signal(signal.SIGQUIT)
        self.servers[1].process.wait()


PAIRS = {"mariadb": MariaDBPair, "postgresql": PostgreSQLPair}

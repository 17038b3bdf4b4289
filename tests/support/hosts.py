"""Two servers of one application, of which one takes writes, and hosts that say nothing."""

import socket
from contextlib import contextmanager, suppress

from support.databases import Database

SECRET = "top-secret"
NAME = "aalam_hosts"
NOTE = "CREATE TABLE note (body VARCHAR(50))"


class Pair:
    """The database of one application on two servers, which know nothing of each other.

    ``first`` and ``second`` are what an independent connection sees of each.
    """

    def __init__(self, *servers):
        self.servers = servers
        self.first, self.second = (Database(each.url(NAME)) for each in servers)
        for server in servers:
            Database(server.url()).run(
                f"CREATE DATABASE {NAME}",
                f"CREATE USER {NAME} IDENTIFIED BY '{SECRET}'",
                f"GRANT ALL ON {NAME}.* TO {NAME}",
                f"CREATE TABLE {NAME}.note (body VARCHAR(50))",
            )
        self.writer(self.first)

    @property
    def hosts(self):
        return [f"127.0.0.1:{server.port}" for server in self.servers]

    def writer(self, *writers):
        """Let *writers* take writes, and the others refuse them, as after a switchover."""
        for database in (self.first, self.second):
            database.run(f"SET GLOBAL read_only = {'OFF' if database in writers else 'ON'}")

    def notes(self):
        """What each of the two has."""
        return [
            [body for (body,) in each.rows("SELECT body FROM note ORDER BY body")]
            for each in (self.first, self.second)
        ]

    def remove(self):
        self.writer(self.first, self.second)
        for server in self.servers:
            Database(server.url()).run(f"DROP DATABASE {NAME}", f"DROP USER {NAME}")


class Silent:
    """An address where every connection is accepted and nothing is ever answered."""

    def __init__(self, listener):
        self._listener = listener
        self.host = f"127.0.0.1:{listener.getsockname()[1]}"

    def asked(self):
        """How many connections have come since the last call."""
        count = 0
        with suppress(BlockingIOError):
            while True:
                self._listener.accept()[0].close()
                count += 1
        return count


@contextmanager
def silent():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield Silent(listener)

"""What mysqlclient needs: its arguments by name, and a ping that does not wait without end."""

import select
from collections.abc import Callable
from functools import cache
from importlib import import_module
from time import monotonic
from typing import Any

from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPIConnection

from .driver import keeping_errors

# mysqlclient's connect() takes any name, and refuses a wrong one only when it is called.
MYSQLCLIENT_ARGUMENTS = frozenset(
    {
        *("host", "user", "password", "passwd", "database", "db", "port", "unix_socket"),
        *("conv", "connect_timeout", "read_timeout", "write_timeout", "compress", "named_pipe"),
        *("init_command", "read_default_file", "read_default_group", "cursorclass"),
        *("use_unicode", "charset", "collation", "auth_plugin", "sql_mode", "client_flag"),
        *("multi_statements", "executemany_fallback", "ssl_mode", "ssl", "autocommit"),
        *("server_public_key_path", "local_infile", "local_infile_dir", "binary_prefix"),
        # SQLAlchemy puts these into ssl.
        *("ssl_ca", "ssl_key", "ssl_cert", "ssl_capath", "ssl_cipher", "ssl_check_hostname"),
    }
)


def ping_in_time(connection: Any, seconds: float) -> None:
    """Ask the server of mysqlclient's *connection* for a sign of life; raise TimeoutError without.

    mysqlclient cannot change the limit of a connection, and its ping() waits as long as a statement
    may take. So a statement is sent, and its answer is read only once it is there.
    """
    connection.send_query(b"DO 0")
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if not poll.poll(seconds * 1000):
        connection.close()
        msg = f"the server did not answer a ping for {seconds:g} seconds"
        raise connection.OperationalError(2013, msg)
    connection.read_query_result()


def connect_watched(dialect: Dialect) -> Callable[..., DBAPIConnection]:
    """Return a connect() for *dialect* whose connections know of themselves what the package asks.

    Their cursors keep the errors of their ``close()``. Where another module was set in the place of
    mysqlclient, only the cursors are given, and its own connect() is called.
    """
    make: Callable[..., DBAPIConnection] = dialect.connect
    if dialect.loaded_dbapi.__name__ == "MySQLdb":
        make = watched_class(import_module("MySQLdb.connections").Connection)

    def connect(*args: Any, **kwargs: Any) -> DBAPIConnection:
        usual = import_module("MySQLdb.cursors").Cursor
        kwargs["cursorclass"] = keeping_errors(kwargs.get("cursorclass", usual))
        return make(*args, **kwargs)

    return connect


@cache
def watched_class(base: Any) -> Any:
    """Return *base*, mysqlclient's connection, which notes whether it has a transaction.

    What it sends besides goes through ``query()`` or ``send_query()``, or begins no transaction.
    """

    class WatchedConnection(base):  # type: ignore[misc]  # mysqlclient is optional
        clean = False
        answered = 0.0

        def query(self, query: Any) -> None:
            self.clean = False
            super().query(query)
            self.answered = monotonic()

        def send_query(self, query: Any) -> None:
            self.clean = False
            super().send_query(query)

        def commit(self) -> None:
            self.clean = False
            super().commit()
            self.note_end()

        def rollback(self) -> None:
            self.clean = False
            super().rollback()
            self.note_end()

        def note_end(self) -> None:
            self.clean, self.answered = True, monotonic()

    return WatchedConnection

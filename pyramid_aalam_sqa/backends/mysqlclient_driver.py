"""What mysqlclient needs: its arguments by name, and a ping that does not wait without end."""

import select
from importlib import import_module
from typing import Any

from sqlalchemy.engine import Dialect

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


def keep_cursor_errors(
    _dialect: Dialect, _record: object, _args: object, kwargs: dict[str, Any]
) -> None:
    """Let the cursors of a new connection keep the errors of their ``close()``.

    This is a listener for ``do_connect``, which leaves the connecting to others.
    """
    usual = import_module("MySQLdb.cursors").Cursor
    kwargs["cursorclass"] = keeping_errors(kwargs.get("cursorclass", usual))

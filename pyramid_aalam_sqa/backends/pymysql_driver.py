"""What PyMySQL does badly, repaired; the one module that uses PyMySQL's private attributes.

PyMySQL encodes passwords as latin-1, builds a TLS context for each connection, and sends statements
on connecting that SQLAlchemy or our own setup repeats.
"""

import logging
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from time import monotonic
from typing import Any, NoReturn, cast

import pymysql
from pymysql.constants import SERVER_STATUS
from sqlalchemy.engine.interfaces import DBAPIConnection

from ..exceptions import SettingError
from .backend import LOCAL_HOSTS
from .driver import keeping_errors

log = logging.getLogger(__name__)

STREAMING = (
    "Rows are being streamed on this connection (yield_per, stream_results): read them to their "
    "end, or send the other statement on another connection (request.sqa_stream() has its own)."
)


# Addresses (host, port) of servers without TLS of which the log has a line. It decides nothing: a
# server that once seemed to have no TLS is asked again for each connection.
_logged: set[tuple[Any, Any]] = set()


# Plugins with which a server asks for the password itself, and not for a proof of it.
CLEAR_PASSWORD_PLUGINS = ("mysql_clear_password", "dialog")
CLEAR_TEXT_REFUSED = (
    "The server asks for the password in clear text, and nothing proves that it is the right one: "
    "set sqa.mysql.tls_ca, or give the account another authentication plugin."
)


# The flag CLIENT_SSL: the client asks for TLS.
CLIENT_SSL = 1 << 11


# PyMySQL's number for an authentication plugin that reports an error.
AUTHENTICATION_ERROR = 2061


# The packet COM_QUIT, with its length and number.
QUIT_PACKET = b"\x01\x00\x00\x00\x01"


# Seconds to wait for the server to close the connection.
CLOSE_TIMEOUT = 1


class PyMySQLConnect:
    """Opens PyMySQL's connections, in the place of the dialect's *connect*.

    The password is sent in UTF-8, and all connections of the process share one TLS context.
    PyMySQL would build a context for each, at 20 to 45 ms of CPU, even if it is not used.
    """

    __slots__ = ("_connect", "authority", "mode", "optional")

    def __init__(self, sqa_options: Mapping[str, Any], connect: Callable[..., Any]) -> None:
        self._connect = connect
        self.mode = sqa_options["mysql.tls"]
        self.authority = sqa_options["mysql.tls_ca"]
        # Whether to connect without TLS if the server has none.
        self.optional = self.mode == "auto" and not self.authority
        if self.authority:
            _check_authority(self.mode, self.authority)

    def __call__(self, *args: Any, **kwargs: Any) -> DBAPIConnection:
        """Return a new connection, encrypted as ``sqa.mysql.tls`` says."""
        # With None, PyMySQL sends no statement for it. MySQLBackend sets autocommit with the rest.
        kwargs.setdefault("autocommit", None)
        if isinstance(kwargs.get("password"), str):
            # PyMySQL would encode it as latin-1. The server compares it as UTF-8.
            kwargs["password"] = kwargs["password"].encode()
        if self._has_own_tls(kwargs):
            return _connect(self._connect, args, kwargs)
        if self.mode == "off" or (self.optional and kwargs.get("unix_socket")):
            return _connect(self._connect, args, {**kwargs, "ssl_disabled": True})
        context = tls_context(self.mode, self.authority)
        return _connect(self._connect, args, {**kwargs, "ssl": context}, optional=self.optional)

    def _has_own_tls(self, kwargs: Mapping[str, Any]) -> bool:
        """Return whether the arguments themselves say how to encrypt, maybe in an option file."""
        in_file = self.optional and any(name.startswith("read_default") for name in kwargs)
        return in_file or any(name.startswith("ssl") for name in kwargs)


def _connect(
    connect: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    optional: bool = False,
) -> DBAPIConnection:
    """Connect without PyMySQL's SET NAMES, because SQLAlchemy sends its own at once.

    If TLS is *optional*, this one connection goes on without it where the server offers none.
    """
    connection: Any = connect(*args, **{**kwargs, "defer_connect": True})
    if optional:
        # What PyMySQL calls preferred; it has no argument for that and a context together.
        connection._ssl_required = False  # noqa: SLF001 - it has no public name
        connection.client_flag &= ~CLIENT_SSL
    if not (kwargs.get("unix_socket") or _proves_server(connection)):
        own = connection._auth_plugin_map  # noqa: SLF001 - the argument, as PyMySQL keeps it
        refused = dict.fromkeys(CLEAR_PASSWORD_PLUGINS, RefuseClearPassword)
        connection._auth_plugin_map = {**refused, **own}  # noqa: SLF001 - as above
    # Not where another module was set in the place of PyMySQL.
    if connection.__class__ is pymysql.connections.Connection:
        connection.__class__ = WatchedConnection
    connection.set_character_set = _send_nothing
    # PyMySQL would wait for the greeting, TLS and the login as long as a statement may take.
    with time_limit(connection, connection.connect_timeout):
        connection.connect()
    del connection.set_character_set
    if optional:
        _log_without_tls(connection)
    return cast("DBAPIConnection", connection)


def _proves_server(connection: Any) -> bool:
    """Tell whether PyMySQL's *connection* is to be encrypted to a server that proves itself."""
    if not (connection.ssl and connection._ssl_required):  # noqa: SLF001 - it has no public name
        return False
    return bool(connection.ctx.verify_mode == ssl.CERT_REQUIRED)


class RefuseClearPassword:
    """Takes the place of PyMySQL's plugins that send the password itself."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def authenticate(self, _packet: object) -> NoReturn:
        """Raise PyMySQL's OperationalError, and send nothing."""
        raise self.connection.OperationalError(AUTHENTICATION_ERROR, CLEAR_TEXT_REFUSED)


def _log_without_tls(connection: Any) -> None:
    """Write a warning, once for each server on another machine that offers no TLS."""
    address = connection.host, connection.port
    encrypted = isinstance(socket_of(connection), ssl.SSLSocket)
    if not (encrypted or connection.host in LOCAL_HOSTS or address in _logged):
        _logged.add(address)
        log.warning("%s has no TLS: connections to it are not encrypted.", connection.host)


def _send_nothing(_charset: str, _collation: str | None) -> None:
    """Take the place of PyMySQL's set_character_set() while it connects."""


@cache
def tls_context(mode: str, authority: str | None) -> ssl.SSLContext:
    """Return the process's one TLS context for ``sqa.mysql.tls`` = *mode*.

    *authority* is a file of certificates; None for those of the system.
    """
    context = ssl.create_default_context(cafile=authority)
    verified = mode.startswith("verify") or (mode == "auto" and authority)
    context.check_hostname = bool(verified) and mode != "verify_ca"
    context.verify_mode = ssl.CERT_REQUIRED if verified else ssl.CERT_NONE
    # The certificates that MySQL makes for itself fail the strict rules of Python 3.13.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _check_authority(mode: str, authority: str) -> None:
    """Raise SettingError if *mode* ignores *authority*, or if that file has no certificate."""
    if mode in {"off", "required"}:
        msg = (
            f"sqa.mysql.tls = {mode!r} does not look at sqa.mysql.tls_ca: "
            "write verify_ca or verify_identity, or remove tls_ca."
        )
        raise SettingError(msg)
    try:
        tls_context(mode, authority)
    except OSError as error:
        msg = f"sqa.mysql.tls_ca = {authority!r}: write a file of PEM certificates ({error})."
        raise SettingError(msg) from None


@contextmanager
def time_limit(connection: Any, seconds: float) -> Iterator[None]:
    """Limit each wait of PyMySQL's *connection* to *seconds* within the block."""
    usual = connection._read_timeout, connection._write_timeout  # noqa: SLF001 - as below
    connection._read_timeout = connection._write_timeout = seconds  # noqa: SLF001 - as below
    try:
        yield
    finally:
        # PyMySQL compares them with the socket's own limit before it reads and writes.
        connection._read_timeout, connection._write_timeout = usual  # noqa: SLF001 - no public name


def socket_of(connection: Any) -> Any:
    """Return what poll() can ask about *connection*: PyMySQL's socket, mysqlclient's connection.

    None if it is closed.
    """
    if hasattr(connection, "_sock"):
        return connection._sock  # noqa: SLF001 - it has no public name
    try:
        connection.fileno()
    except Exception:  # noqa: BLE001 - mysqlclient raises its own error once it is closed
        return None
    return connection


def close_and_wait(connection: Any, _record: object) -> None:
    """Say goodbye on PyMySQL's *connection* and wait until the server closes it too.

    PyMySQL does not wait. Until then the server counts the connection as open. A "close" listener.
    """
    socket = getattr(connection, "_sock", None)
    if socket is not None:
        with suppress(OSError):
            socket.settimeout(CLOSE_TIMEOUT)
            socket.sendall(QUIT_PACKET)
            socket.recv(1)


def forget_unread_rows(connection: Any) -> None:
    """Make PyMySQL forget the rows of *connection* that were not fetched yet.

    It would read them all before it closes the connection. Other drivers are left alone.
    """
    with suppress(AttributeError):
        connection._result.unbuffered_active = False  # noqa: SLF001 - it has no public name


# Without types. What runs for each statement calls its methods by this name: super() takes as long
# in Python 3.11 as two calls.
Parent: Any = pymysql.connections.Connection


class WatchedConnection(Parent):  # type: ignore[misc]  # it has no types
    """PyMySQL's connection, which loses no row and no error of a result.

    PyMySQL throws the rest of an unbuffered result away when another statement is sent, with a
    warning alone. What its cursors raise while they are closed is only logged by SQLAlchemy.
    """

    # PyMySQL's own: the result that is being read, and the status of the server's last answer.
    _result: Any
    server_status: Any
    # The first error that came while a cursor was closed.
    unheard_error: BaseException | None = None
    # Whether the server has no transaction here. The status alone does not say so: a SELECT begins
    # a transaction, and its answer says that there is none.
    clean = False
    # When the server has answered a statement, by time.monotonic().
    answered = 0.0

    def cursor(self, cursor: Any = None) -> Any:
        """Return a cursor that keeps the error of its ``close()``."""
        return keeping_errors(cursor or self.cursorclass)(self)

    def query(self, sql: Any, unbuffered: bool = False) -> int:
        """Send a statement. Raises InterfaceError while rows are streamed on this connection."""
        if self._result is not None and self._result.unbuffered_active:
            raise pymysql.err.InterfaceError(STREAMING)
        rows: int = Parent.query(self, sql, unbuffered)
        self.answered = monotonic()
        return rows

    def _execute_command(self, command: int, sql: Any) -> None:
        """Send *sql*. All that PyMySQL sends goes through this method."""
        self.clean = False
        Parent._execute_command(self, command, sql)  # noqa: SLF001 - it has no public name

    def _force_close(self) -> None:
        """Close the socket, and forget what was not read: a cursor would still want to read it."""
        forget_unread_rows(self)
        Parent._force_close(self)  # noqa: SLF001 - it has no public name

    def commit(self) -> None:
        """Send COMMIT, and note that nothing was sent since."""
        Parent.commit(self)
        self.note_end()

    def rollback(self) -> None:
        """Send ROLLBACK, and note that nothing was sent since."""
        Parent.rollback(self)
        self.note_end()

    def note_end(self) -> None:
        """Note that a transaction has ended, unless the server says that the next one has begun.

        It does so under ``completion_type = CHAIN``.
        """
        self.clean = not self.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS
        self.answered = monotonic()

    def finish_results(self) -> None:
        """Read the further results of a procedure, and raise the error that may be in them."""
        while self._result is not None and not self._result.unbuffered_active:
            if not self._result.has_next:
                return
            self.next_result()

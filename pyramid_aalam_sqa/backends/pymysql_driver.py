"""TODO."""

import logging
import ssl
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import pymysql
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPIConnection

from ..exceptions import SettingError

log = logging.getLogger(__name__)

STREAMING = (
    "Rows are being streamed on this connection (yield_per, stream_results): read them to their "
    "end, or send the other statement on another connection (request.sqa_stream() has its own)."
)


NO_TLS_ON_SERVER = 2026


# Known to the whole process: finding out costs a connection, and each database has an engine.
WITHOUT_TLS: set[tuple[Any, Any]] = set()


THIS_MACHINE = {None, "localhost", "127.0.0.1", "::1"}


class PyMySQLConnect:
    """Opens PyMySQL's connections: the password as it was written, TLS at the cost of one context.

    PyMySQL builds a TLS context for each connection, 20 to 45 ms of CPU even where it is not used.
    """

    def __init__(self, sqa_options: Mapping[str, Any]) -> None:
        self.mode = sqa_options["mysql.tls"]
        self.authority = sqa_options["mysql.tls_ca"]
        self.optional = self.mode == "auto" and not self.authority
        if self.authority:
            _check(self.mode, self.authority)

    def __call__(
        self, dialect: Dialect, _record: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> DBAPIConnection:
        # SET_UP does it, unless somebody wants it otherwise.
        kwargs.setdefault("autocommit", None)
        if isinstance(kwargs.get("password"), str):
            # PyMySQL would encode it as latin-1, which is not what the server compares with.
            kwargs["password"] = kwargs["password"].encode()
        if any(name.startswith("ssl") for name in kwargs) or (
            self.optional and any(name.startswith("read_default") for name in kwargs)
        ):
            return _connect(dialect, args, kwargs)
        address = kwargs.get("host"), kwargs.get("port")
        unwanted = address in WITHOUT_TLS or kwargs.get("unix_socket")
        if self.mode == "off" or (self.optional and unwanted):
            return _connect(dialect, args, {**kwargs, "ssl_disabled": True})
        context = tls_context(self.mode, self.authority)
        try:
            return _connect(dialect, args, {**kwargs, "ssl": context})
        except dialect.loaded_dbapi.OperationalError as error:
            if not (self.optional and error.args[0] == NO_TLS_ON_SERVER):
                raise
        if kwargs.get("host") not in THIS_MACHINE:
            log.warning("%s has no TLS: connections to it are not encrypted.", kwargs["host"])
        WITHOUT_TLS.add(address)
        return _connect(dialect, args, {**kwargs, "ssl_disabled": True})


def _connect(dialect: Dialect, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DBAPIConnection:
    """Connect without the SET NAMES of PyMySQL; SQLAlchemy sends its own at once."""
    connection: Any = dialect.connect(*args, **{**kwargs, "defer_connect": True})
    # Not where another module was set in the place of PyMySQL.
    if type(connection) is pymysql.connections.Connection:
        connection.__class__ = WatchedConnection
    connection.set_character_set = _send_nothing
    connection.connect()
    del connection.set_character_set
    return cast("DBAPIConnection", connection)


def _send_nothing(_charset: str, _collation: str | None) -> None:
    """Stand for PyMySQL's method while it connects."""


@cache
def tls_context(mode: str, authority: str | None) -> ssl.SSLContext:
    """Return the process's one TLS context for *mode* and the certificates in *authority*."""
    context = ssl.create_default_context(cafile=authority)
    verified = mode.startswith("verify") or (mode == "auto" and authority)
    context.check_hostname = bool(verified) and mode != "verify_ca"
    context.verify_mode = ssl.CERT_REQUIRED if verified else ssl.CERT_NONE
    # The certificates that MySQL makes for itself do not pass what Python 3.13 adds.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _check(mode: str, authority: str) -> None:
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


class WatchedConnection(pymysql.connections.Connection):  # type: ignore[misc]  # it has no types
    """PyMySQL's connection, which loses no row and no error of a result.

    PyMySQL throws the rest of an unbuffered result away when another statement is sent, with a
    warning alone. What its cursors raise while they are closed is only logged by SQLAlchemy.
    """

    # The first error that came while a cursor was closed.
    unheard_error: BaseException | None = None

    def cursor(self, cursor: Any = None) -> Any:
        """Return a cursor that keeps the error of its ``close()``."""
        return keeping_errors(cursor or self.cursorclass)(self)

    def query(self, sql: Any, unbuffered: bool = False) -> int:
        """Send a statement. Raises InterfaceError while rows are streamed on this connection."""
        if self._result is not None and self._result.unbuffered_active:
            raise pymysql.err.InterfaceError(STREAMING)
        rows: int = super().query(sql, unbuffered)
        return rows

    def finish_results(self) -> None:
        """Read the further results of a procedure, and raise the error that may be in them."""
        while self._result is not None and not self._result.unbuffered_active:
            if not self._result.has_next:
                return
            self.next_result()


@cache
def keeping_errors(cursor_class: type) -> type:
    """Return *cursor_class*, whose instances keep the error of ``close()`` on their connection."""

    class KeepingCursor(cursor_class):  # type: ignore[misc]  # it is a driver's, without types
        def close(self) -> None:
            # Of PyMySQL, or of mysqlclient.
            connection = self.connection
            try:
                super().close()
            except Exception as error:
                if getattr(connection, "unheard_error", None) is None:
                    connection.unheard_error = error
                raise

    return KeepingCursor

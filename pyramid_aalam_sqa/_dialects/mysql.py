"""MySQL and MariaDB, through PyMySQL first of all: strict, UTC, utf8mb4, and no endless wait."""

import logging
import ssl
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from sqlalchemy import event
from sqlalchemy.engine import Dialect, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection

from .generic import GenericDialect

log = logging.getLogger(__name__)

NO_TLS_ON_SERVER = 2026
THIS_MACHINE = {None, "localhost", "127.0.0.1", "::1"}
# Each server reads the comment of the other as a comment (MariaDB skips 50700 to 99999).
SET_UP = (
    "SET sql_mode = %s, time_zone = %s, innodb_lock_wait_timeout = %s "
    "/*M! , max_statement_time = %s */ /*!50708 , max_execution_time = %s */"
)


class MySQLDialect(GenericDialect):
    """MySQL and MariaDB with bounded waits and a server that refuses bad values."""

    ENGINE_DEFAULTS: ClassVar[Mapping[str, str]] = {
        **GenericDialect.ENGINE_DEFAULTS,
        "isolation_level": "READ COMMITTED",
        "pool_recycle": "1800",
        "connect_args.charset": "utf8mb4",
        "connect_args.connect_timeout": "5",
        "connect_args.read_timeout": "60",
        "connect_args.write_timeout": "60",
    }

    def prepare(self, engine: Engine) -> None:
        event.listen(engine, "connect", self._set_up)
        if engine.dialect.driver == "pymysql":
            event.listen(engine, "do_connect", PyMySQLConnect(self.switches))

    def _set_up(self, connection: DBAPIConnection, _record: Any) -> None:
        lock, statement = self.switches["lock_timeout"], self.switches["statement_timeout"]
        cursor = connection.cursor()
        cursor.execute(
            SET_UP,
            (
                self.switches["mysql.sql_mode"],
                self.switches["mysql.time_zone"],
                max(1, round(lock)),
                statement,
                round(statement * 1000),
            ),
        )
        cursor.close()


class PyMySQLConnect:
    """Opens PyMySQL's connections: the password as it was written, TLS at the cost of one context.

    PyMySQL builds a TLS context for each connection, 20 to 45 ms of CPU even where it is not used.
    """

    def __init__(self, switches: Mapping[str, Any]) -> None:
        self.mode = switches["mysql.tls"]
        self.authority = switches["mysql.tls_ca"]
        self.server_has_none = False

    def __call__(
        self, dialect: Dialect, _record: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> DBAPIConnection:
        if isinstance(kwargs.get("password"), str):
            # PyMySQL would encode it as latin-1, which is not what the server compares with.
            kwargs["password"] = kwargs["password"].encode()
        if any(name.startswith("ssl") for name in kwargs):
            return dialect.connect(*args, **kwargs)
        optional = self.mode == "auto" and not self.authority
        if self.mode == "off" or (optional and (self.server_has_none or "unix_socket" in kwargs)):
            return dialect.connect(*args, ssl_disabled=True, **kwargs)
        context = tls_context(self.mode, self.authority)
        try:
            return dialect.connect(*args, ssl=context, **kwargs)
        except dialect.loaded_dbapi.OperationalError as error:
            if not (optional and error.args[0] == NO_TLS_ON_SERVER):
                raise
        if kwargs.get("host") not in THIS_MACHINE:
            log.warning("%s has no TLS: connections to it are not encrypted.", kwargs["host"])
        self.server_has_none = True
        return dialect.connect(*args, ssl_disabled=True, **kwargs)


@cache
def tls_context(mode: str, authority: str | None) -> ssl.SSLContext:
    """Return the process's one TLS context for *mode* and the certificates in *authority*."""
    context = ssl.create_default_context(cafile=authority)
    verified = mode.startswith("verify") or (mode == "auto" and authority)
    context.check_hostname = bool(verified) and mode != "verify_ca"
    context.verify_mode = ssl.CERT_REQUIRED if verified else ssl.CERT_NONE
    return context

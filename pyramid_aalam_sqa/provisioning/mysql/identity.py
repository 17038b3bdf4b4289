"""Proves that a URL and the administrator's connection lead to the same MySQL or MariaDB.

A server says in its greeting, before any login, what number it has given to the connection. The
administrator looks for that number in the server's list of connections. Names and ports prove
nothing: a proxy, a container or a tunnel may stand behind them.
"""

import socket
from contextlib import closing
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import URL, Connection

from ...exceptions import ProvisioningError
from ..tenant import Tenant

# What a URL and connect_args may say of the address.
ADDRESS = {"host", "port", "unix_socket", "read_default_file", "read_default_group"}
# Seconds to wait for the greeting, and for the server's list to show a connection or its end.
PATIENCE = 5
LISTED_WITHIN = 1
ERROR_PACKET = 0xFF
BEING_MADE = text(
    "SELECT COUNT(*) FROM information_schema.PROCESSLIST "
    "WHERE ID = :number AND USER = 'unauthenticated user'"
)
SEES_OTHERS = text(
    "SELECT COUNT(*) FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE = 'PROCESS'"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: a *unix_socket*, or else a *host* and a *port*."""

    host: str
    port: int
    unix_socket: str | None

    def __str__(self) -> str:
        return self.unix_socket or f"{self.host}:{self.port}"

    def connect(self) -> socket.socket:
        """Return a new connection to the server, which has not logged in."""
        if not self.unix_socket:
            return socket.create_connection((self.host, self.port), PATIENCE)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        try:
            connection.connect(self.unix_socket)
        except OSError:
            connection.close()
            raise
        return connection


def address_of(tenant: Tenant) -> Address:
    """Return where the application connects to, which an option file may say as well."""
    [_, known] = tenant.url.get_dialect()().create_connect_args(tenant.url)
    known.update(tenant.options.get("connect_args", {}))
    given: dict[str, Any] = {name: known[name] for name in ADDRESS & known.keys()}
    if given.get("unix_socket") is None and "host" not in given:
        given["host"] = "localhost"
    pymysql: Any = URL.create("mysql+pymysql").get_dialect().import_dbapi()
    found = pymysql.connect(defer_connect=True, ssl_disabled=True, **given)
    return Address(found.host, found.port, found.unix_socket)


def prove_same_server(admin: Connection, tenant: Tenant) -> None:
    """Raise ProvisioningError unless *admin* is connected to the server of *tenant*'s URL."""
    address = address_of(tenant)
    if not admin.scalar(SEES_OTHERS):
        msg = "The administrator's account lacks PROCESS, and cannot see the server's connections."
        raise ProvisioningError(msg)
    try:
        with closing(address.connect()) as connection:
            number = _connection_number(connection)
            listed = _is_listed(admin, number, wanted=True)
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"{tenant.url_key}: the server at {address} does not answer: {reason}."
        raise ProvisioningError(msg) from None
    if not listed or _is_listed(admin, number, wanted=False):
        msg = (
            f"{tenant.url_key} leads to {address}, and the administrator is on another server: "
            "nothing was changed. Write the URL of an administrator of that server into a file "
            "for --admin-url-file, or into SQA_ADMIN_URL."
        )
        raise ProvisioningError(msg)


def _connection_number(connection: socket.socket) -> int:
    """Return the number that the server gives to *connection* in its greeting."""
    stream = connection.makefile("rb")
    header = stream.read(4)
    packet = stream.read(int.from_bytes(header[:3], "little"))
    if len(packet) < len(header) + 1 or packet[0] == ERROR_PACKET:
        raise OSError(0, packet[3:].decode(errors="replace") or "it is not a MySQL or MariaDB")
    end = packet.find(b"\0")
    return int.from_bytes(packet[end + 1 : end + 5], "little")


def _is_listed(admin: Connection, number: int, *, wanted: bool) -> bool:
    """Tell whether the server lists *number* as a connection that is being made.

    It is asked until the answer is *wanted*, because the list changes a moment later.
    """
    deadline = monotonic() + LISTED_WITHIN
    while True:
        listed = bool(admin.scalar(BEING_MADE, {"number": number}))
        if listed is wanted or monotonic() > deadline:
            return listed
        sleep(0.02)

"""Proves that a URL and the administrator's connection lead to the same PostgreSQL.

A connection is opened at the application's address and left waiting at the moment when the server
asks for a password, so that no password is sent. The administrator then sees a process that has
begun and has not logged in, which ends when the connection is closed. Names and ports prove
nothing: a proxy, a container or a tunnel may stand behind them.
"""

import secrets
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep

from psycopg import conninfo, pq
from psycopg.pq.abc import PGconn
from sqlalchemy import text
from sqlalchemy.engine import Connection

from ...exceptions import ProvisioningError
from ..tenant import Tenant

# Seconds to wait for the server, and for its list to show a process or its end.
PATIENCE = 5
LISTED_WITHIN = 1
# How long a process has to be seen: one that has just logged in elsewhere is gone by then.
SEEN_TWICE = 0.1
# A process holds a lock on its own transaction while it waits for the password, and is listed in
# pg_stat_activity after the login; from PostgreSQL 18 on it is listed before, as starting. Where
# no password is asked for, it has the name that was given to the connection.
WAITING = text("""
    SELECT l.pid FROM pg_catalog.pg_locks l
    WHERE l.locktype = 'virtualxid' AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_stat_activity a
        WHERE a.pid = l.pid AND a.state IS DISTINCT FROM 'starting')
    UNION
    SELECT pid FROM pg_catalog.pg_stat_activity WHERE application_name = :token
""")


def prove_same_server(admin: Connection, tenant: Tenant) -> None:
    """Raise ProvisioningError unless *admin* is connected to the server of *tenant*'s URL."""
    reason = ""
    for user in (tenant.user, admin.engine.url.username):
        try:
            if _is_same_server(admin, tenant, user):
                return
        except OSError as error:
            # A role that does not exist yet may be refused at once; the other one is not.
            reason = reason or f" ({error})"
    msg = (
        f"{tenant.url_key} leads to {shown_address(tenant)}, and the administrator is on another "
        f"server{reason}: nothing was changed. Write the URL of an administrator of that server "
        "into a file for --admin-url-file, or into SQA_ADMIN_URL."
    )
    raise ProvisioningError(msg)


def _is_same_server(admin: Connection, tenant: Tenant, user: str | None) -> bool:
    token = f"psqa {secrets.token_hex(16)}"
    before = _waiting(admin, token)
    with _waiting_connection(_login(tenant, user, token)) as connection:

        def find_new() -> set[int]:
            _raise_if_ended(connection)
            return _waiting(admin, token) - before

        new = _look(find_new)
        sleep(SEEN_TWICE)
        stayed = new & _waiting(admin, token)
    return bool(_look(lambda: stayed - _waiting(admin, token)))


def _look(find: Callable[[], set[int]]) -> set[int]:
    """Return what *find* returns as soon as it is not empty, or at the end of the wait."""
    deadline = monotonic() + LISTED_WITHIN
    while not (found := find()) and monotonic() < deadline:
        sleep(0.02)
    return found


def _waiting(admin: Connection, token: str) -> set[int]:
    return set(admin.scalars(WAITING, {"token": token}))


def _login(tenant: Tenant, user: str | None, token: str) -> str:
    """Return what libpq needs to connect as the application does, without any password."""
    [_, given] = tenant.url.get_dialect()().create_connect_args(tenant.url)
    given.update(tenant.options.get("connect_args", {}))
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    kept = {name: value for name, value in given.items() if name in known and value is not None}
    kept |= {
        "user": user,
        "application_name": token,
        # Not even one that the environment or a file of the administrator has.
        "password": "",
        "passfile": "/dev/null/none",
        "gssencmode": "disable",
    }
    return conninfo.make_conninfo("", **kept)


@contextmanager
def _waiting_connection(login: str) -> Iterator[PGconn]:
    """Lend a connection whose server has answered to the name of the user, and no more.

    Raises OSError with libpq's reason when it comes to nothing before.
    """
    connection = pq.PGconn.connect_start(login.encode())
    try:
        deadline = monotonic() + PATIENCE
        step: int = pq.PollingStatus.WRITING
        while connection.status != pq.ConnStatus.AWAITING_RESPONSE:
            if connection.status == pq.ConnStatus.BAD or not _is_ready(connection, step, deadline):
                raise OSError(_reason(connection))
            step = connection.connect_poll()
        if not _is_ready(connection, pq.PollingStatus.READING, deadline):
            raise OSError(_reason(connection))
        yield connection
    finally:
        connection.finish()


def _is_ready(connection: PGconn, step: int, deadline: float) -> bool:
    left = max(0.0, deadline - monotonic())
    sockets = [connection.socket]
    reading = step == pq.PollingStatus.READING
    found = select.select(sockets if reading else [], [] if reading else sockets, [], left)
    return bool(found[0] or found[1])


def _raise_if_ended(connection: PGconn) -> None:
    """Raise OSError with the server's reason if it has refused the login."""
    poll = select.poll()
    poll.register(connection.socket, getattr(select, "POLLRDHUP", select.POLLHUP))
    if poll.poll(0):
        connection.connect_poll()
        raise OSError(_reason(connection))


def _reason(connection: PGconn) -> str:
    lines = connection.error_message.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else "it does not answer"


def shown_address(tenant: Tenant) -> str:
    """Return where the application connects to, as a person would say it."""
    arguments = {**tenant.url.query, **tenant.options.get("connect_args", {})}
    host = arguments.get("host", tenant.url.host) or "the local socket"
    port = arguments.get("port", tenant.url.port) or 5432
    return f"{host}, port {port}"

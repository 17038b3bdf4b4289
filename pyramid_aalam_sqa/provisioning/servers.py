"""Finds what psqa can do on the kind of server that a URL names."""

from collections.abc import Mapping

from sqlalchemy.engine import URL

from ..exceptions import ProvisioningError
from .mysql.server import MySQLServer
from .postgresql.server import PostgreSQLServer
from .server import Server
from .sqlite import SQLiteServer

SERVERS: Mapping[str, type[Server]] = {
    "mariadb": MySQLServer,
    "mysql": MySQLServer,
    "postgresql": PostgreSQLServer,
    "sqlite": SQLiteServer,
}


def server_class(url: URL) -> type[Server]:
    """Return the class for the kind of server at *url*.

    Raises ProvisioningError, with the kinds that psqa knows, for another one.
    """
    name = url.get_backend_name()
    if name not in SERVERS:
        msg = f"Databases on {name} are made by hand: psqa knows {', '.join(sorted(SERVERS))}."
        raise ProvisioningError(msg)
    return SERVERS[name]

"""What an administrator does on each kind of server; :func:`server_for` finds the right one."""

from collections.abc import Mapping

from sqlalchemy.engine import URL, Engine

from ..exceptions import ProvisioningError
from .mysql.server import MySQLServer
from .postgresql.server import PostgreSQLServer
from .server import Server
from .sqlite import SQLiteServer
from .tenant import Tenant

SERVERS: Mapping[str, type[Server]] = {
    "mariadb": MySQLServer,
    "mysql": MySQLServer,
    "postgresql": PostgreSQLServer,
    "sqlite": SQLiteServer,
}


def server_class(url: URL) -> type[Server]:
    """Return what is known of the kind of server at *url*; ProvisioningError when it is nothing."""
    name = url.get_backend_name()
    if name not in SERVERS:
        msg = f"Databases on {name} are made by hand: psqa knows {', '.join(sorted(SERVERS))}."
        raise ProvisioningError(msg)
    return SERVERS[name]


def server_for(application: Tenant, admin: Engine | None) -> Server:
    """Return the server of *application*, as the administrator whose engine is *admin* sees it."""
    return server_class(application.url)(application, admin)

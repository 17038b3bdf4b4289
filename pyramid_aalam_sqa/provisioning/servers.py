"""Finds what psqa can do on the kind of server that a URL names."""

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import cast

from sqlalchemy.engine import URL

from ..exceptions import ProvisioningError
from .server import Server

# Imported when they are needed: psycopg is not installed where there is no PostgreSQL.
SERVERS: Mapping[str, str] = {
    "mariadb": "mysql.server:MySQLServer",
    "mysql": "mysql.server:MySQLServer",
    "postgresql": "postgresql.server:PostgreSQLServer",
    "sqlite": "sqlite:SQLiteServer",
}


def server_class(url: URL) -> type[Server]:
    """Return the class for the kind of server at *url*.

    Raises ProvisioningError, with the kinds that psqa knows, for another one.
    """
    name = url.get_backend_name()
    if name not in SERVERS:
        msg = f"Databases on {name} are made by hand: psqa knows {', '.join(sorted(SERVERS))}."
        raise ProvisioningError(msg)
    try:
        return cast("type[Server]", resolve_name(f"{__package__}.{SERVERS[name]}"))
    except ImportError as error:
        msg = f"psqa needs {error.name} for {name}: pip install 'pyramid_aalam_sqa[postgresql]'."
        raise ProvisioningError(msg) from None

"""What psqa makes on a MariaDB, seen by connections that know nothing of the package."""

import pymysql
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

# To encrypt on loopback takes longer than all else.
PLAIN = "sqa.mysql.tls = off"

PASSWORD = "it's 100% \\secret\"`ä"

HOSTILE = ["o'br\"i`e%s\\", "x' OR '1'='1", "a\nb :c ünï"]


def grants(admin, account="aalam_base@'%'"):
    return {row[0] for row in admin.rows(f"SHOW GRANTS FOR {account}") if "USAGE" not in row[0]}


def as_account(server, user, password, database=None):
    """A connection of the account by the driver alone, without the package."""
    return pymysql.connect(
        host="127.0.0.1",
        port=server.port,
        user=user,
        password=password.encode(),
        database=database,
        autocommit=True,
        ssl_disabled=True,
    )


def denied(connection, statement):
    """The number of the error that *statement* is refused with; 0 when it is not."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    except pymysql.err.MySQLError as error:
        return error.args[0]
    return 0


def everything(admin):
    """All that create could change."""
    users = "SELECT User, Host FROM mysql.user WHERE is_role = 'N' AND User LIKE 'aalam%'"
    with create_engine(admin.url, poolclass=NullPool).connect() as connection:
        shown = [
            connection.exec_driver_sql("SHOW CREATE USER %s@%s", account).scalar()
            for account in admin.rows(f"{users} ORDER BY 1, 2")
        ]
    schemata = "SELECT * FROM information_schema.SCHEMATA ORDER BY SCHEMA_NAME"
    return shown, admin.rows("SELECT * FROM mysql.db ORDER BY 1, 2, 3"), admin.rows(schemata)

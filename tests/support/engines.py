"""Short ways to use an engine in a test."""

from sqlalchemy import text


def ask(engine, statement):
    """Return the first value of the first row."""
    with engine.connect() as connection:
        return connection.execute(text(statement)).scalar()


def driver_of(engine):
    """Return the driver's own connection."""
    with engine.connect() as connection:
        return connection.connection.driver_connection

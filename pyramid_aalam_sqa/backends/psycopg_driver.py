"""psycopg's connections with a limit on every wait.

psycopg and libpq limit only the wait for a connection. While a statement runs, they wait without
end for a server that is silent, because it hangs or because the network swallows its answer.
"""

from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPIConnection


class BoundedConnect:
    """Opens psycopg's connections, as a "do_connect" listener.

    *limit* is how many seconds the driver waits for an answer; None for no limit.
    """

    def __init__(self, dialect: Dialect, limit: float | None) -> None:
        self.connection_class = _bounded_class(dialect.loaded_dbapi, limit)

    def __call__(
        self, _dialect: Dialect, _record: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> DBAPIConnection:
        """Return a new connection."""
        connection: DBAPIConnection = self.connection_class.connect(*args, **kwargs)
        return connection


def _bounded_class(psycopg: Any, limit: float | None) -> Any:
    """Return a subclass of psycopg's Connection whose waits end after *limit* seconds."""

    class BoundedConnection(psycopg.Connection):  # type: ignore[misc]  # psycopg is optional
        """A connection that gives up a silent server."""

        seconds: float | None = limit

        def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
            """Wait as psycopg does; close the connection if the server is silent too long."""
            if self.seconds is None:
                return super().wait(gen, *args, **kwargs)
            try:
                return super().wait(_until_silent(gen, self.seconds), *args, **kwargs)
            except TimeoutError as error:
                # The answer may still come, so the connection cannot be used again.
                self.close()
                msg = f"the server did not answer for {self.seconds:g} seconds"
                raise psycopg.OperationalError(msg) from error

    return BoundedConnection


def _until_silent(gen: Any, seconds: float) -> Generator[Any, Any, Any]:
    """Do what psycopg's *gen* does; raise TimeoutError after *seconds* without data.

    psycopg sends the generator what the socket is ready for, and nothing after each tenth of a
    second in which it was ready for nothing.
    """
    try:
        wanted = next(gen)
        deadline = monotonic() + seconds
        while True:
            ready = yield wanted
            if ready:
                deadline = monotonic() + seconds
            elif monotonic() > deadline:
                raise TimeoutError
            wanted = gen.send(ready)
    except StopIteration as done:
        return done.value


@contextmanager
def time_limit(connection: Any, seconds: float) -> Generator[None, None, None]:
    """Limit the waits of *connection* to *seconds* within the block, where it has limits."""
    usual = getattr(connection, "seconds", None)
    connection.seconds = seconds
    try:
        yield
    finally:
        connection.seconds = usual

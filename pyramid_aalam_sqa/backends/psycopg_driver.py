"""psycopg's connections with a limit on every wait.

psycopg and libpq limit only the wait for a connection. While a statement runs, they wait without
end for a server that is silent, because it hangs or because the network loses its answer.
"""

import select
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from sqlalchemy.engine.interfaces import DBAPIConnection

# What psycopg's generators wait for, and what they are told: the two bits of its Wait and Ready.
READ, WRITE = 1, 2


def bounded_connect(psycopg: Any, limit: float | None) -> Callable[..., DBAPIConnection]:
    """Return a connect() for psycopg whose connections wait *limit* seconds for an answer at most.

    Without a limit they wait as long as psycopg does.
    """

    class BoundedConnection(psycopg.Connection):  # type: ignore[misc]  # psycopg is optional
        """A connection whose waits end."""

        seconds: float | None = limit
        # When the server has answered, by time.monotonic().
        answered = 0.0

        def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
            """Run *gen*, psycopg's side of an exchange with the server; return its result.

            Close the connection if the server is silent too long, or if an exception of another
            sort ends the wait: an answer that comes later would be taken for another one.
            """
            if self.seconds is None:
                return super().wait(gen, *args, **kwargs)
            try:
                return _run(gen, self, self.seconds)
            except TimeoutError as error:
                self.close()
                msg = f"the server did not answer for {self.seconds:g} seconds"
                raise psycopg.OperationalError(msg) from error
            except psycopg.Error:
                raise
            except BaseException:
                self.close()
                raise

    connect: Callable[..., DBAPIConnection] = BoundedConnection.connect
    return connect


def _run(gen: Any, connection: Any, seconds: float) -> Any:
    """Run psycopg's generator *gen* on the socket of *connection*, and note when it was answered.

    Raises TimeoutError after *seconds* of silence.
    """
    poll = select.poll()
    try:
        wanted = next(gen)
        socket = connection.pgconn.socket
        while True:
            events = (select.POLLIN if wanted & READ else 0) | (
                select.POLLOUT if wanted & WRITE else 0
            )
            poll.register(socket, events)
            found = poll.poll(seconds * 1000)
            if not found:
                raise TimeoutError
            ready = WRITE if found[0][1] & select.POLLOUT else 0
            # A connection that was closed can be read: psycopg finds out how.
            if found[0][1] & ~select.POLLOUT:
                ready |= READ
                connection.answered = monotonic()
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

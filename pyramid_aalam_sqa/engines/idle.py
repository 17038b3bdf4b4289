"""Asks the server whether a pooled connection is alive, only where that is in doubt.

With ``pool_pre_ping`` SQLAlchemy asks each time before it lends a connection. That is a round trip
for each request, as much as a statement. It is left out where three things hold:

- The server has answered on the connection a moment ago (``sqa.ping_after``). What lies between,
  such as a firewall, has hardly dropped it since.
- The socket says nothing. The server's end of it would be seen there, without a round trip.
- The work is tried again if it fails: a request that has another attempt, a job with attempts. A
  connection that was lost unseen then costs an attempt, and the client sees nothing of it.
"""

from time import monotonic
from typing import Any

from sqlalchemy.engine import Engine

from ..backends import Backend
from .attempts import current_attempt


def ping_in_doubt(engine: Engine, backend: Backend) -> None:
    """Let *engine* ask for a sign of life only where it is in doubt.

    The driver's connection must know when it was answered last, as those do that are made here.
    Any other is always asked.
    """
    dialect: Any = engine.dialect
    ping, limit = dialect.do_ping, backend.sqa_options["ping_after"]

    def do_ping(connection: Any) -> bool:
        answered = getattr(connection, "answered", None)
        if (
            answered is not None
            and monotonic() - answered < limit
            and _is_repeated_on_error()
            and backend.is_quiet(connection)
        ):
            return True
        return bool(ping(connection))

    dialect.do_ping = do_ping


def _is_repeated_on_error() -> bool:
    attempt = current_attempt()
    return attempt is not None and attempt.has_another

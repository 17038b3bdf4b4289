"""Makes each new connection to the first host of ``sqa.hosts`` that takes writes.

When the writer changes, the pool is emptied: by the error of a lost connection or of a refused
write, or because a new connection has found another host. The connections that take their place are
made to the new writer. So nothing is asked on a connection that is open.

Each process decides by itself, by what the servers answer. It promotes no server.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary, ref

from sqlalchemy import event
from sqlalchemy.engine import Dialect, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection

from ..backends import Backend
from ..settings import Host
from .connecting import connect_through
from .pool import replace_connections

log = logging.getLogger(__name__)

# Seconds for which a host that was of no use is asked after the others. A silent host costs a
# request its whole connect_timeout, so not every new connection may ask it. The same seconds pass
# before the first host of the list gets new connections again after a fault.
ASIDE = 10
# Seconds, where the driver is told no connect_timeout.
CONNECT_TIMEOUT = 5

TAKES_NO_WRITES = "it takes no writes"
NOT_ASKED = "it gave no connection a moment ago, and was not asked again"


class WriterHosts:
    """Opens the connections of one engine, as a "do_connect" listener before all others."""

    def __init__(self, engine: Engine, backend: Backend, hosts: Sequence[Host]) -> None:
        # Weak, because the engine has this listener.
        self._engine = ref(engine)
        self._backend = backend
        self._hosts = hosts
        # Until when each host is asked after the others, by time.monotonic(). There is no lock: two
        # threads that change it at once ask a host twice, no more.
        self._aside: dict[Host, float] = {}
        # The host of the newest connection.
        self.in_use: Host | None = None

    def __call__(
        self, dialect: Dialect, record: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> DBAPIConnection:
        """Return a new connection to the first host that takes writes.

        Raises the driver's OperationalError if there is none. It says what each host has answered.
        """
        answers: dict[Host, str] = {}
        begin = monotonic()
        # The wait for several hosts that are known to be silent is no longer than for one.
        limit = begin + float(kwargs.get("connect_timeout") or CONNECT_TIMEOUT)
        good, aside = self._in_order(begin)
        for host in (*good, *aside):
            if host in aside and monotonic() > limit:
                answers[host] = NOT_ASKED
                continue
            own = {**kwargs, **self._backend.WRITER_ARGUMENTS}
            own |= {"host": host.name, "port": host.port}
            try:
                connection = connect_through(self, dialect, record, args, own)
                refused = self._refuses(connection)
            except dialect.loaded_dbapi.Error as error:
                answers[host] = _text_of(error)
            else:
                if not refused:
                    self._aside.pop(host, None)
                    self._use(host, answers)
                    return connection
                answers[host] = TAKES_NO_WRITES
            self._aside[host] = monotonic() + ASIDE
        raise self._backend.unreachable(
            dialect.loaded_dbapi, f"no host takes writes: {_shown(answers)}"
        )

    def _in_order(self, now: float) -> tuple[list[Host], list[Host]]:
        """Return the hosts to ask, and those to ask after them: the one that failed first is first.

        A host whose time is over is asked by this thread alone, while others still ask it last.
        """
        until = dict(self._aside)
        good = [host for host in self._hosts if until.get(host, 0) <= now]
        for host in until.keys() & set(good):
            self._aside[host] = now + ASIDE
        return good, sorted(set(self._hosts) - set(good), key=lambda host: until[host])

    def _refuses(self, connection: DBAPIConnection) -> bool:
        """Return whether the server of the new *connection* takes no writes; close it then."""
        if self._backend.WRITER_ARGUMENTS:
            return False
        refuses = True
        try:
            refuses = self._backend.refuses_writes(connection)
        finally:
            if refuses:
                with suppress(Exception):
                    connection.close()
        return refuses

    def _use(self, host: Host, answers: dict[Host, str]) -> None:
        """Note that new connections go to *host*, and have those to another one replaced."""
        before, self.in_use = self.in_use, host
        if before == host or (before is None and not answers):
            return
        why = f" ({_shown(answers)})" if answers else ""
        log.warning("New connections to %s go to %s%s", self._backend.url.database, host, why)
        engine = self._engine()
        if before is not None and engine is not None:
            replace_connections(engine.pool)


# By dialect, which an engine shares with those of execution_options().
_hosts: WeakKeyDictionary[Dialect, WriterHosts] = WeakKeyDictionary()


def use_hosts(engine: Engine, backend: Backend, hosts: Sequence[Host]) -> None:
    """Make *engine* connect to the first of *hosts* that takes writes.

    *engine* must not have a do_connect listener yet.
    """
    _hosts[engine.dialect] = WriterHosts(engine, backend, hosts)
    event.listen(engine, "do_connect", _hosts[engine.dialect])


def has_hosts(engine: Engine) -> bool:
    """Return whether *engine* chooses from several hosts."""
    return engine.dialect in _hosts


def host_in_use(engine: Engine) -> str | None:
    """Return the host and port that new connections of *engine* go to, as ``db1:3306``.

    None before the first connection, and where ``sqa.hosts`` is not set.
    """
    found = _hosts.get(engine.dialect)
    return None if found is None or found.in_use is None else str(found.in_use)


def _shown(answers: dict[Host, str]) -> str:
    return "; ".join(f"{host}: {answer}" for host, answer in answers.items())


def _text_of(error: BaseException) -> str:
    """Return what the driver says of *error*, in one line. It never has a password."""
    texts = [str(each) for each in error.args] or [type(error).__name__]
    return " ".join(" ".join(texts).split())

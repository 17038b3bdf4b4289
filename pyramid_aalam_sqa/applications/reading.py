"""The engines that an application's read-only requests read from, made at their first use.

Each database has one on its own server. Where ``sqa.reader.url`` names replicas, each of them has
one too.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import count

from sqlalchemy.engine import URL, Engine

from ..backends import backend_of
from ..engines import (
    error_name,
    host_in_use,
    make_reading_engine,
    make_replica_engine,
    reads_apart,
    replace_connections,
)
from ..settings import Settings
from .replicas import Replica

log = logging.getLogger(__name__)

# The position of a client that nothing is known of: it reads from the server that writes.
UNKNOWN = ""
# Characters of all positions, which are in one cookie: signed and encoded, it stays below the 4096
# of browsers. MySQL's positions grow with the number of servers that have ever written.
LONGEST_POSITIONS = 2500


class ReadingEngines:
    """Finds, for each engine of an application, the one that its read-only requests read from."""

    def __init__(self, settings: Settings, engines: Mapping[str, Engine]) -> None:
        self._settings = settings
        # The first key of each engine; several keys may have one engine.
        self.keys: dict[Engine, str] = {}
        for key, engine in engines.items():
            self.keys.setdefault(engine, key)
        # The engines whose databases have replicas, with their URLs.
        self._urls: dict[Engine, tuple[URL, ...]] = {}
        for engine, key in self.keys.items():
            urls = settings.options_for(key)["reader.url"]
            if urls:
                self._urls[engine] = urls
        self._lock = threading.Lock()
        # By the engine that writes. Replaced, never changed in place.
        self._made: Mapping[Engine, Engine] = {}
        self._replicas: Mapping[Engine, tuple[Replica, ...]] = {}
        self._turn = count()
        # The host of sqa.hosts that each engine wrote to when it was last looked at.
        self._hosts: dict[Engine, str] = {}
        # Called when one was made: with its name, itself, and the engine in whose place it reads.
        self.listeners: list[Callable[[str, Engine, Engine], object]] = []
        # False in a test, which lends connections of the other engines.
        self.apart = True

    @property
    def replicated(self) -> list[Engine]:
        """The engines that write, of the databases that have replicas."""
        return list(self._urls)

    def engine_of(self, engine: Engine) -> Engine:
        """Return the engine to read from on the server where *engine* would write.

        It is *engine* itself where the database cannot have a second one, and for an engine that
        is not the application's.
        """
        if not self.apart:
            return engine
        found = self._made.get(engine)
        if found is None:
            found = self._make(engine)
        host = host_in_use(engine)
        if host is not None and host != self._hosts.get(engine):
            before = self._hosts.get(engine) or host_in_use(found)
            self._hosts[engine] = host
            if before not in {None, host}:
                # Another server writes now: the one before is behind it from now on.
                replace_connections(found.pool)
        return found

    def choose(self, engine: Engine, positions: Mapping[str, str] | None) -> Engine:
        """Return the engine of a replica that has what *positions* say, else :meth:`engine_of`.

        *positions* are those of a client, by bind key; None if they cannot be read.
        """
        position = UNKNOWN if positions is None else positions.get(self.keys.get(engine, ""))
        if not self.apart or position == UNKNOWN or engine not in self._urls:
            return self.engine_of(engine)
        replicas = self.replicas_of(engine)
        first = next(self._turn) % len(replicas)
        for replica in (*replicas[first:], *replicas[:first]):
            if replica.is_ready(position or ""):
                return replica.engine
        return self.engine_of(engine)

    def position_of(self, engine: Engine) -> str:
        """Return how far the log of the server is where *engine* writes; UNKNOWN if it cannot say.

        It is at least the position of what was committed there before.
        """
        reading = self.engine_of(engine)
        try:
            connection = reading.raw_connection()
            try:
                found = backend_of(reading).position(connection.dbapi_connection)
            except BaseException as error:
                connection.invalidate(error)
                raise
            finally:
                connection.close()
        except Exception as error:  # noqa: BLE001 - the answer is true, with the position or without
            log.warning("The position of %s is not known: %s", self.keys[engine], error_name(error))
            return UNKNOWN
        if not found:
            log.warning("%s keeps no log for replicas, so they are not used", self.keys[engine])
        return found if len(found) <= LONGEST_POSITIONS // len(self._urls) else UNKNOWN

    def replicas_of(self, engine: Engine) -> tuple[Replica, ...]:
        """Return the replicas of the database where *engine* writes."""
        found = self._replicas.get(engine)
        return self._make_replicas(engine) if found is None else found

    def by_name(self) -> dict[str, Engine]:
        """Return the engines that were made: ``default.reader`` is that of the bind ``default``.

        That of a replica is ``default.reader db2:3306``.
        """
        return dict(self._named())

    def dispose(self) -> None:
        """Close the connections of the engines that were made."""
        # Not by name: two replicas may have the same one.
        for _, engine in self._named():
            engine.dispose()

    def _named(self) -> Iterator[tuple[str, Engine]]:
        for engine, made in self._made.items():
            if made is not engine:
                yield reader_name(self.keys[engine]), made
        for replicas in self._replicas.values():
            for replica in replicas:
                yield replica.name, replica.engine

    def _make(self, engine: Engine) -> Engine:
        key = self.keys.get(engine)
        if key is None:
            return engine
        with self._lock:
            if engine not in self._made:
                database = self._settings.databases[key]
                made = engine
                if reads_apart(database):
                    made = make_reading_engine(database, self._settings.options_for(key))
                    self._tell(reader_name(key), made, engine)
                self._made = {**self._made, engine: made}
            return self._made[engine]

    def _make_replicas(self, engine: Engine) -> tuple[Replica, ...]:
        key = self.keys[engine]
        database, options = self._settings.databases[key], self._settings.options_for(key)
        with self._lock:
            if engine not in self._replicas:
                found = []
                for url in self._urls[engine]:
                    name = reader_name(key, url)
                    made = make_replica_engine(database, url, options)
                    found.append(
                        Replica(name, made, options["reader.wait"], options["reader.pause"])
                    )
                    self._tell(name, made, engine)
                self._replicas = {**self._replicas, engine: tuple(found)}
            return self._replicas[engine]

    def _tell(self, name: str, made: Engine, engine: Engine) -> None:
        for listener in self.listeners:
            listener(name, made, engine)


def reader_name(key: str, url: URL | None = None) -> str:
    """Return what an engine for reading is called in statistics, records and the log.

    *url* is that of a replica.
    """
    if url is None:
        return f"{key}.reader"
    port = f":{url.port}" if url.port else ""
    socket = url.query.get("unix_socket") or url.query.get("host")
    return f"{key}.reader {url.host or socket or 'socket'}{port}"

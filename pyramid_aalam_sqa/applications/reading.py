"""The engines of one application for its read-only requests, made at their first use."""

import threading
from collections.abc import Callable, Mapping

from sqlalchemy.engine import Engine

from ..engines import make_reading_engine, reads_apart
from ..settings import Settings


class ReadingEngines:
    """Finds, for each engine of an application, the one that its read-only requests read from."""

    def __init__(self, settings: Settings, engines: Mapping[str, Engine]) -> None:
        self._settings = settings
        # The key of each engine; several keys may have one engine.
        self._keys: dict[Engine, str] = {}
        for key, engine in engines.items():
            self._keys.setdefault(engine, key)
        self._lock = threading.Lock()
        # By the engine that writes. Replaced, never changed in place.
        self.made: Mapping[Engine, Engine] = {}
        # Called when one was made: with its name, itself, and the engine in whose place it reads.
        self.listeners: list[Callable[[str, Engine, Engine], object]] = []
        # False in a test, which lends connections of the other engines.
        self.apart = True

    def engine_of(self, engine: Engine) -> Engine:
        """Return the engine to read from where *engine* would write.

        It is *engine* itself where the database cannot have a second one, and for an engine that
        is not the application's.
        """
        if not self.apart:
            return engine
        found = self.made.get(engine)
        return self._make(engine) if found is None else found

    def by_name(self) -> dict[str, Engine]:
        """Return the engines that were made: ``default.reader`` is that of the bind ``default``."""
        made = [(self._keys[each], found) for each, found in self.made.items() if found is not each]
        return {reader_name(key): engine for key, engine in made}

    def dispose(self) -> None:
        """Close the connections of the engines that were made."""
        for engine in self.by_name().values():
            engine.dispose()

    def _make(self, engine: Engine) -> Engine:
        key = self._keys.get(engine)
        if key is None:
            return engine
        with self._lock:
            if engine not in self.made:
                database = self._settings.databases[key]
                made = engine
                if reads_apart(database):
                    made = make_reading_engine(database, self._settings.options_for(key))
                    for listener in self.listeners:
                        listener(reader_name(key), made, engine)
                self.made = {**self.made, engine: made}
            return self.made[engine]


def reader_name(key: str) -> str:
    """Return what the engine for reading is called in statistics and records."""
    return f"{key}.reader"

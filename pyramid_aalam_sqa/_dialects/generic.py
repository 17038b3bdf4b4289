"""What holds for every database, and the shape of what is particular to one."""

from collections.abc import Mapping
from typing import Any, ClassVar

from sqlalchemy.engine import URL, Engine


class GenericDialect:
    """The defaults and listeners of one database's engine.

    ``ENGINE_DEFAULTS`` are create_engine options spelled as in an ini file, ``DRIVERS`` those
    drivers that are known to take the ``connect_args`` among them.
    """

    ENGINE_DEFAULTS: ClassVar[Mapping[str, str]] = {"pool_pre_ping": "true", "pool_timeout": "5"}
    DRIVERS: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, url: URL, switches: Mapping[str, Any]) -> None:
        self.url = url
        self.switches = switches

    def engine_defaults(self) -> Mapping[str, str]:
        """Return the options this database's engine has unless others were given."""
        known = self.url.get_driver_name() in self.DRIVERS
        return {
            key: text
            for key, text in self.ENGINE_DEFAULTS.items()
            if known or not key.startswith("connect_args.")
        }

    def prepare(self, engine: Engine) -> None:
        """Add to *engine*, which has not connected yet, the listeners it needs."""

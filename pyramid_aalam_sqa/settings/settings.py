"""Settings and Database: the settings of an application, checked and of their types."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sqlalchemy.engine import URL, Engine

from ..backends import masked

NO_DATABASE = (
    "No database is set: write sqlalchemy.url in the application's section of the ini file, "
    "for example sqlalchemy.url = sqlite:///%(here)s/app.sqlite"
)


# The key of the default database. The other databases have the keys of their binds.
DEFAULT_KEY = "default"


@dataclass(frozen=True, slots=True)
class Database:
    """One database: its URL and the create_engine options that the settings give for it.

    ``name`` is the schema of the application's models, None if the database has no name. ``engine``
    is a ready engine to use as it is. The keys of its settings begin with ``prefix``.
    """

    url: URL
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    engine: Engine | None = None
    name: str | None = None
    prefix: str = "sqlalchemy."

    def __str__(self) -> str:
        return masked(self.url)


@dataclass(frozen=True)
class Settings:
    """All settings of one application, checked, each value of its type.

    ``database`` is the default database, None if no URL is set. ``binds`` has the other databases
    by their keys, and ``bind_options`` has their own ``sqa.`` options. ``session`` has the options
    of the session class. ``sqa_options`` has the options that begin with ``sqa.``. ``name`` is
    the name of the application's database, None if it has none. ``overruled`` has the options of
    the section ``[sqlalchemy]`` that are not used, because the application's own section has them
    too.
    """

    database: Database | None
    session: Mapping[str, Any]
    sqa_options: Mapping[str, Any] = field(repr=False)
    name: str | None = None
    binds: Mapping[str, Database] = field(default_factory=dict)
    bind_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    overruled: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def databases(self) -> dict[str, Database]:
        """Every database by its key, in the order of COMMITs. The default one is ``default``."""
        found = {**self.binds, DEFAULT_KEY: self.database} if self.database else {}
        first = self.sqa_options["commit_order"] or ()
        return {key: found[key] for key in dict.fromkeys([*first, *found]) if key in found}

    @cached_property
    def shared_options(self) -> Mapping[str, Any]:
        """The ``sqa.`` options of the binds that have none of their own: one object for all."""
        # These are about the servers and the account of the default database only.
        return {**self.sqa_options, **dict.fromkeys(("password_file", "hosts", "reader.url"))}

    def options_for(self, key: str) -> Mapping[str, Any]:
        """Return the ``sqa.`` options for the database with the key *key*."""
        if key == DEFAULT_KEY:
            return self.sqa_options
        own = self.bind_options.get(key)
        return {**self.shared_options, **own} if own else self.shared_options

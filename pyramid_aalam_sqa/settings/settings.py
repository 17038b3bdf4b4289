"""Settings and Database: what the settings say, checked and of its real type."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import URL, Engine

from ..backends import masked

NO_DATABASE = (
    "No database is set: write sqlalchemy.url in the application's section of the ini file, "
    "for example sqlalchemy.url = sqlite:///%(here)s/app.sqlite"
)


# The key of the default database, beside the keys of the binds.
DEFAULT_KEY = "default"


@dataclass(frozen=True, slots=True)
class Database:
    """One database: its URL and the create_engine options that the settings give for it.

    ``name`` is the schema of the application's models, None if the database has no name. ``engine``
    is a ready engine to use as it is. ``prefix`` is how the keys of its settings begin.
    """

    url: URL
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    engine: Engine | None = None
    name: str | None = None
    prefix: str = "sqlalchemy."

    def __str__(self) -> str:
        return masked(self.url)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one application, checked and of their real types.

    ``database`` is the default database, None if no URL is set. ``binds`` are the others by their
    keys. ``session`` are the options of the session class, ``sqa_options`` those that begin with
    ``sqa.``. ``name`` is the name of the application's database, None if it has none.
    """

    database: Database | None
    session: Mapping[str, Any]
    sqa_options: Mapping[str, Any] = field(repr=False)
    name: str | None = None
    binds: Mapping[str, Database] = field(default_factory=dict)

    @property
    def databases(self) -> dict[str, Database]:
        """Every database by its key, the default one as ``default``, in the order of COMMITs."""
        found = {**self.binds, DEFAULT_KEY: self.database} if self.database else {}
        first = self.sqa_options["commit_order"] or ()
        return {key: found[key] for key in dict.fromkeys([*first, *found]) if key in found}

    def options_for(self, key: str) -> Mapping[str, Any]:
        """Return the ``sqa.`` options that hold for the database *key*."""
        if key == DEFAULT_KEY:
            return self.sqa_options
        # The file has the password of the default database's account.
        return {**self.sqa_options, "password_file": None}

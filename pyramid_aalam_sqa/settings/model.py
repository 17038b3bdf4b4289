"""TODO."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import URL, Engine

from ..backends import masked

UNSET = (
    "No database is set: write sqlalchemy.url in the application's section of the ini file, "
    "for example sqlalchemy.url = sqlite:///%(here)s/app.sqlite"
)


# The key of the database that is no bind.
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Database:
    """One database: where it is, and the create_engine options that were given for it.

    Its *name* is the schema that an application's models are in; None when it has no name. Its
    settings begin with *prefix*.
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
    """Everything this package was told, checked and of its real type."""

    database: Database | None
    session: Mapping[str, Any]
    sqa_options: Mapping[str, Any] = field(repr=False)
    name: str | None = None
    binds: Mapping[str, Database] = field(default_factory=dict)

    @property
    def databases(self) -> dict[str, Database]:
        """Every database under its key, the default one as ``default``, in the order of COMMITs."""
        found = {**self.binds, DEFAULT: self.database} if self.database else {}
        first = self.sqa_options["commit_order"] or ()
        return {key: found[key] for key in dict.fromkeys([*first, *found]) if key in found}


def sqa_options_of(key: str, settings: Settings) -> Mapping[str, Any]:
    """Return the ``sqa.`` sqa_options of the database called *key*."""
    # The password in the file is that of the default database's account.
    return (
        settings.sqa_options if key == DEFAULT else {**settings.sqa_options, "password_file": None}
    )

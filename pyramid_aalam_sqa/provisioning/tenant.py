"""TODO."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import URL, Engine
from sqlalchemy.pool import NullPool

from ..engines import make_engine
from ..settings import Database


@dataclass(frozen=True, slots=True)
class Tenant:
    """The application as its ini file describes it: its database and its two accounts.

    *url* has the runtime account and, where the server has one for each application, the database.
    *options* and *sqa_options* are those that the application's own engine is made with. On SQLite
    there are no accounts: *user* and *owner* are empty there.
    """

    name: str
    url: URL
    user: str
    owner: str
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sqa_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @contextmanager
    def login(
        self, user: str, password: str | None, *, database: str | None = ""
    ) -> Iterator[Engine]:
        """Lend an engine that logs in as *user*, as the application would, and keeps nothing open.

        *database* takes the place of the URL's; None is none at all.
        """
        url = self.url._replace(username=user, password=password)
        if database != "":
            url = url._replace(database=database)
        names = {"user", "username", "password", "passwd"}
        given = self.options.get("connect_args", {})
        arguments = {name: value for name, value in given.items() if name not in names}
        options = {"poolclass": NullPool, "connect_args": arguments}
        sqa_options = {**self.sqa_options, "password_file": None, "reset_connection": False}
        engine = make_engine(Database(url, options, name=self.name), sqa_options)
        try:
            yield engine
        finally:
            engine.dispose()


def account_name(name: str, longest: int) -> str:
    """Return *name*, or its beginning and a hash where a server takes *longest* characters."""
    if len(name) <= longest:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: longest - 9]}_{digest}"

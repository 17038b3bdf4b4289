"""What psqa has to know of one application: its database, its two accounts, how it logs in."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

from sqlalchemy.engine import URL, Engine
from sqlalchemy.pool import NullPool

from ..engines import make_engine
from ..settings import Database, Host

# What logs in; :meth:`Tenant.login` sets them itself.
LOGIN_ARGUMENTS = {"user", "username", "password", "passwd"}


@dataclass(frozen=True, slots=True)
class Tenant:
    """One application on a server that it shares with others.

    *name* is that of its database, or of its schema in PostgreSQL. *user* is the account that
    serves, *owner* the account that owns the tables; both are empty on SQLite, which has no
    accounts. *url* is the application's own, *url_key* is the setting that it stands in, and
    *options* and *sqa_options* are those that its engine is made with. *schema* is where its models
    are; None where they name no schema and the database has only one.
    """

    name: str
    url: URL
    user: str
    owner: str
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sqa_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    url_key: str = "sqlalchemy.url"
    schema: str | None = None

    @property
    def hosts(self) -> Sequence[Host]:
        """The hosts of ``sqa.hosts``; empty if it is not set. The first one is in the URL."""
        return self.sqa_options.get("hosts") or ()

    def at(self, host: Host) -> Self:
        """Return the same application at *host* alone."""
        url = self.url.set(host=host.name, port=host.port)
        return replace(self, url=url, sqa_options={**self.sqa_options, "hosts": None})

    @contextmanager
    def login(
        self, user: str, password: str | None, *, database: str | None = ""
    ) -> Iterator[Engine]:
        """Lend an engine that logs in as *user* in the way that the application logs in.

        It keeps no connection open. *database* takes the place of the URL's; None leaves it out.
        """
        url = self.url._replace(username=user, password=password)
        if database != "":
            url = url._replace(database=database)
        given = self.options.get("connect_args", {})
        arguments = {name: given[name] for name in given.keys() - LOGIN_ARGUMENTS}
        options = {"poolclass": NullPool, "connect_args": arguments}
        sqa_options = {**self.sqa_options, "password_file": None, "reset_connection": False}
        engine = make_engine(Database(url, options, name=self.schema), sqa_options)
        try:
            yield engine
        finally:
            engine.dispose()


def account_name(name: str, longest: int) -> str:
    """Return *name* if it has at most *longest* characters, else its beginning and a hash of it."""
    if len(name) <= longest:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: longest - 9]}_{digest}"

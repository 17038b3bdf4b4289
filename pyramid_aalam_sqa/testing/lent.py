"""The driver's connection as the application gets it in a test.

It stands in the place of the driver's own, below SQLAlchemy's dialect and below everything of this
package, so that all of it runs as in production. Its lender decides what a statement, COMMIT and
ROLLBACK do.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self
from urllib.parse import quote

from pyramid.threadlocal import get_current_request

from ..exceptions import SandboxError

GONE = "The test that had lent this connection has ended: it was still in use by {}."


class Lender(Protocol):
    """Owns the real connection."""

    def run(self, lent: "LentConnection", call: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """Call *call*, which sends a statement with the driver; its text is the first argument."""

    def begin(self, lent: "LentConnection") -> None:
        """Begin a transaction."""

    def commit(self, lent: "LentConnection") -> None:
        """Do what COMMIT means here."""

    def rollback(self, lent: "LentConnection") -> None:
        """Do what ROLLBACK means here."""

    def take_back(self, lent: "LentConnection") -> None:
        """Take the connection back from its user."""


def rows_of(driver: Any, statement: str) -> list[Any]:
    """Send *statement* on the real connection *driver*, and return its rows."""
    cursor = driver.cursor()
    try:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []
    finally:
        cursor.close()


class LentConnection:
    """A connection of the driver, lent to one user. What is not defined here is the driver's own.

    *who* is the user, for messages. *silent* is true for the session of the test itself, which has
    no faults and no outcomes.
    """

    # Attributes of the driver that each user has for itself.
    OWN: frozenset[str] = frozenset()

    def __init__(self, lender: Lender, driver: Any, *, silent: bool = False) -> None:
        own = {name: getattr(driver, name) for name in self.OWN if hasattr(driver, name)}
        vars(self).update(
            own,
            lender=lender,
            driver=driver,
            who=current_work(),
            request=get_current_request(),
            silent=silent,
            # The transaction that is open, see shared.py.
            work=None,
            # Whether make_read_only() of the backend was called.
            refuses_writes=False,
            # The error with which the connection was lost, and whether the test has ended.
            lost=None,
            ended=False,
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["driver"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self):
            vars(self)[name] = value
        else:
            setattr(self.driver, name, value)

    def check(self) -> None:
        """Raise when the connection cannot be used any more."""
        if self.ended:
            raise SandboxError(GONE.format(self.who))
        if self.lost is not None:
            raise self.lost

    def cursor(self, *args: Any, **options: Any) -> "LentCursor":
        """Return a cursor. It reads all rows at once: other cursors are used before its end."""
        self.check()
        return LentCursor(self, self.driver.cursor(*args, **options))

    def execute(self, *args: Any, **options: Any) -> "LentCursor":
        """Execute a statement on a new cursor, as sqlite3 and psycopg do."""
        cursor = self.cursor()
        cursor.execute(*args, **options)
        return cursor

    def begin(self) -> None:
        """Begin a transaction."""
        self.lender.begin(self)

    def commit(self) -> None:
        """Commit, as far as the application can tell."""
        self.lender.commit(self)

    def rollback(self) -> None:
        """Roll back what was done since the last commit."""
        self.lender.rollback(self)

    def close(self) -> None:
        """Give the connection back."""
        self.lender.take_back(self)


class LentCursor:
    """A cursor of the driver, whose statements the lender sends."""

    def __init__(self, lent: LentConnection, cursor: Any) -> None:
        vars(self).update(lent=lent, cursor=cursor)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["cursor"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.cursor, name, value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.cursor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cursor.close()

    def execute(self, *args: Any, **options: Any) -> Any:
        """Send a statement."""
        return self._run(self.cursor.execute, args, options)

    def executemany(self, *args: Any, **options: Any) -> Any:
        """Send a statement for each set of parameters."""
        return self._run(self.cursor.executemany, args, options)

    def executescript(self, script: str) -> Any:
        """Refuse a script: sqlite3 commits before it."""
        return self._run(self.cursor.executescript, (f"COMMIT; {script}",), {})

    def callproc(self, name: str, args: Any = ()) -> Any:
        """Call a procedure."""
        return self._run(lambda _statement: self.cursor.callproc(name, args), (f"CALL {name}",), {})

    def _run(self, call: Callable[..., Any], args: Any, options: Any) -> Any:
        done = self.lent.lender.run(self.lent, call, *args, **options)
        return self if done is self.cursor else done


def current_work() -> str:
    """Return what this thread does, for messages: the method and the path of the request."""
    request = get_current_request()
    environ = getattr(request, "environ", {})
    if "PATH_INFO" not in environ:
        return f"thread {threading.current_thread().name}"
    route = getattr(request, "matched_route", None)
    path = route.pattern if route else quote(environ["PATH_INFO"], "/", "latin-1")
    return f"{environ.get('REQUEST_METHOD', 'GET')} {path}"

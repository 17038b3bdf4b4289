"""The session of a test, which sees what requests have stored and has no accidents."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.engine import Engine
from sqlalchemy.pool import PoolProxiedConnection

from ..applications import get_sqa
from ..engines import bind_key_of, tables_in, tables_of_mapper
from ..interfaces import HasRegistry
from ..queries import SqaSession
from ..sessions import with_class
from ..settings import DEFAULT_KEY

_quiet = threading.local()


def is_silent() -> bool:
    """Tell whether the connection that is taken now is for the session of a test."""
    return getattr(_quiet, "depth", 0) > 0


@contextmanager
def silently() -> Iterator[None]:
    """Mark the connections that are taken inside the block as those of the test itself."""
    _quiet.depth = getattr(_quiet, "depth", 0) + 1
    try:
        yield
    finally:
        _quiet.depth -= 1


class SandboxSession(SqaSession):
    """The session of a test. It commits and rolls back by itself, as any session does.

    It has transactions of its own. What a request has committed it sees, and what it has
    committed the next request sees.
    """

    def __init__(self, engines: Mapping[str, Engine], **options: Any) -> None:
        super().__init__(**options)
        self._engines = engines

    def get_bind(
        self,
        mapper: Any = None,
        *,
        clause: Any = None,
        bind: Any = None,
        bind_key: str | None = None,
        **_: Any,
    ) -> Any:
        """Return the engine for *bind_key*, or for the tables of the statement or the mapper."""
        if bind is not None:
            return bind
        tables: Iterable[Any] = ()
        if bind_key is None and mapper is not None:
            tables = tables_of_mapper(inspect(mapper).mapper)
        elif bind_key is None and clause is not None:
            tables = tables_in(clause)
        keys = [bind_key_of(table) for table in tables]
        return self._engines[bind_key or next(iter(keys), DEFAULT_KEY)]


def session_for(app: HasRegistry) -> SandboxSession:
    """Return a session for the test of *app*, with the application's own options."""
    sqa = get_sqa(app)
    options = {**sqa.settings.session, "expire_on_commit": True}
    session_class = with_class(SandboxSession, options.pop("class_"))
    return session_class({key: _quiet_engine(each) for key, each in sqa.engines.items()}, **options)


def _quiet_engine(engine: Engine) -> Engine:
    """Return *engine* for the session of a test: its connections are marked as the test's."""
    quiet = engine.execution_options()

    def raw_connection() -> PoolProxiedConnection:
        with silently():
            return engine.pool.connect()

    quiet.raw_connection = raw_connection  # type: ignore[method-assign]  # only for this one
    return quiet

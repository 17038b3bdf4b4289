"""Sessions that commit at the end of a block or function, for scripts, jobs and workers."""

import logging
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from pyramid_retry import IRetryableError, mark_error_retryable
from transaction import TransactionManager
from transaction.interfaces import NoTransaction

from ..engines import Attempt, error_name, pause_after
from ..exceptions import OutcomeUnknownError, PartialCommitError
from ..interfaces import HasRegistry
from ..sessions import JoinedSession
from .directory import module_of_caller, sessions_of

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class SessionScope:
    """The object that :func:`session_scope` returns, for a ``with`` block or as a decorator."""

    def __init__(
        self,
        which: str | HasRegistry | None,
        attempts: int,
        module: str,
        bind_key: str | None = None,
    ) -> None:
        self._which = which
        self._bind_key = bind_key
        self._attempts = attempts
        self._module = module
        self._block: AbstractContextManager[JoinedSession] | None = None

    def __enter__(self) -> JoinedSession:
        if self._attempts > 1:
            msg = (
                "A with block cannot run again: write a function under "
                "@session_scope(attempts=...)."
            )
            raise TypeError(msg)
        if self._block is not None:
            msg = "This session_scope() is in use: call session_scope() for each with block."
            raise RuntimeError(msg)
        self._block = self._transaction()
        return self._block.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        block, self._block = cast("AbstractContextManager[JoinedSession]", self._block), None
        block.__exit__(exc_type, exc, traceback)

    def __call__(self, function: Callable[Concatenate[JoinedSession, P], R]) -> Callable[P, R]:
        """Return *function* with the session as its first argument."""
        lazy = (isgeneratorfunction, iscoroutinefunction, isasyncgenfunction)
        if any(kind(function) for kind in lazy):
            msg = (
                f"{function!r} is a generator or a coroutine, which would use the session after "
                "its end: write a plain function."
            )
            raise TypeError(msg)

        @wraps(function)
        def attempt(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._transaction() as session:
                return function(session, *args, **kwargs)

        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            for number in range(1, self._attempts):
                with Attempt() as this:
                    try:
                        return attempt(*args, **kwargs)
                    except Exception as error:
                        # Otherwise a part that is stored already would be stored twice.
                        if this.may_have_stored or not IRetryableError.providedBy(error):
                            raise
                        self._pause(function, number, error)
            return attempt(*args, **kwargs)

        return run

    def _pause(self, function: Callable[..., Any], number: int, error: Exception) -> None:
        """Log that attempt *number* of *function* failed, and wait before the next one."""
        sessions = sessions_of(self._which, self._module)
        sessions.counters.add("", "retries")
        for listener in sessions.retry_listeners:
            listener(error)
        settings = sessions.settings
        pause = pause_after(number, settings.sqa_options["retry_pause"])
        failed = (getattr(function, "__qualname__", function), number, self._attempts)
        text = "%s: attempt %d of %d failed (%s), the next in %.0f ms"
        log.warning(text, *failed, error_name(error), pause * 1000)
        time.sleep(pause)

    @contextmanager
    def _transaction(self) -> Generator[JoinedSession, None, None]:
        """Yield a session in a transaction of its own. Commit at the end, or roll back on error."""
        tm = TransactionManager(explicit=True)
        sessions = sessions_of(self._which, self._module)
        session = sessions.make_session(tm)
        key = self._bind_key
        used = session if key is None else sessions.bind_session(session, key)
        tm.begin()
        try:
            yield used
            tm.commit()
        except BaseException as error:
            sessions.counters.add_outcome(error)
            _mark_retryable(tm, error)
            # There is no transaction if the block has committed it and has not begun another.
            with suppress(NoTransaction):
                tm.abort()
            raise
        finally:
            session.end()


def session_scope(
    db_name: str | HasRegistry | None = None, *, attempts: int = 1, bind_key: str | None = None
) -> SessionScope:
    """Return a session that commits at the end of a ``with`` block, or of a function.

    ``with session_scope("aalam_base") as session:`` commits at the end of the block, rolls back
    if the block raises, and closes the session in both cases. ``@session_scope("aalam_base",
    attempts=3)`` decorates a function that takes the session as its first argument. If the
    transaction fails for a reason that may pass (a deadlock, a lock wait, a lost connection), the
    function is called again, up to *attempts* times in all.

    *db_name* may also be an application or a request. Without it, the application is the one
    whose database :func:`get_database_name` names. With *bind_key* the session uses only that
    database.

    The session has a transaction manager of its own, ``session.tm``. Other data managers join
    ``session.tm.get()``. To call a function after the commit, use
    ``session.tm.get().addAfterCommitHook()``.

    Raises :class:`SettingError` if the database is not known in this process, :class:`BindError`
    for an unknown *bind_key*, and ValueError if *attempts* is less than 1.
    """
    if attempts < 1:
        msg = f"session_scope(attempts={attempts}): write a whole number from 1 up."
        raise ValueError(msg)
    return SessionScope(db_name, attempts, module_of_caller(), bind_key)


def _mark_retryable(tm: Any, error: BaseException) -> None:
    """Mark *error* as retryable if a data manager says that it is, as pyramid_tm does.

    An error is not marked if the transaction is or may be stored: another attempt could store it
    twice.
    """
    may_be_stored = isinstance(error, (OutcomeUnknownError, PartialCommitError))
    if isinstance(error, Exception) and not may_be_stored:
        with suppress(NoTransaction):
            if tm.get().isRetryableError(error):
                mark_error_retryable(error)

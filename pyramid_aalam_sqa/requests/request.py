"""The methods and properties that a request gets: sessions, streams, after the commit.

Those that show pages are in pages.py.
"""

import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast, overload

import transaction
from pyramid.request import Request
from sqlalchemy import Select
from sqlalchemy.engine import Row
from sqlalchemy.orm import Session

from ..applications import SessionFactory, application_of
from ..backends import backend_of
from ..exceptions import WRITE_OUTSIDE_TRANSACTION, OutsideTransactionError
from ..interfaces import TransactionManager
from ..queries import SqaSession
from ..sessions import JoinedSession
from .lifetime import ACTIVE, end_with_request, environs_of_thread, lifetime_of
from .read_only import reading_of, reading_session

if TYPE_CHECKING:
    from ..pagination import KeysetOptions, KeysetPage, Page, PageOptions

T = TypeVar("T")
log = logging.getLogger(__name__)

# The environ key under which a test puts a session of its own, for all requests it makes.
ENVIRON_SESSION = "sqa.session"

NO_TRANSACTION = (
    "request.sqa_after_commit() needs the transaction of a view, or `with request.tm:`."
)


class SqaRequest(Request):  # type: ignore[misc]  # pyramid has no types
    """A Pyramid request as it is in an application with this package, to annotate views with."""

    sqa_session: SqaSession
    sqa_sessions: Mapping[str, SqaSession]
    tm: TransactionManager
    # For these two, type checkers infer wrong types from pyramid's code.
    matchdict: Any
    response: Any

    # Only for type checkers: includeme() adds the functions of this module to each request.
    if TYPE_CHECKING:

        def sqa_after_commit(self, function: Callable[..., object], *args: Any) -> None:
            """Call *function* with *args* after the commit."""

        def sqa_stream(self, statement: Select[Any], *, size: int = 500) -> Iterator[Row[Any]]:
            """Yield the rows of *statement*, for the body of a response."""
            raise NotImplementedError

        @overload
        def sqa_paginate(self, statement: Select[T], **options: Unpack[PageOptions]) -> Page[T]: ...
        @overload
        def sqa_paginate(self, statement: object, **options: Unpack[PageOptions]) -> Page[Any]: ...
        def sqa_paginate(self, statement: object, **options: Unpack[PageOptions]) -> Any:
            """Return the page of *statement* whose number the query string asks for."""

        @overload
        def sqa_paginate_keyset(
            self, statement: Select[T], **options: Unpack[KeysetOptions]
        ) -> KeysetPage[T]: ...
        @overload
        def sqa_paginate_keyset(
            self, statement: object, **options: Unpack[KeysetOptions]
        ) -> KeysetPage[Any]: ...
        def sqa_paginate_keyset(self, statement: object, **options: Unpack[KeysetOptions]) -> Any:
            """Return the page of *statement* after or before the query string's cursor."""


def sqa_session(request: Any) -> Session:
    """Return the request's session; Pyramid keeps it as ``request.sqa_session``.

    A session in ``environ["sqa.session"]`` is returned as it is, and its owner closes it. Raises
    :class:`SettingError` when no database is set.
    """
    given: Session | None = request.environ.get(ENVIRON_SESSION)
    if given is not None:
        return given
    return _joined_session(request)


def sqa_sessions(request: Any) -> Mapping[str, Session]:
    """Return the request's sessions by bind key; Pyramid keeps them as ``request.sqa_sessions``.

    ``request.sqa_sessions["audit"]`` is a session that uses only the bind ``audit``. It is made at
    its first use. It is in the transaction of ``request.sqa_session`` and on its connections: both
    are stored, or neither. Raises :class:`BindError` for an unknown key.
    """
    return _SessionsByKey(application_of(request).sessions, _joined_session(request))


class _SessionsByKey(Mapping[str, Session]):
    """Holds no request: the request holds it, and both would live until they are collected."""

    def __init__(self, sessions: SessionFactory, session: JoinedSession) -> None:
        self._sessions = sessions
        self._session = session

    def __getitem__(self, key: str) -> Session:
        return self._sessions.bind_session(self._session, key)

    def __contains__(self, key: object) -> bool:
        return key in self._sessions.engines

    def __iter__(self) -> Iterator[str]:
        return iter(self._sessions.engines)

    def __len__(self) -> int:
        return len(self._sessions.engines)


def _joined_session(request: Any) -> JoinedSession:
    """Return the session of the request's transaction manager, made at the first call."""
    application = application_of(request)
    if application.has_read_only:
        reading = reading_of(application, request)
        if reading is not None:
            return reading_session(request, reading)
    sessions, tm = application.sessions, request.tm
    existing = sessions.find_session(tm)
    if existing is not None:
        # A subrequest in the same transaction: two sessions would commit one after the other.
        return existing
    session = sessions.make_session(tm, _write_window(request))
    end_with_request(request, session)
    return session


def _write_window(request: Any) -> Callable[[], bool] | None:
    """Return what tells whether pyramid_tm is going to end the transaction that is begun now.

    None where that need not be asked. An explicit transaction manager says so itself. Any other
    begins a transaction whenever it is asked for one, before and after pyramid_tm's too, and such a
    transaction is never ended. In a script the caller ends it.
    """
    if getattr(request.tm, "explicit", False) or not lifetime_of(request).from_server:
        return None
    return _is_tm_active_in_thread


def _is_tm_active_in_thread() -> bool:
    return any(ACTIVE in environ for environ in environs_of_thread())


def sqa_after_commit(request: Any, function: Callable[..., object], *args: Any) -> None:
    """Call *function* with *args* after the transaction is committed.

    It is not called when the transaction is rolled back, nor for an attempt that failed and was
    retried. An error in *function* is logged, and the response stays as it is. Raises
    :class:`OutsideTransactionError` where there is no transaction.
    """
    window = _write_window(request)
    if window is not None and not window():
        raise OutsideTransactionError(NO_TRANSACTION)
    try:
        current = request.tm.get()
    except Exception as error:
        raise OutsideTransactionError(NO_TRANSACTION) from error
    find_session = partial(application_of(request).sessions.find_session, request.tm)
    current.addAfterCommitHook(_call_if_committed, (find_session, function, args))


def _call_if_committed(
    committed: bool,
    find_session: Callable[[], JoinedSession | None],
    function: Callable[..., object],
    args: Any,
) -> None:
    if not committed:
        return
    try:
        function(*args)
    except Exception:
        log.exception("The transaction is committed, but %r after it failed", function)
    session = find_session()
    if session is not None and session.has_lost_write:
        # Otherwise the end of the session would raise, although the response is true.
        log.error(
            "The transaction is committed, and %r after it wrote: %s",
            function,
            WRITE_OUTSIDE_TRANSACTION,
        )
        session.rollback()


def sqa_stream(request: Any, statement: Select[Any], *, size: int = 500) -> Iterator[Row[Any]]:
    """Yield the rows of *statement*, fetched *size* at a time, on a connection of their own.

    This is for the body of a response, which is sent after the request's transaction has ended. The
    connection is taken for the first row. It goes back after the last row, or when the client has
    hung up. Rows that the request has written and not yet committed are not among them.
    """
    given: Session | None = request.environ.get(ENVIRON_SESSION)
    if given is not None:
        return iter(given.execute(statement))
    # This manager never begins a transaction, so the session can only read.
    tm = cast("TransactionManager", transaction.TransactionManager(explicit=True))
    application = application_of(request)
    sessions, reading = application.sessions, reading_of(application, request)
    session = (
        sessions.make_session(tm)
        if reading is None
        else sessions.make_reading_session(tm, reading.refusal, reading.engine_of)
    )
    rows = _stream_rows(session, statement, size)
    lifetime_of(request).streams += (rows,)
    return rows


def _stream_rows(
    session: JoinedSession, statement: Select[Any], size: int
) -> Generator[Row[Any], None, None]:
    try:
        with session.execute(statement, execution_options={"yield_per": size}) as result:
            # A variable: closing the result while the generator lives reads the answer to its end.
            parts = result.partitions()
            try:
                for part in parts:
                    yield from part
            except GeneratorExit:
                # The client has hung up.
                connection = session.connection(bind_arguments={"clause": statement})
                backend_of(connection).abandon_result(connection)
                raise
    finally:
        session.end()

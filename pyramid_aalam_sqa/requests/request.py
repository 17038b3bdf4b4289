"""What a request has: its session, what it does after the commit, and rows to stream."""

import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast, overload

import transaction
from pyramid.request import Request
from sqlalchemy import Select
from sqlalchemy.engine import Row
from sqlalchemy.orm import Session

from ..applications import Sqa, get_sqa
from ..backends import backend_of
from ..exceptions import WRITE_OUTSIDE_TRANSACTION, OutsideTransactionError
from ..interfaces import TransactionManager
from ..pagination import (
    Address,
    KeysetOptions,
    KeysetPage,
    Page,
    PageOptions,
    PageRequest,
    find_keyset_page,
    find_page,
)
from ..queries import SqaSession
from ..sessions import JoinedSession
from .lifetime import ACTIVE, end_with_request, environs_of_thread, lifetime_of
from .paths import address_of

T = TypeVar("T")
log = logging.getLogger(__name__)


# Where a test puts a session of its own, shared by the requests it makes.
ENVIRON_SESSION = "sqa.session"


class SqaRequest(Request):  # type: ignore[misc]  # pyramid has no types
    """A Pyramid request as it is in an application with this package, to annotate views with."""

    sqa_session: SqaSession
    sqa_sessions: Mapping[str, SqaSession]
    tm: TransactionManager
    # What a type checker reads out of pyramid's code for these is wrong.
    matchdict: Any
    response: Any

    if TYPE_CHECKING:

        def sqa_after_commit(self, function: Callable[..., object], *args: Any) -> None: ...

        def sqa_stream(self, statement: Select[Any], *, size: int = 500) -> Iterator[Row[Any]]: ...

        @overload
        def sqa_paginate(self, statement: Select[T], **options: Unpack[PageOptions]) -> Page[T]: ...
        @overload
        def sqa_paginate(self, statement: object, **options: Unpack[PageOptions]) -> Page[Any]: ...
        def sqa_paginate(self, statement: object, **options: Unpack[PageOptions]) -> Any: ...

        @overload
        def sqa_paginate_keyset(
            self, statement: Select[T], **options: Unpack[KeysetOptions]
        ) -> KeysetPage[T]: ...
        @overload
        def sqa_paginate_keyset(
            self, statement: object, **options: Unpack[KeysetOptions]
        ) -> KeysetPage[Any]: ...
        def sqa_paginate_keyset(
            self, statement: object, **options: Unpack[KeysetOptions]
        ) -> Any: ...


def sqa_session(request: Any) -> Session:
    """Return the request's session; Pyramid keeps it as ``request.sqa_session``.

    A session in ``environ["sqa.session"]`` is returned as it is and stays its owner's to close.
    Raises :class:`SettingError` when no database is set.
    """
    given: Session | None = request.environ.get(ENVIRON_SESSION)
    if given is not None:
        return given
    return _joined_session(request)


def sqa_sessions(request: Any) -> Mapping[str, Session]:
    """Return the request's sessions by the keys of its databases, as ``request.sqa_sessions``.

    ``request.sqa_sessions["audit"]`` is a session wholly on the bind ``audit``, made when it is
    asked for. It is in the transaction of ``request.sqa_session`` and on its connections: both
    are stored, or neither. Raises :class:`BindError` for an unknown key.
    """
    return _Sessions(get_sqa(request), _joined_session(request))


class _Sessions(Mapping[str, Session]):
    """Holds no request, which would hold it: both would live until they are collected."""

    def __init__(self, sqa: Sqa, session: JoinedSession) -> None:
        self._sqa = sqa
        self._session = session

    def __getitem__(self, key: str) -> Session:
        return self._sqa.session_on(self._session, key)

    def __contains__(self, key: object) -> bool:
        return key in self._sqa.engines

    def __iter__(self) -> Iterator[str]:
        return iter(self._sqa.engines)

    def __len__(self) -> int:
        return len(self._sqa.engines)


def _joined_session(request: Any) -> JoinedSession:
    sqa, tm = get_sqa(request), request.tm
    existing = sqa.find_session(tm)
    if existing is not None:
        # A subrequest in the same transaction: two sessions would commit one after the other.
        return existing
    session = sqa.make_session(tm, _window(request))
    end_with_request(request, session)
    return session


def sqa_after_commit(request: Any, function: Callable[..., object], *args: Any) -> None:
    """Call *function* with *args* once the transaction is committed, and only then.

    It is not called for a transaction that is rolled back, nor for an attempt that was thrown
    away and tried again. What it raises is logged as an error; the response stays as it is.
    Raises :class:`OutsideTransactionError` where there is no transaction.
    """
    msg = "request.sqa_after_commit() needs the transaction of a view, or `with request.tm:`."
    window = _window(request)
    if window is not None and not window():
        raise OutsideTransactionError(msg)
    try:
        current = request.tm.get()
    except Exception as error:
        raise OutsideTransactionError(msg) from error
    find_session = partial(get_sqa(request).find_session, request.tm)
    current.addAfterCommitHook(_call_if_committed, (find_session, function, args))


def sqa_stream(request: Any, statement: Select[Any], *, size: int = 500) -> Iterator[Row[Any]]:
    """Yield the rows of *statement*, fetched *size* at a time, on a connection of their own.

    For the body of a response, which is sent after the request's transaction has ended. The
    connection is taken at the first row and goes back after the last, or when the client has
    hung up. What the request itself has not committed is not seen.
    """
    given: Session | None = request.environ.get(ENVIRON_SESSION)
    if given is not None:
        return iter(given.execute(statement))
    # A manager that begins no transaction: a session that can only read.
    tm = cast("TransactionManager", transaction.TransactionManager(explicit=True))
    rows = _rows(get_sqa(request).make_session(tm), statement, size)
    lifetime_of(request).streams.append(rows)
    return rows


def sqa_paginate(request: Any, statement: object, **options: Unpack[PageOptions]) -> Page[Any]:
    """Return the page of *statement* that the query string asks for, on ``request.sqa_session``.

    The options are those of :func:`paginate`. ``page`` and ``per_page`` are taken from the query
    string unless they are given here. The sizes are those of the settings ``sqa.page_size`` and
    ``sqa.max_page_size``, and ``url`` is the address of the request.
    """
    address = address_of(request.environ)
    wanted = _page_request(request, address, options, page=address.get("page"))
    return find_page(request.sqa_session, statement, wanted)


def sqa_paginate_keyset(
    request: Any, statement: object, **options: Unpack[KeysetOptions]
) -> KeysetPage[Any]:
    """Return the page of *statement* after or before the cursor in the query string.

    The options are those of :func:`paginate_keyset`. ``after``, ``before`` and ``per_page`` are
    taken from the query string unless they are given here; a cursor that is given here replaces
    both. The secret is that of the setting ``sqa.cursor_secret``. The rest is as for
    :func:`sqa_paginate`.
    """
    address = address_of(request.environ)
    given = options.get("after") is not None or options.get("before") is not None
    cursors = {} if given else {name: address.get(name) for name in ("after", "before")}
    secret = get_sqa(request).cursor_secret
    wanted = _page_request(request, address, options, secret=secret, **cursors)
    return find_keyset_page(request.sqa_session, statement, wanted)


def _page_request(
    request: Any, address: Address, options: Mapping[str, Any], **asked: Any
) -> PageRequest:
    settings = get_sqa(request).settings.sqa_options
    return PageRequest.of(
        options,
        per_page=address.get("per_page"),
        page_size=settings["page_size"],
        max_per_page=settings["max_page_size"],
        address=address,
        **asked,
    )


def _rows(
    session: JoinedSession, statement: Select[Any], size: int
) -> Generator[Row[Any], None, None]:
    try:
        with session.execute(statement, execution_options={"yield_per": size}) as result:
            # Held by a name: when it is closed, the answer is read to its end.
            parts = result.partitions()
            try:
                for part in parts:
                    yield from part
            except GeneratorExit:
                # The client has hung up.
                connection = session.connection(bind_arguments={"clause": statement})
                backend_of(connection).abandon(connection)
                raise
    finally:
        session.end()


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
        # The end of the session would raise it, in place of a response that is true.
        log.error(
            "The transaction is committed, and %r after it wrote: %s",
            function,
            WRITE_OUTSIDE_TRANSACTION,
        )
        session.rollback()


def _window(request: Any) -> Callable[[], bool] | None:
    """Tell until when pyramid_tm ends the transaction.

    An explicit manager knows by itself. Any other begins a transaction whenever it is asked for
    one, before and after the request's too, and nobody would end that. A script would.
    """
    if getattr(request.tm, "explicit", False) or not lifetime_of(request).served:
        return None
    return _is_active


def _is_active() -> bool:
    return any(ACTIVE in environ for environ in environs_of_thread())

"""The life of ``request.sqa_session``: made when it is touched, closed when the request ends."""

from typing import Any

from pyramid.request import Request
from sqlalchemy.orm import Session

from ._protocols import TransactionManager
from ._sqa import get_sqa

# Where a test puts a session of its own, shared by the requests it makes.
ENVIRON_SESSION = "sqa.session"


class SqaRequest(Request):  # type: ignore[misc]  # pyramid has no types
    """A Pyramid request as it is in an application with this package, to annotate views with."""

    sqa_session: Session
    tm: TransactionManager
    # What a type checker reads out of pyramid's code for these is wrong.
    matchdict: Any
    response: Any


def sqa_session(request: Any) -> Session:
    """Return the request's session; Pyramid keeps it as ``request.sqa_session``.

    A session in ``environ["sqa.session"]`` is returned as it is and stays its owner's to close.
    Raises :class:`SettingError` when no database is set.
    """
    session: Session | None = request.environ.get(ENVIRON_SESSION)
    if session is None:
        session = get_sqa(request).session(request.tm)
        # Not only the transaction's end closes it: a session used after that end, or in a request
        # that pyramid_tm does not manage, would keep its connection until it is collected.
        request.add_finished_callback(_Closing(session))
    return session


class _Closing:
    """Closes a session at the end of its request, holding the session but not the request."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def __call__(self, request: Any) -> None:
        self.session.close()

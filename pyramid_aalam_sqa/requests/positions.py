"""Lets each client read what it has written, although replicas are behind.

When a request has written, its answer tells the client how far the log of the database was then.
The client sends that back, and a read-only request reads from a replica that has got so far. It is
in a cookie, and in a header for clients that keep no cookies. It is signed, so that a client cannot
make one for which replicas wait.
"""

from typing import Any

from pyramid.request import Request
from sqlalchemy.engine import Engine
from webob.cookies import SignedSerializer, make_cookie

from ..applications import RegisteredApplication
from ..backends import listen_for_statements
from ..engines import current_attempt, may_write
from .lifetime import LIFETIME, Lifetime, Policy

COOKIE, HEADER = "sqa_position", "Sqa-Position"


def read_positions(application: RegisteredApplication, request: Any) -> dict[str, str] | None:
    """Return what the client of *request* has written last, by bind key.

    None if that cannot be read, for example because it was signed with another secret.
    """
    try:
        # WebOb raises for a cookie that is not UTF-8.
        text = request.headers.get(HEADER) or request.cookies.get(COOKIE)
        found: dict[str, str] = _signer(application).loads(text.encode()) if text else {}
    except ValueError:
        return None
    return found


def positions_policy(policy: Policy, application: RegisteredApplication) -> Policy:
    """Return *policy*, an execution policy, which tells a client the position of its writes."""
    reading = application.sessions.reading
    keys = reading.keys
    for engine in reading.replicated:
        listen_for_statements(engine, _note_write(engine))

    def execution_policy(environ: dict[str, Any], router: Any) -> Any:
        response = policy(environ, router)
        lifetime: Lifetime | None = environ.get(LIFETIME)
        if lifetime is not None and lifetime.written:
            before = read_positions(application, Request(environ)) or {}
            now = {keys[each]: reading.position_of(each) for each in lifetime.written}
            _tell(application, environ, response, before | now)
        return response

    return execution_policy


def _note_write(engine: Engine) -> Any:
    """Return a listener that notes for the request of this thread that it has written on *engine*.

    What is rolled back afterwards is noted too. So is a request around this one.
    """

    def note(statement: str, _context: object) -> None:
        if may_write(statement):
            attempt = current_attempt()
            while attempt is not None:
                if isinstance(attempt, Lifetime):
                    attempt.written |= {engine}
                attempt = attempt.outer

    return note


def _tell(
    application: RegisteredApplication,
    environ: dict[str, Any],
    response: Any,
    positions: dict[str, str],
) -> None:
    """Put *positions* into *response*, as a cookie and as a header."""
    value = _signer(application).dumps(positions).decode()
    secure = environ["wsgi.url_scheme"] == "https"
    cookie = make_cookie(COOKIE, value, path="/", secure=secure, httponly=True, samesite="Lax")
    response.headerlist.extend([("Set-Cookie", cookie), (HEADER, value)])


def _signer(application: RegisteredApplication) -> Any:
    return SignedSerializer(application.reader_secret, COOKIE, "sha256")

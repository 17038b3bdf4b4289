"""The sandbox of one test: it lends the application connections, and undoes all at the end."""

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool, Pool

from ..applications import application_of, get_sqa
from ..exceptions import SandboxError
from ..interfaces import HasRegistry
from .faults import Faults
from .outcomes import Outcomes
from .own import RealConnections
from .products import product_of
from .put_back import PutBack
from .session import SandboxSession, is_silent, session_for
from .shared import SharedConnection

LEFT_OPEN = (
    "The test has ended, and a connection is in use by {}: end each job with commit() and remove(),"
    " use session_scope(), and join each thread."
)
NOT_COMMITTED = (
    "sqa_session has changes that are not committed, and no request could see them: call "
    "sqa_session.commit() first."
)
# Seconds that a thread waits for another one, where the pool has no limit of its own.
TIMEOUT = 5.0


class Sandbox:
    """What a test has while it is isolated; :func:`isolated` makes it.

    ``session`` is the session of the test. ``outcomes`` is what became of each request and job.
    ``fault()`` orders an accident.
    """

    def __init__(self, app: HasRegistry) -> None:
        self.app = app
        self.sqa = get_sqa(app)
        # By the first bind key of each.
        self.engines: dict[str, Engine] = {}
        for key, engine in self.sqa.engines.items():
            if engine not in self.engines.values():
                self.engines[key] = engine
        self.outcomes = Outcomes()
        self.fault = Faults([product_of(engine) for engine in self.engines.values()])
        self.problems: list[SandboxError] = []
        self.lenders: list[SharedConnection | RealConnections] = []
        self.session: SandboxSession = session_for(app)

    def before_request(self) -> None:
        """Let the session of the test read anew, as others would.

        Raises :class:`SandboxError` if it has written something and not committed.
        """
        session = self.session
        if session.new or session.dirty or session.deleted or self._has_written():
            raise SandboxError(NOT_COMMITTED)
        session.rollback()

    def _has_written(self) -> bool:
        lent = (each for lender in self.lenders for each in lender.lent)
        return any(each.silent and each.work and each.work.wrote for each in lent)


@contextmanager
def isolated(app: HasRegistry, *, commits: bool = False) -> Iterator[Sandbox]:
    """Run the application *app* inside the block so that nothing of it is stored afterwards.

    The application does what it does in production: requests, retries, several transactions, jobs.
    What it commits is seen by the test and by its other requests, and is rolled back at the end of
    the block. With *commits* every COMMIT is real, and at the end each table is put back as it was,
    with its automatic numbers.

    The block gets a :class:`Sandbox`. Raises :class:`SandboxError` at the end of the block if
    something in it could not be undone, or was left open, and the next block is not harmed by it.
    """
    sandbox = Sandbox(app)
    with ExitStack() as ends:
        ends.callback(_raise_problems, sandbox)
        lend = _real if commits else _shared
        for key in sandbox.engines:
            ends.enter_context(lend(sandbox, key))
        ends.enter_context(sandbox.outcomes.watch(app))
        sessions = application_of(app).sessions
        # Read-only requests read on the connections that are lent, in transactions of their own.
        ends.callback(setattr, sessions.reading, "apart", sessions.reading.apart)
        sessions.reading.apart = False
        listeners = sessions.retry_listeners
        listeners.append(sandbox.outcomes.tell_retry)
        ends.callback(listeners.remove, sandbox.outcomes.tell_retry)
        ends.callback(sandbox.session.close)
        yield sandbox


def _raise_problems(sandbox: Sandbox) -> None:
    """Raise all that has to fail the test as one error."""
    try:
        sandbox.fault.close()
    except SandboxError as error:
        sandbox.problems.append(error)
    if sandbox.problems:
        raise SandboxError("\n".join(dict.fromkeys(map(str, sandbox.problems))))


@contextmanager
def _shared(sandbox: Sandbox, key: str) -> Iterator[None]:
    """Let all users of one database share one connection, and roll back at the end."""
    engine = sandbox.engines[key]
    before = engine.pool
    shared = SharedConnection(
        engine,
        key,
        faults=sandbox.fault,
        told=sandbox.outcomes.tell,
        reported=sandbox.problems.append,
        timeout=_timeout_of(before),
    )
    sandbox.lenders.append(shared)
    put_back: list[PutBack] = []
    # A procedure may commit by itself. What was there before is seen by another connection.
    shared.before_call = lambda: put_back.append(PutBack(engine, before))
    lend: Any = lambda: shared.lend(silent=is_silent())  # noqa: E731 - it is no DBAPI connection
    engine.pool = NullPool(lend, dialect=engine.dialect)
    _forward_events(engine.pool, before)
    try:
        yield
    finally:
        engine.pool = before
        _report_left(sandbox, shared)
        shared.close()
        for each in put_back:
            each.finish(restore=shared.broken)


@contextmanager
def _real(sandbox: Sandbox, key: str) -> Iterator[None]:
    """Let each COMMIT on one database be real, and put the tables back at the end."""
    engine = sandbox.engines[key]
    put_back = PutBack(engine, engine.pool)
    real = RealConnections(engine, key, faults=sandbox.fault, told=sandbox.outcomes.tell)
    sandbox.lenders.append(real)
    try:
        yield
    finally:
        _report_left(sandbox, real)
        real.close()
        put_back.finish(restore=True)


def _report_left(sandbox: Sandbox, lender: SharedConnection | RealConnections) -> None:
    """Report the connections that are still in use, by the name of their user."""
    if lender.lent:
        # A session that is collected gives its connection back.
        gc.collect()
    for each in lender.lent:
        sandbox.problems.append(SandboxError(LEFT_OPEN.format(each.who)))


def _timeout_of(pool: Pool) -> float:
    found: Any = getattr(pool, "timeout", TIMEOUT)
    seconds: Any = found() if callable(found) else found
    return float(seconds)


def _forward_events(pool: Pool, before: Pool) -> None:
    """Call the listeners of the pool *before* for what happens in *pool*, but for new connections.

    Those that set a connection up have been called for the one that is shared.
    """
    for name in ("checkout", "checkin", "reset", "invalidate", "soft_invalidate", "close"):
        event.listen(pool, name, _forwarder(before, name))


def _forwarder(before: Pool, name: str) -> Callable[..., object]:
    def forward(*args: Any) -> None:
        getattr(before.dispatch, name)(*args)

    return forward

"""One real connection in one real transaction, shared by all users of an engine in a test.

Each user has a transaction of its own that is only imitated, by a savepoint. COMMIT keeps what was
done since the savepoint, ROLLBACK goes back to it. At the end everything is rolled back.

A savepoint lies inside the one before it. So two transactions that are open at once can be imitated
as long as none of them is rolled back after the other one has written in the middle of it. Where
that happens the test fails. Threads take turns: while one has written and not ended its
transaction, the others wait.
"""

import itertools
import re
import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import Engine

from ..backends import CALL, backend_of
from ..exceptions import SandboxError
from .lent import LentConnection, rows_of
from .products import READS, product_of

# The savepoint that proves at the end of a test that its transaction was never ended.
GUARD = "sqa_guard"
# The savepoint that a procedure which commits takes with it.
PROBE = "sqa_probe"
BEGINS = re.compile(r"\s*(?:BEGIN|START\s+TRANSACTION)\b", re.IGNORECASE)
# SQLAlchemy sends it after it has set an isolation level.
BARE_END = re.compile(r"\s*(?:COMMIT|ROLLBACK)\s*;?\s*$", re.IGNORECASE)
SAVEPOINT = re.compile(
    r"(\s*(?:SAVEPOINT|RELEASE(?:\s+SAVEPOINT)?|ROLLBACK\s+TO(?:\s+SAVEPOINT)?)\s+)(\w+)\s*",
    re.IGNORECASE,
)

REFUSED = (
    "{!r} ends the transaction that the test runs in, and could not be undone. It was not sent. "
    "Mark the test with @pytest.mark.sqa_commits, or do this before the test."
)
ENDED = (
    "{!r} has ended the transaction that the test runs in, so that rows of the test {}. "
    "Mark the test with @pytest.mark.sqa_commits."
)
CROSSED = (
    "The transaction of {} was rolled back after {} had written and committed in the middle of it. "
    "A sandbox of one connection cannot keep the one and undo the other: mark the test with "
    "@pytest.mark.sqa_commits."
)
WAITED = (
    "{} has waited {:g} seconds for the database, and {} holds it in a transaction that has written"
    " and has not ended."
)


class Work:
    """The imitated transaction of one user."""

    def __init__(self, lent: LentConnection) -> None:
        self.who = lent.who
        self.thread = threading.get_ident()
        # Its savepoint; None before it needs one.
        self.mark: str | None = None
        self.wrote = False
        # Whether the server refuses its statements after an error, and whether it is lost.
        self.failed = self.lost = False
        # Those whose savepoints lie above its own and below something that it has written.
        self.within: set[Work] = set()
        # Who has committed something above its savepoint.
        self.holds: str | None = None
        # Whether it has sent a statement, and whether it is over.
        self.used = self.ended = False


class SharedConnection:
    """Lends one connection of *engine* to all its users until :meth:`close`.

    *faults* are asked before each step, *told* is called with what became of each transaction, and
    *reported* with each :class:`SandboxError` that the test must not miss. *timeout* is how many
    seconds a thread waits for another one.
    """

    def __init__(  # noqa: PLR0913 - what it tells, to whom
        self,
        engine: Engine,
        key: str,
        *,
        faults: Any,
        told: Callable[[object, str], object],
        reported: Callable[[SandboxError], object],
        timeout: float,
    ) -> None:
        self.engine, self.key = engine, key
        self.product = product_of(engine)
        self._backend = backend_of(engine)
        self._faults, self._told, self._reported = faults, told, reported
        self._timeout = timeout
        self._turn = threading.Condition(threading.RLock())
        self._numbers = itertools.count(1)
        # The works with a savepoint, the innermost last. Ended ones wait for those above them.
        self._stack: list[Work] = []
        self._last: Work | None = None
        self.lent: list[LentConnection] = []
        # Called once before a statement that may commit below us.
        self.before_call: Callable[[], object] | None = None
        self.broken = self.changed = False
        self._pooled = engine.pool.connect()
        self._driver: Any = self._pooled.dbapi_connection
        self._begin_real()

    def lend(self, *, silent: bool = False) -> LentConnection:
        """Return a connection for another user."""
        if not silent:
            self._faults.connect(self)
        lent = self.product.LENT(self, self._driver, silent=silent)
        self.lent.append(lent)
        return lent

    def close(self) -> list[LentConnection]:
        """Roll everything back, and return the connections that were still lent."""
        left = list(self.lent)
        with self._turn:
            for lent in left:
                lent.ended = True
            try:
                self._send(f"ROLLBACK TO SAVEPOINT {GUARD}")
            except self.product.dbapi.Error:
                self._note_end("Something")
            if (self.broken or self.changed) and not self._backend.is_memory(self.engine.url):
                # Closing it rolls back as well.
                self._pooled.invalidate()
            else:
                self._driver.rollback()
            self._pooled.close()
        return left

    # What the lent connections call.

    def run(self, lent: LentConnection, call: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """Send a statement for *lent*."""
        lent.check()
        statement = _text(args[0])
        with self._turn:
            self._wait_for_turn(lent)
            if BEGINS.match(statement):
                self.begin(lent)
                return None
            if statement in {self._backend.READ_ONLY_SQL, self._backend.READ_WRITE_SQL} - {""}:
                lent.refuses_writes = statement == self._backend.READ_ONLY_SQL
                return None
            if not self._may_send(lent, statement):
                return None
            if self.product.OUTSIDE and self.product.OUTSIDE.match(statement):
                return call(*args, **more)
            work = self._work_of(lent, statement)
            args = (self._with_own_savepoint(lent, args[0]), *args[1:])
            try:
                self._faults.statement(self, lent, statement)
                done = call(*args, **more)
            except Exception:
                work.failed = work.failed or self.product.in_error(self._driver)
                raise
            finally:
                self._look(statement)
            if SAVEPOINT.match(statement):
                # Going back to a savepoint ends the refusal.
                work.failed = self.product.in_error(self._driver)
            if lent.autocommits:
                self.commit(lent)
            return done

    def begin(self, lent: LentConnection) -> None:
        """Begin the transaction of *lent*, where it has none."""
        lent.check()
        if lent.work is None and not lent.autocommits:
            lent.work = Work(lent)

    def commit(self, lent: LentConnection) -> None:
        """End the transaction of *lent*, and keep what it has done."""
        lent.check()
        with self._turn:
            work: Work | None = lent.work
            if work is None:
                return
            self._faults.commit(self, lent)
            if work.failed or work.lost:
                # The server answers such a COMMIT by rolling back.
                self.rollback(lent)
                return
            if self.product.in_error(self._driver):
                self._leave_failed()
            if work.wrote:
                self._check_deferred(lent)
            self._keep(work)
            lent.work = None
            self._tell(lent, work, "commit")

    def rollback(self, lent: LentConnection) -> None:
        """End the transaction of *lent*, and undo what it has done."""
        if lent.ended:
            return
        with self._turn:
            work, lent.work = lent.work, None
            if work is not None:
                self._undo(work)
                self._tell(lent, work, "rollback")

    def take_back(self, lent: LentConnection) -> None:
        """Take *lent* back."""
        with self._turn:
            self.rollback(lent)
            if lent in self.lent:
                self.lent.remove(lent)
            if getattr(self._driver, "unheard_error", None) is not None:
                self._driver.unheard_error = None

    def commit_unheard(self, lent: LentConnection, error: BaseException) -> None:
        """Commit, and lose *lent* with *error* before it hears of that."""
        work: Work = lent.work
        self._keep(work)
        lent.work, lent.lost = None, error
        self._tell(lent, work, "unknown")

    def lose(self, lent: LentConnection, error: BaseException) -> None:
        """Let *lent* be lost with *error*; the server rolls back what it had not committed."""
        lent.lost = error
        self.rollback(lent)

    def drop_work(self, lent: LentConnection) -> None:
        """Let the server have rolled back the transaction of *lent*, as after a deadlock."""
        work: Work = lent.work
        self._undo(work)
        work.failed = True
        work.mark, work.wrote, work.ended = None, False, False

    def fail_work(self, lent: LentConnection) -> None:
        """Let the server refuse what follows in the transaction of *lent*, where it does so."""
        if self.product.ABORTS:
            lent.work.failed = True

    def socket(self, lent: LentConnection, real: Any) -> Any:
        """Return the socket of *lent*: a closed one where it was lost before COMMIT."""
        if lent.lost is None and self._faults.is_gone(self, lent):
            self.lose(lent, self.product.fault("gone_away"))
        return real if lent.lost is None else self._faults.closed

    # Turns.

    def _wait_for_turn(self, lent: LentConnection) -> None:
        here = threading.get_ident()
        if self._turn.wait_for(lambda: self._holder(here) is None, self._timeout):
            lent.check()
            return
        holder = self._holder(here)
        msg = WAITED.format(lent.who, self._timeout, holder.who if holder else "another")
        error = SandboxError(msg)
        self._reported(error)
        raise error

    def _holder(self, here: int) -> Work | None:
        """Return a transaction of another thread that has written and has not ended."""
        others = (each for each in self._stack if each.thread != here)
        return next((each for each in others if each.wrote and not each.ended), None)

    # Savepoints.

    def _may_send(self, lent: LentConnection, statement: str) -> bool:
        """Refuse what would end the real transaction; false if it has nothing to end."""
        ends = self.product.ends
        if ends is None or not ends.match(statement):
            return True
        if lent.work is None and BARE_END.match(statement):
            return False
        error = SandboxError(REFUSED.format(_shown(statement)))
        self._reported(error)
        raise error

    def _work_of(self, lent: LentConnection, statement: str) -> Work:
        """Return the transaction of *lent*, with the savepoint that *statement* needs."""
        if lent.work is None:
            lent.work = Work(lent)
        work: Work = lent.work
        if self._last is not work and self.product.in_error(self._driver):
            self._leave_failed()
        aborts = self.product.ABORTS
        if work.failed and aborts and not (work.mark and SAVEPOINT.match(statement)):
            raise self.product.fault("aborted")
        writes = not READS.match(statement)
        if writes and lent.refuses_writes:
            self.fail_work(lent)
            raise self.product.fault("write_refused")
        if (writes or aborts) and (work.mark is None or not work.wrote):
            self._set_mark(work)
        work.used = True
        if writes:
            self._note_write(work)
        if self._may_commit(statement):
            if self.before_call:
                self.before_call()
            self.before_call = None
            self._send(f"SAVEPOINT {PROBE}")
        self._last = work
        return work

    def _set_mark(self, work: Work) -> None:
        """Set the savepoint of *work* here, unless it is there already."""
        if work.mark is not None and self._last is work and self._stack[-1:] == [work]:
            return
        if work in self._stack:
            self._stack.remove(work)
        work.mark, work.holds = f"sqa_{next(self._numbers)}", None
        self._send(f"SAVEPOINT {work.mark}")
        self._stack.append(work)

    def _note_write(self, work: Work) -> None:
        work.wrote = True
        work.thread = threading.get_ident()
        for each in self._stack[self._stack.index(work) + 1 :]:
            if not each.ended:
                work.within.add(each)

    def _keep(self, work: Work) -> None:
        work.ended = True
        if work.wrote and work.mark is not None:
            place = self._stack.index(work)
            for each in (*self._stack[:place], *work.within):
                if not each.ended:
                    each.holds = work.who
        self._release()

    def _undo(self, work: Work) -> None:
        """Go back to the savepoint of *work*."""
        work.ended = True
        if work.lost or work.mark is None:
            self._turn.notify_all()
            return
        if work.wrote or work.failed:
            self._go_back(work)
        self._release()

    def _go_back(self, work: Work) -> None:
        """Go back to the savepoint of *work*, and report what that undoes of others."""
        place = self._stack.index(work)
        above = self._stack[place + 1 :]
        other = work.holds or next((each.who for each in above if each.wrote), None)
        if other:
            self._reported(SandboxError(CROSSED.format(work.who, other)))
        self._send(f"ROLLBACK TO SAVEPOINT {work.mark}")
        for each in above:
            each.mark = None
        del self._stack[place + 1 :]

    def _release(self) -> None:
        """Forget the savepoints of those that have ended and have none above them."""
        if self.product.in_error(self._driver):
            self._leave_failed()
        while self._stack and self._stack[-1].ended:
            self._send(f"RELEASE SAVEPOINT {self._stack.pop().mark}")
        self._turn.notify_all()

    def _leave_failed(self) -> None:
        """Let the real transaction go on for others: what the failed one did is lost anyway."""
        failed = [each for each in self._stack if each.failed][-1]
        self._go_back(failed)
        failed.mark = None
        self._stack.pop()

    def _with_own_savepoint(self, lent: LentConnection, statement: Any) -> Any:
        """Give a savepoint of the application a name that no other user has."""
        found = SAVEPOINT.fullmatch(statement) if isinstance(statement, str) else None
        return f"{found[1]}{found[2]}_{id(lent)}" if found else statement

    # The real transaction.

    def _begin_real(self) -> None:
        self._send(self.product.BEGIN)
        self._send(f"SAVEPOINT {GUARD}")

    def _send(self, statement: str) -> list[Any]:
        return rows_of(self._driver, statement)

    def _check_deferred(self, lent: LentConnection) -> None:
        """Raise what COMMIT would raise over a deferred constraint."""
        try:
            error = self.product.deferred_error(self._send)
        except self.product.dbapi.Error:
            lent.work.failed = True
            self.rollback(lent)
            raise
        if error is not None:
            raise error

    def _look(self, statement: str) -> None:
        """Notice that the real transaction is over, and begin another one."""
        changes = self._backend.changes_session
        if changes is not None and changes[statement]:
            self.changed = True
        if READS.match(statement) or self._is_open(statement):
            return
        self._note_end(_shown(statement))
        for work in self._stack:
            work.lost = work.ended = True
        self._stack.clear()
        self._begin_real()

    def _may_commit(self, statement: str) -> bool:
        return self.product.CALL_MAY_COMMIT and CALL.match(statement) is not None

    def _is_open(self, statement: str) -> bool:
        """Tell whether the real transaction is the same as before *statement*."""
        if self._may_commit(statement):
            # A procedure may have ended it and begun another one.
            try:
                self._send(f"RELEASE SAVEPOINT {PROBE}")
            except self.product.dbapi.Error:
                return False
        return self.product.is_open(self._driver)

    def _note_end(self, statement: str) -> None:
        self.broken = True
        what = "may be stored" if self.product.CALL_MAY_COMMIT else "are lost"
        self._reported(SandboxError(ENDED.format(statement, what)))

    def _tell(self, lent: LentConnection, work: Work, what: str) -> None:
        if work.used and not (lent.silent or lent.refuses_writes):
            self._told(self, what)
        # There it holds for one transaction.
        if not self._backend.READ_WRITE_SQL:
            lent.refuses_writes = False


def _text(statement: Any) -> str:
    return statement.decode(errors="replace") if isinstance(statement, bytes) else str(statement)


def _shown(statement: str) -> str:
    """Return the beginning of *statement* as far as it cannot hold a value."""
    return re.split(r"['\"(=]", statement.strip(), maxsplit=1)[0][:80].strip()

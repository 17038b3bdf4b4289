"""Accidents on demand: the driver's own errors, raised where accidents raise them."""

import re
import threading
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from ..exceptions import SandboxError
from .lent import LentConnection
from .products import READS, closed_socket

PLACES = ("connect", "execute", "flush", "commit")
# Where each kind can happen; the first is where it happens unless the test says more.
KINDS = {
    "deadlock": ("execute", "flush", "commit"),
    "lock_timeout": ("execute", "flush", "commit"),
    "gone_away": ("execute", "flush", "commit", "connect"),
    "lost_commit_reply": ("commit",),
    "read_only": ("execute", "flush", "commit"),
    "pool_exhausted": ("connect",),
    "busy": ("execute", "flush", "commit", "connect"),
}
POOL_TIMEOUT = "QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 5.00"
SAVEPOINTS = re.compile(r"\s*(?:SAVEPOINT|RELEASE|ROLLBACK)\b", re.IGNORECASE)


@dataclass(eq=False)
class Fault:
    """An accident that has not happened yet, or not as often as it should."""

    kind: str
    at: str
    times: int
    match: re.Pattern[str] | None
    database: str | None
    done: int = 0

    def __str__(self) -> str:
        return f"{self.kind} at {self.at}: {self.done} of {self.times}"


class Faults:
    """The accidents of one test. Call it to order one: ``sqa_fault("deadlock", at="commit")``."""

    def __init__(self, products: list[Any]) -> None:
        self._products = products
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._thread = threading.local()
        self._listens = False
        self.closed = closed_socket()

    def __call__(
        self,
        kind: str,
        *,
        at: str | None = None,
        times: int = 1,
        match: str | None = None,
        database: str | None = None,
    ) -> Fault:
        """Let the next *times* steps of the application fail.

        *kind* is ``deadlock``, ``lock_timeout``, ``gone_away``, ``lost_commit_reply``,
        ``read_only``, ``pool_exhausted`` or ``busy``. *at* is the step: ``connect``, ``execute`` (a
        statement), ``flush`` (a statement that the session sends for its objects) or ``commit``.
        *match* is a regular expression that the statement must contain. *database* is the bind key
        of the only database that fails; ``default`` is the application's own.

        The driver's own error is raised, so that everything goes on as after the accident itself.
        The session of the test has no accidents. A test ends with an error when one that it has
        ordered did not happen. Raises ValueError for a kind or a step that there is not.
        """
        places = KINDS.get(kind, ())
        step = at or next(iter(places), "")
        if step not in places:
            msg = f"{kind!r} at {step!r}: write one of {', '.join(KINDS)}, at one of " + (
                ", ".join(places or PLACES)
            )
            raise ValueError(msg)
        for product in self._products:
            if kind not in {*product.FAULTS, "pool_exhausted", "busy"} and step != "connect":
                msg = f"{kind!r} does not happen on {product.NAME}, which has no server."
                raise ValueError(msg)
        fault = Fault(kind, step, times, re.compile(match) if match else None, database)
        self._faults.append(fault)
        if step == "flush" and not self._listens:
            self._listens = True
            event.listen(Session, "before_flush", self._begin_flush)
            event.listen(Session, "after_flush", self._end_flush)
            event.listen(Session, "after_soft_rollback", self._end_flush)
        return fault

    def close(self) -> None:
        """Stop listening. Raises :class:`SandboxError` for accidents that did not happen."""
        self.closed.close()
        if self._listens:
            event.remove(Session, "before_flush", self._begin_flush)
            event.remove(Session, "after_flush", self._end_flush)
            event.remove(Session, "after_soft_rollback", self._end_flush)
        left = [str(fault) for fault in self._faults if fault.done < fault.times]
        if left:
            msg = f"The test has ordered faults that did not happen: {', '.join(left)}."
            raise SandboxError(msg)

    # What the lenders ask before each step.

    def connect(self, lender: Any) -> None:
        """Raise the error of an accident at connecting."""
        fault = self._take(lender, "connect")
        if fault is not None and fault.kind == "pool_exhausted":
            raise PoolTimeoutError(POOL_TIMEOUT, code="3o7r")
        if fault is not None:
            raise lender.product.fault(fault.kind, connecting=True)

    def statement(self, lender: Any, lent: LentConnection, statement: str) -> None:
        """Raise the error of an accident of *statement*."""
        if lent.silent or not self._faults or SAVEPOINTS.match(statement):
            return
        fault = self._take(lender, "execute", statement)
        if fault is None and getattr(self._thread, "flushing", False):
            fault = None if READS.match(statement) else self._take(lender, "flush", statement)
        if fault is not None:
            self._break_down(lender, lent, fault)

    def commit(self, lender: Any, lent: LentConnection) -> None:
        """Raise the error of an accident of COMMIT."""
        if lent.silent:
            return
        fault = self._take(lender, "commit", but="gone_away")
        if fault is None:
            return
        if fault.kind == "lost_commit_reply":
            error = lender.product.fault(fault.kind)
            lender.commit_unheard(lent, error)
            raise error
        self._break_down(lender, lent, fault)

    def is_gone(self, lender: Any, lent: LentConnection) -> bool:
        """Tell whether the server closes the connection now, before COMMIT is sent."""
        if lent.silent:
            return False
        return self._take(lender, "commit", only="gone_away") is not None

    def _break_down(self, lender: Any, lent: LentConnection, fault: Fault) -> None:
        """Do what the server would do, and raise its error."""
        error = lender.product.fault(fault.kind)
        if fault.kind == "gone_away":
            lender.lose(lent, error)
        elif fault.kind == "deadlock" and lender.product.CALL_MAY_COMMIT:
            lender.drop_work(lent)
        else:
            lender.fail_work(lent)
        raise error

    def _take(
        self, lender: Any, at: str, statement: str = "", *, but: str = "", only: str = ""
    ) -> Fault | None:
        """Return the first fault that happens now, and count it."""
        with self._lock:
            for fault in self._faults:
                if (
                    (fault.at == at and fault.done < fault.times)
                    and (fault.kind != but and only in {"", fault.kind})
                    and fault.database in {None, lender.key}
                    and (fault.match is None or fault.match.search(statement))
                ):
                    fault.done += 1
                    return fault
        return None

    def _begin_flush(self, *_: object) -> None:
        self._thread.flushing = True

    def _end_flush(self, *_: object) -> None:
        self._thread.flushing = False

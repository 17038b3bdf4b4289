"""Work that is done again after a conflict, and what has been stored of it."""

import threading
from contextvars import ContextVar, Token
from typing import Self

from .transaction import WatchedTransaction


class Attempt:
    """Work that is done again as a whole after a conflict: a request, or a function of a job.

    While it is entered, each COMMIT of this thread on a watched engine is noted. After one that
    has stored something, or may have, a second attempt would store it twice.
    """

    outer: "Attempt | None" = None
    may_have_stored = False
    _token: Token["Attempt | None"]

    @property
    def note(self) -> str:
        """What the log calls the work: that of the work around it, or its thread."""
        if self.outer is not None:
            return self.outer.note
        return f"thread {threading.current_thread().name}"

    @property
    def has_another(self) -> bool:
        """Whether the work is done again when it fails now, by a lost connection for example."""
        return not self.may_have_stored

    def note_commit(self, transaction: "WatchedTransaction") -> None:
        """Note that *transaction* is stored, or may be, for this work and the work around it."""
        self.may_have_stored = True
        if self.outer is not None:
            self.outer.note_commit(transaction)

    def __enter__(self) -> Self:
        self.outer = _attempt.get()
        self._token = _attempt.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _attempt.reset(self._token)
        del self._token


_attempt: ContextVar[Attempt | None] = ContextVar("sqa.attempt", default=None)


def current_attempt() -> Attempt | None:
    """Return the innermost attempt that this thread is in."""
    return _attempt.get()


def may_have_stored() -> bool:
    """Tell whether the work that this thread does, or the work around it, may have stored a part.

    A COMMIT counts that was answered with success, or never, even if nothing was written.
    """
    attempt = _attempt.get()
    while attempt is not None and not attempt.may_have_stored:
        attempt = attempt.outer
    return attempt is not None


def attempt_note() -> str:
    """Return what the log calls the work that this thread does: the path of a request."""
    attempt = _attempt.get()
    return attempt.note if attempt is not None else f"thread {threading.current_thread().name}"


def note_commit(transaction: WatchedTransaction) -> None:
    """Note for the work of this thread that *transaction* is stored, or may be."""
    attempt = _attempt.get()
    if attempt is not None:
        attempt.note_commit(transaction)

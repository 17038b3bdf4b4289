"""The errors of this package, each of which names the setting or the call to change.

::

    SqaError
    ├── SettingError         a setting is wrong or missing (a Pyramid ConfigurationError)
    ├── BindError            a statement for no database, or for two
    ├── ProvisioningError    what an administrator asked for was refused, or is not so
    └── TransactionError     the session was used against its transaction
        ├── BrokenTransactionError  an error has ended the transaction before its commit
        ├── CommitNotAllowedError      ``session.commit()`` where the transaction decides
        ├── OutsideTransactionError      a write before or after the transaction, or a use after the end
        ├── OutcomeUnknownError     COMMIT was sent, and its answer never came
        └── PartialCommitError      one database has committed, and another one has not
"""

from collections.abc import Sequence

from pyramid.exceptions import ConfigurationError


class SqaError(Exception):
    """The root of every error that this package raises of its own."""


class SettingError(SqaError, ConfigurationError):  # type: ignore[misc]  # pyramid has no types
    """A setting is wrong; the message names it and says what to write instead.

    Pyramid hands an error of its configuration phase on as ``ConfigurationExecutionError``,
    whose ``evalue`` is this one and whose text holds this message, file and line.
    """


class ProvisioningError(SqaError):
    """An administrator's step was refused by the server, or a proof of its result has failed."""


class BindError(SqaError):
    """A bind key that nobody has declared, or a statement with tables of two databases."""


class TransactionError(SqaError):
    """The session was asked for something that only its transaction may do."""


class BrokenTransactionError(TransactionError):
    """The database had ended the transaction, and the view went on as if it had not.

    Raised in place of a commit that would store only what came after. Its ``reason`` is the
    database's error; when that is a conflict, the request is tried again.
    """

    # As __cause__ it would be lost: pyramid_tm raises "from None".
    reason: BaseException | None = None


class CommitNotAllowedError(TransactionError):
    """``commit()`` was called on a session whose transaction belongs to somebody else."""


class OutsideTransactionError(TransactionError):
    """The session was to write where no transaction would commit it, or was used after its end."""


class OutcomeUnknownError(TransactionError):
    """The connection was lost after COMMIT was sent and before it was answered.

    The transaction may be stored or not. The request is never tried again, and the log has a line
    with the transaction's note, its path.
    """


class PartialCommitError(TransactionError):
    """A request wrote to several databases, and a COMMIT failed after another one was stored.

    ``stored`` and ``not_stored`` are the keys of the databases, the default one is ``default``.
    In ``unknown`` is one whose COMMIT was sent and never answered. Its ``reason`` is the error of
    that COMMIT. The request is never tried again, and the log has a critical line with the same
    keys.
    """

    # As in BrokenTransactionError.
    reason: BaseException | None = None

    def __init__(
        self,
        message: str,
        *,
        stored: Sequence[str] = (),
        not_stored: Sequence[str] = (),
        unknown: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.stored = tuple(stored)
        self.not_stored = tuple(not_stored)
        self.unknown = tuple(unknown)


# The texts of errors that several rooms raise.
COMMIT_BY_HAND = (
    "The response, or the end of its block, decides whether the session commits: remove the "
    "commit(), or use session.flush() to send what is pending, "
    "or request.tm.commit() and request.tm.begin() to commit a part at once."
)
WRITE_OUTSIDE_TRANSACTION = (
    "request.sqa_session can only read here, before or after the transaction of the request: "
    "a write would be lost. Write in the view, or inside `with request.tm:` where there is no view."
)
FAILED = "A statement has failed before, and the database would answer COMMIT by undoing all."
CONNECTION_ROLLED_BACK = (
    "The transaction was ended by a rollback() of its connection, and its session does not know: "
    "call session.rollback() instead."
)
HUNG_UP = "The server has closed the connection before COMMIT was sent."
SESSION_ENDED = (
    "This session has ended with its request. Take what a later function needs out of its objects, "
    "or give that function a session of its own."
)
CLOSED = (
    "request.sqa_session was closed in the middle of its transaction, and what it had written is "
    "lost: remove the close(), or call request.tm.abort() to undo the work on purpose."
)

"""The errors of this package. Each names the setting or the call to change.

::

    SqaError
    ├── SettingError         a setting is wrong or missing (a Pyramid ConfigurationError)
    ├── BindError            an unknown bind key, or a statement with tables of two databases
    ├── NPlusOneError        an attribute is loaded row by row, each time with one statement
    ├── ProvisioningError    an administrator's step failed, or its result is wrong
    ├── MigrationError       a revision failed, or the database is not in a state to be migrated
    ├── SandboxError         a test did what its sandbox cannot undo, or left something open
    └── TransactionError     the session was used in a way that its transaction does not allow
        ├── BrokenTransactionError   the database ended the transaction before its commit
        ├── CommitNotAllowedError    ``session.commit()`` where the transaction decides
        ├── OutsideTransactionError  a write outside the transaction, or a use after the end
        ├── ReadOnlyRequestError     a write in a request or a view with ``sqa_read_only``
        ├── OutcomeUnknownError      COMMIT was sent, and its answer was lost
        └── PartialCommitError       one database has committed, and another one has not
"""

from collections.abc import Mapping, Sequence

from pyramid.exceptions import ConfigurationError


class SqaError(Exception):
    """The base of all errors that are defined by this package."""


class SettingError(SqaError, ConfigurationError):  # type: ignore[misc]  # pyramid has no types
    """A setting is wrong; the message names it and says what to write instead.

    Pyramid wraps an error of its configuration phase in a ``ConfigurationExecutionError``. Its
    ``evalue`` is this error, and its text holds this message, the file and the line.
    """


class ProvisioningError(SqaError):
    """The server refused an administrator's step, or the result of the step is wrong."""


class SandboxError(SqaError):
    """A test did what its sandbox cannot undo or imitate, waited too long, or left something open.

    Raised by ``pyramid_aalam_sqa.testing`` alone.
    """


class MigrationError(SqaError):
    """A revision failed, or the database is not in a state in which it can be migrated.

    ``statements`` are those of the revision, each with what became of it, on databases that do not
    undo a revision that has failed.
    """

    def __init__(self, message: str, statements: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(message)
        self.statements = tuple(statements)


class BindError(SqaError):
    """A bind key is not declared, or one statement uses tables of two databases."""


class NPlusOneError(SqaError):
    """An attribute is loaded row by row, with one statement for each row of a query.

    Raised before the second such statement is sent, if ``sqa.n_plus_one`` or the view option
    ``sqa_n_plus_one`` is ``raise``. The message names the loader option to add to the query.
    """


class TransactionError(SqaError):
    """The session was used in a way that its transaction does not allow."""


class BrokenTransactionError(TransactionError):
    """The database ended the transaction before its commit, and the view went on.

    Raised instead of committing, because COMMIT would store only what was written afterwards.
    ``reason`` is the database's error. If it is a conflict, the request is tried again.
    """

    # The reason has its own attribute: pyramid_tm raises "from None", which drops __cause__.
    reason: BaseException | None = None


class CommitNotAllowedError(TransactionError):
    """The application called ``commit()`` on a session that its transaction commits."""


class OutsideTransactionError(TransactionError):
    """The session was used to write outside its transaction, or was used after its end."""


class ReadOnlyRequestError(TransactionError):
    """A request or a view with ``sqa_read_only`` has written, or has tried to.

    The message names the route or the view, and the statement without its values, or the class of
    the object that was changed. Nothing is stored, and the request is never tried again.
    """


class OutcomeUnknownError(TransactionError):
    """The connection was lost after COMMIT was sent and before its answer was read.

    The transaction may be stored or not. The request is never tried again. An error is logged. It
    contains the transaction's note, which is the path of the request. ``reason`` is the error of
    the COMMIT.
    """

    # As in BrokenTransactionError.
    reason: BaseException | None = None


class PartialCommitError(TransactionError):
    """One of several databases committed, and the COMMIT of another one failed.

    ``stored`` and ``not_stored`` are the bind keys of the databases; the default database is
    ``default``. ``unknown`` holds the key of a database whose COMMIT was sent and not answered.
    ``reason`` is the error of the COMMIT that failed. The request is never tried again. A critical
    error with the same keys is logged.
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
    "The response, or the end of the with block, decides whether the session commits: remove the "
    "commit(), or use session.flush() to send what is pending, "
    "or request.tm.commit() and request.tm.begin() to commit a part at once."
)
WRITE_OUTSIDE_TRANSACTION = (
    "request.sqa_session can only read here, before or after the transaction of the request: "
    "a write would be lost. Write in the view, or inside `with request.tm:` where there is no view."
)
SESSION_ENDED = (
    "This session has ended with its request. Copy what a later function needs out of its "
    "objects, or give that function a session of its own."
)

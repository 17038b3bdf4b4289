"""The errors of this package, each of which names the setting or the call to change.

::

    SqaError
    ├── SettingError         a setting is wrong or missing (a Pyramid ConfigurationError)
    └── TransactionError     the session was used against its transaction
        ├── ForeignCommit    ``session.commit()`` where the transaction decides
        └── NoTransaction    the session was used before or after its transaction
"""

from pyramid.exceptions import ConfigurationError


class SqaError(Exception):
    """The root of every error that this package raises of its own."""


class SettingError(SqaError, ConfigurationError):  # type: ignore[misc]  # pyramid has no types
    """A setting is wrong; the message names it and says what to write instead.

    Pyramid hands an error of its configuration phase on as ``ConfigurationExecutionError``,
    whose ``evalue`` is this one and whose text holds this message, file and line.
    """


class TransactionError(SqaError):
    """The session was asked for something that only its transaction may do."""


class ForeignCommit(TransactionError):  # noqa: N818 - named for what happened, as in the docs
    """``commit()`` was called on a session whose transaction belongs to somebody else."""


class NoTransaction(TransactionError):  # noqa: N818 - the name transaction itself uses
    """The session was used while its transaction manager had no transaction begun."""

"""Watches each transaction of each engine, below SQLAlchemy, no matter what has opened it.

The watcher stands around the methods with which the engine's own dialect sends BEGIN, COMMIT,
ROLLBACK and statements. So it knows what the driver was told and what it answered. Events of the
engine would come too early, and another listener may interrupt them. They would also make each
connection and each statement slower: with one listener, SQLAlchemy asks at each step who listens.

After each statement the watcher asks the driver whether the transaction is still open. A
transaction of a session that is over without a COMMIT or ROLLBACK of ours is *broken*: some
statement, such as DDL on MySQL, has ended it. It is never committed, and the request is never
tried again when something may be stored.
"""

import logging
import weakref
from collections.abc import Iterable
from time import monotonic
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

from pyramid_retry import mark_error_retryable
from sqlalchemy import event
from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import ConnectionPoolEntry

from ..backends import (
    CALL,
    IS_AUTOCOMMIT,
    IS_CLOSED,
    IS_OPEN,
    IS_UNKNOWN,
    READS,
    UNDOES,
    Backend,
    ErrorKind,
    backend_of,
    driver_of,
)
from ..exceptions import (
    COMMIT_BY_HAND,
    WRITE_OUTSIDE_TRANSACTION,
    BrokenTransactionError,
    CommitNotAllowedError,
)
from .attempts import attempt_note, note_commit
from .marks import copy_marks, mark
from .pool import rolls_back_on_return
from .refusals import beginning_of
from .transaction import (
    OPEN,
    REFUSED,
    ROLLED_BACK,
    STORED,
    TRANSACTION,
    UNKNOWN,
    Outcome,
    WatchedTransaction,
    transaction_of,
)

log = logging.getLogger(__name__)

# The savepoint that tells whether a procedure has ended the transaction.
SAVEPOINT = "sqa_call"
# The server's error for a savepoint that does not exist.
NO_SAVEPOINT = "1305"
# Seconds since its last answer in which a server is taken to be there.
JUST_NOW = 0.1

CONNECTION_ROLLED_BACK = (
    "The transaction was ended by a rollback() of its connection, and its session does not know: "
    "call session.rollback() instead."
)
COMMIT_WOULD_ROLL_BACK = (
    "A statement has failed before, and the database would answer COMMIT by undoing all."
)
SERVER_HUNG_UP = "The server has closed the connection before COMMIT was sent."
ENDED_BELOW = (
    "The statement {!r} has ended the transaction in the database. {} Remove the statement, or "
    "send it before anything is written here, or on a connection of its own."
)
MAY_BE_STORED = "What was written before it is stored, or lost, and cannot be undone here."
IS_LOST = "What was written before it is lost."


class Watcher:
    """Stands around the methods of one engine's dialect that talk to the driver."""

    def __init__(self, dialect: Any, backend: Backend) -> None:
        self.backend = backend
        self._driver = driver_of(dialect)
        self._shortcuts: bool = backend.sqa_options["shortcuts"]
        self._error: type[BaseException] = dialect.loaded_dbapi.Error
        self._is_disconnect = dialect.is_disconnect
        self._begin, self._commit = dialect.do_begin, dialect.do_commit
        self._rollback = dialect.do_rollback
        dialect.do_begin, dialect.do_commit = self.do_begin, self.do_commit
        dialect.do_rollback = self.do_rollback
        watched = self._make_watched()
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            # A bound method is a third of a partial() in memory, and called faster.
            setattr(dialect, name, MethodType(watched, getattr(dialect, name)))

    def do_begin(self, pooled: Any) -> None:
        """Begin a transaction on *pooled*, a connection of the pool.

        Raises :class:`BrokenTransactionError` when a session still owns a transaction there that
        was rolled back by hand. The session would not commit the new one.
        """
        info = pooled.info
        last: WatchedTransaction | None = info.get(TRANSACTION)
        if last is not None and last.is_owned:
            raise BrokenTransactionError(CONNECTION_ROLLED_BACK)
        self._begin(pooled)
        info[TRANSACTION] = transaction = WatchedTransaction()
        if last is not None:
            transaction.cursors = last.cursors
        self._look(transaction, pooled.dbapi_connection)

    def do_commit(self, pooled: Any) -> None:
        """Send COMMIT unless it must not be sent, and note what becomes of the transaction."""
        transaction = transaction_of(pooled)
        if transaction is None or transaction.outcome is not OPEN:
            self._commit(pooled)
            return
        try:
            self.check_commit(transaction, pooled.dbapi_connection)
        except BaseException:
            transaction.outcome = REFUSED
            self._undo(transaction, pooled)
            raise
        transaction.outcome = UNKNOWN
        try:
            self._commit(pooled)
            transaction.outcome = STORED
        except BaseException as error:
            transaction.outcome = self._outcome_of(error, pooled.dbapi_connection)
            if transaction.outcome is REFUSED:
                self._undo(transaction, pooled)
            elif transaction.outcome is STORED:
                note = transaction.note or attempt_note()
                log.error("The transaction is stored, and %r came after it: %s", error, note)
            raise
        finally:
            if transaction.outcome is not REFUSED:
                note_commit(transaction)

    def do_rollback(self, pooled: Any) -> None:
        """Send ROLLBACK; report what is stored although it was to be rolled back."""
        transaction = transaction_of(pooled)
        if transaction is None or transaction.outcome is not OPEN:
            if not self.skips_rollback(pooled):
                self._rollback(pooled)
            return
        transaction.outcome = ROLLED_BACK
        driver = pooled.dbapi_connection
        if transaction.procedure is not None:
            self._check_savepoint(transaction, driver)
        if self._is_over(transaction, driver):
            self._report_end(transaction, "")
        try:
            self._rollback(pooled)
        except BaseException:
            # Closing the connection rolls back as well.
            transaction.discard = True
            raise

    def skips_rollback(self, pooled: Any) -> bool:
        """Return whether the pool's ROLLBACK on *pooled*, after a COMMIT for example, is not sent.

        The driver knows then that the server has no transaction.
        """
        return self._shortcuts and self._driver.is_clean(pooled.dbapi_connection)

    def take_back(self, connection: Any, record: ConnectionPoolEntry) -> None:
        """Do what has to be done for a connection that goes back. A "checkin" listener."""
        if TRANSACTION in record.info:
            self.release(connection, record)
        self.backend.on_return(connection, record)

    def release(
        self, connection: Any, record: ConnectionPoolEntry | None, _state: object = None
    ) -> None:
        """Clean the driver's *connection*, which goes back to its pool. A "reset" listener.

        SQLAlchemy believes that a transaction has ended when a listener of its "commit" event
        raises. The driver still has it open, so it is rolled back here. Cursors that were not read
        to their end are closed, for example one that a traceback holds. Otherwise the next user of
        an SQLite connection would see the database as it was then, and could not write.
        """
        # A detached connection has no record, and is closed.
        transaction = record.info.pop(TRANSACTION, None) if record is not None else None
        if record is None or transaction is None or connection is None:
            return
        try:
            if transaction.outcome is OPEN:
                connection.rollback()
            for reference in transaction.cursors:
                cursor = reference()
                if cursor is not None:
                    cursor.close()
        except Exception as error:  # noqa: BLE001 - the pool must get its place back
            record.invalidate(error)

    def _make_watched(self) -> Any:
        """Return what calls a method of the dialect with a look at the transaction around it.

        This runs for each statement, so what it needs is looked up once, and what is usual is
        decided here. The dialect's three methods share it: a process may have a thousand engines.
        """
        backend, ends, state_of = self.backend, self._driver.ENDS, self._driver.transaction
        keeps_reading, call_may_commit = self._driver.KEEPS_READING, self._driver.CALL_MAY_COMMIT
        changes_session = backend.noted_changes

        def watched(execute: Any, cursor: Any, statement: str, *arguments: Any) -> None:
            pooled = arguments[-1].root_connection.connection
            try:
                info = pooled.info
            except NotImplementedError:
                # The dialect is asking the server what it can do.
                execute(cursor, statement, *arguments)
                return
            if changes_session is not None and changes_session[statement]:
                backend.note_change(statement, info)
            transaction: WatchedTransaction | None = info.get(TRANSACTION)
            if transaction is None or transaction.outcome is not OPEN:
                execute(cursor, statement, *arguments)
                return
            if transaction.ended or transaction.broken_by or transaction.refusal:
                self._refuse(transaction, statement)
            driver = pooled.dbapi_connection
            if call_may_commit and (transaction.seen_open or transaction.procedure is not None):
                self._before(transaction, driver, statement)
            execute(cursor, statement, *arguments)
            if keeps_reading and cursor.description is not None:
                transaction.note_cursor(cursor)
            found, seen_open = state_of(driver), transaction.seen_open
            if found is IS_OPEN and (not seen_open or not ends):
                transaction.seen_open = True
            elif found is not IS_CLOSED or seen_open:
                self._after(transaction, driver, statement)

        return watched

    def _refuse(self, transaction: WatchedTransaction, statement: str) -> None:
        """Raise if *statement* must not be sent: after an error, or in a read-only request."""
        guarded = transaction.read_only and self.backend.READ_ONLY_SQL
        if transaction.refusal is not None and not guarded:
            transaction.refusal.check(statement)
        if transaction.ended or (
            # A part would be stored, and a second attempt would store it twice.
            transaction.broken_by is not None
            and not transaction.autocommits
            and self._driver.MAY_COMMIT.match(statement)
        ):
            raise broken(transaction.broken_by)

    def _before(self, transaction: WatchedTransaction, driver: Any, statement: str) -> None:
        """Look whether the last procedure has ended the transaction, or *statement* may do so."""
        if transaction.procedure is not None:
            self._check_savepoint(transaction, driver)
            self._raise_if_ended(transaction)
        if transaction.seen_open and CALL.match(statement):
            _run(driver, f"SAVEPOINT {SAVEPOINT}")
            transaction.procedure = statement

    def _after(self, transaction: WatchedTransaction, driver: Any, statement: str) -> None:
        """Look at the transaction after *statement*. Raises when that has ended it."""
        ends = self._driver.ENDS
        ended = ends is not None and transaction.seen_open and ends.match(statement) is not None
        if not self._look(transaction, driver, statement) and not ended:
            return
        if transaction.broken_by is None:
            self._report_end(transaction, statement)
            self._raise_if_ended(transaction)

    def _raise_if_ended(self, transaction: WatchedTransaction) -> None:
        if transaction.is_owned and transaction.broken_by is not None:
            # Each further statement is refused: it could be stored at once.
            transaction.ended = True
            # LOCK TABLES and autocommit would stay on the connection.
            transaction.discard = self._driver.KEEPS_STATE
            raise broken(transaction.broken_by)

    def _look(
        self, transaction: WatchedTransaction, driver: Any, statement: str | None = None
    ) -> bool:
        """Ask the driver for its transaction. Return whether it is over without us."""
        found = self._driver.transaction(driver)
        if found is IS_OPEN:
            transaction.seen_open = True
        elif found is IS_UNKNOWN:
            if statement is not None and not READS.match(statement):
                transaction.seen_open = True
        elif found is IS_AUTOCOMMIT:
            if statement is None:
                transaction.autocommits = True
            elif transaction.autocommits:
                if not READS.match(statement):
                    note_commit(transaction)
            else:
                return True
        else:
            return transaction.seen_open
        return False

    def _is_over(self, transaction: WatchedTransaction, driver: Any) -> bool:
        """Return whether the driver itself was used to end a transaction that had written."""
        if transaction.broken_by or not transaction.seen_open or transaction.autocommits:
            return False
        found = self._driver.transaction(driver)
        return found is IS_CLOSED or found is IS_AUTOCOMMIT

    def _report_end(self, transaction: WatchedTransaction, statement: str) -> None:
        """Note and log that *transaction* was ended by *statement*; empty if that is not known."""
        undone = UNDOES.match(statement) is not None
        if not undone:
            note_commit(transaction)
        if transaction.owner is None:
            # Of engine.begin(): a migration on MySQL may well write and change tables in turn.
            transaction.seen_open = False
            return
        text = ENDED_BELOW.format(
            beginning_of(statement) or "the driver's own commit() or rollback()",
            IS_LOST if undone else MAY_BE_STORED,
        )
        transaction.broken_by = BrokenTransactionError(text)
        note = transaction.note or attempt_note()
        if undone:
            log.error("A transaction was rolled back in the middle: %s: %s", text, note)
        else:
            log.critical("A transaction is stored in part: %s: %s", text, note)

    def _check_savepoint(self, transaction: WatchedTransaction, driver: Any) -> None:
        """Note if the last procedure has ended the transaction, though another one is open now.

        The end of a transaction takes its savepoints with it.
        """
        statement, transaction.procedure = transaction.procedure, None
        try:
            _run(driver, f"RELEASE SAVEPOINT {SAVEPOINT}")
        except self._error as error:
            if transaction.broken_by is None and self.backend.error_code(error) == NO_SAVEPOINT:
                self._report_end(transaction, str(statement))

    def check_commit(self, transaction: WatchedTransaction, driver: Any) -> None:
        """Raise when there must not be a COMMIT."""
        if not transaction.may_commit:
            # session.connection().commit(): half of the request would be stored, whatever comes.
            raise CommitNotAllowedError(
                WRITE_OUTSIDE_TRANSACTION if transaction.read_only else COMMIT_BY_HAND
            )
        if transaction.broken_by is not None:
            raise broken(transaction.broken_by)
        is_server = self.backend.HAS_HOST
        if is_server and self.backend.has_server_closed(driver):
            # A COMMIT that is written to a closed connection is never answered, and its error
            # would look like that of a lost answer.
            transaction.discard = True
            error = BrokenTransactionError(SERVER_HUNG_UP)
            mark(error, ErrorKind.DISCONNECT)
            raise error
        if is_server:
            self._driver.finish_results(driver)
        if transaction.procedure is not None:
            self._check_savepoint(transaction, driver)
            raise_if_broken([transaction])
        unheard = self._driver.unheard_error(driver)
        if unheard is not None:
            transaction.broken_by = unheard
            transaction.discard = True
            kind = self.backend.classify(unheard, connecting=False, disconnected=False)
            if kind is not None and kind.retryable:
                mark_error_retryable(unheard)
            raise broken(unheard)
        if self._is_over(transaction, driver):
            self._report_end(transaction, "")
            raise_if_broken([transaction])
        if is_server and self.backend.commit_would_roll_back(driver):
            raise BrokenTransactionError(COMMIT_WOULD_ROLL_BACK)

    def knows_what_commit_finds(self, driver: Any, *, is_first: bool) -> bool:
        """Return whether a question before COMMIT on the *driver*'s connection is needless.

        It is a round trip. The first of several COMMITs asks by itself: if it fails, nothing is
        stored. A server that has answered a moment ago is there, and would say nothing else.
        """
        if not self.backend.PRE_COMMIT_SQL:
            return True
        if not self._shortcuts:
            return False
        answered = getattr(driver, "answered", 0.0)
        just_now = monotonic() - answered < JUST_NOW
        return is_first or (just_now and not self.backend.DEFERS_CHECKS)

    def _outcome_of(self, error: BaseException, driver: Any) -> Outcome:
        """Return what *error*, which came out of COMMIT, says of the transaction."""
        if isinstance(error, self._error):
            disconnected = self._is_disconnect(error, driver, None)
            kind = self.backend.classify(error, connecting=False, disconnected=disconnected)
            return UNKNOWN if self.backend.is_commit_unknown(kind, error) else REFUSED
        if not self._driver.KNOWS_ITS_COMMIT:
            return UNKNOWN
        found = self._driver.transaction(driver)
        return STORED if found is IS_CLOSED else REFUSED

    def _undo(self, transaction: WatchedTransaction, pooled: Any) -> None:
        """Roll back a transaction whose COMMIT was refused.

        SQLAlchemy believes that it has ended, so the next COMMIT on the connection would store it.
        """
        try:
            self._rollback(pooled)
        except Exception:  # noqa: BLE001 - the error of the COMMIT is the one to be told
            transaction.discard = True


# The dialect holds its watcher, which holds the dialect: a strong reference here would keep both.
_watchers: WeakKeyDictionary[Dialect, weakref.ref[Watcher]] = WeakKeyDictionary()


def watch_transactions(engine: Engine, backend: Backend) -> None:
    """Watch each transaction of *engine* from now on."""
    watcher = Watcher(engine.dialect, backend)
    _watchers[engine.dialect] = weakref.ref(watcher)
    event.listen(engine, "checkin", watcher.take_back)
    if not rolls_back_on_return(engine.pool):
        # Before the pool does what it does instead, such as a COMMIT.
        event.listen(engine, "reset", watcher.release)


def watcher_of(connection: Connection) -> Watcher | None:
    """Return the watcher of the engine of *connection*; None if it is not ours."""
    return _watcher_of(connection.dialect)


def _watcher_of(dialect: Dialect) -> Watcher | None:
    found = _watchers.get(dialect)
    return found() if found is not None else None


def skips_rollback(dialect: Dialect, pooled: Any) -> bool:
    """Return whether a ROLLBACK outside of a transaction is not sent on *pooled*."""
    watcher = _watcher_of(dialect)
    return watcher is not None and watcher.skips_rollback(pooled)


def transaction_on(connection: Connection) -> WatchedTransaction | None:
    """Return the transaction that is open on *connection*, or that was the last one."""
    if connection.closed or connection.invalidated:
        return None
    return transaction_of(connection.connection)


def outcome_on(pooled: Any) -> Outcome | None:
    """Return what became of the last transaction on *pooled*, a connection of the pool.

    None if its engine is not watched.
    """
    transaction = transaction_of(pooled)
    return transaction.outcome if transaction else None


def own_transaction(
    connection: Connection, owner: SessionTransaction, *, read_only: bool, may_commit: bool
) -> WatchedTransaction | None:
    """Let *owner*, of a session, own the transaction that has just begun on *connection*.

    Returns it; None if it has an owner, or if the engine is not watched. With *read_only* it
    refuses every write.
    """
    transaction = transaction_of(connection.connection)
    if transaction is None or transaction.owner is not None:
        return None
    transaction.owner = weakref.ref(owner)
    transaction.read_only, transaction.may_commit = read_only, may_commit
    if read_only:
        backend_of(connection).make_read_only(connection)
    return transaction


def check_before_commit(connection: Connection, *, is_first: bool) -> None:
    """Raise what COMMIT on *connection* would raise, as far as it can be known before.

    This is done on each connection before the first of several COMMITs is sent. *is_first*: that
    COMMIT is the one of *connection*.
    """
    transaction, watcher = transaction_on(connection), watcher_of(connection)
    if transaction is not None and watcher is not None:
        driver = connection.connection.dbapi_connection
        watcher.check_commit(transaction, driver)
        if not watcher.knows_what_commit_finds(driver, is_first=is_first):
            connection.exec_driver_sql(watcher.backend.PRE_COMMIT_SQL)


def session_of_connection(connection: Connection) -> Session | None:
    """Return the session whose transaction is open on *connection*, if there is one."""
    transaction = transaction_on(connection)
    return transaction.session if transaction else None


def raise_if_broken(transactions: Iterable[WatchedTransaction]) -> None:
    """Raise :class:`BrokenTransactionError` if one of *transactions* was ended by an error."""
    for transaction in transactions:
        if transaction.broken_by is not None:
            raise broken(transaction.broken_by)


def broken(reason: BaseException | None) -> BrokenTransactionError:
    """Return the error that refuses to go on after *reason*; retryable if *reason* is."""
    if isinstance(reason, BrokenTransactionError):
        return BrokenTransactionError(str(reason))
    refusal = BrokenTransactionError(
        f"An error has ended this transaction before its end: {reason}"
    )
    refusal.reason = refusal.__cause__ = reason
    copy_marks(reason, refusal)
    return refusal


def _run(connection: Any, statement: str) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
    finally:
        cursor.close()


def report_unknown(transaction: WatchedTransaction) -> str:
    """Log that the outcome of *transaction* is unknown, unless its owner does; return its note."""
    note = transaction.note or attempt_note()
    if not transaction.quiet:
        log.error("COMMIT was sent and not answered, its outcome is unknown: %s", note)
    return note

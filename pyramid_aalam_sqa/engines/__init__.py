"""Engines made from settings, and what happens on their connections."""

from .attempts import Attempt, attempt_note, current_attempt, may_have_stored
from .bind_keys import (
    BIND_KEY_ATTRIBUTE,
    BIND_KEY_INFO,
    bind_key_of,
    full_name,
    mapped_classes,
    mapping_generation,
    names_by_bind_key,
    tables_in,
    tables_of_mapper,
    tables_with_bind_key,
)
from .create import make_engine, make_reading_engine, make_replica_engine, reads_apart
from .errors import error_name, pause_after
from .hosts import has_hosts, host_in_use
from .listeners import known_listeners
from .password_file import next_password_path, read_password
from .pool import replace_connections
from .read_only import begin_reading, sends_nothing
from .refusals import ReadOnly, may_write
from .tables import create_tables, missing_tables
from .transaction import Outcome, WatchedTransaction
from .watcher import (
    CONNECTION_ROLLED_BACK,
    check_before_commit,
    outcome_on,
    own_transaction,
    raise_if_broken,
    session_of_connection,
    skips_rollback,
    transaction_on,
)

__all__ = [
    "BIND_KEY_ATTRIBUTE",
    "BIND_KEY_INFO",
    "CONNECTION_ROLLED_BACK",
    "Attempt",
    "Outcome",
    "ReadOnly",
    "WatchedTransaction",
    "attempt_note",
    "begin_reading",
    "bind_key_of",
    "check_before_commit",
    "create_tables",
    "current_attempt",
    "error_name",
    "full_name",
    "has_hosts",
    "host_in_use",
    "known_listeners",
    "make_engine",
    "make_reading_engine",
    "make_replica_engine",
    "mapped_classes",
    "mapping_generation",
    "may_have_stored",
    "may_write",
    "missing_tables",
    "names_by_bind_key",
    "next_password_path",
    "outcome_on",
    "own_transaction",
    "pause_after",
    "raise_if_broken",
    "read_password",
    "reads_apart",
    "replace_connections",
    "sends_nothing",
    "session_of_connection",
    "skips_rollback",
    "tables_in",
    "tables_of_mapper",
    "tables_with_bind_key",
    "transaction_on",
]

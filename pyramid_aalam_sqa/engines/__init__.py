"""Engines made from settings, and what happens on their connections."""

from .bind_keys import INFO, age, key_of, keys_of, name_of, tables_of, tables_of_mapper, tables_with
from .create import make_engine
from .errors import ask_before_commits, error_name, pause_after
from .password_file import next_to, read_password
from .tables import create_tables, missing_tables
from .transactions import TransactionState, begin_work, refuse_broken, session_on

__all__ = [
    "INFO",
    "TransactionState",
    "age",
    "ask_before_commits",
    "begin_work",
    "create_tables",
    "error_name",
    "key_of",
    "keys_of",
    "make_engine",
    "missing_tables",
    "name_of",
    "next_to",
    "pause_after",
    "read_password",
    "refuse_broken",
    "session_on",
    "tables_of",
    "tables_of_mapper",
    "tables_with",
]

"""What is particular to each database product: its defaults, its errors, its quirks."""

from .backend import Backend, ErrorKind
from .driver import CALL, READS, UNDOES, Transaction, driver_of
from .mysql import MySQLBackend
from .pymysql_driver import THIS_MACHINE
from .registry import attach_backend, backend_for, backend_of, find_backend, says_no_such_value
from .sorting import sorting_of
from .urls import is_file, is_memory, masked, read_url, with_name

__all__ = [
    "CALL",
    "READS",
    "THIS_MACHINE",
    "UNDOES",
    "Backend",
    "ErrorKind",
    "MySQLBackend",
    "Transaction",
    "attach_backend",
    "backend_for",
    "backend_of",
    "driver_of",
    "find_backend",
    "is_file",
    "is_memory",
    "masked",
    "read_url",
    "says_no_such_value",
    "sorting_of",
    "with_name",
]

"""What is particular to each database product: its defaults, its errors, its quirks."""

from .backend import Backend, ErrorKind
from .mysql import MySQLBackend
from .pymysql_driver import THIS_MACHINE
from .registry import attach_backend, backend_for, backend_of, find_backend, says_no_such_value
from .sorting import sorting_of
from .urls import is_file, is_memory, masked, read_url, with_name

__all__ = [
    "THIS_MACHINE",
    "Backend",
    "ErrorKind",
    "MySQLBackend",
    "attach_backend",
    "backend_for",
    "backend_of",
    "find_backend",
    "is_file",
    "is_memory",
    "masked",
    "read_url",
    "says_no_such_value",
    "sorting_of",
    "with_name",
]

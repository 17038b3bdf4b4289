"""What is particular to each database product: its URLs, defaults, errors and quirks."""

from .backend import LOCAL_HOSTS, Backend, ErrorKind
from .driver import (
    CALL,
    ENDS,
    IS_AUTOCOMMIT,
    IS_CLOSED,
    IS_OPEN,
    IS_UNKNOWN,
    READS,
    UNDOES,
    driver_of,
)
from .pattern import Pattern
from .registry import (
    RESERVED_NAMES,
    attach_backend,
    backend_class,
    backend_for,
    backend_of,
    has_backend,
    is_impossible_value,
    sorting_of,
)
from .sorting import Comparable
from .spelling import most_similar
from .statements import listen_for_statements
from .unsafe_options import check_options, check_ready_engine
from .urls import is_file, is_memory, masked, read_url, with_name

__all__ = [
    "CALL",
    "ENDS",
    "IS_AUTOCOMMIT",
    "IS_CLOSED",
    "IS_OPEN",
    "IS_UNKNOWN",
    "LOCAL_HOSTS",
    "READS",
    "RESERVED_NAMES",
    "UNDOES",
    "Backend",
    "Comparable",
    "ErrorKind",
    "Pattern",
    "attach_backend",
    "backend_class",
    "backend_for",
    "backend_of",
    "check_options",
    "check_ready_engine",
    "driver_of",
    "has_backend",
    "is_file",
    "is_impossible_value",
    "is_memory",
    "listen_for_statements",
    "masked",
    "most_similar",
    "read_url",
    "sorting_of",
    "with_name",
]

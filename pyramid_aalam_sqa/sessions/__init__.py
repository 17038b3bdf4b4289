"""Sessions that take part in a transaction, on one database or several."""

from .keeper import SessionKeeper
from .multibind import BindSession, MultiBindSession
from .read_only import ReadOnlyMultiBindSession, ReadOnlySession, refusing_writes
from .routing import Routes, unknown_bind
from .session import JoinedSession, with_class
from .thread_local import ScopedSession
from .undeclared_keys import refuse_bind_keys

__all__ = [
    "BindSession",
    "JoinedSession",
    "MultiBindSession",
    "ReadOnlyMultiBindSession",
    "ReadOnlySession",
    "Routes",
    "ScopedSession",
    "SessionKeeper",
    "refuse_bind_keys",
    "refusing_writes",
    "unknown_bind",
    "with_class",
]

"""Sessions that take part in a transaction, on one database or several."""

from .multibind import BindSession, MultiBindSession
from .routing import Routes, unknown_bind
from .session import JoinedSession, with_class
from .thread_local import ScopedSession

__all__ = [
    "BindSession",
    "JoinedSession",
    "MultiBindSession",
    "Routes",
    "ScopedSession",
    "unknown_bind",
    "with_class",
]

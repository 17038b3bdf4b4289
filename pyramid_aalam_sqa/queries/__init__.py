"""Finds one row, or raises HTTPNotFound (404)."""

from .lookups import LookUps, SqaSession, first_or_404, get_or_404, one_or_404
from .primary_keys import key_names
from .statements import merge_eager_loads

__all__ = [
    "LookUps",
    "SqaSession",
    "first_or_404",
    "get_or_404",
    "key_names",
    "merge_eager_loads",
    "one_or_404",
]

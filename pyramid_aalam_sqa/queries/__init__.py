"""Look-ups that return a row or answer 404."""

from .lookups import LookUps, SqaSession, first_or_404, get_or_404, one_or_404
from .primary_keys import key_names

__all__ = ["LookUps", "SqaSession", "first_or_404", "get_or_404", "key_names", "one_or_404"]

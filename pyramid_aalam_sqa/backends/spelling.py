"""Finds what a user may have meant by a name that is not known."""

from collections.abc import Iterable


def most_similar(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the one of *known* that is most similar to *name*; None if none is similar.

    *cutoff* is how similar it must be, from 0 to 1.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - only an error message needs it

    return next(iter(get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)

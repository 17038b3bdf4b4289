"""What a request has sent to the database, as a page shows it: ``request.sqa_statements``.

The ini file has ``sqa.record = true``. When the request is over, the list also has its COMMIT or
ROLLBACK.
"""

from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

# What is left out unless it fails: the pool and the package send these.
QUIET_KINDS = {"CONNECT", "RESET", "SETUP"}


@dataclass(frozen=True)
class Attempt:
    """What one attempt of a request has sent. *pause* is the milliseconds that passed before it."""

    rows: list[dict[str, object]]
    pause: float


def attempts_of(request: Any) -> list[Attempt]:
    """Return the attempts of *request* so far; an empty list if ``sqa.record`` is off."""
    timeline = request.sqa_statements.timeline if hasattr(request, "sqa_statements") else []
    shown = (item for item in timeline if item.error or _kind(item) not in QUIET_KINDS)
    attempts, ended = [], 0.0
    for _, group in groupby(shown, attrgetter("attempt")):
        items = list(group)
        pause = (items[0].began - ended) * 1000
        attempts.append(Attempt([_row(item) for item in items], pause))
        ended = items[-1].began + items[-1].duration
    return attempts


def _kind(item: Any) -> str:
    """Return the kind of a step of a transaction; a statement has none."""
    return getattr(item, "kind", "")


def _row(item: Any) -> dict[str, object]:
    """Return the row for *item*, which is a statement or a step of a transaction."""
    outcome = getattr(item, "outcome", None) or ""
    undone = item.error or outcome.startswith("rolled back")
    return {
        "statement": item.statement,
        "database": item.database,
        "milliseconds": f"{item.duration * 1000:.2f}",
        "lazy_load": getattr(item, "lazy_load", None),
        "result": item.error or outcome,
        # The colours of the page.
        "tone": "gone" if undone else "kept" if outcome == "committed" else "",
    }

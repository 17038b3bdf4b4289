"""Shows in a frame what a request has sent to the database.

The ini file has ``sqa.record = true``, so each request has ``request.sqa_statements``. When the
request is over, this list also has its COMMIT or ROLLBACK. The browser loads the frame after that.
"""

from collections import OrderedDict
from itertools import groupby
from operator import attrgetter
from typing import Any

from pyramid_aalam_sqa import SqaRequest

# The number of recordings that each process keeps.
MAX_RECORDINGS = 50
RECORDINGS = "demo.recordings"
# The kinds of statements that the frame leaves out: the pool and the package send them.
HIDDEN_KINDS = {"CONNECT", "RESET", "SETUP"}


def includeme(config: Any) -> None:
    """Add the page for the frame, and the dictionary for the recordings."""
    config.registry[RECORDINGS] = OrderedDict()
    config.add_route("sent", r"/sent/{token:\w+}")
    config.add_view(show, route_name="sent", renderer="templates/sent.jinja2", http_cache=0)


def remember(request: SqaRequest, token: str) -> None:
    """Keep the statements of *request* under *token*; keep None if sqa.record is off."""
    recordings = request.registry[RECORDINGS]
    recordings[token] = getattr(request, "sqa_statements", None)
    while len(recordings) > MAX_RECORDINGS:
        recordings.popitem(last=False)


def show(request: SqaRequest) -> dict[str, object]:
    """Show the statements of each attempt, from BEGIN to COMMIT or ROLLBACK."""
    statements = request.registry[RECORDINGS].get(request.matchdict["token"])
    timeline = statements.timeline if statements is not None else []
    shown = [item for item in timeline if getattr(item, "kind", None) not in HIDDEN_KINDS]
    return {
        "found": statements.n_plus_one if statements is not None else [],
        "attempts": [
            [_row(item) for item in items] for _, items in groupby(shown, attrgetter("attempt"))
        ],
    }


def _row(item: Any) -> dict[str, object]:
    """Return the row for *item*, which is a statement or a step of a transaction."""
    outcome = getattr(item, "outcome", None) or ""
    undone = item.error or outcome.startswith("rolled back")
    return {
        "statement": item.statement,
        "milliseconds": f"{item.duration * 1000:.2f}",
        "parameters": getattr(item, "parameters", None),
        "line": getattr(item, "line", None),
        "lazy_load": getattr(item, "lazy_load", None),
        "result": item.error or outcome,
        # The colours of the page.
        "tone": "gone" if undone else "kept" if outcome == "committed" else "",
    }

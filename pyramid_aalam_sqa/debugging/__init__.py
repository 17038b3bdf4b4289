"""See what the database was asked, and what became of it: for developers and for monitors."""

from ..exceptions import NPlusOneError
from .health import add_sqa_health
from .lazy_loads import NPlusOne
from .lines import Line
from .recorded import recorded
from .recording import Statement, Statements, Step
from .request_recording import includeme

__all__ = [
    "Line",
    "NPlusOne",
    "NPlusOneError",
    "Statement",
    "Statements",
    "Step",
    "add_sqa_health",
    "includeme",
    "recorded",
]

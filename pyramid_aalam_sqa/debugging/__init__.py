"""See what the database was asked, and what became of it: for developers and for monitors."""

from ..exceptions import NPlusOneError
from .health import add_sqa_health
from .lazy_loads import NPlusOne
from .lines import Line
from .pshell import setup_pshell
from .recorded import recorded
from .request_recording import includeme
from .statements import Statement, Statements, Step, Totals
from .tracing import trace_transactions

__all__ = [
    "Line",
    "NPlusOne",
    "NPlusOneError",
    "Statement",
    "Statements",
    "Step",
    "Totals",
    "add_sqa_health",
    "includeme",
    "recorded",
    "setup_pshell",
    "trace_transactions",
]

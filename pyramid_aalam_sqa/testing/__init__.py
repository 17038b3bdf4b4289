"""What an application's own tests need: isolation, outcomes, faults, statements, databases."""

from ..exceptions import SandboxError
from .client import client_of, dummy_request, serving
from .databases import database_for_tests
from .faults import Fault, Faults
from .outcomes import Outcomes
from .sandbox import Sandbox, isolated
from .session import SandboxSession

__all__ = [
    "Fault",
    "Faults",
    "Outcomes",
    "Sandbox",
    "SandboxError",
    "SandboxSession",
    "client_of",
    "database_for_tests",
    "dummy_request",
    "isolated",
    "serving",
]

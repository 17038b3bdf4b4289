"""What an application's own tests need: isolation, outcomes, faults, statements, databases."""

from ..exceptions import SandboxError
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
    "isolated",
]

"""Everything that knows Pyramid: the include, the request's life, the outcome, retries."""

from .config import includeme
from .context_factory import context_factory
from .events import AttemptFailed, OutcomeUnknown, PartialCommit
from .json_renderer import add_json_adapters
from .outcome import commit_veto, rollback_tween_factory
from .request import SqaRequest
from .retry import retry_tween_factory
from .transactions import request_manager

__all__ = [
    "AttemptFailed",
    "OutcomeUnknown",
    "PartialCommit",
    "SqaRequest",
    "add_json_adapters",
    "commit_veto",
    "context_factory",
    "includeme",
    "request_manager",
    "retry_tween_factory",
    "rollback_tween_factory",
]

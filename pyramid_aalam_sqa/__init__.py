"""A SQLAlchemy session for each Pyramid request that commits when the response says so."""

from ._config import includeme
from ._faults import IDatabaseUnavailable
from ._outcome import commit_veto, fresh_start_tween_factory
from ._protocols import HasRegistry, TransactionManager
from ._request import SqaRequest
from ._retry import retry_tween_factory
from ._sqa import Sqa, engine_from_settings, get_sqa
from .exceptions import (
    BrokenTransaction,
    ForeignCommit,
    NoTransaction,
    OutcomeUnknown,
    ProvisioningError,
    SettingError,
    SqaError,
    TransactionError,
)

__all__ = [
    "BrokenTransaction",
    "ForeignCommit",
    "HasRegistry",
    "IDatabaseUnavailable",
    "NoTransaction",
    "OutcomeUnknown",
    "ProvisioningError",
    "SettingError",
    "Sqa",
    "SqaError",
    "SqaRequest",
    "TransactionError",
    "TransactionManager",
    "commit_veto",
    "engine_from_settings",
    "fresh_start_tween_factory",
    "get_sqa",
    "includeme",
    "retry_tween_factory",
]

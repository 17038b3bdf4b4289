"""A SQLAlchemy session for each Pyramid request that commits when the response says so."""

from ._config import includeme
from ._outcome import commit_veto
from ._request import SqaRequest
from ._sqa import HasRegistry, Sqa, engine_from_settings, get_sqa
from .exceptions import ForeignCommit, NoTransaction, SettingError, SqaError, TransactionError

__all__ = [
    "ForeignCommit",
    "HasRegistry",
    "NoTransaction",
    "SettingError",
    "Sqa",
    "SqaError",
    "SqaRequest",
    "TransactionError",
    "commit_veto",
    "engine_from_settings",
    "get_sqa",
    "includeme",
]

"""A SQLAlchemy session for each Pyramid request that commits when the response says so."""

from ._config import includeme
from ._faults import IDatabaseUnavailable
from ._json import add_json_adapters
from ._outcome import commit_veto, fresh_start_tween_factory
from ._protocols import HasRegistry, TransactionManager
from ._request import SqaRequest
from ._retry import retry_tween_factory
from ._session import JoinedSession
from ._sqa import Sqa, engine_from_settings, get_sqa
from ._threads import ThreadSessions
from .applications import Session, database_name, get_database_name, init_engine
from .binds import create_all, drop_all, reflect
from .exceptions import (
    BindError,
    BrokenTransaction,
    ForeignCommit,
    NoTransaction,
    OutcomeUnknown,
    PartialCommit,
    ProvisioningError,
    SettingError,
    SqaError,
    TransactionError,
)
from .pagination import KeysetPage, Page, paginate
from .queries import LookUpSession, first_or_404, get_or_404, one_or_404, row_factory
from .scripting import SessionScope, session_scope

__all__ = [
    "BindError",
    "BrokenTransaction",
    "ForeignCommit",
    "HasRegistry",
    "IDatabaseUnavailable",
    "JoinedSession",
    "KeysetPage",
    "LookUpSession",
    "NoTransaction",
    "OutcomeUnknown",
    "Page",
    "PartialCommit",
    "ProvisioningError",
    "Session",
    "SessionScope",
    "SettingError",
    "Sqa",
    "SqaError",
    "SqaRequest",
    "ThreadSessions",
    "TransactionError",
    "TransactionManager",
    "add_json_adapters",
    "commit_veto",
    "create_all",
    "database_name",
    "drop_all",
    "engine_from_settings",
    "first_or_404",
    "fresh_start_tween_factory",
    "get_database_name",
    "get_or_404",
    "get_sqa",
    "includeme",
    "init_engine",
    "one_or_404",
    "paginate",
    "reflect",
    "retry_tween_factory",
    "row_factory",
    "session_scope",
]

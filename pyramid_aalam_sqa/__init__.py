"""A SQLAlchemy session for each Pyramid request that commits when the response says so."""

from .applications import (
    Session,
    SessionScope,
    Sqa,
    create_all,
    drop_all,
    engine_from_settings,
    get_database_name,
    get_sqa,
    init_engine,
    reflect,
    session_scope,
)
from .exceptions import (
    BindError,
    BrokenTransactionError,
    CommitNotAllowedError,
    OutcomeUnknownError,
    OutsideTransactionError,
    PartialCommitError,
    ProvisioningError,
    SettingError,
    SqaError,
    TransactionError,
)
from .interfaces import HasRegistry, IDatabaseUnavailable, TransactionManager
from .pagination import KeysetPage, Page, paginate
from .queries import SqaSession, first_or_404, get_or_404, one_or_404
from .requests import (
    SqaRequest,
    add_json_adapters,
    commit_veto,
    context_factory,
    includeme,
    retry_tween_factory,
    rollback_tween_factory,
)
from .sessions import ScopedSession
from .settings import database_name

__all__ = [
    "BindError",
    "BrokenTransactionError",
    "CommitNotAllowedError",
    "HasRegistry",
    "IDatabaseUnavailable",
    "KeysetPage",
    "OutcomeUnknownError",
    "OutsideTransactionError",
    "Page",
    "PartialCommitError",
    "ProvisioningError",
    "ScopedSession",
    "Session",
    "SessionScope",
    "SettingError",
    "Sqa",
    "SqaError",
    "SqaRequest",
    "SqaSession",
    "TransactionError",
    "TransactionManager",
    "add_json_adapters",
    "commit_veto",
    "context_factory",
    "create_all",
    "database_name",
    "drop_all",
    "engine_from_settings",
    "first_or_404",
    "get_database_name",
    "get_or_404",
    "get_sqa",
    "includeme",
    "init_engine",
    "one_or_404",
    "paginate",
    "reflect",
    "retry_tween_factory",
    "rollback_tween_factory",
    "session_scope",
]

"""A SQLAlchemy session for each Pyramid request that commits when the response says so."""

import typing

from .applications import (
    DatabaseStats,
    Holder,
    Session,
    SessionScope,
    Sqa,
    Stats,
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
    ReadOnlyRequestError,
    SettingError,
    SqaError,
    TransactionError,
)
from .interfaces import HasRegistry, IDatabaseUnavailable, TransactionManager
from .queries import SqaSession, first_or_404, get_or_404, one_or_404
from .requests import (
    AttemptFailed,
    OutcomeUnknown,
    PartialCommit,
    SqaRequest,
    add_json_adapters,
    commit_veto,
    context_factory,
    includeme,
    request_manager,
    retry_tween_factory,
    rollback_tween_factory,
)
from .sessions import ScopedSession
from .settings import database_name

if typing.TYPE_CHECKING:
    from .pagination import KeysetPage, Page, paginate, paginate_keyset

__version__ = "0.1.0"

__all__ = [
    "AttemptFailed",
    "BindError",
    "BrokenTransactionError",
    "CommitNotAllowedError",
    "DatabaseStats",
    "HasRegistry",
    "Holder",
    "IDatabaseUnavailable",
    "KeysetPage",
    "OutcomeUnknown",
    "OutcomeUnknownError",
    "OutsideTransactionError",
    "Page",
    "PartialCommit",
    "PartialCommitError",
    "ProvisioningError",
    "ReadOnlyRequestError",
    "ScopedSession",
    "Session",
    "SessionScope",
    "SettingError",
    "Sqa",
    "SqaError",
    "SqaRequest",
    "SqaSession",
    "Stats",
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
    "paginate_keyset",
    "reflect",
    "request_manager",
    "retry_tween_factory",
    "rollback_tween_factory",
    "session_scope",
]


def __getattr__(name: str) -> object:
    """Return a name of the room ``pagination``, which is imported at its first use."""
    if name not in {"KeysetPage", "Page", "paginate", "paginate_keyset"}:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from . import pagination  # noqa: PLC0415 - many applications show no pages

    return getattr(pagination, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

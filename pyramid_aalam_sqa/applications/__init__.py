"""What one application has, the portal's vocabulary, and work outside a request."""

from .application import REGISTRY_KEY, Sqa, engine_from_settings, get_sqa
from .directory import APPLICATION_KEY, announce
from .portal import Session, get_database_name, init_engine
from .scope import SessionScope, session_scope
from .tables import create_all, drop_all, reflect

__all__ = [
    "APPLICATION_KEY",
    "REGISTRY_KEY",
    "Session",
    "SessionScope",
    "Sqa",
    "announce",
    "create_all",
    "drop_all",
    "engine_from_settings",
    "get_database_name",
    "get_sqa",
    "init_engine",
    "reflect",
    "session_scope",
]

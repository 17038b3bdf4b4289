"""The engines and sessions of one application, the portal's functions, work outside a request."""

from .application import REGISTRY_KEY, Sqa, engine_from_settings, get_sqa
from .directory import APPLICATION_KEY, RegisteredApplication, application_of, directory
from .portal import Session, get_database_name, init_engine
from .reading import ReadingEngines
from .scope import SessionScope, session_scope
from .session_factory import SessionFactory
from .stats import Counters, DatabaseStats, Holder, Stats, pool_numbers
from .tables import create_all, drop_all, metadatas_of, reflect

__all__ = [
    "APPLICATION_KEY",
    "REGISTRY_KEY",
    "Counters",
    "DatabaseStats",
    "Holder",
    "ReadingEngines",
    "RegisteredApplication",
    "Session",
    "SessionFactory",
    "SessionScope",
    "Sqa",
    "Stats",
    "application_of",
    "create_all",
    "directory",
    "drop_all",
    "engine_from_settings",
    "get_database_name",
    "get_sqa",
    "init_engine",
    "metadatas_of",
    "pool_numbers",
    "reflect",
    "session_scope",
]

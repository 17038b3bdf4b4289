"""Migrations by Alembic: the application's own engine, one run at a time, and how far it came.

An env.py is three lines::

    from pyramid_aalam_sqa.migrations import run
    from notes.models import Base

    run(Base)

``psqa upgrade`` does it for one database or for a thousand, as the owner account.
"""

try:
    import alembic  # noqa: F401 - to say how to install it, where it is missing
except ImportError:
    _MESSAGE = "Migrations need Alembic: pip install 'pyramid_aalam_sqa[migrations]'"
    raise ImportError(_MESSAGE, name="alembic") from None

from ..exceptions import MigrationError
from .configure import run
from .head import Heads, alembic_config, upgrade_to_head

__all__ = ["Heads", "MigrationError", "alembic_config", "run", "upgrade_to_head"]

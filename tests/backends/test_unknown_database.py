"""A product that this package does not know, and which promises are kept there."""

from sqlalchemy import create_engine, text
from transaction import TransactionManager

from pyramid_aalam_sqa.backends.backend import Backend
from pyramid_aalam_sqa.engines.errors import install_listeners
from pyramid_aalam_sqa.sessions.session import JoinedSession


def test_a_late_session_reads_a_database_that_knows_no_read_only_transaction(sqlite):
    """No read-only statement is sent to an unknown product, and reading works."""
    engine = create_engine(sqlite.url)
    install_listeners(engine, Backend(engine.url, {"retry_codes": None}))
    session = JoinedSession(engine, tm=TransactionManager(explicit=True))

    assert session.scalar(text("SELECT 1")) == 1
    session.end()
    engine.dispose()

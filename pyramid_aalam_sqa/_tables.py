"""A stand-in until the real one is merged."""

from sqlalchemy import MetaData
from sqlalchemy.engine import Engine


def create_tables(engine: Engine, metadata: MetaData, name: str) -> None:
    """Create what is missing."""
    metadata.create_all(engine)

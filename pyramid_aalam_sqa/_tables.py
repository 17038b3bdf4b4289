"""A stand-in until the real one is merged."""

from collections.abc import Sequence

from sqlalchemy import MetaData, Table
from sqlalchemy.engine import Engine


def create_tables(
    engine: Engine, metadata: MetaData, name: str | None, tables: Sequence[Table] | None = None
) -> None:
    """Create what is missing of *tables*, which are all of *metadata* when they are not given."""
    metadata.create_all(engine, tables=tables)

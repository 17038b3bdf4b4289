"""The one table."""

from sqlalchemy import Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from .meta import Base


class MyModel(Base):
    """A name that is used once, and its value."""

    __tablename__ = "models"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    value: Mapped[int | None]


Index("my_index", MyModel.name, unique=True, mysql_length=255)

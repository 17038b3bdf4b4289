"""The models that most tests need: notes with a body."""

from sqlalchemy import String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

INSERT = text("INSERT INTO note (body) VALUES (:body)")
BODIES = "SELECT body FROM note ORDER BY body"


class Base(DeclarativeBase):
    """The base of Note; a test with other models declares a base of its own for them."""


class Note(Base):
    """A row with a number and a text."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str] = mapped_column(String(50))

"""Two authors with four notes, for the tests of look-ups."""

from sqlalchemy import JSON, ForeignKey, String, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from support.databases import plain_engine


class Base(DeclarativeBase):
    """The models of the look-ups."""


class Author(Base):
    """An author with notes, and perhaps a nickname."""

    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(20))
    nickname: Mapped[str | None] = mapped_column(String(20))
    extra: Mapped[dict] = mapped_column(JSON)
    notes: Mapped[list["Note"]] = relationship(order_by="Note.number", back_populates="author")


class Note(Base):
    """A note, whose primary key is its author and its number."""

    __tablename__ = "note"
    author_id: Mapped[int] = mapped_column(ForeignKey(Author.id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    body: Mapped[str] = mapped_column(String(20))
    author: Mapped[Author] = relationship(back_populates="notes")


ADA = {"id": 1, "name": "Ada", "nickname": None, "extra": {"age": [36]}}
BOB = {"id": 2, "name": "Bob", "nickname": "B", "extra": {}}
NOTES = [(1, 1, "one"), (1, 2, "two"), (1, 3, "three"), (2, 1, "one")]


def fill(url):
    """Make the tables on the database at *url*, with their rows."""
    engine = plain_engine(url)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(Author), [ADA, BOB])
        keys = ("author_id", "number", "body")
        connection.execute(insert(Note), [dict(zip(keys, note, strict=True)) for note in NOTES])

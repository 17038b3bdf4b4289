"""What the tests of pages have in common: tables, rows, and a walk from page to page."""

from contextlib import contextmanager

from sqlalchemy import ForeignKey, String, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from pyramid_aalam_sqa import paginate_keyset

SECRET = "known to the tests alone"


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(20))
    notes: Mapped[list["Note"]] = relationship(back_populates="author")


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    author_id: Mapped[int | None] = mapped_column(ForeignKey("author.id"))
    title: Mapped[str | None] = mapped_column(String(20))
    author: Mapped[Author | None] = relationship(back_populates="notes")


class Employee(Base):
    __tablename__ = "employee"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(10))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "e"}  # noqa: RUF012


class Manager(Employee):
    __tablename__ = "manager"
    id: Mapped[int] = mapped_column(ForeignKey("employee.id"), primary_key=True)
    __mapper_args__ = {"polymorphic_identity": "m"}  # noqa: RUF012


@contextmanager
def opened(engine, *rows):
    """A session on the tables, with *rows* in them; nothing of it is left afterwards."""
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(rows)
        session.commit()
        yield session
    Base.metadata.drop_all(engine)


def library():
    """Five authors, two of one name, with none to four notes each, and a note of nobody's."""
    for number, name in enumerate(["Ada", "Grace", "Mary", "Ada", "Zoe"], 1):
        yield Author(id=number, name=name)
        for note in range(number - 1):
            yield Note(id=number * 10 + note, author_id=number, title=f"t{note % 2}")
    yield Note(id=1, author_id=None, title=None)
    yield from (Manager(id=1), Employee(id=2), Manager(id=3))


@contextmanager
def sent(session):
    """The SELECTs that are sent."""
    statements = []

    def note(_connection, _cursor, statement, *_):
        if statement.startswith("SELECT"):
            statements.append(" ".join(statement.split()))

    engine = session.get_bind()
    event.listen(engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine, "before_cursor_execute", note)


def walk(page, backwards=False, most=100):
    """The rows of *page* and of all pages after it, or before it, in their order."""
    found = list(page.items)
    for _ in range(most):
        if not (page.has_prev if backwards else page.has_next):
            return found
        page = page.prev() if backwards else page.next()
        found = page.items + found if backwards else found + page.items
    raise AssertionError("the pages have no end")


def first_page(session, statement, size=2, **options):
    """The first keyset page, or with ``after`` or ``before`` another one."""
    return paginate_keyset(
        session, statement, **{"per_page": size, "secret": SECRET, "url": "/", **options}
    )


def last_page(session, statement, size=2):
    """The last keyset page, by the cursor that leads there."""
    last = first_page(session, statement, size).last_url
    return first_page(session, statement, size, before=last.partition("before=")[2])


def plain(items):
    """*items* as values that can be compared, and sorted."""
    return [
        str(
            tuple(
                getattr(part, "id", part) for part in (item if isinstance(item, tuple) else [item])
            )
        )
        for item in items
    ]


def all_of(session, statement):
    """What *statement* selects, without any page."""
    try:
        rows = session.execute(statement).all()
    except InvalidRequestError:
        # SQLAlchemy demands it where a joined eager load repeats an object.
        rows = session.execute(statement).unique().all()
    return [row[0] if len(row) == 1 else row for row in rows]

"""Models in three databases, and an application that has them."""

from contextlib import ExitStack, contextmanager

from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.pool import QueuePool
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa
from support.databases import plain_engine

KEYS = ("default", "audit", "log")
NAME = String(50)


class Base(DeclarativeBase):
    """The default database."""


class Logged(Base):
    """An abstract base of models that are elsewhere, in the same MetaData."""

    __abstract__ = True
    __bind_key__ = "log"


class AuditBase(DeclarativeBase):
    __bind_key__ = "audit"


audit_metadata = MetaData(info={"bind_key": "audit"})


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(NAME)
    books: Mapped[list["Book"]] = relationship(back_populates="author")
    # In another database: nothing but the numbers agree.
    entries: Mapped[list["Entry"]] = relationship(
        lambda: Entry,
        primaryjoin=lambda: Author.id == Entry.author_id,
        foreign_keys=lambda: Entry.author_id,
    )


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(NAME)
    author_id: Mapped[int | None] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author | None] = relationship(back_populates="books")


entry_tag = Table(
    "entry_tag",
    AuditBase.metadata,
    Column("entry_id", ForeignKey("entry.id"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id"), primary_key=True),
    info={"bind_key": "audit"},
)


class Tag(AuditBase):
    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(NAME)


class Entry(AuditBase):
    __tablename__ = "entry"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "entry"}  # noqa: RUF012 - SQLAlchemy's
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(NAME, default="entry")
    name: Mapped[str] = mapped_column(NAME)
    author_id: Mapped[int | None]
    tags: Mapped[list[Tag]] = relationship(secondary=entry_tag)


class Detail(Entry):
    __tablename__ = "detail"
    __mapper_args__ = {"polymorphic_identity": "detail"}  # noqa: RUF012 - SQLAlchemy's
    id: Mapped[int] = mapped_column(ForeignKey("entry.id"), primary_key=True)
    more: Mapped[str] = mapped_column(NAME)


class Line(Logged):
    __tablename__ = "line"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(NAME)


stamp = Table(
    "stamp", audit_metadata, Column("id", Integer, primary_key=True), Column("name", NAME)
)
mark = Table(
    "mark",
    Base.metadata,
    Column("id", Integer, primary_key=True),
    Column("name", NAME),
    info={"bind_key": "log"},
)
author, book = Author.__table__, Book.__table__
entry, detail, tag = Entry.__table__, Detail.__table__, Tag.__table__
line = Line.__table__
HOME = {
    "default": [author, book],
    "audit": [tag, entry, entry_tag, detail, stamp],
    "log": [line, mark],
}


TABLES = [table for tables in HOME.values() for table in tables]


class Place:
    """Databases that all have all tables, so that a statement that goes astray is no error.

    Each table has one row, whose name is that of its database.
    """

    def __init__(self, databases):
        self.databases = dict(zip(KEYS, databases, strict=True))
        self.kinds = "+".join(database.kind for database in databases)
        self._stack = ExitStack()
        self._eyes = {}
        for key, database in self.databases.items():
            self._fill(key, database)

    def _fill(self, key, database):
        engine = plain_engine(database.url, poolclass=QueuePool, isolation_level="AUTOCOMMIT")
        self._stack.callback(engine.dispose)
        self._eyes[key] = engine
        values = {"id": 1, "name": key, "kind": "detail", "more": key, "author_id": 1}
        # In one transaction: an SQLite file is written to the disk at each COMMIT.
        with plain_engine(database.url).begin() as connection:
            for metadata in (Base.metadata, AuditBase.metadata, audit_metadata):
                metadata.create_all(connection)
            for table in TABLES:
                own = {name: value for name, value in values.items() if name in table.c}
                links = {"entry_id": 1, "tag_id": 1} if table is entry_tag else {}
                connection.execute(table.insert().values({**own, **links}))
            if database.kind == "postgresql":
                for table in TABLES:
                    if table is not entry_tag and table is not detail:
                        connection.execute(text(f"ALTER SEQUENCE {table.name}_id_seq RESTART 2"))

    @property
    def settings(self):
        urls = {key: database.url for key, database in self.databases.items()}
        return {
            "sqlalchemy.url": urls["default"],
            "sqlalchemy.binds.audit.url": urls["audit"],
            "sqlalchemy.binds.log.url": urls["log"],
            "sqa.retry_pause": "0",
        }

    def rows(self, table, key):
        """Return the rows that an independent connection finds."""
        with self._eyes[key].connect() as connection:
            return {tuple(row) for row in connection.execute(table.select())}

    def names(self, table=None):
        """Return where each name is, of one table or of all: the keys of its databases."""
        found = {}
        for each in [table] if table is not None else TABLES:
            if "name" in each.c:
                for key in KEYS:
                    for row in self.rows(each, key):
                        found.setdefault(row[list(each.c.keys()).index("name")], set()).add(key)
        return {name: keys for name, keys in found.items() if name not in KEYS}

    def everything(self):
        """Return all rows by database."""
        return {
            key: {(table.name, row) for table in TABLES for row in self.rows(table, key)}
            for key in KEYS
        }

    def close(self):
        self._stack.close()


def view(request):
    result = request.environ["sqa.act"](request)
    return Response(str(result), status=request.environ.get("sqa.status", 200))


@contextmanager
def serving(settings, *setups):
    """Yield a client of an application that does what the environ says."""
    with Configurator(settings=dict(settings)) as config:
        config.include("pyramid_aalam_sqa")
        config.add_view(view)
        for setup in setups:
            setup(config)
    app = config.make_wsgi_app()
    try:
        yield TestApp(app, lint=False)
    finally:
        get_sqa(app).dispose()


def do(client, act, status=200, **options):
    """Have the view call *act* with its request."""
    return client.get("/", extra_environ={"sqa.act": act, "sqa.status": status}, **options)


def engines(client):
    return get_sqa(client.app).engines


def fail_after(function, *args):
    function(*args)
    raise ZeroDivisionError

"""The models of an application as its author writes them, once for all databases.

Run as a script, this module starts many workers at the same moment, which all create the tables.
"""

import json
import os
import sys
from types import SimpleNamespace

from sqlalchemy import Column, Enum, ForeignKey, Index, Integer, String, Table, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from pyramid_aalam_sqa import engine_from_settings
from pyramid_aalam_sqa.engines.tables import create_tables

WORKERS = 40
# The tables of models().
TABLES = ["admins", "posts", "table-1", "users"]


def models(schema):
    """Return the models with *schema*, or without one if it is None."""

    class Base(DeclarativeBase):
        __table_args__ = {"schema": schema}  # noqa: RUF012 - as every model has it

    class User(Base):
        __tablename__ = "users"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(50), unique=True)
        kind: Mapped[str] = mapped_column(String(10))
        posts = relationship("Post", back_populates="user", order_by="Post.id")
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "user"}  # noqa: RUF012 - as above

    class Admin(User):
        __tablename__ = "admins"
        id: Mapped[int] = mapped_column(ForeignKey(User.id), primary_key=True)
        level: Mapped[int]
        __mapper_args__ = {"polymorphic_identity": "admin"}  # noqa: RUF012 - as above

    class Post(Base):
        __tablename__ = "posts"
        __table_args__ = (Index("ix_posts_title", "title"), {"schema": schema})
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str] = mapped_column(String(50))
        user_id: Mapped[int] = mapped_column(ForeignKey(User.id))
        user = relationship(User, back_populates="posts")

    odd = Table(
        "table-1",
        Base.metadata,
        Column("id", Integer, primary_key=True),
        Column("order", String(20)),
        schema=schema,
    )
    return SimpleNamespace(Base=Base, User=User, Admin=Admin, Post=Post, odd=odd)


def created(place, schema):
    """Return the models with *schema*, their tables created by a new ``engine`` of *place*."""
    model = models(schema)
    model.engine = place.engine()
    model.Base.metadata.create_all(model.engine)
    return model


def many_tables(name):
    """Return tables enough that workers which create them at once get in each other's way."""
    metadata = models(name).Base.metadata
    for number in range(3):
        Table(
            f"more{number}",
            metadata,
            Column("id", Integer, primary_key=True),
            Column("kind", Enum("a", "b", name=f"kind{number}")),
            Column("user_id", ForeignKey(f"{name}.users.id")),
            schema=name,
        )
    return metadata


def master(settings, name):
    """Start the workers at the same moment; return the exit status of each."""
    metadata = many_tables(name)
    # Imports what the workers need, so that each inherits it.
    engine_from_settings(settings).dispose()
    start, gun = os.pipe()
    pids = []
    for _ in range(WORKERS):
        pid = os.fork()
        if pid == 0:
            os.close(gun)
            os.read(start, 1)
            engine = engine_from_settings(settings)
            create_tables(engine, metadata, name)
            with engine.connect() as connection:
                connection.execute(text("SELECT count(*) FROM more2")).scalar()
            os._exit(0)
        pids.append(pid)
    # All workers see the end of the pipe at once.
    os.close(gun)
    return [os.waitpid(pid, 0)[1] for pid in pids]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(master(json.loads(sys.argv[1]), sys.argv[2])))

"""The models of an application as its author writes them, once for all databases.

Run as a script this module is a master that starts many workers at the same moment.
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


def models(schema):
    """Return them with *schema*, or without any."""

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


def many_tables(name):
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
    """Start the workers at the same moment; return how each has ended."""
    metadata = many_tables(name)
    # The workers inherit what is imported for it.
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
    # Nobody writes to it: all see its end at once.
    os.close(gun)
    return [os.waitpid(pid, 0)[1] for pid in pids]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(master(json.loads(sys.argv[1]), sys.argv[2])))

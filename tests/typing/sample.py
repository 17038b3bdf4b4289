"""A typed application: checked by mypy and pyright, never run."""

from collections.abc import Sequence
from typing import assert_type

from pyramid.response import Response
from sqlalchemy import select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from transaction import TransactionManager as ExplicitManager

from pyramid_aalam_sqa import (
    JoinedSession,
    SettingError,
    Sqa,
    SqaRequest,
    TransactionManager,
    commit_veto,
    database_name,
    engine_from_settings,
    get_database_name,
    get_sqa,
    init_engine,
    session_scope,
)
from pyramid_aalam_sqa import Session as ThreadSession


class Base(DeclarativeBase):
    """The application's models."""


class User(Base):
    """Somebody."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def view(request: SqaRequest) -> Response:
    """What a view sees of its request."""
    assert_type(request.sqa_session, Session)
    assert_type(request.sqa_session.get(User, 1), User | None)
    assert_type(request.sqa_session.scalars(select(User.name)).all()[0], str)
    assert_type(get_sqa(request), Sqa)
    return Response("ok")


def script(settings: dict[str, str], request: SqaRequest, tm: TransactionManager) -> Engine:
    """What a script sees of an application."""
    try:
        engine = engine_from_settings(settings)
    except SettingError:
        engine = get_sqa(request).engine
    assert_type(engine, Engine)
    assert_type(get_sqa(request).session(tm), Session)
    assert_type(get_sqa(request).session(ExplicitManager(explicit=True)), Session)
    assert_type(commit_veto(request, Response("no", status=404)), bool)
    return engine


@session_scope("aalam_base", attempts=3)
def job(session: JoinedSession, name: str, *, times: int = 1) -> int:
    """What a decorated function is handed."""
    assert_type(session.scalars(select(User.name)).all(), Sequence[str])
    session.tm.doom()
    return times


def jobs() -> None:
    """What callers of jobs see, and sessions of threads."""
    assert_type(job("name", times=2), int)
    assert_type(init_engine(get_database_name(), Base, create_tables=True), Engine)
    assert_type(database_name("aalam", "base"), str)
    with session_scope() as session:
        assert_type(session.get(User, 1), User | None)
    thread = ThreadSession("aalam_base")
    assert_type(thread.get(User, 1), User | None)
    thread.commit()
    thread.remove()
    thread().remove()

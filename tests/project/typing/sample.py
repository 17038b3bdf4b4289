"""A typed application: checked by mypy and pyright, never run."""

from collections.abc import Callable, Sequence
from typing import Any, assert_type

from pyramid.response import Response
from sqlalchemy import select, text
from sqlalchemy.engine import Engine, Row
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from transaction import TransactionManager as ExplicitManager

from pyramid_aalam_sqa import (
    BindError,
    KeysetPage,
    Page,
    PartialCommitError,
    Session,
    SettingError,
    Sqa,
    SqaRequest,
    SqaSession,
    TransactionManager,
    commit_veto,
    context_factory,
    create_all,
    database_name,
    engine_from_settings,
    first_or_404,
    get_database_name,
    get_or_404,
    get_sqa,
    init_engine,
    one_or_404,
    paginate,
    paginate_keyset,
    session_scope,
)
from pyramid_aalam_sqa import Session as ThreadSession


class Base(DeclarativeBase):
    """The application's models."""


class User(Base):
    """A user."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def view(request: SqaRequest) -> Response:
    """Use what a view gets from its request."""
    assert_type(request.sqa_session, SqaSession)
    assert_type(request.sqa_session.get(User, 1), User | None)
    assert_type(request.sqa_session.scalars(select(User.name)).all()[0], str)
    assert_type(request.sqa_sessions["audit"], SqaSession)
    assert_type(get_sqa(request), Sqa)
    return Response("ok")


def script(settings: dict[str, str], request: SqaRequest, tm: TransactionManager) -> Engine:
    """Use what a script gets from an application."""
    try:
        engine = engine_from_settings(settings)
    except SettingError:
        engine = get_sqa(request).engine
    assert_type(engine, Engine)
    assert_type(get_sqa(request).session(tm), SqaSession)
    assert_type(get_sqa(request).session(tm, bind_key="audit"), SqaSession)
    assert_type(get_sqa(request).engine_for("audit"), Engine)
    assert_type(get_sqa(request).engines["audit"], Engine)
    create_all(request, Base, bind_key="audit")
    try:
        request.tm.commit()
    except PartialCommitError as error:
        assert_type(error.stored, tuple[str, ...])
        assert_type(error.not_stored, tuple[str, ...])
        assert_type(error.unknown, tuple[str, ...])
    except BindError:
        pass
    assert_type(get_sqa(request).session(ExplicitManager(explicit=True)), SqaSession)
    assert_type(commit_veto(request, Response("no", status=404)), bool)
    return engine


@session_scope("aalam_base", attempts=3)
def job(session: SqaSession, name: str, *, times: int = 1) -> int:
    """Use what a decorated function gets."""
    assert_type(session.scalars(select(User.name)).all(), Sequence[str])
    return times


def jobs() -> None:
    """Call jobs, and use the sessions of threads."""
    assert_type(job("name", times=2), int)
    assert_type(init_engine(get_database_name(), Base, create_tables=True), Engine)
    assert_type(database_name("aalam", "base"), str)
    with session_scope() as session:
        assert_type(session.get(User, 1), User | None)
        session.tm.doom()
    thread = ThreadSession("aalam_base")
    assert_type(thread.get(User, 1), User | None)
    thread.commit()
    thread.remove()
    thread().remove()


def look_ups(request: SqaRequest) -> None:
    """Use what look-ups return, as methods of each session and as functions."""
    session = request.sqa_session
    assert_type(session.get_or_404(User, request.matchdict["id"]), User)
    assert_type(session.get_or_404(User, 1, description="Gone", with_for_update=True), User)
    assert_type(session.first_or_404(select(User)), User)
    assert_type(session.one_or_404(select(User.name)), str)
    assert_type(session.first_or_404(select(User, User.name)), Row[User, str])
    assert_type(session.one_or_404(select(User.id, User.name, User.id)), Row[int, str, int])
    assert_type(session.first_or_404(session.query(User)), User)
    assert_type(session.one_or_404(text("SELECT 1")), Any)
    assert_type(get_or_404(session, User, {"id": 1}), User)
    assert_type(first_or_404(session, select(User), description="Gone"), User)
    assert_type(one_or_404(session, select(User.id, User.name)), Row[int, str])
    assert_type(Session().get_or_404(User, 1), User)
    assert_type(Session()().first_or_404(select(User)), User)
    with session_scope() as scoped:
        assert_type(scoped.one_or_404(select(User.name)), str)


factory: Callable[[SqaRequest], User] = context_factory(User, "id", description="Gone")


def pages(request: SqaRequest) -> None:
    """Use what pages contain, in a request and outside one."""
    page = request.sqa_paginate(select(User), per_page=5, error_out=False)
    assert_type(page, Page[User])
    assert_type(page.next().items, list[User])
    assert_type(list(page.iter_pages()), list[int | None])
    assert_type(request.sqa_paginate_keyset(select(User.name)), KeysetPage[str])
    assert_type(request.sqa_paginate(select(User.id, User.name)), Page[Any])
    assert_type(paginate(request.sqa_session, select(User), page="2"), Page[User])
    assert_type(paginate_keyset(request.sqa_session, select(User)), KeysetPage[User])
    assert_type(page.next_url, str | None)

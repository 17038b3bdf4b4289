"""A typed application: checked by mypy and pyright, never run."""

from typing import assert_type

from pyramid.response import Response
from sqlalchemy import select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from transaction import TransactionManager as ExplicitManager

from pyramid_aalam_sqa import (
    BindError,
    PartialCommit,
    SettingError,
    Sqa,
    SqaRequest,
    TransactionManager,
    commit_veto,
    create_all,
    engine_from_settings,
    get_sqa,
)


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
    assert_type(request.sqa_sessions["audit"], Session)
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
    assert_type(get_sqa(request).session(tm, bind_key="audit"), Session)
    assert_type(get_sqa(request).engine_for("audit"), Engine)
    assert_type(get_sqa(request).engines["audit"], Engine)
    create_all(request, Base, bind_key="audit")
    try:
        request.tm.commit()
    except PartialCommit as error:
        assert_type(error.stored, tuple[str, ...])
        assert_type(error.not_stored, tuple[str, ...])
        assert_type(error.unknown, tuple[str, ...])
    except BindError:
        pass
    assert_type(get_sqa(request).session(ExplicitManager(explicit=True)), Session)
    assert_type(commit_veto(request, Response("no", status=404)), bool)
    return engine

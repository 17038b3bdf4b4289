"""Objects live as long as their request. Each transaction refreshes them, no change is lost."""

import pytest
from pyramid.events import NewResponse
from pyramid.httpexceptions import HTTPForbidden
from pyramid.response import Response
from sqlalchemy import ForeignKey, String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from webtest import TestApp

from pyramid_aalam_sqa import OutsideTransactionError, get_sqa, session_scope
from support.apps import with_tween_above, with_view
from support.databases import plain_engine


class Base(DeclarativeBase):
    """The models of this test."""


class Group(Base):
    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20))


class User(Base):
    """A user whose failed logins are counted."""

    __tablename__ = "member"
    id: Mapped[int] = mapped_column(primary_key=True)
    failures: Mapped[int] = mapped_column(default=0)
    group_id: Mapped[int] = mapped_column(ForeignKey(Group.id))
    group: Mapped[Group] = relationship()


@pytest.fixture
def failures(any_database):
    """Return how many failures are stored."""
    engine = plain_engine(any_database.url)
    Base.metadata.create_all(engine)
    any_database.run(
        "INSERT INTO team (id, name) VALUES (1, 'staff')",
        "INSERT INTO member (id, failures, group_id) VALUES (1, 0, 1)",
    )
    return lambda: any_database.scalar("SELECT failures FROM member")


def with_user(config):
    """Give each request a user, which is loaded at the first use and kept."""
    config.add_request_method(lambda request: request.sqa_session.get(User, 1), "user", reify=True)


@pytest.fixture
def client_of(serve, any_database, failures):
    """Make a client of an application whose requests have a user."""
    return lambda *setups: TestApp(serve(any_database.url, with_user, *setups))


def checked_out(client):
    return get_sqa(client.app).engine.pool.checkedout()


def test_an_object_is_changed_in_the_next_transaction_of_its_request(client_of, failures):
    """A view commits, begins again, and changes an object that it loaded before."""

    def view(request):
        assert request.user.failures == 0
        request.tm.commit()
        request.tm.begin()
        request.user.failures += 1
        return Response()

    client_of(with_view(view)).get("/")

    assert failures() == 1


def test_an_object_is_fresh_in_the_next_transaction(client_of, any_database, failures):
    """It shows what others have committed in between, and does not overwrite that."""

    def view(request):
        assert request.user.failures == 0
        request.tm.commit()
        any_database.run("UPDATE member SET failures = 5")
        request.tm.begin()
        request.user.failures += 1
        return Response()

    client_of(with_view(view)).get("/")

    assert failures() == 6


@pytest.mark.parametrize("status", [200, 500])
def test_an_exception_view_changes_an_object_and_its_status_decides(client_of, failures, status):
    """The view's own changes are undone before."""

    def view(request):
        request.user.failures += 10
        raise ZeroDivisionError

    def page(error, request):
        request.user.failures += 1
        return Response(status=status)

    def setup(config):
        config.add_view(view)
        config.add_exception_view(page, context=ZeroDivisionError)

    client = client_of(setup)
    client.get("/", status=status)

    assert failures() == (1 if status == 200 else 0)
    assert checked_out(client) == 0


class Refusing:
    """A data manager that refuses to commit."""

    def sortKey(self):  # noqa: N802 - transaction's interface
        return "refusing"

    def tpc_begin(self, transaction):
        raise ZeroDivisionError

    def abort(self, transaction):
        """Do nothing, because there is nothing to undo."""

    tpc_abort = abort


@pytest.mark.parametrize("status", [200, 500])
def test_the_page_of_a_failed_commit_changes_an_object_and_its_status_decides(
    client_of, failures, status
):
    """The exception view can use the session. No work of the view itself is stored."""

    def view(request):
        request.user.failures += 10
        request.tm.get().join(Refusing())
        return Response()

    def page(error, request):
        assert request.user.failures == 0
        request.user.failures += 1
        return Response(status=status)

    def setup(config):
        config.add_view(view)
        config.add_exception_view(page, context=ZeroDivisionError)

    client = client_of(setup)
    client.get("/", status=status)

    assert failures() == (1 if status == 200 else 0)
    assert checked_out(client) == 0


@pytest.mark.parametrize("raised", [ZeroDivisionError, HTTPForbidden])
def test_an_error_page_reads_what_the_user_refers_to(client_of, raised):
    """A page that shows the user's group does not get a DetachedInstanceError."""

    def view(request):
        assert request.user.failures == 0
        raise raised

    def page(error, request):
        return Response(request.user.group.name, status=403)

    def setup(config):
        config.add_view(view)
        config.add_exception_view(page, context=raised)

    assert client_of(setup).get("/", status=403).text == "staff"


def change(request):
    request.user.failures += 1


def response_callback(config):
    config.add_view(changing_later)


def changing_later(request):
    assert request.user.failures == 0
    request.add_response_callback(lambda request, response: change(request))
    return Response()


def new_response(config):
    config.add_subscriber(lambda event: change(event.request), NewResponse)
    config.add_view(reading)


def reading(request):
    return Response(str(request.user.failures))


def tween_above(config):
    def tween_factory(handler, registry):
        def tween(request):
            response = handler(request)
            change(request)
            return response

        return tween

    with_tween_above(tween_factory)(config)
    config.add_view(reading)


def finished_callback(config):
    def view(request):
        request.add_finished_callback(change)
        return reading(request)

    config.add_view(view)


@pytest.mark.parametrize("place", [response_callback, new_response, tween_above, finished_callback])
def test_a_change_after_the_transaction_is_noticed(client_of, failures, place):
    """An object of the view is changed too late.

    That is an error, so no change is lost silently.
    """
    client = client_of(place)
    with pytest.raises(OutsideTransactionError, match=r"with request\.tm"):
        client.get("/")

    assert failures() == 0
    assert checked_out(client) == 0


def test_a_callback_reads_what_the_view_has_loaded_without_a_statement(client_of):
    """The commit does not expire objects."""
    seen = []

    def view(request):
        request.add_response_callback(lambda request, response: seen.append(request.user.failures))
        request.user.failures = 3
        return Response()

    client = client_of(with_view(view))
    client.get("/")

    assert seen == [3]
    assert checked_out(client) == 0


def test_a_scope_in_two_parts_keeps_its_objects(client_of, failures):
    """The second transaction of a job changes objects that the first one has loaded."""
    app = client_of().app
    with session_scope(app) as session:
        user = session.get(User, 1)
        user.failures = 1
        session.tm.commit()
        session.tm.begin()
        user.failures += 1

    assert failures() == 2


def test_a_change_between_two_transactions_is_noticed_at_the_next_begin(client_of, failures):
    """The change does not belong to either of them."""

    @session_scope(client_of().app)
    def job(session):
        user = session.get(User, 1)
        session.tm.commit()
        user.failures = 7
        session.tm.begin()

    with pytest.raises(OutsideTransactionError, match=r"with request\.tm"):
        job()

    assert failures() == 0


def test_what_was_rolled_back_is_not_seen_any_more(client_of, failures):
    """A rollback expires objects, and removes new ones from the session."""

    def view(request):
        request.user.failures = 9
        request.sqa_session.add(Group(id=2, name="lost"))
        request.sqa_session.flush()
        request.tm.abort()
        request.tm.begin()
        names = request.sqa_session.scalars(text("SELECT name FROM team")).all()
        return Response(f"{request.user.failures} {names}")

    assert client_of(with_view(view)).get("/").text == "0 ['staff']"

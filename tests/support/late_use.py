"""Places outside a request's transaction, ways of writing there, and what comes of each."""

from contextlib import contextmanager

import pytest
import transaction
from pyramid.events import NewResponse
from pyramid.response import Response
from sqlalchemy import insert, select, text
from webtest import TestApp

from pyramid_aalam_sqa import OutsideTransactionError, get_sqa
from support.apps import make_app, with_tween_above, with_view
from support.databases import plain_engine
from support.models import BODIES, INSERT, Base, Note


def make_tables(database):
    with plain_engine(database.url).begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(INSERT, {"body": "seed"})


def shared_manager(request):
    """The thread's own manager, as an application of old has it."""
    return transaction.manager


def read(session):
    assert session.scalars(select(Note.body)).all() == ["seed"]
    assert session.execute(text("SELECT count(*) FROM note")).scalar() == 1
    assert session.get(Note, 1).body == "seed"


def add(session):
    session.add(Note(body="late"))


def add_and_flush(session):
    session.add(Note(body="late"))
    session.flush()


def change(session):
    session.get(Note, 1).body = "late"


def change_and_flush(session):
    change(session)
    session.flush()


def delete(session):
    session.delete(session.get(Note, 1))


def core_insert(session):
    session.execute(insert(Note).values(body="late"))


def text_insert(session):
    session.execute(INSERT, {"body": "late"})


def driver_sql(session):
    session.connection().exec_driver_sql("INSERT INTO note (body) VALUES ('late')")


def on_the_connection(session):
    session.connection().execute(INSERT, {"body": "late"})


def bulk(session):
    session.bulk_insert_mappings(Note, [{"body": "late"}])


def ddl(session):
    session.execute(text("CREATE TABLE late (id INTEGER)"))


def after_a_refused_one(session):
    """Whoever goes on after the refusal is refused again."""
    with pytest.raises(OutsideTransactionError):
        ddl(session)
    session.rollback()
    text_insert(session)


WRITES = [add, add_and_flush, change, change_and_flush, delete, core_insert, text_insert]


WRITES += [driver_sql, on_the_connection, bulk, ddl, after_a_refused_one]


def session_for_test(request):
    """Return the request's session, or that of the bind that the test names."""
    key = request.environ.get("test.bind")
    return request.sqa_session if key is None else request.sqa_sessions[key]


def act(request):
    """Do in this place what the test asks for, on the session that it asks for."""
    if "sqa.act" in request.environ:
        request.environ["sqa.act"](session_for_test(request))


def touch(request):
    request.sqa_session.execute(text("SELECT 1"))
    return Response("touched")


def before_the_handler(handler, registry):
    def tween(request):
        act(request)
        return handler(request)

    return tween


def after_the_handler(handler, registry):
    def tween(request):
        response = handler(request)
        act(request)
        return response

    return tween


def tween_above_before_the_view(config):
    with_tween_above(before_the_handler)(config)
    config.add_view(touch)


def tween_above_after_the_view(config):
    with_tween_above(after_the_handler)(config)
    config.add_view(touch)


def response_callback(config):
    def view(request):
        request.add_response_callback(lambda request, response: act(request))
        return touch(request)

    config.add_view(view)


def response_callback_at_first_touch(config):
    def view(request):
        request.add_response_callback(lambda request, response: act(request))
        return Response()

    config.add_view(view)


def finished_callback_registered_before_the_first_touch(config):
    def view(request):
        request.add_finished_callback(act)
        return touch(request)

    config.add_view(view)


def finished_callback_registered_after_the_first_touch(config):
    def view(request):
        response = touch(request)
        request.add_finished_callback(act)
        return response

    config.add_view(view)


def finished_callback_at_first_touch(config):
    def view(request):
        request.add_finished_callback(act)
        return Response()

    config.add_view(view)


def new_response_subscriber(config):
    config.add_subscriber(lambda event: act(event.request), NewResponse)
    config.add_view(touch)


def generator_body(config):
    def body(request):
        yield b"first "
        act(request)
        yield b"last"

    def view(request):
        touch(request)
        return Response(app_iter=body(request))

    config.add_view(view)


def generator_body_at_first_touch(config):
    def body(request):
        act(request)
        yield b"all"

    config.add_view(lambda request: Response(app_iter=body(request)))


class Body:
    """An iterator that knows nothing of close()."""

    def __init__(self, request):
        self.request = request
        self.parts = iter([b"all"])

    def __iter__(self):
        return self

    def __next__(self):
        act(self.request)
        return next(self.parts)


def iterator_body(config):
    config.add_view(lambda request: Response(app_iter=Body(request)))


def view_that_pyramid_tm_leaves_alone(config):
    config.add_settings({"tm.activate_hook": lambda request: request.path_info == "/next"})

    def view(request):
        act(request)
        return touch(request)

    config.add_view(view)


def view_between_two_transactions(config):
    def view(request):
        touch(request)
        request.tm.commit()
        act(request)
        request.tm.begin()
        return touch(request)

    config.add_view(view)


OUTSIDE = [
    tween_above_before_the_view,
    tween_above_after_the_view,
    response_callback,
    response_callback_at_first_touch,
    finished_callback_registered_before_the_first_touch,
    finished_callback_registered_after_the_first_touch,
    finished_callback_at_first_touch,
    new_response_subscriber,
    generator_body,
    generator_body_at_first_touch,
    iterator_body,
    view_that_pyramid_tm_leaves_alone,
    view_between_two_transactions,
]


def write_next(request):
    session_for_test(request).execute(INSERT, {"body": "next"})
    return Response()


def serve_on(database, *setups, **settings):
    """Make an application with one connection, so that each request gets that of the last."""
    pool = {"pool_size": "1", "max_overflow": "0", "pool_timeout": "1"}
    given = {f"sqlalchemy.{name}": value for name, value in pool.items()} | settings
    return TestApp(make_app(database.url, with_view(write_next, name="next"), *setups, **given))


def checked_out(client):
    return get_sqa(client.app).engine.pool.checkedout()


@contextmanager
def eyes_of(database):
    """One independent connection, that sees each time what is committed by then."""
    engine = plain_engine(database.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection


def outcome_of(client, eyes, write, environ):
    """What comes of a request that writes late, and of the next one on its connection."""
    try:
        client.get("/", extra_environ={**environ, "sqa.act": write})
        told = "a response"
    except OutsideTransactionError as error:
        told = "advice" if "with request.tm:" in str(error) else str(error)
    left = checked_out(client)
    stored = eyes.scalars(text(BODIES)).all()
    client.get("/next", extra_environ=environ)
    both = eyes.scalars(text(BODIES)).all()
    eyes.execute(text("DELETE FROM note WHERE body = 'next'"))
    return told, left, stored, both


REFUSED = ("advice", 0, ["seed"], ["next", "seed"])


def look_at(place, database, *, environ=(), **settings):
    """Read in *place*, then write there in each way; return what came of it.

    *environ* is what each request has; *database* is the one that is read and written.
    """
    environ = dict(environ)
    client = serve_on(database, place, **settings)
    client.get("/", extra_environ={**environ, "sqa.act": read})
    assert checked_out(client) == 0
    with eyes_of(database) as eyes:
        outcomes = {write.__name__: outcome_of(client, eyes, write, environ) for write in WRITES}
    get_sqa(client.app).dispose()
    return outcomes


ALL_REFUSED = {write.__name__: REFUSED for write in WRITES}


def fail(*_):
    raise ZeroDivisionError

"""Read-only requests over several databases: each is read on a pool of its own."""

import pytest
from pyramid.response import Response
from sqlalchemy import insert, select, text
from sqlalchemy.orm import joinedload
from webtest import TestApp

from pyramid_aalam_sqa import BindError, ReadOnlyRequestError, get_sqa
from support.apps import make_app
from support.bound import Author, Entry, Line


@pytest.fixture
def read(place):
    """Return a function that calls another one with the request of a read-only route."""
    apps = []

    def read(work, **options):
        def setup(config):
            config.add_route("it", "/", **{"sqa_read_only": True, **options})
            config.add_view(lambda request: Response(str(work(request))), route_name="it")

        settings = dict(place.settings)
        app = make_app(settings.pop("sqlalchemy.url"), setup, **settings)
        apps.append(app)
        return TestApp(app).get("/").text, get_sqa(app).reading.by_name()

    yield read
    for app in apps:
        sqa = get_sqa(app)
        pools = [each.pool for each in (*sqa.engines.values(), *sqa.reading.by_name().values())]
        assert sum(pool.checkedout() for pool in pools) == 0
        sqa.dispose()


def test_each_statement_goes_to_the_reading_engine_of_its_tables(read):
    """And an engine is made for those databases alone that are used."""

    def names(request):
        session = request.sqa_session
        found = [session.scalar(select(Author.name)), session.get(Entry, 1).name]
        assert session.connection().engine is get_sqa(request).reading.by_name()["default.reader"]
        return [*found, session.scalars(select(Author)).one().entries[0].name]

    text_of, engines = read(names)

    assert text_of == "['default', 'audit', 'audit']"
    assert list(engines) == ["default.reader", "audit.reader"]


@pytest.mark.parametrize(
    "write",
    [
        lambda request: request.sqa_session.execute(insert(Line.__table__).values(name="x")),
        lambda request: request.sqa_sessions["log"].execute(
            text("INSERT INTO line VALUES (9,'x')")
        ),
        lambda request: request.sqa_sessions["log"].add(Line(name="x")),
        lambda request: request.sqa_session.execute(insert(Line), [{"name": "x"}]),
        lambda request: request.sqa_session.execute(
            insert(Line), [{"name": "x"}], bind_arguments={"bind_key": "log"}
        ),
    ],
    ids=["core", "text by key", "object by key", "bulk", "bulk by key"],
)
@pytest.mark.sweep(1)
def test_a_write_to_any_of_them_is_refused(read, place, write):
    """Through the one session, and through those of one bind each."""
    with pytest.raises(ReadOnlyRequestError, match=r"GET / \(route it\) is read-only"):
        read(write)

    assert place.databases["log"].rows("SELECT name FROM line") == [("log",)]


@pytest.mark.deep
def test_an_object_of_a_session_of_one_bind_that_was_changed_fails_the_request(read):
    """Its change would be lost as well."""

    def change(request):
        request.sqa_sessions["audit"].get(Entry, 1).name = "changed"

    with pytest.raises(ReadOnlyRequestError, match="a Detail that was changed"):
        read(change)


@pytest.mark.parametrize("key", ["default", "audit"])
@pytest.mark.sweep(1)
def test_a_view_continues_with_sessions_that_were_used_before(read, place, key):
    """Also with those of one bind each; what they had pending is written before the view."""

    def root(request):
        request.sqa_sessions[key].add(Line(name="x") if key == "log" else _made(key))
        return {}

    def work(request):
        model = {"default": Author, "audit": Entry}[key]
        with pytest.raises(ReadOnlyRequestError):
            request.sqa_sessions[key].add(_made(key))
        with pytest.raises(ReadOnlyRequestError):
            request.sqa_sessions["log"].execute(text("DELETE FROM line"))
        return len(request.sqa_sessions[key].scalars(select(model)).all())

    view = Guarded(work, place, root)

    assert view.get() == "2"


class Guarded:
    """An application whose view is read-only, after its root factory has used the sessions."""

    def __init__(self, work, place, root):
        def setup(config):
            config.add_route("it", "/", factory=root)
            config.add_view(
                lambda request: Response(str(work(request))), route_name="it", sqa_read_only=True
            )

        settings = dict(place.settings)
        self.app = make_app(settings.pop("sqlalchemy.url"), setup, **settings)

    def get(self):
        try:
            return TestApp(self.app).get("/").text
        finally:
            get_sqa(self.app).dispose()


def _made(key):
    return Author(name="new") if key == "default" else Entry(name="new", author_id=1)


def test_a_statement_over_two_databases_is_refused_as_ever(read):
    """Also one whose second table comes with an eager load."""
    with pytest.raises(BindError):
        read(
            lambda request: (
                request.sqa_session.scalars(select(Author).options(joinedload(Author.entries)))
                .unique()
                .all()
            )
        )


@pytest.mark.deep
def test_an_unknown_key_is_refused_as_ever(read):
    """The message names the known keys."""
    with pytest.raises(BindError, match="audit, default, log"):
        read(lambda request: request.sqa_sessions["nowhere"])


@pytest.mark.deep
def test_streams_read_from_the_database_of_their_tables(read):
    """On a reading connection of their own."""
    text_of, engines = read(
        lambda request: [row[0] for row in request.sqa_stream(select(Line.name))]
    )

    assert text_of == "['log']"
    assert list(engines) == ["log.reader"]


@pytest.mark.deep
def test_a_session_of_one_bind_reads_from_its_reading_engine(read):
    """As the one session does."""
    text_of, engines = read(lambda request: request.sqa_sessions["audit"].get(Entry, 1).name)

    assert text_of == "audit"
    assert list(engines) == ["audit.reader"]


@pytest.mark.deep
def test_a_rollback_of_a_session_of_one_bind_leaves_it_read_only(read):
    """Its next write is refused too."""

    def work(request):
        session = request.sqa_sessions["audit"]
        session.get(Entry, 1)
        session.rollback()
        with pytest.raises(ReadOnlyRequestError):
            session.add(Entry(name="x"))
        return session.get(Entry, 1).name

    assert read(work)[0] == "audit"


@pytest.mark.deep
def test_an_engine_that_is_named_by_the_view_is_read_only_as_well(read, place):
    """The application's own engine, given as the bind of a statement."""

    def work(request):
        engine = get_sqa(request).engines["log"]
        request.sqa_session.execute(text("DELETE FROM line"), bind_arguments={"bind": engine})

    with pytest.raises(ReadOnlyRequestError):
        read(work)

    assert place.databases["log"].rows("SELECT name FROM line") == [("log",)]

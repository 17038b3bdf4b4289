"""The engines of further databases, from the ini file and from directives."""

from dataclasses import replace

import pytest
from pyramid import testing
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError, ConfigurationExecutionError
from sqlalchemy import (
    create_engine,
    select,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError

from pyramid_aalam_sqa import (
    BindError,
    Session,
    SettingError,
    create_all,
    engine_from_settings,
    get_sqa,
)
from pyramid_aalam_sqa.applications import session_factory
from pyramid_aalam_sqa.settings import settings
from pyramid_aalam_sqa.settings.reader import read_settings
from support.bind_files import BIND, URL, files
from support.bound import KEYS, AuditBase, Author, Base, Entry, Line, do, serving
from support.databases import Database, plain_engine


def test_what_is_wrong_with_an_engine_names_the_bind(tmp_path):
    """The error names the bind, when the engine is made and when it connects."""
    bad = {
        f"{BIND}pool_size": "5",
        f"{BIND}poolclass": "NullPool",
        "sqlalchemy.url": "sqlite://",
        f"{BIND}url": "sqlite:///x",
    }
    with pytest.raises(SettingError, match=r"sqlalchemy\.binds\.audit\.pool_size: "):
        engine_from_settings(bad)
    with pytest.raises(SettingError, match=r"sqlalchemy\.binds\.audit\.url: one of"):
        engine_from_settings(
            {"sqlalchemy.url": "sqlite://", f"{BIND}url": "sqlite:///x?timeout=soon"}
        )
    with pytest.raises(SettingError, match=r"sqlalchemy\.binds\.audit\.connect_args\.tiemout"):
        engine_from_settings(
            {"sqlalchemy.url": "sqlite://", f"{BIND}url": URL, f"{BIND}connect_args.tiemout": "1"}
        )
    (tmp_path / "file").touch()
    settings = {"sqlalchemy.url": "sqlite://", f"{BIND}url": f"sqlite:///{tmp_path}/file/x.sqlite"}
    with serving(settings) as client, pytest.raises(SettingError, match=r"binds\.audit\.url: the"):
        get_sqa(client.app).engines["audit"].connect()


def test_every_database_is_introspected(tmp_path):
    """Each database has an introspectable with its key. The password is masked."""
    settings = files(tmp_path)
    settings["sqlalchemy.binds.far.url"] = URL
    with Configurator(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
        config.add_sqa_bind("near", "sqlite://", echo="false")
    config.commit()
    category = config.introspector.get_category("sqa databases")
    found = {
        each["introspectable"].discriminator: each["introspectable"]["url"] for each in category
    }
    get_sqa(config).dispose()

    assert found.keys() == {"default", "audit", "log", "far", "near"}
    assert found["far"] == "mysql+pymysql://me:***@here/one"
    assert found["near"] == "sqlite://"


def test_a_directive_declares_a_bind_and_wins_over_the_ini(tmp_path):
    """It works before and after the include, and with an autocommitting configurator."""
    settings = files(tmp_path)
    with serving(
        settings,
        lambda config: config.add_sqa_bind("audit", f"sqlite:///{tmp_path}/other.sqlite"),
        lambda config: config.add_sqa_bind("more", "sqlite://", pool_timeout=3),
        lambda config: config.add_sqa_bind("log", pool_timeout=5),
    ) as client:
        engines = get_sqa(client.app).engines
        assert engines["audit"].url.database.endswith("other.sqlite")
        assert engines["more"].pool.timeout() == 3
        assert engines["log"].pool.timeout() == 5
        assert list(engines) == ["audit", "log", "more", "default"]

    with testing.testConfig(settings=settings) as config:
        config.include("pyramid_aalam_sqa")
        config.add_sqa_bind("audit", "sqlite://", pool_timeout="4")
        sqa = get_sqa(config)
        assert sqa.engines["audit"].pool.timeout() == 4
        assert str(sqa.engine_for("default").url).endswith("default.sqlite")
        sqa.dispose()


def test_two_directives_for_one_bind_conflict():
    """The error has file and line of both. A wrong key is a configuration error too."""
    config = Configurator(settings={"sqlalchemy.url": "sqlite://"})
    config.include("pyramid_aalam_sqa")
    config.add_sqa_bind("audit", "sqlite://")
    config.add_sqa_bind("audit", "sqlite://")
    with pytest.raises(ConfigurationConflictError):
        config.commit()
    config = Configurator(settings={"sqlalchemy.url": "sqlite://"})
    config.include("pyramid_aalam_sqa")
    config.add_sqa_bind("Audit", "sqlite://")
    with pytest.raises(ConfigurationExecutionError, match="'Audit' is not a key"):
        config.commit()


def test_binds_that_are_told_the_same_share_the_engine(tmp_path):
    """With two engines on one file, a request would wait for a lock that it holds itself."""
    url = f"sqlite:///{tmp_path}/all.sqlite"
    settings = {"sqlalchemy.url": url, f"{BIND}url": url, "sqlalchemy.binds.log.url": url}
    with serving(settings | {"sqa.lock_timeout": "0.1"}) as client:
        create_all(client.app, Base)
        create_all(client.app, AuditBase)

        def write(request):
            request.sqa_session.add_all([Author(name="x"), Entry(name="x"), Line(name="x")])
            request.sqa_sessions["audit"].add(Entry(name="x"))
            joined = select(Author.name).join(Author.entries)
            return len(request.sqa_session.execute(joined).all())

        assert do(client, write).status_int == 200
        assert len(set(get_sqa(client.app).engines.values())) == 1
    assert Database(url).scalar("SELECT count(*) FROM entry") == 2


def test_a_ready_engine_may_be_a_bind(tmp_path):
    """The package does not dispose it: the code that made it does."""
    ready = create_engine(f"sqlite:///{tmp_path}/ready.sqlite")
    with serving({"sqlalchemy.url": "sqlite://", f"{BIND}engine": ready}) as client:
        create_all(client.app, AuditBase)
        do(client, lambda request: request.sqa_session.add(Entry(name="x")))
        pool = ready.pool
        get_sqa(client.app).dispose()
        assert ready.pool is pool
        assert get_sqa(client.app).engines["audit"] is ready
    assert Database(str(ready.url)).scalar("SELECT name FROM entry") == "x"
    ready.dispose()


def test_an_engine_from_elsewhere_takes_part_in_the_transaction(tmp_path):
    """With SQLAlchemy's bind_arguments={"bind": ...}, that engine is committed first."""
    other = plain_engine(f"sqlite:///{tmp_path}/other.sqlite")
    with other.begin() as connection:
        connection.execute(text("CREATE TABLE note (body TEXT)"))
    insert = text("INSERT INTO note VALUES ('x')")
    with serving(files(tmp_path)) as client:
        create_all(client.app, Base)

        def write(request, status=200):
            request.sqa_session.add(Author(name="x"))
            request.sqa_session.execute(insert, bind_arguments={"bind": other})

        do(client, write)
        do(client, write, status=400, expect_errors=True)
        with other.connect() as mine, mine.begin():
            # A connection that somebody else commits, or does not.
            do(
                client,
                lambda request: (
                    request.sqa_session.add(Author(name="x"))
                    or (request.sqa_session.execute(insert, bind_arguments={"bind": mine}) and None)
                ),
            )
            mine.rollback()
    stored = Database(f"sqlite:///{tmp_path}/default.sqlite").scalar("SELECT count(*) FROM author")

    assert stored == 2
    assert Database(str(other.url)).scalar("SELECT count(*) FROM note") == 1


def test_two_applications_with_the_same_keys_do_not_mix(tmp_path):
    """They are in one process, have the same models, and serve at the same time."""
    with serving(files(tmp_path / "a")) as first, serving(files(tmp_path / "b")) as second:
        for client in (first, second):
            create_all(client.app, Base)
            create_all(client.app, AuditBase)

        def write(name):
            def act(request):
                request.sqa_session.add_all([Author(name=name), Entry(name=name), Line(name=name)])
                request.sqa_sessions["audit"].add(Entry(name=name))

            return act

        do(first, lambda request: [write("a")(request), do(second, write("b"))])
        with Session(second.app, bind_key="audit") as session:
            assert set(session.scalars(select(Entry.name))) == {"b"}

    for name in "ab":
        for key, table, count in (
            ("default", "author", 1),
            ("audit", "entry", 2),
            ("log", "line", 1),
        ):
            database = Database(f"sqlite:///{tmp_path}/{name}/{key}.sqlite")
            assert database.rows(f"SELECT name FROM {table}") == [(name,)] * count


def test_two_applications_may_have_one_engine_under_different_keys(tmp_path):
    """The default database of one application is the bind "audit" of the other."""
    shared = create_engine(f"sqlite:///{tmp_path}/shared.sqlite")
    one = {"sqlalchemy.engine": shared, f"{BIND}url": f"sqlite:///{tmp_path}/one.sqlite"}
    two = {"sqlalchemy.url": f"sqlite:///{tmp_path}/two.sqlite", f"{BIND}engine": shared}
    with serving(one) as first, serving(two) as second:
        for client in (first, second):
            create_all(client.app, AuditBase)
            create_all(client.app, Base, bind_key="default")

            def write(request):
                request.sqa_session.add_all([Author(name="x"), Entry(name="x")])
                request.sqa_session.flush()
                return request.sqa_session.scalars(select(Author.name)).all()

            assert do(client, write).text == "['x']"
    eyes = Database(str(shared.url))
    assert (
        eyes.scalar("SELECT count(*) FROM author"),
        eyes.scalar("SELECT count(*) FROM entry"),
    ) == (1, 1)
    shared.dispose()


def test_a_script_has_the_engine_of_a_bind(tmp_path):
    """Alembic has an env.py for each database, and needs that database's engine."""
    settings = files(tmp_path)
    found = {
        key: engine_from_settings(settings, bind_key=key).url.database for key in (None, *KEYS)
    }

    assert found.pop(None) == found["default"]
    assert all(path.endswith(f"{key}.sqlite") for key, path in found.items())
    with pytest.raises(BindError, match="only: audit, default, log"):
        engine_from_settings(settings, bind_key="")


def test_an_order_without_a_database_is_allowed():
    """The application starts. An error is raised only when a view uses the session."""
    assert read_settings({"sqa.commit_order": "default"}).databases == {}


def test_what_postgresql_has_deferred_fails_before_the_first_commit(postgresql, tmp_path):
    """If only COMMIT found the violation, another database could be committed already."""
    postgresql.run(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TABLE child (parent INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
    )
    settings = {"sqlalchemy.url": f"sqlite:///{tmp_path}/x.sqlite", f"{BIND}url": postgresql.url}
    orphan = text("INSERT INTO child VALUES (7)")
    with serving(settings | {"sqa.commit_order": "default audit"}) as client:
        create_all(client.app, Base, bind_key="default")

        def write(request):
            request.sqa_session.add(Author(name="x"))
            request.sqa_session.execute(orphan, bind_arguments={"bind_key": "audit"})

        with pytest.raises(IntegrityError):
            do(client, write)
    assert Database(settings["sqlalchemy.url"]).rows("SELECT * FROM author") == []


def test_a_thousand_databases_are_not_compared_with_each_other(monkeypatch):
    """Start-up takes as long for each as for the first; databases at one URL share an engine."""
    compared = []

    class Options(dict):
        __hash__ = None

        def __eq__(self, other):
            compared.append(other)
            return super().__eq__(other)

    monkeypatch.setattr(session_factory, "make_engine", lambda database, options: object())
    databases = {
        f"b{number}": settings.Database(make_url(f"sqlite:///{number % 500}"), Options())
        for number in range(1000)
    }
    given = read_settings({"sqlalchemy.url": "sqlite://"})
    engines = session_factory.make_engines(replace(given, binds=databases))

    # With the default database.
    assert len(set(engines.values())) == 501
    assert len(compared) <= 1000

"""The settings of further databases: what they inherit, and which settings are wrong."""

import pytest
from sqlalchemy import (
    event,
)
from sqlalchemy.pool import NullPool

from pyramid_aalam_sqa import (
    Session,
    SettingError,
    create_all,
    get_sqa,
)
from pyramid_aalam_sqa.settings.reader import read_settings
from support.bind_files import BIND, URL, files, read, refused
from support.bound import AuditBase, Author, Base, Entry, Line, do, serving


def test_a_bind_has_its_own_options_and_inherits_the_others():
    """The arguments of the driver's connect() are inherited one by one."""
    given = {
        "sqlalchemy.pool_size": "7",
        "sqlalchemy.echo": "false",
        "sqlalchemy.connect_args.read_timeout": "11",
        "sqlalchemy.connect_args.write_timeout": "12",
        f"{BIND}echo": "true",
        f"{BIND}connect_args.write_timeout": "13",
    }
    settings = read(**given)

    assert settings.binds["audit"].options == {
        "pool_size": 7,
        "echo": True,
        "connect_args": {"read_timeout": 11, "write_timeout": 13},
    }
    assert settings.database.options["connect_args"] == {"read_timeout": 11, "write_timeout": 12}
    assert settings.binds["audit"].url.host == "there"


def test_a_bind_inherits_neither_the_address_nor_what_only_another_driver_knows():
    """Otherwise it would use the default database, or not start."""
    given = {
        "sqlalchemy.connect_args.unix_socket": "/run/here",
        "sqlalchemy.connect_args.user": "me",
        "sqlalchemy.connect_args.read_timeout": "11",
        "sqlalchemy.isolation_level": "READ COMMITTED",
        "sqlalchemy.creator": "builtins:print",
        "sqlalchemy.logging_name": "one",
        "sqlalchemy.pool_size": "7",
        "sqlalchemy.binds.file.url": "sqlite:///two.sqlite",
        "sqlalchemy.binds.memory.url": "sqlite://",
        "sqlalchemy.binds.plain.url": URL,
        "sqlalchemy.binds.plain.poolclass": "NullPool",
    }
    binds = read(**given).binds

    assert binds["audit"].options == {
        "pool_size": 7,
        "isolation_level": "READ COMMITTED",
        "connect_args": {"read_timeout": 11},
    }
    assert binds["file"].options == {"pool_size": 7}
    assert binds["memory"].options == {}
    assert binds["plain"].options["poolclass"] is NullPool
    assert "pool_size" not in binds["plain"].options


def test_only_an_address_to_inherit_is_nothing_to_inherit():
    """If connect_args has only the address, the bind gets no connect_args."""
    binds = read(**{"sqlalchemy.connect_args.host": "here"}).binds

    assert binds["audit"].options == {}


def test_the_section_takes_binds_too():
    """If both sections have an option of a bind, the application's section wins."""
    section = {"binds.audit.pool_size": "3", "binds.log.url": "sqlite:///log.sqlite"}
    settings = read(section, **{f"{BIND}pool_size": "4"})

    assert settings.binds["audit"].options == {"pool_size": 4}
    assert str(settings.binds["log"].url) == "sqlite:///log.sqlite"
    assert refused({"binds.log.url": "nonsense"}).startswith("[sqlalchemy] binds.log.url: ")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (f"{BIND}pool_sise", "5", "did you mean sqlalchemy.binds.audit.pool_size?"),
        (f"{BIND}pool_size", "many", "sqlalchemy.binds.audit.pool_size = 'many': write a whole"),
        (f"{BIND}pool_size", "", "sqlalchemy.binds.audit.pool_size is blank"),
        (f"{BIND}url", "nonsense", "sqlalchemy.binds.audit.url: this is not a database URL"),
        (f"{BIND}url", None, ""),
        ("sqlalchemy.binds.log.pool_size", "5", "sqlalchemy.binds.log.url is missing"),
        ("sqlalchemy.binds.log", "sqlite://", "There is no setting sqlalchemy.binds.log"),
        ("sqlalchemy.binds.Log.url", "sqlite://", "'Log' is not a key for a bind"),
        ("sqlalchemy.binds.1.url", "sqlite://", "'1' is not a key for a bind"),
        ("sqlalchemy.binds.default.url", "sqlite://", "'default' is not a key for a bind"),
        ("sqlalchemy.binds..url", "sqlite://", "'' is not a key for a bind"),
        (f"{BIND}isolation_level", "SOME", "sqlalchemy.binds.audit.isolation_level = 'SOME'"),
        ("sqa.commit_order", "audit nobody", "sqa.commit_order: 'nobody'"),
        ("sqa.commit_order", "audit audit", "sqa.commit_order: 'audit' is listed twice"),
        ("sqa.commit_order", "", "sqa.commit_order is blank"),
    ],
)
def test_what_is_wrong_with_a_bind_names_its_key(key, value, said):
    """The error has the whole key, and says what to write."""
    if value is None:
        assert read(**{key: value}).binds
        return

    assert said in refused(**{key: value})


def test_a_bind_needs_a_default_database():
    """Tables without a bind key need a database too."""
    with pytest.raises(SettingError, match=r"write sqlalchemy\.url too"):
        read_settings({f"{BIND}url": "sqlite://"})


@pytest.mark.parametrize(
    ("order", "wanted"),
    [
        (None, ["audit", "log", "default"]),
        ("log", ["log", "audit", "default"]),
        ("default", ["default", "audit", "log"]),
        ("log default audit", ["log", "default", "audit"]),
    ],
)
def test_the_order_of_the_commits_is_fixed(tmp_path, order, wanted):
    """It is the order of the ini file, default last, unless sqa.commit_order changes it."""
    settings = files(tmp_path) | ({"sqa.commit_order": order} if order else {})
    said = []
    with serving(settings) as client:
        create_all(client.app, Base)
        create_all(client.app, AuditBase)
        for key, engine in get_sqa(client.app).engines.items():
            event.listen(engine, "commit", lambda connection, key=key: said.append(key))

        def write(request):
            request.sqa_session.add_all([Author(name="x"), Line(name="x"), Entry(name="x")])

        do(client, write)
        with Session(client.app) as session:
            session.add_all([Author(name="x"), Line(name="x"), Entry(name="x")])
            session.commit()

        assert list(get_sqa(client.app).engines) == wanted
    assert said == wanted * 2

"""psqa for an application with several databases: --bind chooses which."""

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from pyramid_aalam_sqa.provisioning import Provisioning
from support.provisioned import Provisioned, psqa

SECRET = "s3cret-of-the-audit"
MODELS = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    pass

class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)

class Entry(Base):
    __tablename__ = "entry"
    __bind_key__ = "audit"
    id: Mapped[int] = mapped_column(primary_key=True)
"""


@pytest.fixture
def base(tmp_path, monkeypatch):
    """The name of a base with one table for each database."""
    (tmp_path / "models_of_two.py").write_text(MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    return "models_of_two:Base"


def with_bind(folder, url, bind, admin_url=None, *settings):
    lines = [f"sqlalchemy.binds.audit.url = {str(bind).replace('%', '%%')}", *settings]
    return Provisioned(folder, url, admin_url, settings=lines)


@pytest.fixture
def files(tmp_path):
    """An application with two files."""
    return with_bind(tmp_path, f"sqlite:///{tmp_path}/app.db", f"sqlite:///{tmp_path}/audit.db")


@pytest.fixture
def two(mariadb_server, tmp_path):
    """An application with two databases on one server, and an account for each."""
    url = make_url(mariadb_server.url()).set(password="pw", database="")
    shown = {
        user: url.set(username=user, database=database, password=SECRET).render_as_string(
            hide_password=False
        )
        for user, database in (("aalam_base", ""), ("auditor", "audit"))
    }
    yield with_bind(tmp_path, shown["aalam_base"], shown["auditor"], mariadb_server.url())
    with mariadb_server.connect() as connection, connection.cursor() as cursor:
        for name in ("aalam_base", "audit"):
            cursor.execute(f"DROP DATABASE IF EXISTS {name}")
        for user in ("aalam_base", "aalam_base__own", "auditor", "audit__own"):
            cursor.execute(f"DROP USER IF EXISTS {user}")


def tables(path):
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    with engine.connect() as connection:
        return connection.scalars(text("SELECT name FROM sqlite_master")).all()


def test_each_table_is_made_in_its_own_database(files, base, tmp_path):
    """The default database has what has no key, the bind what has its key."""
    for bind in ((), ("--bind", "audit")):
        assert files.psqa("create", *bind).status == 0
        planned = files.psqa("tables", "--base", base, "--dry-run", *bind)
        assert (planned.status, planned.out.count("CREATE TABLE")) == (1, 1)
        assert files.psqa("tables", "--base", base, *bind).status == 0
        assert files.psqa("check", *bind).status == 0

    assert tables(tmp_path / "app.db") == ["item"]
    assert tables(tmp_path / "audit.db") == ["entry"]


def test_a_bind_on_a_server_has_accounts_of_its_own(two, base, mariadb_server):
    """Its owner and its runtime account reach its database, and not the default one."""
    for bind in ((), ("--bind", "audit")):
        told = two.psqa("create", *bind)
        assert (told.status, told.err) == (0, "")
        assert two.psqa("tables", "--base", base, *bind).status == 0
    again = two.psqa("create", "--bind", "audit")
    with mariadb_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_schema, table_name FROM information_schema.tables "
            "WHERE table_schema IN ('aalam_base', 'audit') ORDER BY 1"
        )
        found = cursor.fetchall()
        cursor.execute("SELECT User, Db FROM mysql.db WHERE Db IN ('audit', 'aalam\\\\_base')")
        grants = set(cursor.fetchall())
        cursor.execute("GRANT SELECT ON *.* TO auditor")
    drift = two.psqa("check", "--bind", "audit")
    repaired = two.psqa("create", "--bind", "audit")

    assert "Nothing to change." in again.out
    assert found == (("aalam_base", "item"), ("audit", "entry"))
    assert grants == {
        ("auditor", "audit"),
        ("audit__own", "audit"),
        ("aalam_base", "aalam\\_base"),
        ("aalam_base__own", "aalam\\_base"),
    }
    assert (drift.status, repaired.status) == (1, 0)
    assert two.psqa("check", "--bind", "audit").status == 0
    shown = two.psqa("show")
    assert shown.status == 0
    assert shown.lines[-2:] == ["audit: answers.", "aalam_base: answers."]
    assert SECRET not in shown.out
    assert two.psqa("drop", "--bind", "audit", "--yes").status == 0
    assert two.psqa("show").status == 1
    assert two.psqa("check").status == 0


def test_a_bind_on_postgresql_has_a_schema_called_as_its_account(postgresql_server, tmp_path, base):
    """It is searched without being named."""
    url = make_url(postgresql_server.url()).set(username="auditor", password="pw")
    shown = url.render_as_string(hide_password=False)
    app = with_bind(tmp_path, f"sqlite:///{tmp_path}/app.db", shown, postgresql_server.url())
    created = app.psqa("create", "--bind", "audit")
    made = app.psqa("tables", "--base", base, "--bind", "audit")
    engine = create_engine(postgresql_server.url(), poolclass=NullPool)
    with engine.connect() as connection:
        statement = "SELECT schemaname, tableowner FROM pg_tables WHERE tablename = 'entry'"
        found = connection.execute(text(statement)).all()
    dropped = app.psqa("drop", "--bind", "audit", "--yes")

    assert (created.status, made.status, dropped.status) == (0, 0, 0), created.err + made.err
    assert found == [("auditor", "auditor__own")]


@pytest.mark.parametrize(
    ("bind", "key", "says"),
    [
        ("sqlite:////nowhere/x.db", "other", "There is no bind 'other', only: audit."),
        ("mysql+pymysql://u:p@h/", "audit", r"sqlalchemy.binds.audit.url: write a database of"),
        ("mysql+pymysql://u:p@h/a`b", "audit", r"sqlalchemy.binds.audit.url: write a database of"),
        ("postgresql+psycopg://h/x", "audit", r"sqlalchemy.binds.audit.url: write a user of"),
        ("mysql+pymysql://h/audit", "audit", "sqlalchemy.binds.audit.url: write the application's"),
    ],
)
def test_a_bind_that_cannot_be_made_is_told(tmp_path, bind, key, says):
    """One sentence that names the setting; and no name gets through that could mean more."""
    told = with_bind(tmp_path, f"sqlite:///{tmp_path}/app.db", bind).psqa("check", "--bind", key)

    assert told.status == 2
    assert says in " ".join(told.err.split())


def test_a_bind_without_a_password_is_told_by_its_own_key(tmp_path):
    """The default database has one, which is not that of the bind."""
    app = with_bind(tmp_path, f"sqlite:///{tmp_path}/app.db", "mysql+pymysql://u@127.0.0.1:1/audit")
    told = app.psqa("create", "--bind", "audit")

    assert told.status == 2
    assert told.err.startswith("psqa: sqlalchemy.binds.audit.url has no password: ")


def test_the_password_of_a_bind_is_not_rotated(two):
    """It stands in the ini file."""
    told = two.psqa("rotate", "--bind", "audit")

    assert told.status == 2
    assert "sqa.password_file is that of the default database" in " ".join(told.err.split())


def test_show_tells_of_each_database_and_masks_what_is_secret(tmp_path):
    """A bind has its own lines, and a driver's arguments are hidden there too."""
    app = with_bind(
        tmp_path,
        f"sqlite:///{tmp_path}/app.db",
        f"mysql+pymysql://u:{SECRET}@127.0.0.1:1/audit",
        None,
        f"sqlalchemy.binds.audit.connect_args.ssl_key_password = {SECRET}",
        "sqlalchemy.binds.audit.pool_size = 2",
    )
    told = app.psqa("show", columns=200)

    assert SECRET not in told.out + told.err
    for line in (
        "sqlalchemy.binds.audit.url = mysql+pymysql://u:***@127.0.0.1:1/audit  ([app:main])",
        "sqlalchemy.binds.audit.connect_args.ssl_key_password = ***  ([app:main])",
        "sqlalchemy.binds.audit.pool_size = 2  ([app:main])",
    ):
        assert line in told.lines
    assert told.status == 1
    assert "audit: Can't connect" in told.out


def test_tables_of_an_application_without_a_name_are_made_in_its_binds(tmp_path, base):
    """A bind has a name of its own."""
    ini = tmp_path / "plain.ini"
    ini.write_text(
        f"[app:main]\nuse = call:support.rule_app:main\nsqlalchemy.url = sqlite:///{tmp_path}/app.db\n"
        f"sqlalchemy.binds.audit.url = sqlite:///{tmp_path}/audit.db\n"
    )
    assert psqa("create", ini, "--bind", "audit").status == 0
    assert psqa("tables", ini, "--bind", "audit", "--base", base).status == 0

    assert tables(tmp_path / "audit.db") == ["entry"]


def test_a_bind_that_is_an_engine_cannot_be_made(tmp_path):
    """There is no URL to go by."""
    engine = create_engine(f"sqlite:///{tmp_path}/audit.db")
    settings = {"sqlalchemy.url": "sqlite://", "sqlalchemy.binds.audit.engine": engine}
    with pytest.raises(Exception, match=r"write sqlalchemy\.binds\.audit\.url"):
        Provisioning(settings, bind_key="audit")


def test_tables_of_a_bind_that_is_not_declared_are_not_made_in_the_default_database(tmp_path, base):
    """The error names the table, the key and the setting."""
    site = Provisioned(tmp_path, f"sqlite:///{tmp_path}/app.db")
    assert site.psqa("create").status == 0

    told = site.psqa("tables", "--base", base)

    assert told.status == 1
    assert "entry has the bind key 'audit'" in told.err
    assert "set sqlalchemy.binds.audit.url" in told.err
    assert tables(tmp_path / "app.db") == []

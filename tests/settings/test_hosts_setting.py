"""sqa.hosts: how it is written, and one clear error for each way in which it is wrong."""

import pytest
from sqlalchemy import create_engine

from pyramid_aalam_sqa import SettingError
from pyramid_aalam_sqa.settings.reader import read_settings
from support.settings_app import MYSQL, POSTGRESQL, start

ANYWHERE = "mysql+pymysql://me:hidden@/base"


def read(hosts, url=ANYWHERE, **more):
    return read_settings({"sqlalchemy.url": url, "sqa.hosts": hosts, **more})


def shown(settings):
    return [str(host) for host in settings.sqa_options["hosts"]]


def wrong(hosts, url=ANYWHERE, **more):
    with pytest.raises(SettingError) as caught:
        read(hosts, url, **more)
    text = str(caught.value)
    assert "hidden" not in text
    return text


@pytest.mark.parametrize(
    ("url", "hosts", "complete"),
    [
        (ANYWHERE, "db1", ["db1:3306"]),
        (ANYWHERE, " db1 \n db2.internal:3307 ", ["db1:3306", "db2.internal:3307"]),
        (
            ANYWHERE,
            "10.0.0.1 [2001:DB8::7] [::1]:5",
            ["10.0.0.1:3306", "[2001:db8::7]:3306", "[::1]:5"],
        ),
        (MYSQL.replace("host", "db2:3307"), "db1 db2 db3:1", ["db1:3307", "db2:3307", "db3:1"]),
        (POSTGRESQL.replace("host", "db1"), "db1 db1:5433", ["db1:5432", "db1:5433"]),
    ],
)
def test_a_host_is_a_name_or_an_address_with_or_without_a_port(url, hosts, complete):
    """Without a port it has that of the URL, or that of the product. The first is in the URL."""
    settings = read(hosts, url)

    assert shown(settings) == complete
    first = settings.sqa_options["hosts"][0]
    assert (settings.database.url.host, settings.database.url.port) == (first.name, first.port)


@pytest.mark.parametrize(
    "hosts",
    [
        "db1,db2",
        "db1:0",
        "db1:65536",
        "db1:x",
        "db1:",
        "::1",
        "[::1",
        "[db1]",
        "/run/mysqld/mysqld.sock",
        "-db1",
        ("db1", "db2"),
    ],
)
def test_what_is_not_a_host_is_an_error_that_shows_how_to_write_one(hosts):
    """A socket is none: it leads to this machine alone."""
    text = wrong(hosts)

    assert text.startswith("sqa.hosts")
    assert text.endswith("separated by spaces, such as db1 db2:3307 [2001:db8::7]:3306.")


@pytest.mark.parametrize("hosts", ["mysql://me:hidden@db1", "me:hidden@db1"])
def test_a_password_in_the_list_is_not_shown(hosts):
    """Someone may write a URL there, or a part of one."""
    assert wrong(hosts).startswith("sqa.hosts: write hosts")


def test_an_empty_list_is_an_error():
    """As every blank setting is."""
    assert wrong(" ").startswith("sqa.hosts is blank: write hosts")


def test_a_host_is_listed_once():
    """With its port, also where the port is not written."""
    assert wrong("db1 db2 db1:3306") == "sqa.hosts: db1:3306 is listed twice; write each host once."


def test_the_host_of_the_url_is_one_of_the_list():
    """Otherwise it is not clear whether that server is still meant."""
    assert wrong("db1 db2", MYSQL) == (
        "sqa.hosts: sqlalchemy.url names host:3306, which is not in the list; write it into the "
        "list, or leave the host out of the URL."
    )


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:////tmp/base.sqlite", "embedded://"])
def test_a_database_without_a_server_has_no_hosts(url):
    """Nor has one whose driver is not known here."""
    text = wrong("db1 db2", url)

    assert text.startswith("sqa.hosts: this is for servers of MySQL, MariaDB and PostgreSQL, not")


@pytest.mark.parametrize(
    ("place", "url", "more"),
    [
        ("sqlalchemy.connect_args.port", ANYWHERE, {"sqlalchemy.connect_args.port": "7"}),
        ("sqlalchemy.connect_args.host", ANYWHERE, {"sqlalchemy.connect_args.host": "db1"}),
        ("sqlalchemy.creator", ANYWHERE, {"sqlalchemy.creator": "builtins:print"}),
        ("sqlalchemy.url: ?unix_socket", f"{ANYWHERE}?unix_socket=/s", {}),
        ("sqlalchemy.url: ?host", "postgresql+psycopg://me@/base?host=a&host=b", {}),
        (
            "sqlalchemy.connect_args.target_session_attrs",
            "postgresql+psycopg://me@/base",
            {"sqlalchemy.connect_args.target_session_attrs": "any"},
        ),
    ],
)  # fmt: skip
def test_no_other_setting_says_where_to_connect(place, url, more):
    """One of the two would be ignored."""
    text = wrong("db1 db2", url, **more)

    assert text == f"sqa.hosts: {place} says where to connect as well; remove one of the two."


def test_a_ready_engine_has_no_hosts():
    """It is used as it is."""
    text = wrong("db1", **{"sqlalchemy.engine": create_engine(ANYWHERE)})

    assert text.startswith("sqa.hosts: sqlalchemy.engine says where to connect as well")


def test_hosts_without_a_database_do_no_harm():
    """An application without a database starts."""
    assert read_settings({"sqa.hosts": "db1"}).database is None


def test_a_bind_has_hosts_of_its_own():
    """It does not inherit those of the default database."""
    settings = read(
        "db1 db2",
        **{
            "sqlalchemy.binds.audit.url": POSTGRESQL,
            "sqlalchemy.binds.plain.url": MYSQL,
            "sqa.binds.audit.hosts": "db3 host",
        },
    )
    hosts = {key: settings.options_for(key)["hosts"] for key in settings.databases}

    assert [str(host) for host in hosts["audit"]] == ["db3:5432", "host:5432"]
    assert hosts["plain"] is None
    assert [str(host) for host in hosts["default"]] == ["db1:3306", "db2:3306"]
    assert settings.binds["audit"].url.host == "db3"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("sqa.binds.audits.hosts", "sqa.binds.audits.hosts: there is no bind "),
        ("sqa.binds.audit.host", "There is no setting sqa.binds.audit.host; "),
        ("sqa.binds.audit.hosts", "sqa.binds.audit.hosts: sqlalchemy.binds.audit.url"),
    ],
)  # fmt: skip
def test_an_error_names_the_setting_of_the_bind(key, text):
    """Also where the key of the bind or of the option is misspelled."""
    assert wrong("db1", **{"sqlalchemy.binds.audit.url": MYSQL, key: "db2"}).startswith(text)


def test_databases_with_the_same_url_and_other_hosts_have_engines_of_their_own():
    """With the same hosts they share one."""
    url = MYSQL.replace("host", "db1")
    sqa = start(
        {
            "sqlalchemy.url": url,
            "sqa.hosts": "db1 db2",
            **{f"sqlalchemy.binds.{key}.url": url for key in ("same", "other")},
            "sqa.binds.same.hosts": "db1 db2",
            "sqa.binds.other.hosts": "db1 db3",
        }
    )

    assert sqa.engines["same"] is sqa.engine is not sqa.engines["other"]

"""psqa works on that one of several hosts which takes writes, on PostgreSQL too."""

import pytest
from sqlalchemy.engine import make_url

from pyramid_aalam_sqa import ProvisioningError
from pyramid_aalam_sqa.provisioning import Provisioning
from support.databases import plain_engine
from support.servers import PostgreSQL, free_port

pytestmark = pytest.mark.deep


class Standby(PostgreSQL):
    """A server that takes no writes."""

    def command(self):
        return [*super().command(), "-c", "default_transaction_read_only=on"]


@pytest.fixture(scope="module")
def standby():
    server = Standby()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture
def provisioning(site, standby):
    """Make a Provisioning for an application with three hosts, of which one takes writes."""

    def provisioning(admin_url):
        settings = site.settings()
        url = make_url(settings["sqlalchemy.url"])._replace(host=None, port=None)
        hosts = [f"127.0.0.1:{port}" for port in (free_port(), standby.port, site.server.port)]
        site.made.append(
            Provisioning(
                {
                    **settings,
                    "sqlalchemy.url": url.render_as_string(hide_password=False),
                    "sqa.hosts": " ".join(hosts),
                },
                admin_url,
            )
        )
        return site.made[-1]

    return provisioning


def test_an_administrator_at_any_host_is_led_to_the_writer(site, standby, provisioning):
    """The application logs in there as well, which is proved."""
    writer = provisioning(standby.url(site.database))
    steps = list(writer.apply())

    assert any(str(step).startswith("CREATE SCHEMA") for step in steps)
    assert f"at 127.0.0.1, port {site.server.port}, as postgres" in writer.describe_server()
    assert site.as_application("SELECT current_schema()") == [("aalam_base",)]


def test_an_administrator_who_is_on_a_standby_by_another_name_changes_nothing(
    site, standby, provisioning
):
    """Here by the name localhost, which is not in the list."""
    url = make_url(standby.url()).set(host="localhost")
    there = plain_engine(standby.url(), isolation_level="AUTOCOMMIT")
    with there.connect() as connection:
        connection.exec_driver_sql("SET default_transaction_read_only = off")
        connection.exec_driver_sql(f"CREATE DATABASE {site.database}")

    told = f"The administrator is on 127.0.0.1:{standby.port}, which takes no writes"
    with pytest.raises(ProvisioningError, match=told):
        list(provisioning(url).apply())

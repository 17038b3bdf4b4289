"""An application on each database, and what an independent connection sees of it."""

import pytest

from support.sandboxed import NOTE, Site, views


@pytest.fixture
def make_site(serve):
    """Make a site on a database, with further setups and settings."""

    def make_site(database, *setups, table=NOTE, **settings):
        database.run(table)
        defaults = {"sqa.retry_pause": "0", "sqlalchemy.pool_timeout": "1"}
        return Site(database, serve(database.url, views, *setups, **{**defaults, **settings}))

    return make_site


@pytest.fixture
def site(any_database, make_site):
    """The site on each of the three databases."""
    return make_site(any_database)

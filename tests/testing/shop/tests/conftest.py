"""The fixtures of the shop's tests. Another database is named by SHOP_URL and SHOP_AUDIT_URL."""

import os
from pathlib import Path

import pytest
from pyramid.paster import get_appsettings
from shop import main
from shop.models import Base
from shop.views import outbox

from pyramid_aalam_sqa import get_sqa

INI = Path(__file__).parents[1] / "testing.ini"


@pytest.fixture(scope="session")
def sqa_app(sqa_database):
    settings = get_appsettings(str(INI))
    for key, name in (("url", "SHOP_URL"), ("binds.audit.url", "SHOP_AUDIT_URL")):
        settings[f"sqlalchemy.{key}"] = os.environ.get(name, settings[f"sqlalchemy.{key}"])
    app = main({}, **sqa_database(settings, base=Base))
    yield app
    get_sqa(app).dispose()


@pytest.fixture
def mails():
    """The mails that were sent in this test."""
    outbox.clear()
    return outbox

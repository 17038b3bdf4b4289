"""Settings for several databases, each a file of SQLite, and what is in them."""

import pytest
from sqlalchemy import (
    inspect,
)

from pyramid_aalam_sqa import (
    SettingError,
    get_sqa,
)
from pyramid_aalam_sqa.settings.reader import read_settings
from support import bound
from support.bound import KEYS

URL = "mysql+pymysql://me:secret@here/one"
BIND = "sqlalchemy.binds.audit."


def read(section=None, **settings):
    given = {"sqlalchemy.url": URL, f"{BIND}url": "mysql+pymysql://me:secret@there/two"}
    return read_settings({**given, **{k: v for k, v in settings.items() if v is not None}}, section)


def refused(section=None, **settings):
    with pytest.raises(SettingError) as caught:
        read(section, **settings)
    assert "secret" not in str(caught.value)
    return str(caught.value)


def files(tmp_path, keys=KEYS):
    settings = {f"sqlalchemy.binds.{key}.url": f"sqlite:///{tmp_path}/{key}.sqlite" for key in keys}
    settings["sqlalchemy.url"] = settings.pop("sqlalchemy.binds.default.url")
    return settings


def names_in(client):
    return {
        key: set(inspect(engine).get_table_names())
        for key, engine in get_sqa(client.app).engines.items()
    }


ALL = {key: {table.name for table in tables} for key, tables in bound.HOME.items()}

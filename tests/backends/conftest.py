"""What the tests of the backends share."""

import pytest

from pyramid_aalam_sqa import engine_from_settings
from support.places import PLACES, in_a_file, places
from support.portable_app import created


@pytest.fixture
def make():
    """Make the engine of settings; dispose it in the end."""
    made = []

    def make(url, settings=(), **options):
        given = {f"sqlalchemy.{name}": value for name, value in options.items()}
        made.append(engine_from_settings({"sqlalchemy.url": url, **given, **dict(settings)}))
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


@pytest.fixture(params=PLACES)
def place(request):
    """The test runs on a database of each kind that can belong to one application."""
    for place in places(request.param, request):
        yield place
        place.dispose()


@pytest.fixture
def file(tmp_path):
    """An SQLite file that belongs to one application."""
    place = in_a_file(tmp_path)
    yield place
    place.dispose()


@pytest.fixture
def named(place):
    """Models that name their schema, and their tables on *place*."""
    return created(place, place.name)


@pytest.fixture(params=["named", "bare"])
def made(request, place):
    """Models with and without a schema, and their tables on *place*."""
    return created(place, place.name if request.param == "named" else None)

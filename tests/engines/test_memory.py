"""What a thousand engines cost: their memory, beside that of SQLAlchemy's own engines."""

import gc
import tracemalloc

import pytest
from sqlalchemy import create_engine

from pyramid_aalam_sqa import engine_from_settings
from pyramid_aalam_sqa.applications import SessionFactory
from pyramid_aalam_sqa.settings import read_settings

NUMBER = 150
URLS = ["mysql+pymysql://user:password@localhost/shop_%d", "sqlite:////nowhere/shop_%d.sqlite"]
# Of what create_engine() takes: twice, and a margin, because dictionaries of the process grow in
# steps.
MOST = 2.1


def from_sqlalchemy(url):
    return [create_engine(url % number) for number in range(NUMBER)]


def from_settings(url):
    return [engine_from_settings({"sqlalchemy.url": url % number}) for number in range(NUMBER)]


def as_binds(url):
    binds = {f"sqlalchemy.binds.b{number}.url": url % number for number in range(NUMBER - 1)}
    return SessionFactory(read_settings({"sqlalchemy.url": url % NUMBER, **binds}))


def memory_of(make, url):
    """Return how many bytes an engine takes that *make* has made, without a connection."""
    make(url)  # Once before, for what is cached.
    gc.collect()
    tracemalloc.start()
    try:
        made = make(url)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / NUMBER
    finally:
        tracemalloc.stop()
        del made


@pytest.mark.parametrize("url", URLS, ids=["mysql", "sqlite"])
@pytest.mark.parametrize("make", [from_settings, as_binds])
@pytest.mark.sweep(2)
def test_an_engine_takes_at_most_twice_the_memory_of_a_plain_one(make, url):
    """A process of a portal has a thousand of them."""
    assert memory_of(make, url) < MOST * memory_of(from_sqlalchemy, url)

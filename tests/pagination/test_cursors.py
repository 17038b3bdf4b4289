"""Cursors keep values and their types, and are signed for one order with one secret."""

import base64
import logging
from datetime import UTC

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyramid.httpexceptions import HTTPNotFound
from pyramid.request import Request
from sqlalchemy import create_engine, func, select
from sqlalchemy.pool import NullPool

from pyramid_aalam_sqa import paginate_keyset
from pyramid_aalam_sqa.pagination.cursors import read_cursor, write_cursor
from pyramid_aalam_sqa.settings.reader import read_settings
from support.apps import with_view
from support.paged import SECRET, Author, first_page, library, opened, walk


def test_a_value_that_no_cursor_can_hold_is_refused():
    """Writing such a cursor raises an error that says so."""
    with pytest.raises(TypeError, match="values of type list"):
        write_cursor([["x"]], "order", b"secret")


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(),
    st.binary(),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False),
    st.dates(),
    st.datetimes(timezones=st.none() | st.just(UTC)),
    st.times(),
    st.timedeltas(),
    st.uuids(),
)


# Why a text is not a cursor: its signature, its form, or its letters.
REFUSED = "Invalid signature|base64|can't encode"


@settings(max_examples=100, deadline=None)
@given(st.lists(SCALARS))
def test_a_cursor_keeps_its_values_and_their_types(values):
    """Reading a cursor returns the same values, but only for the same order and secret."""
    cursor = write_cursor(values, "order", b"secret")
    found = read_cursor(cursor, "order", b"secret")

    assert found == tuple(values)
    assert list(map(type, found)) == list(map(type, values))
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    for order, secret in (("other", b"secret"), ("order", b"other")):
        with pytest.raises(ValueError, match=REFUSED):
            read_cursor(cursor, order, secret)


def test_a_cursor_keeps_nan():
    """PostgreSQL sorts NaN above all numbers, so a cursor may have to hold it."""
    assert str(read_cursor(write_cursor([float("nan")], "o", b"s"), "o", b"s")) == "(nan,)"


@settings(max_examples=100, deadline=None)
@given(st.text() | st.binary().map(lambda b: base64.urlsafe_b64encode(b).decode()))
@example("x")
@example("ü")
@example("")
def test_no_other_text_passes_for_a_cursor(text):
    """The signature is checked before any other part of the text is read."""
    with pytest.raises(ValueError, match=REFUSED):
        read_cursor(text, "order", b"secret")


def test_each_changed_character_of_a_cursor_is_found_out():
    """This is true for characters of the signature and of the values."""
    cursor = write_cursor(["Ada", 7], "order", b"secret")
    for place, was in enumerate(cursor[:-1]):
        changed = cursor[:place] + ("A" if was != "A" else "B") + cursor[place + 1 :]
        with pytest.raises(ValueError, match=REFUSED):
            read_cursor(changed, "order", b"secret")


NAMES = select(Author.name).order_by(Author.name)


def test_a_cursor_of_another_order_is_a_404_and_no_error(shelf):
    """A visitor may have an old cursor from before the page's order was changed."""
    cursor = first_page(shelf, NAMES).next_cursor
    other = (
        NAMES.order_by(None).order_by(Author.name.desc()),
        NAMES.order_by(None),
        NAMES.order_by(None).order_by(func.lower(Author.name)),
    )

    assert list(first_page(shelf, NAMES, after=cursor)) == ["Grace", "Mary"]
    for statement in other:
        with pytest.raises(HTTPNotFound):
            first_page(shelf, statement, after=cursor)
        mild = first_page(shelf, statement, after=cursor, error_out=False)
        assert list(mild) == list(first_page(shelf, statement))
        assert mild.has_prev is False


def test_two_cursors_are_a_404(shelf):
    """A query string with both cursors does not say which page is wanted."""
    page = first_page(shelf, NAMES).next()
    both = {"after": page.next_cursor, "before": page.prev_cursor}

    with pytest.raises(HTTPNotFound):
        first_page(shelf, NAMES, **both)
    assert list(first_page(shelf, NAMES, **both, error_out=False)) == ["Ada", "Ada"]


def test_outside_a_request_a_cursor_needs_a_secret_and_a_walk_needs_none(shelf):
    """A script can call next() without a secret, because it needs no addresses."""
    page = paginate_keyset(shelf, NAMES, per_page=2)

    assert walk(page) == ["Ada", "Ada", "Grace", "Mary", "Zoe"]
    with pytest.raises(ValueError, match="secret"):
        _ = page.next_cursor
    with pytest.raises(ValueError, match="secret"):
        paginate_keyset(shelf, NAMES, after="x")


@pytest.fixture
def start(sqlite, serve):
    """Start an application on the library, as another process or a restart would."""

    def view(request):
        return request.sqa_paginate_keyset(NAMES, per_page=2)

    def start(**options):
        app = serve(sqlite.url, with_view(view, renderer="json"), **options)
        return lambda path: Request.blank(path).get_response(app)

    engine = create_engine(sqlite.url, poolclass=NullPool)
    with opened(engine, *library()) as session:
        session.rollback()
        yield start


def test_the_address_of_a_page_holds_in_every_process_that_has_the_secret(start):
    """A process with another secret answers 404."""
    here, there = (start(**{"sqa.cursor_secret": SECRET}) for _ in range(2))
    other = start(**{"sqa.cursor_secret": SECRET[::-1]})
    following = here("/").json["next_url"]

    assert there(following).json["items"] == ["Grace", "Mary"]
    assert there(there(following).json["prev_url"]).json["items"] == ["Ada", "Ada"]
    assert other(following).status_int == 404


def test_without_a_secret_each_start_has_its_own_and_the_log_says_so_once(start, caplog):
    """If the ini file has no secret, a random one is made, which cannot be guessed."""
    caplog.set_level(logging.WARNING)
    here, there = start(), start()
    following = here("/").json["next_url"]
    answer = here(following).json

    assert answer["items"] == ["Grace", "Mary"]
    assert len([record for record in caplog.records if "cursor_secret" in record.message]) == 1
    assert there(following).status_int == 404


def test_a_secret_is_never_shown(start):
    """The settings do not show it, and neither does the error for a secret that is too short."""
    told = read_settings({"sqlalchemy.url": "sqlite://", "sqa.cursor_secret": SECRET})
    assert SECRET not in repr(told)
    with pytest.raises(Exception, match="16 characters or more") as refused:
        start(**{"sqa.cursor_secret": "guessed"})
    assert "guessed" not in str(refused.value)

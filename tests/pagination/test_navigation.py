"""What a template shows of a page, and the pages before and after it."""

import pytest
from jinja2 import Template
from pyramid.httpexceptions import HTTPNotFound
from sqlalchemy import select

from pyramid_aalam_sqa import Page, paginate
from support.paged import Author, plain

NAVIGATION = Template(
    '{% if p.has_prev %}<a href="?page={{ p.prev_num }}">back</a>{% endif %}'
    "{% for n in p.iter_pages() %}"
    "{% if not n %} ...{% elif n == p.page %} <b>{{ n }}</b>{% else %} {{ n }}{% endif %}"
    "{% endfor %}"
    '{% if p.has_next %} <a href="?page={{ p.next_num }}">on</a>{% endif %}'
    " {{ p.first }}-{{ p.last }} of {{ p.total }} on {{ p.pages }}:"
    "{% for x in p %} {{ x }}{% endfor %}"
)


def made(number, size, total):
    """Return a page of the numbers from 1 to *total*."""
    first = (number - 1) * size
    return Page(list(range(1, total + 1))[first : first + size], number, size, total)


# What Flask-SQLAlchemy 3.1 makes of the same template: page, rows on a page, rows.
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 3, 0), " 0-0 of 0 on 0:"),
        ((1, 3, 1), " <b>1</b> 1-1 of 1 on 1: 1"),
        ((1, 3, 3), " <b>1</b> 1-3 of 3 on 1: 1 2 3"),
        ((1, 3, 4), ' <b>1</b> 2 <a href="?page=2">on</a> 1-3 of 4 on 2: 1 2 3'),
        ((2, 3, 4), '<a href="?page=1">back</a> 1 <b>2</b> 4-4 of 4 on 2: 4'),
        (
            (1, 3, 21),
            ' <b>1</b> 2 3 4 5 6 7 <a href="?page=2">on</a> 1-3 of 21 on 7: 1 2 3',
        ),
        (
            (4, 3, 21),
            (
                '<a href="?page=3">back</a> 1 2 3 <b>4</b> 5 6 7 <a href="?page=5">on</a> '
                "10-12 of 21 on 7: 10 11 12"
            ),
        ),
        (
            (7, 3, 21),
            '<a href="?page=6">back</a> 1 2 ... 5 6 <b>7</b> 19-21 of 21 on 7: 19 20 21',
        ),
        (
            (1, 3, 60),
            ' <b>1</b> 2 3 4 5 ... 19 20 <a href="?page=2">on</a> 1-3 of 60 on 20: 1 2 3',
        ),
        (
            (5, 3, 60),
            (
                '<a href="?page=4">back</a> 1 2 3 4 <b>5</b> 6 7 8 9 ... 19 20 '
                '<a href="?page=6">on</a> 13-15 of 60 on 20: 13 14 15'
            ),
        ),
        (
            (7, 3, 60),
            (
                '<a href="?page=6">back</a> 1 2 ... 5 6 <b>7</b> 8 9 10 11 ... 19 20 '
                '<a href="?page=8">on</a> 19-21 of 60 on 20: 19 20 21'
            ),
        ),
        (
            (12, 3, 60),
            (
                '<a href="?page=11">back</a> 1 2 ... 10 11 <b>12</b> 13 14 15 16 ... 19 20 '
                '<a href="?page=13">on</a> 34-36 of 60 on 20: 34 35 36'
            ),
        ),
        (
            (20, 3, 60),
            '<a href="?page=19">back</a> 1 2 ... 18 19 <b>20</b> 58-60 of 60 on 20: 58 59 60',
        ),
        (
            (19, 3, 58),
            (
                '<a href="?page=18">back</a> 1 2 ... 17 18 <b>19</b> 20 '
                '<a href="?page=20">on</a> 55-57 of 58 on 20: 55 56 57'
            ),
        ),
        (
            (3, 1, 12),
            (
                '<a href="?page=2">back</a> 1 2 <b>3</b> 4 5 6 7 ... 11 12 '
                '<a href="?page=4">on</a> 3-3 of 12 on 12: 3'
            ),
        ),
    ],
)
def test_a_template_for_flask_sqlalchemy_shows_the_same_navigation(shape, expected):
    """An application that moves from Flask need not change its templates."""
    assert NAVIGATION.render(p=made(*shape)) == expected


def test_the_edges_of_the_navigation_can_be_chosen():
    """The template chooses how many numbers are shown at each end and around the page."""
    page = made(10, 1, 20)
    numbers = page.iter_pages(left_edge=0, left_current=1, right_current=1, right_edge=1)

    assert list(numbers) == [None, 9, 10, 11, None, 20]


def test_a_page_that_a_test_has_made_has_no_other_pages():
    """A test can make a page for a template. Its next() and prev() raise a clear error."""
    with pytest.raises(ValueError, match="did not make this page"):
        made(1, 1, 1).next()


def test_the_pages_after_and_before_keep_every_option(shelf):
    """All pages have the size that was asked for, or the largest size that is allowed."""
    page = paginate(shelf, select(Author), per_page=3, max_per_page=2, count=False)
    after = page.next()
    last = after.next()

    assert [len(each.items) for each in (page, after, last)] == [2, 2, 1]
    assert [each.has_next for each in (page, after, last)] == [True, True, False]
    assert [each.total for each in (page, after, last)] == [None, None, None]
    assert plain(after.prev()) == plain(page)
    assert page.prev().page == 1
    assert last.next().items == []
    for wrong in (page.prev, last.next):
        with pytest.raises(HTTPNotFound):
            wrong(error_out=True)

"""The guest book: the page with its form, and the same entries as JSON."""

from collections.abc import Mapping
from typing import Any

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPSeeOther
from sqlalchemy import select

from pyramid_aalam_sqa import SqaRequest

from .models import MESSAGE_LENGTH, NAME_LENGTH, Entry

PAGE = "templates/book.jinja2"
LENGTHS = {"name": NAME_LENGTH, "message": MESSAGE_LENGTH}
NEWEST = select(Entry).order_by(Entry.id.desc())


def includeme(config: Configurator) -> None:
    """Add the page of the guest book, and its entries as JSON."""
    config.add_route("book", "/book")
    config.add_route("entries", "/entries.json")
    config.add_view(read, route_name="book", request_method="GET", renderer=PAGE)
    config.add_view(write, route_name="book", request_method="POST", renderer=PAGE)
    config.add_view(as_json, route_name="entries", request_method="GET", renderer="json")


def read(request: SqaRequest) -> dict[str, object]:
    """Show the entries and an empty form."""
    return _page(request, typed=dict.fromkeys(LENGTHS, ""), problems={})


def write(request: SqaRequest) -> Any:
    """Store an entry and redirect to it, or show the form again and say what is wrong.

    The view does not commit. Its response decides: a redirect commits, the status 400 rolls back.
    """
    typed = {field: request.POST.get(field, "") for field in LENGTHS}
    entry = Entry(**{field: _normalized(text) for field, text in typed.items()})
    problems = find_problems(entry)
    if problems:
        request.response.status_int = 400
        return _page(request, typed, problems)
    request.sqa_session.add(entry)
    request.sqa_session.flush()  # gives the entry its id
    return HTTPSeeOther(request.route_path("book", _anchor=f"entry-{entry.id}"))


def as_json(request: SqaRequest) -> list[Entry]:
    """Return one page of the entries as JSON. The header Link has the addresses of other pages."""
    entries = request.sqa_paginate(NEWEST)
    request.response.headers["Link"] = entries.link_header()
    return entries.items


def find_problems(entry: Entry) -> dict[str, str]:
    """Return a sentence for each field of *entry* that is not valid, by the name of the field."""
    problems = {}
    for field, most in LENGTHS.items():
        length = len(getattr(entry, field))
        if not length:
            problems[field] = f"Please write your {field}."
        elif length > most:
            problems[field] = (
                f"Please shorten this: it has {length:,} characters, and {most:,} fit."
            )
    return problems


def _normalized(text: str) -> str:
    # A browser sends each line break as two characters, and counts it as one.
    return "\n".join(text.strip().splitlines())


def _page(
    request: SqaRequest, typed: Mapping[str, str], problems: Mapping[str, str]
) -> dict[str, object]:
    return {
        "entries": request.sqa_paginate(NEWEST),
        "typed": typed,
        "problems": problems,
        "lengths": LENGTHS,
    }

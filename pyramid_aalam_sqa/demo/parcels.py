"""Pages by place: 100,000 parcels, and the last page comes as fast as the first."""

from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, insert, literal, select

from pyramid_aalam_sqa import SqaRequest, get_sqa

from .filling import fill_once
from .models import Parcel
from .sent import attempts_of

PARCELS = 100_000
PER_PAGE = 8
# A prime, so that the weights are well mixed. About five parcels have the same weight.
WEIGHTS = 20_011


def find_page(request: SqaRequest) -> dict[str, Any] | None:
    """Return the page of parcels that the query string asks for; None if it asks for none."""
    way = request.GET.get("parcels")
    if way not in {"by place", "by number"}:
        return None
    fill_parcels(get_sqa(request).engine)
    page = page_by_place(request) if way == "by place" else last_page_by_number(request)
    # The last statement of this request so far is that of the page.
    rows = [row for attempt in attempts_of(request) for row in attempt.rows]
    return {"way": way, "page": page, "sent": rows[-1:]}


def page_by_place(request: SqaRequest) -> Any:
    """Return the page after or before the parcel in the address."""
    return request.sqa_paginate_keyset(heaviest_first(), per_page=PER_PAGE)


def heaviest_first() -> Select[Parcel]:
    """Select the parcels by weight. Parcels of the same weight have the order of their numbers."""
    return select(Parcel).order_by(Parcel.grams.desc(), Parcel.number.desc())


def last_page_by_number(request: SqaRequest) -> Any:
    """Return the last page by its number: the database reads all rows before it."""
    last = PARCELS // PER_PAGE
    return request.sqa_paginate(heaviest_first(), page=last, per_page=PER_PAGE, count=False)


def fill_parcels(engine: Engine) -> None:
    """Make the parcels, if there are none: one, and then as many again with each statement."""
    columns = ["grams", "number"]
    inserts = [insert(Parcel).from_select(columns, select(_grams(literal(1)), literal(1)))]
    made = 1
    while made < PARCELS:
        number = Parcel.number + made
        rows = select(_grams(number), number).where(number <= PARCELS)
        inserts.append(insert(Parcel).from_select(columns, rows))
        made *= 2
    fill_once(engine, select(Parcel.number), *inserts)


def _grams(number: ColumnElement[int]) -> ColumnElement[int]:
    return number * 7919 % WEIGHTS + 1

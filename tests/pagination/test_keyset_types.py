"""Keyset pages in the order of a column of any type: a cursor keeps its values exactly."""

import enum
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import (
    CHAR,
    REAL,
    Boolean,
    Column,
    Date,
    DateTime,
    Double,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    TypeDecorator,
    Uuid,
    insert,
    select,
    text,
)
from sqlalchemy.dialects import mssql
from sqlalchemy.orm import Session

from pyramid_aalam_sqa.backends import sorting_of
from support.databases import plain_engine
from support.paged import first_page, last_page, walk


class Colour(enum.Enum):
    red = "r"
    green = "g"
    blue = "b"


class Shouted(TypeDecorator):
    """A text that the type turns into a dictionary, which has no order."""

    impl = String(10)
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return value and value["text"]

    def process_result_value(self, value, dialect):
        return value and {"text": value}


MOMENT = datetime(2026, 2, 28, 23, 59, 59)  # noqa: DTZ001 - as it is stored
TYPES = {
    "integer": (Integer(), [3, -1, 2**31 - 1, 0]),
    "single": (REAL(), [0.1, 0.2, 0.3, 1e30]),
    "float": (Float(), [0.1, 0.7, -0.3, 2.5]),
    "double": (Double(), [0.1, 0.2, 0.1 + 0.2, 1 / 3]),
    "numeric": (Numeric(10, 2), [Decimal("0.10"), Decimal("12345678.91"), Decimal(-1), Decimal(2)]),
    "rounded": (Numeric(20, 10, asdecimal=False), [Decimal("0.1234567891"), 1, 2, 3]),
    "text": (String(20), ["", "a", "B", "ä'\\%"]),
    "fixed": (CHAR(4), ["ab", "a", "ab", "abcd"]),
    "truth": (Boolean(), [True, False, True, False]),
    "bytes": (LargeBinary(20), [b"\x00\xff", b"'", b"", b"\\"]),
    "day": (Date(), [date(2026, 1, day) for day in (4, 1, 3, 2)]),
    "moment": (DateTime(), [MOMENT + timedelta(seconds=n) for n in (3, 1, 2, 0)]),
    "zoned": (DateTime(timezone=True), [MOMENT.replace(tzinfo=UTC, hour=n) for n in (3, 1, 2, 1)]),
    "span": (Interval(), [timedelta(hours=n) for n in (30, 1, 0, 5)]),
    "uuid": (Uuid(), [uuid.UUID(int=n * 2**100) for n in (3, 1, 2, 0)]),
    "enum": (Enum(Colour, name="colour"), [*Colour, Colour.red]),
    "words": (Enum("zebra", "ant", name="word"), ["ant", "zebra", "ant", "zebra"]),
    "plain_enum": (Enum(Colour, name="plain", native_enum=False), [*Colour, Colour.red]),
    "shouted": (Shouted(), [{"text": word} for word in ("c", "a", "b", "a")]),
}
typed = Table(
    "typed",
    MetaData(),
    Column("id", Integer, primary_key=True, autoincrement=False),
    *(Column(name, kind) for name, (kind, _) in TYPES.items()),
)


@pytest.mark.filterwarnings("ignore:Dialect sqlite.*Decimal")
@pytest.mark.sweep(2)
def test_rows_are_ordered_by_a_column_of_any_type(any_database):
    """A cursor returns exactly the value that the database compares, to the last bit."""
    rows = [{"id": n, **{name: given[n] for name, (_, given) in TYPES.items()}} for n in range(4)]
    with Session(plain_engine(any_database.url)) as session:
        typed.create(session.connection())
        session.execute(insert(typed), [*rows, {"id": 9, **dict.fromkeys(TYPES)}])
        # A person writes it without microseconds; SQLAlchemy would add them on SQLite.
        session.execute(text("UPDATE typed SET moment = '2026-01-02 03:04:05' WHERE id < 2"))
        for name in TYPES:
            for direction in ("asc", "desc"):
                clause = getattr(typed.c[name], direction)()
                statement = select(typed.c.id).order_by(clause)
                whole = session.scalars(statement.order_by(getattr(typed.c.id, direction)())).all()
                page = first_page(session, statement, 1)
                found = list(page)
                while page.has_next and len(found) < 10:
                    page = first_page(session, statement, 1, after=page.next_cursor)
                    found += page

                assert found == whole, (name, direction)
                assert walk(last_page(session, statement, 1), backwards=True) == whole, name


def test_an_unknown_database_compares_the_plainest_type_that_loses_nothing():
    """The application's own type is not used to compare, and a float is not rounded."""
    sorting = sorting_of(mssql.dialect())
    types = (Shouted(), Float(asdecimal=True), Numeric(asdecimal=False))
    exact = [sorting.exactly(Column("x", type_), mssql.dialect()).kept.type for type_ in types]

    assert [type(type_) for type_ in exact] == [String, Double, Numeric]
    assert exact[2].asdecimal
    assert not sorting.nulls_are_largest

"""The identity of a row is converted to key values, or is not found. It is never an error."""

import enum
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyramid.httpexceptions import HTTPNotFound
from sqlalchemy import (
    CHAR,
    JSON,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Double,
    Enum,
    Float,
    ForeignKey,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Text,
    Time,
    TypeDecorator,
    Uuid,
    inspect,
    select,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, synonym
from sqlalchemy.types import UserDefinedType

from pyramid_aalam_sqa import get_or_404
from pyramid_aalam_sqa.queries.primary_keys import convert, identity_of
from support.databases import plain_engine

MYSQL, POSTGRESQL, SQLITE = MySQLDialect_pymysql(), PGDialect_psycopg(), SQLiteDialect_pysqlite()
BACKENDS = [MYSQL, POSTGRESQL, SQLITE]
SOME_UUID = UUID("c7f9a8d2-3b1e-4f60-9a51-0d2b6c8e7f10")
BIG = 2**63 - 1


class Color(enum.Enum):
    """An enum that the database stores by name."""

    RED = "#f00"
    BLUE = "#00f"


class Hashed(TypeDecorator):
    """A number that visitors see as text with a prefix."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value, dialect):
        prefix, number = value.split("-")
        assert prefix == "user"
        return int(number)


class Passing(TypeDecorator):
    """A number that the type does not convert, so text would reach the database."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return value


class Guid(TypeDecorator):
    """The recipe of SQLAlchemy's documentation. It declares the Python type of its values."""

    impl = CHAR(32)
    cache_ok = True
    python_type = UUID

    def process_bind_param(self, value, dialect):
        return value.hex

    def process_result_value(self, value, dialect):
        return UUID(value)


class Plain(TypeDecorator):
    """A text that the type converts only in results."""

    impl = String(5)
    cache_ok = True


class Nameless(TypeDecorator):
    """A type that does not declare the Python type of its values."""

    impl = JSON
    cache_ok = True


class Silent(UserDefinedType):
    """A type that raises an error for python_type, as many types of SQLAlchemy 2.0 do."""

    cache_ok = True

    @property
    def python_type(self):
        raise NotImplementedError


def converted(type_, value):
    """Return what *value* becomes on each database."""
    return [convert(type_, value, dialect) for dialect in BACKENDS]


@pytest.mark.parametrize(
    ("type_", "given", "expected"),
    [
        (Integer(), 7, 7),
        (Integer(), "7", 7),
        (Integer(), "-7", -7),
        (Integer(), "0", 0),
        (Integer(), str(2**31 - 1), 2**31 - 1),
        (SmallInteger(), "-32768", -32768),
        (BigInteger(), str(-(2**63)), -(2**63)),
        (BigInteger().with_variant(Integer, "sqlite"), str(BIG), BIG),
        (
            mysql.INTEGER(unsigned=True).with_variant(BigInteger, "postgresql"),
            "4294967295",
            2**32 - 1,
        ),
        (mysql.TINYINT(unsigned=True), "255", 255),
        (String(5), "abcde", "abcde"),
        (String(5), "ééééé", "ééééé"),
        (Text(), "1abc", "1abc"),
        (LargeBinary(3), b"\x00\xff", b"\x00\xff"),
        (LargeBinary(), bytearray(b"x"), b"x"),
        (Boolean(), False, False),
        (Boolean(), "True", True),
        (Boolean(), "false", False),
        (Numeric(5, 2), "123.45", Decimal("123.45")),
        (Numeric(5, 2), "1.500", Decimal("1.5")),
        (Numeric(5), -99999, Decimal(-99999)),
        (Numeric(), "1" * 50, Decimal("1" * 50)),
        (Float(asdecimal=True), "0.5", Decimal("0.5")),
        (Double(), "1e-07", 1e-07),
        (Double(), 3, 3.0),
        (Date(), "2026-02-28", date(2026, 2, 28)),
        (Date(), date(2026, 2, 28), date(2026, 2, 28)),
        (DateTime(), "2026-02-28 01:02:03", datetime(2026, 2, 28, 1, 2, 3)),  # noqa: DTZ001 - a column without
        (
            DateTime(timezone=True),
            datetime(2026, 2, 28, tzinfo=UTC),
            datetime(2026, 2, 28, tzinfo=UTC),
        ),
        (Time(), "23:59:59", time(23, 59, 59)),
        (Time(), time(1), time(1)),
        (Interval(), timedelta(hours=1), timedelta(hours=1)),
        (Uuid(), str(SOME_UUID), SOME_UUID),
        (Uuid(), SOME_UUID.hex.upper(), SOME_UUID),
        (Uuid(as_uuid=False), SOME_UUID, str(SOME_UUID)),
        (Enum(Color), "RED", Color.RED),
        (Enum(Color), Color.BLUE, Color.BLUE),
        (
            Enum(Color, values_callable=lambda kind: [each.value for each in kind]),
            "#f00",
            Color.RED,
        ),
        (Enum("small", "large"), "small", "small"),
        (Hashed(), "user-7", "user-7"),
        (Passing(), "7", 7),
        (Guid(), str(SOME_UUID), SOME_UUID),
        (Plain(), "abcde", "abcde"),
        (postgresql.INET(), "127.0.0.1", "127.0.0.1"),
        (postgresql.INET(), 7, 7),
        (Nameless(), 7, 7),
        (Silent(), 7, 7),
    ],
)
def test_text_becomes_what_the_column_holds(type_, given, expected):
    """The converted value has the same class and is equal on each database."""
    for found in converted(type_, given):
        assert found == expected
        assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("type_", "given"),
    [
        *[
            (Integer(), value)
            for value in (
                *(
                    "1abc",
                    "1.0",
                    " 1",
                    "1 ",
                    "1\n",
                    "1\0",
                    "+1",
                    "01",
                    "-0",
                    "1e0",
                    "0x1",
                    "1_0",
                    "",
                ),
                *("١", "１", "²", "9" * 30, "9" * 5000, b"1", 1.0, Decimal(1), True, None),  # noqa: RUF001 - on purpose
                *(2**63, -(2**63) - 1, 10**30, object(), {1}),
            )
        ],
        (SmallInteger().with_variant(BigInteger, "sqlite"), 2**63),
        (mysql.BIGINT(unsigned=True), -(2**63) - 1),
        (String(5), "abcdef"),
        (String(5), "a\0b"),
        (String(5), "\ud800"),
        (String(5), b"abc"),
        (String(5), 7),
        (LargeBinary(1), b"ab"),
        (LargeBinary(), "ab"),
        (Boolean(), 1),
        (Boolean(), "1"),
        (Boolean(), "TRUE"),
        (Numeric(5, 2), "123.456"),
        (Numeric(5, 2), "1234"),
        (Numeric(5, 2), "1e2"),
        (Numeric(5, 2), "NaN"),
        (Numeric(5, 2), Decimal("NaN")),
        (Numeric(), Decimal("1e999999999")),
        (Numeric(5, 2), True),
        (Numeric(5, 2), 1.5),
        (Double(), "nan"),
        (Double(), "1e999"),
        (Double(), "1_0"),
        (Double(), True),
        (Double(), 10**400),
        (Date(), "2026-02-30"),
        (Date(), "20260228"),
        (Date(), "2026-W01-1"),
        (Date(), datetime(2026, 2, 28, tzinfo=UTC)),
        (Date(), 7),
        (DateTime(), "yesterday"),
        (DateTime(), datetime(2026, 2, 28, tzinfo=UTC)),
        (DateTime(), date(2026, 2, 28)),
        (Time(), "25:00"),
        (Time(), 7),
        (Interval(), "1 day"),
        (Uuid(), "{c7f9a8d2-3b1e-4f60-9a51-0d2b6c8e7f10}"),
        (Uuid(), "c7f9"),
        (Uuid(), 7),
        (Enum(Color), "#f00"),
        (Enum(Color), "GREEN"),
        (Enum(Color), 7),
        (Enum("small", "large"), "Small"),
        (Hashed(), "7"),
        (Hashed(), "user-7x"),
        (Hashed(), 7),
        (Hashed(), f"user-{BIG + 1}"),
        (Passing(), "7x"),
        (Passing(), None),
        (Guid(), "no"),
        (Plain(), "abcdef"),
        (postgresql.INET(), "a\0"),
        (mysql.YEAR(), "2026abc"),
    ],
)
def test_what_no_row_can_have_is_none(type_, given):
    """Such a value is neither an error nor a value that a database reads as another one."""
    assert converted(type_, given) == [None, None, None]


@pytest.mark.parametrize(
    ("type_", "number", "sizes"),
    [
        (Integer(), 2**31, [False, False, True]),
        (Integer(), -(2**31) - 1, [False, False, True]),
        (SmallInteger(), 2**15, [False, False, True]),
        (BigInteger(), 2**62, [True, True, True]),
        (mysql.MEDIUMINT(), 2**23, [False, True, True]),
        (mysql.TINYINT(), 128, [False, True, True]),
        (mysql.INTEGER(unsigned=True), -1, [False, True, True]),
        (mysql.BIGINT(unsigned=True), 2**64 - 1, [True, False, False]),
    ],
)
def test_a_number_is_as_large_as_the_column_of_that_database(type_, number, sizes):
    """SQLite has one size of integers. MySQL and MariaDB have several."""
    assert [found is not None for found in converted(type_, str(number))] == sizes


def test_what_sqlalchemy_cannot_send_is_none():
    """Only PostgreSQL has intervals. On other databases SQLAlchemy adds them to a date."""
    assert converted(Interval(), timedelta.max) == [None, timedelta.max, None]


class Base(DeclarativeBase):
    """The models of this module."""


class Line(Base):
    """A model with a composite key. One attribute has another name than its column."""

    __tablename__ = "line"
    order: Mapped[int] = mapped_column("order_id", primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    position = synonym("number")


class Document(Base):
    """The base class of a joined inheritance."""

    __tablename__ = "document"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "document"}  # noqa: RUF012 - SQLAlchemy's way


class Report(Document):
    """A subclass with its own table, which has the key of the base class."""

    __tablename__ = "report"
    id: Mapped[int] = mapped_column(ForeignKey(Document.id), primary_key=True)
    __mapper_args__ = {"polymorphic_identity": "report"}  # noqa: RUF012 - as above


@pytest.mark.parametrize(
    ("ident", "expected"),
    [
        (("1", 2), (1, 2)),
        (["1", "2"], (1, 2)),
        ({"number": "2", "order": "1"}, (1, 2)),
        ({"position": "2", "order": "1"}, (1, 2)),
        (("1",), None),
        (("1", "2", "3"), None),
        ((), None),
        ("12", None),
        (1, None),
        (("1", None), None),
        (("1", "2x"), None),
        ({"order": 1}, None),
        ({"order_id": 1, "number": 2}, None),
        ({"order": 1, "number": 2, "more": 3}, None),
        ({1: 1, 2: 2}, None),
        ({}, None),
        ({1, 2}, None),
    ],
)
def test_a_composite_key_is_a_tuple_or_a_dictionary(ident, expected):
    """The key must be complete. A dictionary has the names of the attributes."""
    assert identity_of(inspect(Line), ident, SQLITE) == expected


@pytest.mark.parametrize("ident", [7, "7", (7,), ["7"], {"id": "7"}])
def test_a_class_that_inherits_has_the_key_of_its_base(ident):
    """The key is one value, although two tables have its column."""
    assert identity_of(inspect(Report), ident, SQLITE) == (7,)


SAMPLES = {
    Integer: 7,
    BigInteger: BIG,
    String(10): "a",
    Boolean: True,
    Numeric(5, 2): Decimal("1.50"),
    Date: date(2026, 2, 28),
    DateTime: datetime(2026, 2, 28, 1, 2, 3),  # noqa: DTZ001 - a column without
    Uuid: SOME_UUID,
    Enum(Color, name="color"): Color.RED,
    Passing: 8,
    Guid: SOME_UUID,
}
MODELS = [
    type(
        f"Keyed{number}",
        (Base,),
        {
            "__tablename__": f"keyed{number}",
            "id": mapped_column(type_, primary_key=True, autoincrement=False),
        },
    )
    for number, type_ in enumerate(SAMPLES)
]
ANYTHING = st.one_of(
    st.none(),
    st.text(),
    st.from_regex(r"\s*[-+]?\d+[.eE]?\d*\s*[a-z]?", fullmatch=True),
    st.text(st.characters(categories=["Cs", "Cc", "Nd"])),
    st.integers(),
    st.integers(min_value=2**31 - 1),
    st.floats(),
    st.decimals(),
    st.binary(),
    st.booleans(),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
    st.timedeltas(),
    st.uuids(),
    st.dictionaries(st.text(), st.text()),
    st.tuples(st.integers()),
    st.lists(st.text()),
)


@pytest.fixture(scope="module")
def stored(module_url):
    """A session on each database, with the row of SAMPLES for each model."""
    engine = plain_engine(module_url)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(
            model(id=value) for model, value in zip(MODELS, SAMPLES.values(), strict=True)
        )
        session.commit()
        yield session


def test_a_row_is_found_by_the_text_of_its_key(stored):
    """The text is what route_url() writes into an address."""
    for model, value in zip(MODELS, SAMPLES.values(), strict=True):
        text = value.name if isinstance(value, Color) else str(value)
        stored.expunge_all()
        assert get_or_404(stored, model, text).id == value


def test_a_class_that_inherits_finds_its_own_rows_only(stored):
    """The base class finds rows of the subclass. The subclass finds only its own rows."""
    stored.add_all([Document(id=1), Report(id=2)])
    stored.flush()
    for expunge in (False, True):
        if expunge:
            stored.expunge_all()
        assert type(get_or_404(stored, Document, "1")) is Document
        assert type(get_or_404(stored, Document, "2")) is Report
        assert type(get_or_404(stored, Report, "2")) is Report
        with pytest.raises(HTTPNotFound):
            get_or_404(stored, Report, "1")
    stored.rollback()


@settings(max_examples=150, deadline=None)
@given(ident=ANYTHING, model=st.sampled_from(MODELS))
@pytest.mark.sweep(2)
def test_anything_at_all_is_a_row_or_not_found(stored, ident, model):
    """No value finds another row, or makes the database end the transaction with an error."""
    try:
        found = get_or_404(stored, model, ident)
    except HTTPNotFound:
        found = None

    assert stored.scalar(select(1)) == 1
    [only] = ident if isinstance(ident, (tuple, list)) and len(ident) == 1 else [ident]
    if found is not None:
        assert str(found.id).lower() == str(only).lower() or found.id == only

"""Keyset pages in the order of every type that MariaDB and PostgreSQL have."""

import json
import uuid
import warnings
from contextlib import contextmanager
from datetime import date, datetime

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import MetaData, Table, desc, func, select, text
from sqlalchemy.exc import SADeprecationWarning, SAWarning
from sqlalchemy.orm import Session

from support.databases import own_database, plain_engine
from support.paged import first_page, last_page, walk

# Types by how they are declared, and the text of their values.
WORDS = st.sampled_from(["", "a", "A", "a ", "a\t", "b", "B", "ä", "Z"])
NUMBERS = st.sampled_from(["0", "-1", "1.5", "0.1", "0.2", "1e30", "-0.0", "1e-30"])
INTEGERS = st.integers(0, 3) | st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64 - 1])
BYTES = st.binary(max_size=3)
UUIDS = st.integers(0, 2**128 - 1).map(lambda number: str(uuid.UUID(int=number)))
DAYS = st.dates().map(date.isoformat)
MOMENTS = st.datetimes().map(datetime.isoformat)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "b"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=3,
).map(json.dumps)
TIMES = st.builds(
    "{}{:02}:{:02}:{:02}.{:06}".format,
    st.sampled_from(["", "-"]),
    st.sampled_from([0, 0, 1, 23, 24, 25, 837]),
    st.integers(0, 59),
    st.integers(0, 59),
    st.sampled_from([0, 1, 500000, 999999]),
)
MARIADB = {
    "BIT(5)": st.integers(0, 31),
    "BIT(64)": INTEGERS,
    "SET('c','a','b')": st.sets(st.sampled_from("abc")).map(",".join),
    "ENUM('c','a','b')": st.sampled_from("abc"),
    "YEAR": st.sampled_from(["0000", "1901", "1969", "2026", "2155"]),
    "TIME": TIMES,
    "TIME(6)": TIMES,
    "DATE": DAYS | st.sampled_from(["0000-00-00", "2026-02-00"]),
    "DATETIME": MOMENTS | st.sampled_from(["0000-00-00 00:00:00", "2026-00-00 00:00:00"]),
    "DATETIME(6)": MOMENTS,
    "TIMESTAMP(6) NULL": st.datetimes(datetime(1971, 1, 1), datetime(2037, 1, 1)).map(  # noqa: DTZ001 - as it is stored
        datetime.isoformat
    ),
    "JSON": DOCUMENTS,
    "BIGINT UNSIGNED": INTEGERS,
    "DECIMAL(65,30)": st.decimals("-1e34", "1e34", places=30).map("{:f}".format),
    "FLOAT": NUMBERS,
    "FLOAT(7,3)": st.sampled_from(["0.1", "0.123", "1.001", "-0.5"]),
    "DOUBLE": NUMBERS | st.floats(allow_nan=False, allow_infinity=False).map(repr),
    "CHAR(4) CHARACTER SET latin1": WORDS,
    "VARCHAR(20) COLLATE utf8mb4_unicode_ci": WORDS,
    "VARCHAR(20) COLLATE utf8mb4_bin": WORDS,
    "VARCHAR(20) COLLATE utf8mb4_nopad_bin": WORDS,
    "TEXT": WORDS,
    "BINARY(3)": BYTES,
    "VARBINARY(3)": BYTES,
    "BLOB": BYTES,
    "UUID": UUIDS,
    "INET6": st.ip_addresses(v=6).map(str),
}
INFINITE = st.sampled_from(["infinity", "-infinity", "0044-03-15 BC", "10000-01-01"])
SPANS = st.builds(
    "{} mons {} days {} us".format,
    st.integers(-13, 13),
    st.sampled_from([-30, -1, 0, 1, 30, 31, 60]),
    st.sampled_from([0, 1, -1, 86_400_000_000]),
)
SPECIAL = st.sampled_from(["NaN", "Infinity", "-Infinity", "-0", "0"])
BITS = st.text("01", min_size=5, max_size=5)


def many(values):
    """Return arrays of texts, as PostgreSQL writes them."""
    return st.lists(values, max_size=2).map(
        lambda found: "{" + ",".join(json.dumps(str(each)) for each in found) + "}"
    )


def ranges(values):
    """Return ranges with open and closed ends, and an empty one."""
    return st.just("empty") | st.builds(
        lambda ends, marks: f"{marks[0]}{min(ends)},{max(ends)}{marks[1]}",
        st.tuples(values, values),
        st.sampled_from(["[]", "[)", "()", "(]"]),
    )


POSTGRESQL = {
    "BIT(5)": BITS,
    "VARBIT": st.text("01", max_size=5),
    "INTERVAL": SPANS,
    "MONEY": st.sampled_from(["12.34", "-1", "100000", "2.5"]),
    "INET": st.ip_addresses().map(str) | st.just("10.0.0.0/8"),
    "CIDR": st.sampled_from(["10.0.0.0/8", "10.0.0.0/16", "::1/128"]),
    "MACADDR": st.sampled_from(["08:00:2b:01:02:03", "00:00:2b:01:02:03"]),
    "MACADDR8": st.sampled_from(["08:00:2b:01:02:03:04:05", "00:00:2b:01:02:03:04:05"]),
    "INTEGER[]": many(st.integers(-2, 2)),
    "TEXT[]": many(st.sampled_from(["", "a", "x,y", '"', "\\", "NULL"])),
    "DATE[]": many(DAYS | INFINITE),
    "colour[]": many(st.sampled_from(["red", "green"])),
    "INT4RANGE": ranges(st.integers(-2, 2)),
    "TSRANGE": ranges(st.datetimes().map(lambda moment: moment.isoformat())),
    "TSVECTOR": st.sampled_from(["", "a", "b", "a b"]),
    "JSONB": DOCUMENTS,
    "CITEXT": WORDS,
    "UUID": UUIDS,
    "BYTEA": BYTES.map(lambda value: "\\x" + value.hex()),
    "OID": st.sampled_from(["1", "4000000000"]),
    "REGCLASS": st.sampled_from(["pg_class", "pg_proc", "pg_type"]),
    "PG_LSN": st.sampled_from(["16/B374D848", "0/0"]),
    "DATE": DAYS | INFINITE,
    "TIMESTAMP": MOMENTS | INFINITE,
    "TIMESTAMPTZ": MOMENTS.map(lambda moment: f"{moment}+05:30") | INFINITE,
    "TIME": st.times().map(str) | st.just("24:00:00"),
    "TIMETZ": st.sampled_from(["12:00+02", "12:00+03", "11:00+01", "24:00:00+00"]),
    "NUMERIC": NUMBERS | SPECIAL,
    "NUMERIC(10,2)": st.sampled_from(["NaN", "1.10", "2", "-1"]),
    "REAL": NUMBERS | SPECIAL,
    "DOUBLE PRECISION": SPECIAL | st.floats(width=64, allow_nan=False).map(repr),
    "TEXT COLLATE loose": WORDS,
    'TEXT COLLATE "C"': WORDS,
    "CHAR(4)": WORDS,
    "NAME": WORDS,
    '"char"': st.sampled_from("abZ"),
    "BOOLEAN": st.sampled_from(["true", "false"]),
    "colour": st.sampled_from(["red", "green"]),
    "positive": st.sampled_from(["1", "5"]),
}
BEFORE = (
    "CREATE EXTENSION citext",
    "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    "CREATE TYPE colour AS ENUM ('red', 'green')",
    "CREATE DOMAIN positive AS INTEGER CHECK (VALUE > 0)",
)


@contextmanager
def with_columns(server_url, types, *before):
    """A session on a table with a column of each of *types*, and the columns by type."""
    with own_database(server_url) as database, Session(plain_engine(database.url)) as session:
        for statement in before:
            session.execute(text(statement))
        columns = ", ".join(f"c{number} {type_}" for number, type_ in enumerate(types))
        session.execute(text(f"CREATE TABLE typed (id INTEGER PRIMARY KEY, {columns})"))
        session.commit()
        with warnings.catch_warnings():
            # SQLAlchemy has no names for INET6 and PG_LSN.
            warnings.simplefilter("ignore", SAWarning)
            typed = Table("typed", MetaData(), autoload_with=session.connection())
        yield session, {type_: typed.c[f"c{number}"] for number, type_ in enumerate(types)}


@pytest.fixture(scope="module")
def on_mariadb(mariadb_url):
    """The columns on MariaDB, which accepts zero dates and truncates values that are too long."""
    with with_columns(mariadb_url, MARIADB) as (session, columns):
        session.execute(text("SET sql_mode = ''"))
        yield session, columns


@pytest.fixture(scope="module")
def on_postgresql(postgresql_server):
    """The columns on PostgreSQL."""
    with with_columns(postgresql_server.url(), POSTGRESQL, *BEFORE) as found:
        yield found


def fill(session, column, values, given):
    """Insert a row for each of *values*. *given* is the form in which SQL takes a value."""
    session.execute(text("DELETE FROM typed"))
    if values:
        insert = text(f"INSERT INTO typed (id, {column.name}) VALUES (:id, {given})")
        rows = [{"id": number, "value": value} for number, value in enumerate(values)]
        session.execute(insert, rows)


def by_descending(column):
    """Order by *column* descending. SQLAlchemy warns about this for some types."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SADeprecationWarning)
        return desc(column)


def check_pages(session, column, descending):
    """Check that pages show each row once, in the order of the database, in both directions."""
    number = column.table.c.id
    ends = (by_descending(column), desc(number)) if descending else (column, number)
    statement = select(number).order_by(ends[0])
    whole = session.scalars(statement.order_by(ends[1])).all()
    page = first_page(session, statement)
    found = list(page)
    while page.has_next and len(found) <= len(whole):
        page = first_page(session, statement, after=page.next_cursor)
        found += page

    assert found == whole
    assert walk(last_page(session, statement), backwards=True) == whole


# Without shrinking, which takes minutes: a few rows are easy to read as they are.
QUIET = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.explicit, Phase.reuse, Phase.generate],
}


@pytest.mark.parametrize("type_", MARIADB)
@pytest.mark.sweep(12)
@settings(max_examples=4, **QUIET)
@given(data=st.data(), descending=st.booleans())
def test_mariadb_pages_by_a_column_of_each_type(on_mariadb, type_, data, descending):
    """Each row is shown once, in the order in which MariaDB sorts."""
    session, columns = on_mariadb
    values = data.draw(st.lists(st.none() | MARIADB[type_], min_size=3, max_size=6))
    fill(session, columns[type_], values, ":value")
    check_pages(session, columns[type_], descending)


@pytest.mark.parametrize("type_", POSTGRESQL)
@pytest.mark.sweep(9)
@settings(max_examples=4, **QUIET)
@given(data=st.data(), descending=st.booleans())
def test_postgresql_pages_by_a_column_of_each_type(on_postgresql, type_, data, descending):
    """Each row is shown once, in the order in which PostgreSQL sorts."""
    session, columns = on_postgresql
    values = data.draw(st.lists(st.none() | POSTGRESQL[type_], min_size=3, max_size=6))
    bare = type_.partition(" COLLATE")[0]
    fill(session, columns[type_], values, f"CAST(CAST(:value AS TEXT) AS {bare})")
    check_pages(session, columns[type_], descending)


@pytest.mark.parametrize("type_", ["TIME(6)", "BIT(5)", "SET('c','a','b')", "ENUM('c','a','b')"])
def test_mariadb_pages_by_a_group_of_such_a_column(on_mariadb, type_):
    """HAVING compares the groups as ORDER BY sorts them."""
    session, columns = on_mariadb
    values = {
        "TIME(6)": ["-00:30:00", "100:00:00", "-12:30:00", "100:00:00", "99:00:00"],
        "BIT(5)": [16, 2, 31, 2, 1],
        "SET('c','a','b')": ["a,b", "c", "b", "c", "a"],
        "ENUM('c','a','b')": ["b", "c", "a", "c", "b"],
    }[type_]
    column = columns[type_]
    fill(session, column, [*values, None], ":value")
    least = func.min(column.table.c.id)
    statement = select(least).group_by(column).order_by(column)
    whole = session.scalars(statement).all()

    assert walk(first_page(session, statement, 1)) == whole
    assert walk(last_page(session, statement, 1), backwards=True) == whole

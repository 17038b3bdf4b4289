"""The models. An order is what the visitor's requests write; the guest book has entries."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    String,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

NAME_LENGTH = 60
MESSAGE_LENGTH = 1000
# Without utf8mb4 some MySQL servers cannot store most alphabets.
UTF8 = {"mysql_charset": "utf8mb4", "mariadb_charset": "utf8mb4"}


def now() -> datetime:
    """Return the time in whole seconds, because MySQL's DATETIME does not store fractions."""
    return datetime.now(UTC).replace(microsecond=0)


class UtcDateTime(TypeDecorator[datetime]):
    """A time, stored in UTC without its time zone: SQLite and MySQL do not store time zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert *value* to UTC and remove its time zone."""
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Set the time zone of *value* to UTC."""
        return value and value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """The base of the models in the default database."""

    __table_args__: tuple[Any, ...] = (UTF8,)


class LedgerBase(DeclarativeBase):
    """The base of the models in the second database, the ledger."""

    __bind_key__ = "ledger"


class Entry(Base):
    """What a guest wrote."""

    __tablename__ = "entries"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    message: Mapped[str] = mapped_column(String(MESSAGE_LENGTH))
    created: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class Order(Base):
    """An order of a visitor. If its request rolled back, it is not stored.

    An order has a number, because its id is not enough: if a row is rolled back, the next row may
    get the same id.
    """

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(String(8), unique=True)
    visitor: Mapped[str] = mapped_column(String(32))


class Booking(LedgerBase):
    """The booking of an order, in the ledger. The ledger refuses an amount of zero."""

    __tablename__ = "bookings"
    __table_args__ = (CheckConstraint("amount > 0", name="amount_is_positive"), UTF8)

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(String(8), unique=True)
    visitor: Mapped[str] = mapped_column(String(32))
    amount: Mapped[int]


class Stock(Base):
    """How many pieces of one kind are in a visitor's stock."""

    __tablename__ = "stock"
    __table_args__ = (UniqueConstraint("visitor", "kind"), UTF8)

    id: Mapped[int] = mapped_column(primary_key=True)
    visitor: Mapped[str] = mapped_column(String(32))
    kind: Mapped[int]
    pieces: Mapped[int]


class Parcel(Base):
    """One of many parcels. Its key is the order of the pages: by weight, then by number."""

    __tablename__ = "parcels"

    grams: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Drawer(Base):
    """A drawer with coins, for the list with and without N+1."""

    __tablename__ = "drawers"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(String(20))
    coins: Mapped[list["Coin"]] = relationship(back_populates="drawer")


class Coin(Base):
    """A coin, which is in one drawer at a time."""

    __tablename__ = "coins"

    id: Mapped[int] = mapped_column(primary_key=True)
    drawer_id: Mapped[int] = mapped_column(ForeignKey("drawers.id"))
    drawer: Mapped[Drawer] = relationship(back_populates="coins")

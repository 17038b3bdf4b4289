"""The models: entries of the guest book, and trials of the rule."""

from datetime import UTC, datetime

from sqlalchemy import DateTime, Dialect, ForeignKey, String, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

NAME_LENGTH = 60
MESSAGE_LENGTH = 1000


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
    """The base of the models. Without utf8mb4 some MySQL servers cannot store most alphabets."""

    __table_args__ = ({"mysql_charset": "utf8mb4", "mariadb_charset": "utf8mb4"},)


class Entry(Base):
    """What a guest wrote."""

    __tablename__ = "entries"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    message: Mapped[str] = mapped_column(String(MESSAGE_LENGTH))
    created: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class Trial(Base):
    """A row that a request wrote before it answered. If the request rolled back, it is not stored.

    A trial has a token, because its id is not enough: if a row is rolled back, the next row may get
    the same id.
    """

    __tablename__ = "trials"

    id: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str] = mapped_column(String(8), unique=True)
    answer: Mapped[str] = mapped_column(String(20))
    created: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class Drawer(Base):
    """A drawer with coins, for the pages that show a deadlock and a list."""

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

"""What the database holds: the entries of the guest book, and the trials of the rule."""

from datetime import UTC, datetime

from sqlalchemy import DateTime, Dialect, String, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAME_LENGTH = 60
MESSAGE_LENGTH = 1000


def now() -> datetime:
    """Return the time in whole seconds, which is all that MySQL's DATETIME keeps."""
    return datetime.now(UTC).replace(microsecond=0)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, kept in UTC without its zone, for which SQLite and MySQL have no column."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Take the zone off."""
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Put the zone back on."""
        return value and value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """The tables of the guest book. A MySQL server's own character set may lack most letters."""

    __table_args__ = ({"mysql_charset": "utf8mb4", "mariadb_charset": "utf8mb4"},)


class Entry(Base):
    """What a guest wrote."""

    __tablename__ = "entries"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    message: Mapped[str] = mapped_column(String(MESSAGE_LENGTH))
    created: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class Trial(Base):
    """A row that a request wrote before it answered; there are only those that were kept.

    Its token names it whatever happens: the id of a row that is rolled back is given out again.
    """

    __tablename__ = "trials"

    id: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str] = mapped_column(String(8), unique=True)
    answer: Mapped[str] = mapped_column(String(20))
    created: Mapped[datetime] = mapped_column(UtcDateTime, default=now)

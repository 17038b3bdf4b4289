"""A shop whose models have every kind of relationship, for tests of what is loaded and recorded."""

from sqlalchemy import Column, ForeignKey, String, Table, Text
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

NAME = String(50)


class Base(DeclarativeBase):
    """The models of the shop."""


label = Table(
    "label",
    Base.metadata,
    Column("product_id", ForeignKey("product.id"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id"), primary_key=True),
)


class Shelf(Base):
    __tablename__ = "shelf"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(NAME)
    above_id: Mapped[int | None] = mapped_column(ForeignKey("shelf.id"))
    above: Mapped["Shelf | None"] = relationship(remote_side="Shelf.id", back_populates="below")
    below: Mapped[list["Shelf"]] = relationship(back_populates="above")
    products: Mapped[list["Product"]] = relationship(back_populates="shelf")
    product_names: AssociationProxy[list[str]] = association_proxy("products", "name")

    @property
    def size(self):
        """What a template or a program asks without seeing a statement."""
        return len(self.products)


class Tag(Base):
    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(NAME)


class Product(Base):
    __tablename__ = "product"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "product"}  # noqa: RUF012 - SQLAlchemy's
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(NAME)
    name: Mapped[str] = mapped_column(NAME)
    text: Mapped[str] = mapped_column(Text, deferred=True, default="long")
    blurb: Mapped[str] = mapped_column(NAME, deferred_group="prose", default="short")
    review: Mapped[str] = mapped_column(NAME, deferred_group="prose", default="good")
    shelf_id: Mapped[int | None] = mapped_column(ForeignKey("shelf.id"))
    shelf: Mapped[Shelf | None] = relationship(back_populates="products")
    tags: Mapped[list[Tag]] = relationship(secondary=label)


class Book(Product):
    __tablename__ = "book"
    __mapper_args__ = {"polymorphic_identity": "book"}  # noqa: RUF012 - SQLAlchemy's
    id: Mapped[int] = mapped_column(ForeignKey("product.id"), primary_key=True)
    author: Mapped[str] = mapped_column(NAME)


def fill(session, shelves=3):
    """Add *shelves*, one above the other, with a book and a tag each."""
    above = None
    for number in range(shelves):
        above = Shelf(name=f"shelf {number}", above=above)
        above.products = [
            Book(name=f"book {number}", author="Ann", tags=[Tag(name=f"tag {number}")]),
            Product(name=f"tea {number}"),
        ]
        session.add(above)

"""What the shop does outside a request."""

from sqlalchemy import delete, select, update

from pyramid_aalam_sqa import Session, session_scope

from .models import Entry, Order, Product


@session_scope(attempts=3)
def restock(session, name, count):
    """Add *count* pieces to the stock."""
    session.execute(update(Product).where(Product.name == name).values(stock=Product.stock + count))


def close_orders():
    """Close all open orders, and return how many there were."""
    with Session() as session:
        orders = session.scalars(select(Order).where(Order.state == "open")).all()
        for order in orders:
            order.state = "closed"
        session.commit()
        return len(orders)


def forget(app):
    """Empty the log."""
    with session_scope(app) as session:
        session.execute(delete(Entry))


def note(app, what):
    """Write a line of the log in a transaction of its own."""
    with session_scope(app, bind_key="audit") as session:
        session.add(Entry(what=what))


def break_down(app):
    """Write, and fail."""
    with session_scope(app) as session:
        session.add(Product(name="half"))
        session.flush()
        raise RuntimeError

"""Orders: what is stored, and what a customer is told."""

import pytest
from shop.models import Line, Order, Product
from sqlalchemy import func, select


@pytest.fixture
def tea(sqa_session):
    """A product."""
    tea = Product(name="tea")
    sqa_session.add(tea)
    sqa_session.commit()
    return tea


def test_an_order_takes_from_the_stock(sqa_client, sqa_outcomes, tea):
    sqa_client.post("/order", {"product": "tea", "count": "3"}, status=303)

    assert tea.stock == 7
    assert sqa_outcomes == ["commit"]


def test_an_order_of_an_unknown_product_is_refused(sqa_client, sqa_outcomes, sqa_session, tea):
    sqa_client.post("/order", {"product": "coffee"}, status=400)

    assert sqa_outcomes == ["rollback 400"]
    assert sqa_session.scalar(select(func.count(Order.id))) == 0


def test_more_than_there_is_cannot_be_ordered(sqa_client, sqa_outcomes, sqa_session, tea, mails):
    sqa_client.post("/order", {"product": "tea", "count": "11"}, status=409)

    assert tea.stock == 10
    assert sqa_outcomes == ["rollback 409"]
    assert mails == []


def test_a_mail_is_sent_after_the_commit(sqa_client, tea, mails):
    sqa_client.post("/order", {"product": "tea"}, status=303)

    assert mails == ["1 tea"]


def test_two_orders_are_two_transactions(sqa_client, sqa_outcomes, tea):
    for _ in range(2):
        sqa_client.post("/order", {"product": "tea"}, status=303)

    assert tea.stock == 8
    assert sqa_outcomes == ["commit", "commit"]


def test_an_order_after_a_refused_one_is_stored(sqa_client, sqa_outcomes, tea):
    sqa_client.post("/order", {"product": "tea", "count": "11"}, status=409)
    sqa_client.post("/order", {"product": "tea", "count": "10"}, status=303)

    assert tea.stock == 0
    assert sqa_outcomes == ["rollback 409", "commit"]


def test_the_page_shows_each_order(sqa_client, tea):
    sqa_client.post("/order", {"product": "tea"}, status=303)

    assert sqa_client.get("/orders").json == [["tea"]]


def test_the_number_of_statements_does_not_grow(sqa_client, sqa_session, sqa_statements, tea):
    sqa_session.add(Order(lines=[Line(product=tea)]))
    sqa_session.commit()

    with sqa_statements() as statements:
        sqa_client.get("/orders")

    assert statements.count == 3


def test_the_n_plus_one_of_the_page_is_found(sqa_client, sqa_session, sqa_statements, tea):
    sqa_session.add_all([Order(lines=[Line(product=tea)]) for _ in range(3)])
    sqa_session.commit()

    with sqa_statements() as statements:
        sqa_client.get("/orders")

    assert [found.attribute for found in statements.n_plus_one] == ["Order.lines"]


def test_a_line_without_its_order_is_refused(sqa_client, sqa_outcomes, sqa_session, tea):
    sqa_client.get("/orphan", status=409)

    assert sqa_session.scalar(select(func.count(Line.id))) == 0
    assert sqa_outcomes == ["rollback 409"]

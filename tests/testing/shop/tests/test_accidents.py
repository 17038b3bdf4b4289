"""Accidents of the database, and what the customer sees of them."""

import pytest
from shop import jobs
from shop.models import Product
from sqlalchemy import select


@pytest.fixture
def tea(sqa_session):
    tea = Product(name="tea")
    sqa_session.add(tea)
    sqa_session.commit()
    return tea


@pytest.mark.parametrize("at", ["execute", "flush", "commit"])
@pytest.mark.parametrize("kind", ["deadlock", "lock_timeout", "busy"])
def test_an_order_is_retried_and_mailed_once(
    sqa_client, sqa_fault, sqa_outcomes, mails, tea, kind, at
):
    sqa_fault(kind, at=at)
    sqa_client.post("/order", {"product": "tea"}, status=303)

    assert tea.stock == 9
    assert sqa_outcomes == ["retry", "commit"]
    assert mails == ["1 tea"]


def test_three_deadlocks_are_too_many(sqa_client, sqa_fault, sqa_outcomes, mails, tea):
    sqa_fault("deadlock", at="commit", times=3)
    with pytest.raises(Exception, match=r"(?i)deadlock|locked"):
        sqa_client.post("/order", {"product": "tea"})

    assert tea.stock == 10
    assert [word.split()[0] for word in sqa_outcomes] == ["retry", "retry", "rollback"]
    assert mails == []


def test_a_swallowed_deadlock_is_retried(sqa_client, sqa_fault, sqa_outcomes, sqa_session):
    sqa_fault("deadlock", at="execute", match="UPDATE product SET price")
    sqa_client.get("/swallow")

    assert sqa_session.scalars(select(Product.name)).all() == ["before"]
    assert sqa_outcomes == ["retry", "commit"]


def test_no_free_connection_is_a_503(sqa_client, sqa_fault, sqa_outcomes):
    sqa_fault("pool_exhausted")
    answer = sqa_client.get("/products", status=503)

    assert answer.headers["Retry-After"]
    assert sqa_outcomes == []


def test_a_job_is_retried(sqa_app, sqa_fault, sqa_outcomes, tea):
    sqa_fault("deadlock", at="execute")
    jobs.restock("tea", 5)

    assert tea.stock == 15
    assert sqa_outcomes == ["retry", "commit"]


@pytest.mark.parametrize("at", ["execute", "flush", "commit"])
def test_a_lost_connection_is_retried(on_a_server, sqa_client, sqa_fault, sqa_outcomes, tea, at):
    sqa_fault("gone_away", at=at)
    sqa_client.post("/order", {"product": "tea"}, status=303)

    assert tea.stock == 9
    assert sqa_outcomes == ["retry", "commit"]


def test_a_lost_reply_is_never_retried(
    on_a_server, sqa_client, sqa_fault, sqa_outcomes, mails, tea
):
    sqa_fault("lost_commit_reply")
    with pytest.raises(Exception, match="cannot be known"):
        sqa_client.post("/order", {"product": "tea"})

    assert sqa_outcomes == ["unknown"]
    assert tea.stock == 9
    assert mails == []


def test_a_read_only_server_is_left(on_a_server, sqa_client, sqa_fault, sqa_outcomes, tea):
    sqa_fault("read_only", at="flush")
    sqa_client.post("/order", {"product": "tea"}, status=303)

    assert sqa_outcomes == ["retry", "commit"]


def test_a_full_server_is_a_503(on_a_server, sqa_client, sqa_fault):
    sqa_fault("busy", at="connect")
    sqa_client.get("/products", status=503)


@pytest.fixture
def on_a_server(sqa_app):
    """Skip the test on SQLite, whose file cannot go away."""
    from pyramid_aalam_sqa import get_sqa

    if get_sqa(sqa_app).engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no server.")

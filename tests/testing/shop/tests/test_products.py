"""Products: the ways of writing, and the ways of not writing."""

import pytest
from shop.models import Entry, Product
from sqlalchemy import insert, select


@pytest.fixture
def names(sqa_session):
    """What is stored, as another connection of the application sees it."""
    return lambda: sqa_session.scalars(select(Product.name).order_by(Product.name)).all()


@pytest.fixture
def log(sqa_session):
    return lambda: sqa_session.scalars(select(Entry.what).order_by(Entry.id)).all()


def test_a_product_is_added(sqa_client, names):
    sqa_client.post("/products", {"name": "tea"}, status=303)

    assert names() == ["tea"]


def test_the_database_is_empty_for_each_test(names):
    assert names() == []


def test_a_name_is_taken_once(sqa_client, names, sqa_outcomes, log):
    sqa_client.post("/products", {"name": "tea"}, status=303)
    sqa_client.post("/products", {"name": "tea"}, status=409)

    assert names() == ["tea"]
    assert log() == []
    assert sqa_outcomes == ["commit", "rollback 409"]


def test_an_exception_view_may_store_what_it_writes(sqa_client, names, sqa_outcomes, log):
    sqa_client.post("/products", {"name": "tea"}, status=303)
    sqa_client.post("/products?shown=200", {"name": "tea"}, status=200)

    assert names() == ["tea"]
    assert log() == ["refused"]
    assert sqa_outcomes == ["commit", "rollback 200", "commit"]


@pytest.mark.parametrize("status", [200, 201, 302])
def test_a_success_stores_text(sqa_client, sqa_session, names, status):
    sqa_session.add(Product(name="tea"))
    sqa_session.commit()
    sqa_client.get(f"/rename?old=tea&new=coffee&status={status}")

    assert names() == ["coffee"]


@pytest.mark.parametrize("status", [400, 404, 422, 500, 503])
def test_a_failure_keeps_the_rows_of_the_test(sqa_client, sqa_session, sqa_outcomes, names, status):
    sqa_session.add(Product(name="tea"))
    sqa_session.commit()
    sqa_client.get(f"/rename?old=tea&new=coffee&status={status}", status=status)

    assert names() == ["tea"]
    assert sqa_outcomes == [f"rollback {status}"]


def test_core_rows_are_stored(sqa_client, names):
    sqa_client.get("/import?name=a&name=b")

    assert names() == ["a", "b"]


def test_a_part_is_committed_before_the_rest_fails(sqa_client, names, sqa_outcomes):
    sqa_client.get("/batch?name=a&name=b&name=", status=400)

    assert names() == ["a", "b"]
    assert sqa_outcomes == ["commit", "commit"]


def test_a_savepoint_undoes_one_name(sqa_client, names, sqa_outcomes):
    answer = sqa_client.get("/lenient?name=a&name=a&name=b")

    assert answer.text == "2"
    assert names() == ["a", "b"]
    assert sqa_outcomes == ["commit"]


def test_a_subrequest_shares_the_transaction(sqa_client, names, sqa_outcomes):
    sqa_client.get("/outer")

    assert names() == ["inner", "outer"]
    assert sqa_outcomes == ["commit"]


def test_a_refused_request_undoes_its_subrequest(sqa_client, names, sqa_outcomes):
    sqa_client.get("/outer?outer=400", status=400)

    assert names() == []
    assert sqa_outcomes == ["rollback 400"]


def test_a_doomed_transaction_stores_nothing(sqa_client, names, sqa_outcomes):
    sqa_client.get("/doomed")

    assert names() == []
    assert sqa_outcomes == ["rollback 200"]


def test_a_commit_by_hand_is_an_error(sqa_client, names, sqa_outcomes):
    with pytest.raises(Exception, match="remove the commit"):
        sqa_client.get("/twice")

    assert names() == []
    assert sqa_outcomes == ["rollback CommitNotAllowedError"]


def test_rows_are_streamed(sqa_client, sqa_session):
    sqa_session.execute(insert(Product), [{"name": f"p{number}"} for number in range(7)])
    sqa_session.commit()

    assert sqa_client.get("/export").text.split() == [f"p{number}" for number in range(7)]


def test_pages_are_counted(sqa_client, sqa_session):
    sqa_session.execute(insert(Product), [{"name": f"p{number}"} for number in range(7)])
    sqa_session.commit()

    page = sqa_client.get("/products?page=2&per_page=3").json
    assert page == {"names": ["p3", "p4", "p5"], "total": 7}


def test_an_unknown_product_is_a_404(sqa_client, sqa_outcomes):
    sqa_client.get("/products/12", status=404)

    assert sqa_outcomes == ["rollback 404"]


def test_a_read_is_one_statement(sqa_client, sqa_session, sqa_statements):
    tea = Product(name="tea")
    sqa_session.add(tea)
    sqa_session.commit()
    number = tea.id

    with sqa_statements() as statements:
        assert sqa_client.get(f"/products/{number}").json == {"name": "tea", "stock": 10}

    assert statements.count == 1


def test_a_change_that_is_not_committed_is_the_test_s_mistake(sqa_client, sqa_session):
    from pyramid_aalam_sqa.testing import SandboxError

    sqa_session.add(Product(name="tea"))

    with pytest.raises(SandboxError, match="not committed"):
        sqa_client.get("/products")


@pytest.mark.sqa_commits
@pytest.mark.parametrize("name", ["tea", "coffee"])
def test_a_product_is_stored_for_real(sqa_client, names, sqa_outcomes, name):
    sqa_client.post("/products", {"name": name}, status=303)
    sqa_client.post("/products", {"name": name}, status=409)

    assert names() == [name]
    assert sqa_outcomes == ["commit", "rollback 409"]

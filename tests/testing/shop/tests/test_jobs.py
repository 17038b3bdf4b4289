"""Jobs, the log in its own database, threads, servers and units."""

import threading
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from shop import jobs, views
from shop.models import Entry, Order, Product
from sqlalchemy import select


@pytest.fixture
def names(sqa_session):
    return lambda: sqa_session.scalars(select(Product.name).order_by(Product.name)).all()


@pytest.fixture
def log(sqa_session):
    return lambda: sqa_session.scalars(select(Entry.what).order_by(Entry.id)).all()


def test_a_job_sees_the_rows_of_the_test(sqa_session, sqa_outcomes):
    order = Order()
    sqa_session.add(order)
    sqa_session.commit()

    assert jobs.close_orders() == 1
    assert order.state == "closed"
    assert sqa_outcomes == ["commit"]


def test_a_job_that_fails_stores_nothing(sqa_app, names, sqa_outcomes):
    with pytest.raises(RuntimeError):
        jobs.break_down(sqa_app)

    assert names() == []
    assert sqa_outcomes == ["rollback"]


def test_a_refused_login_is_written_down(sqa_client, log, sqa_outcomes):
    sqa_client.get("/login?user=eve", status=403)

    assert log() == ["refused eve"]
    assert sqa_outcomes == ["commit", "rollback 403"]


def test_both_databases_are_stored(sqa_client, names, log, sqa_outcomes):
    sqa_client.get("/both?name=tea")

    assert (names(), log()) == (["tea"], ["added tea"])
    assert sqa_outcomes == ["commit"]


def test_neither_database_is_stored(sqa_client, names, log, sqa_outcomes):
    sqa_client.get("/both?name=tea&status=400", status=400)

    assert (names(), log()) == ([], [])
    assert sqa_outcomes == ["rollback 400"]


def test_the_session_of_a_bind_reads_the_log(sqa_client, sqa_session):
    sqa_session.add(Entry(what="hello"))
    sqa_session.commit()

    assert sqa_client.get("/audit").json == ["hello"]


def test_a_second_commit_that_fails_is_a_partial_one(
    sqa_client, sqa_fault, names, log, sqa_outcomes
):
    sqa_fault("lock_timeout", at="commit", database="default")
    with pytest.raises(Exception, match="after another one was stored"):
        sqa_client.get("/both?name=tea")

    assert (names(), log()) == ([], ["added tea"])
    assert sqa_outcomes == ["partial"]


def test_a_job_empties_the_log(sqa_app, sqa_session, log):
    sqa_session.add(Entry(what="hello"))
    sqa_session.commit()
    jobs.forget(sqa_app)

    assert log() == []


def test_a_job_in_a_thread_is_seen(sqa_app, sqa_session, log, sqa_outcomes):
    thread = threading.Thread(target=jobs.note, args=(sqa_app, "from a thread"))
    thread.start()
    thread.join()

    assert log() == ["from a thread"]
    assert sqa_outcomes == ["commit"]


def test_a_browser_sees_the_rows_of_the_test(sqa_server, sqa_session):
    sqa_session.add(Product(name="tea"))
    sqa_session.commit()

    with urlopen(f"{sqa_server}/products") as answer:
        assert b"tea" in answer.read()


def test_four_browsers_at_once_are_served(sqa_server, sqa_session, sqa_outcomes):
    statuses = []

    def visit(number):
        with urlopen(f"{sqa_server}/import?name=p{number}") as answer:
            statuses.append(answer.status)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [200] * 4
    assert len(sqa_session.scalars(select(Product)).all()) == 4
    assert sqa_outcomes == ["commit"] * 4


def test_a_browser_is_refused(sqa_server, names, sqa_outcomes):
    with pytest.raises(HTTPError, match="400"):
        urlopen(f"{sqa_server}/both?name=tea&status=400")

    assert names() == []
    assert sqa_outcomes == ["rollback 400"]


def test_a_stream_reaches_a_browser(sqa_server, sqa_session):
    sqa_session.add_all([Product(name="a"), Product(name="b")])
    sqa_session.commit()

    with urlopen(f"{sqa_server}/export") as answer:
        assert answer.read() == b"a\nb\n"


def test_a_view_is_called_as_a_function(sqa_request, sqa_session):
    sqa_session.add(Product(name="tea"))
    sqa_session.commit()

    assert views.products(sqa_request) == {"names": ["tea"], "total": 1}


def test_a_view_that_is_called_writes_in_the_transaction_of_its_request(
    sqa_request, sqa_session, names
):
    sqa_request.params["name"] = "tea"

    assert views.add_product(sqa_request).status_int == 303
    assert names() == []
    sqa_session.rollback()
    sqa_request.tm.commit()
    assert names() == ["tea"]


def test_a_view_is_tested_with_routes_of_its_own(sqa_config, sqa_request):
    sqa_config.add_route("home", "/home")

    assert sqa_request.route_path("home") == "/home"
    assert views.orders(sqa_request) == []

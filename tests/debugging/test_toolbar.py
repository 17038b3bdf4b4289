"""The panel "Database" of pyramid_debugtoolbar, and EXPLAIN on demand."""

import gc
import re
import urllib.error
import urllib.request

import pytest
from sqlalchemy import text
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa
from support.processes import pserve
from support.toolbar_app import main

TIMES = "\N{MULTIPLICATION SIGN}"
ANN = {"REMOTE_ADDR": "127.0.0.1"}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Make applications with the toolbar. Its templates are compiled once for all of them."""
    compiled = {"dbtmako.module_directory": str(tmp_path_factory.mktemp("compiled"))}
    return lambda url, **settings: main({}, **{"sqlalchemy.url": url, **compiled, **settings})


@pytest.fixture
def shop(make, any_database):
    """A client of the application with the toolbar, on each of the three databases."""
    app = make(any_database.url)
    yield TestApp(app, extra_environ=ANN)
    get_sqa(app).dispose()


def panel_of(client, response=None):
    """Return the panel's page of *response*, or of the last request."""
    found = re.findall(r"_debug_toolbar/(\d+)", response.text) if response else []
    return client.get(f"/_debug_toolbar/{found[0]}" if found else "/_debug_toolbar/")


def shown(page):
    """Return the text of the panel, without tags and with single spaces."""
    start = page.text.index('<div class="sqa">')
    end = page.text.find("<script>", start)
    return " ".join(re.sub(r"<[^>]+>", " ", page.text[start:end]).split())


def test_it_shows_totals_n_plus_one_groups_lines_and_the_end(shop):
    """All of one request on one page, with values that are no HTML."""
    page = panel_of(shop, shop.get("/shelves"))
    found = shown(page)

    assert re.search(r"default: 9 statements, [0-9.]+ ms COMMIT [0-9.]+ ms", found)
    assert "Shelf.products was loaded for 3 rows of one query" in found
    assert ".options(selectinload(Shelf.products))" in found
    assert f"3 {TIMES} similar" in found
    assert re.search(rf"3 {TIMES} equal: [({{]", found)
    assert "toolbar_app.py:" in found
    assert "lazy load of Shelf.products" in found
    assert "&lt;b&gt;bold&lt;/b&gt;" in page.text
    assert "<b>bold</b>" not in page.text
    assert "SAVEPOINT" in found
    # At the top, and at the COMMIT.
    assert found.count("committed") == 2
    assert found.index("committed") < found.index("N+1") < found.index("Timeline")
    assert 'class="sqa-failed"' in page.text


@pytest.mark.parametrize(("status", "end"), [(404, "rolled back: 404"), (200, "committed")])
@pytest.mark.sweep(3)
def test_the_end_follows_the_response(status, end, shop):
    """The panel is rendered after the transaction has ended."""
    assert end in shown(panel_of(shop, shop.get(f"/shelves?status={status}", status=status)))


def test_a_request_that_is_retried_shows_each_attempt(shop):
    """Each with its own end; statements of two attempts are not called equal."""
    found = shown(panel_of(shop, shop.get("/conflict")))

    for number in (1, 2, 3):
        assert f"Attempt {number}" in found
    assert found.count("rolled back: tried again") == 2
    assert found.count("committed") == 2
    assert "committed, in attempt 3" in found
    assert "equal" not in found


def test_a_request_that_raises_has_its_statements(shop):
    """The toolbar shows its traceback, and the panel what was sent before."""
    shop.get("/accident", status=500)

    assert "rolled back: 500" in shown(panel_of(shop))


def test_a_streamed_request_has_what_its_body_sent(shop):
    """Though the toolbar looked before the first row was read."""
    assert "book 0" in shop.get("/stream").text

    found = shown(panel_of(shop))
    assert "FROM product" in found
    assert "default: 2 statements," in found
    top = found[: found.index("Timeline")]
    assert "committed rolled back: end of the body" in top


def test_a_request_without_statements_has_nothing_to_show(shop):
    """The tab is disabled."""
    page = panel_of(shop, shop.get("/nothing"))

    assert '<li class="disabled" id="pDebugPanel-sqa">' in page.text


def test_without_recording_it_says_what_to_write(make, sqlite):
    """In place of an empty page."""
    app = make(sqlite.url, **{"sqa.record": "false"})
    client = TestApp(app, extra_environ=ANN)

    assert "set sqa.record = true" in shown(panel_of(client, client.get("/nothing")))
    get_sqa(app).dispose()


def links(page):
    return re.findall(r'href="http://localhost(/[^"]+/sqa/explain/\d+)"', page.text)


def test_explain_asks_for_the_plan_with_the_recorded_values(shop, any_database):
    """In a read-only transaction that is rolled back; it is not itself recorded in the history."""
    page = panel_of(shop, shop.get("/shelves"))
    plans = [shop.get(link).text for link in links(page)]

    assert len(plans) == 7
    assert all("<td>" in plan and "sqa-failed" not in plan for plan in plans)
    engine = get_sqa(shop.app).engine
    assert engine.pool.checkedout() == 0
    # The connection can write again.
    with engine.begin() as connection:
        connection.execute(text("UPDATE shelf SET name = 'written'"))
    assert any_database.scalar("SELECT min(name) FROM shelf") == "written"


def test_explain_shows_the_error_of_the_database(make, mariadb):
    """Of a table that is gone, for example."""
    app = make(mariadb.url)
    client = TestApp(app, extra_environ=ANN)
    client.get("/stream")
    [link] = links(panel_of(client))
    mariadb.run("RENAME TABLE product TO was_product")
    answer = client.get(link)

    assert "sqa-failed" in answer.text
    assert "product" in answer.text
    mariadb.run("RENAME TABLE was_product TO product")
    assert "sqa-failed" not in client.get(link).text
    get_sqa(app).dispose()


def test_explain_takes_nothing_but_what_was_recorded(shop):
    """Neither a write, nor a statement of another request, nor SQL from the address."""
    page = panel_of(shop, shop.get("/conflict"))
    request_id = re.findall(r"_debug_toolbar/(\d+)", shop.get("/conflict").text)[0]

    assert links(page) == []
    statuses = set()
    for place in range(1, 12):
        answer = shop.get(f"/_debug_toolbar/{request_id}/sqa/explain/{place}", status="*")
        statuses.add(answer.status_int)
    assert statuses == {400, 404}
    shop.get("/_debug_toolbar/123/sqa/explain/1", status=404)
    shop.get(f"/_debug_toolbar/{request_id}/sqa/explain/SELECT", status=404)


def test_strangers_see_nothing(shop):
    """The toolbar's own guard covers EXPLAIN."""
    [first, *_] = links(panel_of(shop, shop.get("/shelves")))
    stranger = TestApp(shop.app, extra_environ={"REMOTE_ADDR": "192.0.2.1"})

    assert stranger.get(first, status="*").status_int in {403, 404}


def test_the_history_holds_no_connection(shop):
    """It keeps what was sent, and all connections are back."""
    for _ in range(3):
        shop.get("/shelves")
    engine = get_sqa(shop.app).engine
    gc.collect()

    assert engine.pool.checkedout() == 0
    assert engine.pool.checkedin() == 1


def test_two_applications_in_one_process_have_their_own(shop, make, tmp_path):
    """Each panel has what its own application sent, and explains it there."""
    other = make(f"sqlite:///{tmp_path}/other.sqlite")
    client = TestApp(other, extra_environ=ANN)
    mine = shop.get("/shelves")
    client.get("/conflict")

    assert "Attempt 3" in shown(panel_of(client))
    page = panel_of(shop, mine)
    assert "Attempt" not in shown(page)
    assert "<td>" in shop.get(links(page)[0]).text
    get_sqa(other).dispose()


def test_two_applications_work_under_one_pserve(sqlite, tmp_path):
    """A real server with threads, and requests that are retried, raise or stream."""
    with pserve(tmp_path, sqlite.url, app="support.toolbar_pair") as (port, _log):

        def get(path):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return answer.read().decode()

        number = re.findall(r"_debug_toolbar/(\d+)", get("/one/shelves"))[0]
        with pytest.raises(urllib.error.HTTPError) as raised:
            get("/two/accident")
        raised.value.close()
        found = get("/two/_debug_toolbar/")
        assert "rolled back: 500" in found
        assert "Shelf.products" not in found
        get("/two/stream")
        found = get("/two/_debug_toolbar/")
        assert "FROM</b> product" in found
        assert "end of the body" in found
        get("/two/conflict")
        assert "committed, in attempt 3" in get("/two/_debug_toolbar/")
        assert "Shelf.products" in get(f"/one/_debug_toolbar/{number}")

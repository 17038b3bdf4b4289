"""A visitor of the demo's landing page tries what the package does."""

import re
import threading
from itertools import pairwise

import pytest
from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import event, text
from sqlalchemy.orm import sessionmaker
from transaction import TransactionManager
from webtest import TestApp
from zope.sqlalchemy import mark_changed

from pyramid_aalam_sqa import get_sqa
from pyramid_aalam_sqa.demo import by_hand
from pyramid_aalam_sqa.demo.drawers import fill_drawers
from support.databases import Database, own_database
from support.demo import html_problems, ini_for, press, sent, status, unplug, verdict, visit, words

ANSWERS = {"200": 200, "303": 303, "400": 400, "404": 404, "500": 500, "raise": 500}
STORED = {"200", "303"}
ORDERS = "SELECT count(*) FROM orders"
BOOKINGS = "SELECT count(*) FROM bookings"


@pytest.fixture
def ledger(tmp_path):
    """The second database."""
    return Database(f"sqlite:///{tmp_path}/data/ledger.sqlite")


@pytest.fixture
def visitor(sqlite, tmp_path):
    """A browser at the demo on SQLite."""
    visitor = visit(ini_for(tmp_path, sqlite.url))
    yield visitor
    get_sqa(visitor.app).dispose()


@pytest.fixture
def any_visitor(any_database, tmp_path):
    """A browser at the demo on each database."""
    visitor = visit(ini_for(tmp_path, any_database.url))
    yield visitor
    get_sqa(visitor.app).dispose()


# What each button stores.


@pytest.mark.parametrize("choice", ANSWERS)
@pytest.mark.sweep(3)
def test_the_answer_decides_whether_the_order_is_stored(visitor, sqlite, choice):
    """The page shows the status, and what another connection finds is what the page says."""
    shown = press(visitor, "rule", choice)

    assert status(shown).startswith(str(ANSWERS[choice]))
    stored = sqlite.rows("SELECT number FROM orders")
    number = words(shown.select_one(".headers")).split("/")[2][:8]
    assert stored == ([(number,)] if choice in STORED else [])
    says = "Stored. The next request finds" if choice in STORED else "Nothing is stored."
    assert verdict(shown).startswith(says)
    assert number in verdict(shown)


@pytest.mark.parametrize("choice", ANSWERS)
@pytest.mark.sweep(4)
def test_each_button_shows_what_it_sent_from_begin_to_end(any_visitor, choice):
    """Nothing is left out: BEGIN, the INSERT that the view has flushed, COMMIT or ROLLBACK."""
    [[begin, insert, end]] = sent(press(any_visitor, "rule", choice))

    assert begin == ("BEGIN", "")
    assert insert[0].startswith("INSERT INTO orders")
    if choice in STORED:
        assert end == ("COMMIT", "committed")
    else:
        assert end == ("ROLLBACK", f"rolled back: {ANSWERS[choice]}")


@pytest.mark.parametrize("choice", ANSWERS)
@pytest.mark.sweep(2)
def test_the_browser_itself_gets_the_same_answer(visitor, sqlite, choice):
    """The page sends the visitor's form to an address of the application, which anyone may use."""
    token = visitor.get("/").html.find("input")["value"]
    form = {"csrf_token": token, "choice": choice}

    visitor.post("/rule/0123abcd", form, status=ANSWERS[choice])

    stored = [("0123abcd",)] if choice in STORED else []
    assert sqlite.rows("SELECT number FROM orders") == stored


def test_the_redirect_leads_to_the_address_that_the_visitor_uses(visitor):
    """The host is that of the browser's request."""
    shown = press(visitor, "rule", "303")

    assert "Location: http://localhost" in words(shown.select_one(".headers"))


@pytest.mark.parametrize("section", ["rule", "order", "list"])
@pytest.mark.sweep(3)
def test_a_choice_that_no_button_has_is_refused(visitor, sqlite, section):
    """The view answers 400 and has sent nothing."""
    shown = press(visitor, section, "something else")

    assert status(shown) == "400 Bad Request"
    assert sent(shown) == []
    assert sqlite.scalar(ORDERS) == 0


def test_a_section_that_the_page_has_not_is_refused(visitor):
    """The answer is a page in the same design."""
    token = visitor.get("/").html.find("input")["value"]

    page = visitor.post("/", {"csrf_token": token, "section": "book"}, status=400)

    assert "This form cannot be read" in page


@pytest.mark.parametrize("path", ["/", "/outage", "/rule/0123abcd", "/order/0123abcd"])
def test_a_form_from_another_site_changes_nothing(visitor, sqlite, path):
    """Each form must have the token of the visitor's cookie."""
    visitor.get("/")
    form = {"csrf_token": "guessed", "section": "rule", "choice": "200", "ledger": "unplug"}

    visitor.post(path, form, status=400)

    assert sqlite.scalar(ORDERS) == 0
    assert "outage" not in visitor.cookies


# A conflict.


def stock(database):
    rows = database.rows("SELECT pieces FROM stock WHERE kind < 3 ORDER BY visitor, kind")
    return [pieces for (pieces,) in rows]


@pytest.mark.sweep(2)
def test_a_conflict_is_tried_again_before_the_visitor(any_visitor, any_database):
    """Two connections, a real error of the database, and one row in the end."""
    shown = press(any_visitor, "conflict", "")

    assert status(shown) == "303 See Other"
    first, second = sent(shown)
    assert "Error" in first[-2][1] or "DeadlockDetected" in first[-2][1]
    assert first[-1] == ("ROLLBACK", "rolled back: tried again")
    assert second[-1] == ("COMMIT", "committed")
    attempts = [words(each) for each in shown.select("h4")]
    assert attempts[0] == "Attempt 1"
    assert attempts[1].startswith("Attempt 2, after a pause of ")
    assert any_database.scalar(ORDERS) == 1
    assert stock(any_database) == [998, 998]
    assert verdict(shown).startswith("Stored once. 998 apples and 998 pears are left")


def test_the_stock_is_made_once(visitor, sqlite):
    """The second conflict takes from what the first one has left."""
    press(visitor, "conflict", "")
    press(visitor, "conflict", "")

    assert sqlite.scalar("SELECT count(*) FROM stock") == 12
    assert stock(sqlite) == [996, 996]


def test_a_conflict_that_is_tried_again_is_not_logged_as_a_failure(visitor, caplog):
    """The log has one line for the attempt, and no traceback."""
    press(visitor, "conflict", "")

    assert "attempt 1 of 6 failed" in caplog.text
    assert "Traceback" not in caplog.text


def test_when_the_other_connection_fails_the_order_is_stored_at_once(visitor, sqlite):
    """It may be the one that the database ends; here it has an error of its own."""

    @event.listens_for(get_sqa(visitor.app).engine, "begin")
    def fail(connection):
        if threading.current_thread() is not threading.main_thread():
            connection.exec_driver_sql("SELECT missing FROM nowhere")

    shown = press(visitor, "conflict", "")

    assert len(sent(shown)) == 1
    assert stock(sqlite) == [999, 999]
    assert "999 apples and 999 pears" in verdict(shown)


# Two databases, and an outage of one.


def test_an_order_and_its_booking_are_stored_together(any_visitor, any_database, ledger):
    """Each of the two databases has a row."""
    shown = press(any_visitor, "order", "5")

    assert (any_database.scalar(ORDERS), ledger.scalar(BOOKINGS)) == (1, 1)
    assert status(shown) == "303 See Other"
    assert verdict(shown).startswith("Both are stored.")
    assert [end for end in sent(shown)[0] if end[1]] == [("COMMIT", "committed")] * 2


def test_what_the_ledger_refuses_is_stored_nowhere(any_visitor, any_database, ledger):
    """The ledger's own constraint fails after the order was sent to the other database."""
    shown = press(any_visitor, "order", "0")

    assert (any_database.scalar(ORDERS), ledger.scalar(BOOKINGS)) == (0, 0)
    assert status(shown) == "500 Internal Server Error"
    assert verdict(shown).startswith("Neither is stored.")
    assert [end for end in sent(shown)[0] if end[0] == "ROLLBACK"] == [
        ("ROLLBACK", "rolled back: 500")
    ] * 2


@pytest.fixture
def sqlite_ledger(ledger):
    return ledger


@pytest.fixture
def mariadb_ledger(mariadb_url):
    with own_database(mariadb_url) as database:
        yield database


@pytest.fixture
def postgresql_ledger(postgresql_server):
    with own_database(postgresql_server.url()) as database:
        yield database


@pytest.mark.parametrize("kind", ["sqlite", "mariadb", "postgresql"])
def test_an_outage_is_answered_and_heals_without_a_restart(request, sqlite, tmp_path, kind):
    """The product's own 503, with the time to wait, and nothing stored in either database."""
    second = request.getfixturevalue(f"{kind}_ledger")
    visitor = visit(ini_for(tmp_path, sqlite.url, second.url))
    unplug(visitor)

    shown = press(visitor, "outage", "5")

    assert status(shown) == "503 Service Unavailable"
    assert "Retry-After: 5" in words(shown.select_one(".headers"))
    assert "The ledger is unplugged for you." in words(shown)
    assert verdict(shown).startswith("The next request does not find the order.")
    assert (sqlite.scalar(ORDERS), second.scalar(BOOKINGS)) == (0, 0)
    [failed] = [step for step in sent(shown)[0] if step[0] == "CONNECT"]
    assert "OperationalError" in failed[1]

    unplug(visitor, "plug")
    shown = press(visitor, "outage", "5")

    assert status(shown) == "303 See Other"
    assert "The ledger is connected." in words(shown)
    assert (sqlite.scalar(ORDERS), second.scalar(BOOKINGS)) == (1, 1)
    get_sqa(visitor.app).dispose()


def test_an_outage_concerns_one_visitor_alone(visitor, sqlite, ledger):
    """Another visitor's order is stored meanwhile."""
    other = TestApp(visitor.app)
    unplug(visitor)

    assert status(press(visitor, "outage", "5")) == "503 Service Unavailable"
    assert status(press(other, "outage", "5")) == "303 See Other"
    assert (sqlite.scalar(ORDERS), ledger.scalar(BOOKINGS)) == (1, 1)


# Visitors.


def test_each_visitor_has_a_stock_of_their_own(visitor, sqlite):
    """A cookie that scripts cannot read tells them apart."""
    other = TestApp(visitor.app)
    press(visitor, "conflict", "")
    press(visitor, "conflict", "")
    press(other, "conflict", "")

    assert sorted(stock(sqlite)) == [996, 996, 998, 998]
    cookie = TestApp(visitor.app).get("/").headers.getall("Set-Cookie")
    assert any(
        each.startswith("visitor=") and "HttpOnly" in each and "SameSite=Lax" in each
        for each in cookie
    )


def test_a_visitor_keeps_the_name_and_a_made_up_name_is_replaced(visitor):
    """The name goes into the database, so it must be one that the application has made."""
    visitor.get("/")
    name = visitor.cookies["visitor"]
    again = visitor.get("/")
    assert visitor.cookies["visitor"] == name
    assert "Set-Cookie" not in again.headers

    made_up = {"Cookie": "visitor=" + "x" * 32}
    [cookie] = TestApp(visitor.app).get("/book", headers=made_up).headers.getall("Set-Cookie")
    assert cookie.startswith("csrf_token=")
    given = TestApp(visitor.app).get("/", headers=made_up).headers.getall("Set-Cookie")
    assert [each for each in given if re.match("visitor=[0-9a-f]{32};", each)]


def test_the_oldest_rows_are_removed(visitor, sqlite, ledger, monkeypatch):
    """So a demo that runs for long does not fill the disk."""
    monkeypatch.setattr("pyramid_aalam_sqa.demo.visitor.MOST_ROWS", 13)
    press(visitor, "conflict", "")
    press(TestApp(visitor.app), "conflict", "")
    for _ in range(14):
        press(visitor, "order", "5")

    assert sqlite.scalar(ORDERS) == ledger.scalar(BOOKINGS) == 13
    assert sqlite.scalar("SELECT count(*) FROM stock") == 13
    newest = press(visitor, "order", "5")
    assert verdict(newest).startswith("Both are stored.")


# Pages by place.


def rows(page):
    cells = [row.select("td") for row in page.html.select("#parcels tbody tr")]
    return [tuple(int(words(cell).strip(" g").replace(",", "")) for cell in row) for row in cells]


@pytest.mark.parametrize(
    "kind",
    ["sqlite", *(pytest.param(name, marks=pytest.mark.deep) for name in ("mariadb", "postgresql"))],
)
def test_a_visitor_turns_the_pages_of_100000_parcels_by_place(request, tmp_path, kind):
    """The last page comes at once, and the page before it leads back to it."""
    database = request.getfixturevalue(kind)
    visitor = visit(ini_for(tmp_path, database.url))
    assert rows(visitor.get("/")) == []

    first = visitor.get("/").click("Show the parcels")

    assert database.scalar("SELECT count(*) FROM parcels") == 100_000
    order = "SELECT number, grams FROM parcels ORDER BY grams DESC, number DESC LIMIT 16"
    expected = database.rows(order)
    assert rows(first) == expected[:8]
    assert rows(first.click("^Next$")) == expected[8:]
    last = first.click("^Last$")
    assert rows(last) == database.rows(order.replace("DESC", "ASC"))[7::-1]
    assert rows(last.click("^Previous$").click("^Next$")) == rows(last)
    by_number = visitor.get("/").click("The last page by number")
    assert rows(by_number) == rows(last)
    assert "Page 12,500 by number" in by_number
    for page in (last, by_number):
        [[(statement, _)]] = sent(page.html.find(id="parcels"))
        assert statement.startswith("SELECT parcels.")
        assert "count" not in statement
    get_sqa(visitor.app).dispose()


def test_a_place_that_was_made_up_is_not_found(visitor):
    """The addresses of the pages are signed."""
    visitor.get("/?parcels=by+place&after=made-up", status=404)


# N+1.


def test_the_list_is_shown_with_n_plus_one_and_its_cure(any_visitor, caplog):
    """Six statements, or two; the page names the option between them."""
    guilty = press(any_visitor, "list", "plain")
    [statements] = sent(guilty)
    assert len([each for each in statements if each[0].startswith("SELECT")]) == 6
    assert "Add selectinload(Drawer.coins)" in verdict(guilty)
    assert guilty.select(".sent small")
    assert "N+1" in caplog.text

    cured = press(any_visitor, "list", "selectinload")
    [statements] = sent(cured)
    assert len([each for each in statements if each[0].startswith("SELECT")]) == 2
    assert verdict(cured) == "All coins were read with one more statement."


def test_another_process_may_fill_the_drawers_at_the_same_moment(visitor, sqlite):
    """Who comes too late leaves it to the other, and starts."""
    sqlite.run("DELETE FROM coins", "DELETE FROM drawers")
    engine = get_sqa(visitor.app).engine

    @event.listens_for(engine, "before_cursor_execute")
    def fill_meanwhile(connection, cursor, statement, *_):
        if statement.startswith("INSERT"):
            sqlite.run("INSERT INTO drawers (id, label) VALUES (1, 'of the other')")

    fill_drawers(engine)
    # Now there is one, and nothing to do.
    fill_drawers(engine)

    assert sqlite.rows("SELECT id, label FROM drawers") == [(1, "of the other")]


# The page itself.


def test_without_recording_the_page_says_so(sqlite, tmp_path):
    """All else works as with it."""
    visitor = visit(ini_for(tmp_path, sqlite.url, sqa__record="false"))

    shown = press(visitor, "rule", "200")

    assert sqlite.scalar(ORDERS) == 1
    assert "Not recorded: sqa.record is off." in words(shown)
    assert len(rows(visitor.get("/?parcels=by+place"))) == 8
    get_sqa(visitor.app).dispose()


def test_what_is_written_by_hand_works(sqlite):
    """The lines that the page shows are those of an application that runs."""
    sqlite.run("CREATE TABLE note (body VARCHAR(50))")

    def write(request):
        session = request.dbsession
        session.execute(text("INSERT INTO note VALUES (:body)"), request.params)
        mark_changed(session)
        return Response(status=int(request.params["status"]))

    with Configurator(settings={"sqlalchemy.url": sqlite.url}) as config:
        config.include(by_hand)
        config.add_view(write)
    app = TestApp(config.make_wsgi_app())
    app.post("/", {"body": "kept", "status": "200"})
    app.post("/", {"body": "gone", "status": "404"}, status=404)
    assert sqlite.rows("SELECT body FROM note") == [("kept",)]

    engine = by_hand.make_engine({"sqlalchemy.url": sqlite.url})
    manager = TransactionManager(explicit=True)
    manager.begin()
    session = by_hand.make_session(sessionmaker(engine), manager)
    app.post("/", {"body": "of a test", "status": "200"}, extra_environ={"app.dbsession": session})
    manager.abort()
    assert sqlite.rows("SELECT body FROM note") == [("kept",)]
    engine.dispose()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page as it is opened, and after each of its buttons."""
    folder = tmp_path_factory.mktemp("pages")
    visitor = visit(ini_for(folder, f"sqlite:///{folder}/test.sqlite"))
    opened = visitor.get("/")
    token = opened.html.find("input")["value"]
    shown = [opened, visitor.get("/?parcels=by+place"), visitor.get("/?parcels=by+number")]
    choices = ("rule", "404"), ("conflict", ""), ("order", "5"), ("list", "plain")
    for section, choice in choices:
        form = {"csrf_token": token, "section": section, "choice": choice}
        shown.append(visitor.post("/", form))
    unplug(visitor)
    form = {"csrf_token": token, "section": "outage", "choice": "5"}
    shown += [visitor.post("/", form), visitor.get("/book"), visitor.get("/x", status=404)]
    get_sqa(visitor.app).dispose()
    return shown


def test_the_pages_are_well_formed(pages):
    """Each tag is closed where it should be, each id and each attribute is there once."""
    for page in pages:
        assert html_problems(page.text) == []


def test_a_mistake_in_a_page_is_found():
    """The check above can fail."""
    assert html_problems("<p>a</div>")
    assert html_problems("<p>a")
    assert html_problems('<p id="a"></p><p id="a"></p>')
    assert html_problems('<p class="a" class="b"></p>')


def test_the_pages_can_be_used_without_eyes_and_without_scripts(pages):
    """Headings go down step by step, what is named by another element has it, links lead on."""
    for page in pages:
        html = page.html
        assert html.find("script") is None
        assert html.html["lang"] == "en"
        levels = [int(heading.name[1]) for heading in html.select("h1, h2, h3, h4")]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        assert all(words(button) for button in html.select("button, summary, a"))
        assert all(html.find(id=tag["aria-labelledby"]) for tag in html.select("[aria-labelledby]"))
        for pre in html.select("pre"):
            assert pre["tabindex"] == "0"
            assert pre["aria-label"]
        for link in html.select('a[href^="#"], form[action*="#"]'):
            target = (link.get("href") or link["action"]).partition("#")[2]
            assert html.find(id=target)


def test_the_page_shows_the_code_that_runs(pages):
    """There is no commit in the view of the rule, and no second attempt in that of the conflict."""
    code = {
        section: pages[0].html.find(id=section).pre.get_text()
        for section in ("rule", "conflict", "order", "outage", "parcels", "list")
    }

    assert "request.sqa_session.add(" in code["rule"]
    assert "commit" not in code["rule"]
    assert "pears.pieces" in code["conflict"]
    assert "Booking(" in code["order"]
    assert "NO_SERVER" in code["outage"]
    assert "sqa_paginate_keyset(" in code["parcels"]
    assert "def list_drawers(" in code["list"]
    assert "zope.sqlalchemy.register(" in pages[0].html.find(id="lines").get_text()

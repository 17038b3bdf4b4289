"""The demo shows what its requests send: the rule, a deadlock that is retried, N+1 and its cure."""

import threading
from pathlib import Path

import pytest
from pyramid.paster import get_app
from sqlalchemy import event
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa
from pyramid_aalam_sqa.demo import main
from pyramid_aalam_sqa.demo.drawers import fill_drawers

INI = Path(__file__).parents[2] / "development.ini"


@pytest.fixture
def visitor(any_database):
    """A browser at the demo, with the settings of its ini file that matter here."""
    app = main({}, **{"sqlalchemy.url": any_database.url, **SETTINGS})
    yield TestApp(app)
    get_sqa(app).dispose()


SETTINGS = {"sqa.record": "true", "jinja2.undefined": "strict", "sqa.retry_pause": "0"}


def words(tag):
    return " ".join(tag.get_text(" ").split())


def sent(visitor, page):
    """The frame with what was sent, which the browser asks for after the page."""
    [frame] = [each["src"] for each in page.html.select("iframe") if "/sent/" in each["src"]]
    return visitor.get(frame).html


@pytest.mark.parametrize(
    ("answer", "status", "end"),
    [
        ("200", 200, "COMMIT committed"),
        ("302", 302, "COMMIT committed"),
        ("404", 404, "ROLLBACK rolled back: 404"),
        ("500", 500, "ROLLBACK rolled back: 500"),
        ("raise", 500, "ROLLBACK rolled back: 500"),
    ],
)
def test_each_button_shows_what_it_sent_from_begin_to_end(visitor, answer, status, end):
    """With the INSERT, its line in the view, and what became of it."""
    form = visitor.get("/rule").forms[0]
    answered = form.submit("answer", value=answer, status=status)
    page = answered.follow() if answer == "302" else answered

    items = [words(item) for item in sent(visitor, page).select(".sent li")]
    assert items[0].startswith("BEGIN")
    assert items[1].startswith("INSERT INTO trials")
    assert "press, line" in items[1]
    kind, outcome = end.split(" ", 1)
    assert items[2].startswith(kind)
    assert items[2].endswith(outcome)


def test_a_deadlock_is_retried_before_the_visitor(visitor):
    """Two connections, and a real error of the database in the first attempt."""
    page = visitor.get("/drawers").forms[0].submit(status=303).follow()

    assert "2 attempts" in words(page.html.select_one(".said"))
    shown = sent(visitor, page)
    assert [words(each) for each in shown.select("h2")] == ["Attempt 1", "Attempt 2"]
    first, second = shown.select("ol")
    failed = words(first.select("li")[-2])
    assert "Error" in failed or "DeadlockDetected" in failed
    assert words(first.select("li")[-1]).endswith("rolled back: tried again")
    assert words(second.select("li")[-1]).endswith("committed")


def test_the_list_is_shown_with_n_plus_one_and_its_cure(visitor, caplog):
    """Six statements, or two; the page names the option between them."""
    guilty = visitor.get("/list")
    shown = sent(visitor, guilty)
    selects = [each for each in shown.select(".sent li") if words(each).startswith("SELECT")]
    assert len(selects) == 6
    assert "Add selectinload(Drawer.coins)" in words(shown.select_one(".verdict"))
    assert "GET /list: N+1" in caplog.text

    cured = visitor.get("/list?cured=yes")
    shown = sent(visitor, cured)
    selects = [each for each in shown.select(".sent li") if words(each).startswith("SELECT")]
    assert len(selects) == 2
    assert shown.select(".verdict") == []
    assert words(guilty.html.select_one(".said ul")) == words(cured.html.select_one(".said ul"))
    assert "def show_list(" in cured.html.find("pre").get_text()


@pytest.fixture
def engine(visitor):
    return get_sqa(visitor.app).engine


def test_when_the_other_connection_fails_the_request_is_stored_at_once(visitor, engine):
    """It may be the one that the database ends; here it has an error of its own."""

    @event.listens_for(engine, "begin")
    def fail(connection):
        if threading.current_thread() is not threading.main_thread():
            connection.exec_driver_sql("SELECT missing FROM nowhere")

    page = visitor.get("/drawers").forms[0].submit(status=303).follow()

    assert words(page.html.select_one(".said .status")) == "1 attempt"
    assert "This time the other connection lost" in words(page.html.select_one(".said"))


def test_another_process_may_fill_the_drawers_at_the_same_moment(any_database, visitor, engine):
    """Who comes too late leaves it to the other, and starts."""
    any_database.run("DELETE FROM coins", "DELETE FROM drawers")

    @event.listens_for(engine, "before_cursor_execute")
    def fill_meanwhile(connection, cursor, statement, *_):
        if statement.startswith("INSERT"):
            any_database.run("INSERT INTO drawers (id, label) VALUES (1, 'of the other')")

    fill_drawers(engine)
    # Now there is one, and nothing to do.
    fill_drawers(engine)

    assert any_database.rows("SELECT id, label FROM drawers") == [(1, "of the other")]


def test_without_recording_the_pages_say_so(sqlite):
    """They work all the same."""
    app = main({}, **{"sqlalchemy.url": sqlite.url, **SETTINGS, "sqa.record": "false"})
    visitor = TestApp(app)
    page = visitor.get("/drawers").forms[0].submit(status=303).follow()

    assert "It was stored" in words(page.html.select_one(".said"))
    assert "Nothing is known of this request" in words(sent(visitor, page))
    get_sqa(app).dispose()


def test_an_address_of_no_request_is_not_found(visitor, monkeypatch):
    """And the frame of a request that is forgotten says that nothing is known."""
    monkeypatch.setattr("pyramid_aalam_sqa.demo.sent.MAX_RECORDINGS", 2)
    visitor.get("/drawers/0123abcd", status=404)
    assert "Nothing is known" in visitor.get("/sent/0123abcd").text
    first, *_, last = [visitor.get("/list?cured=yes") for _ in range(3)]
    assert "Nothing is known" in words(sent(visitor, first))
    assert "Nothing is known" not in words(sent(visitor, last))


def test_the_pages_work_without_scripts(visitor):
    """As all of the demo do."""
    for path in ("/drawers", "/list"):
        page = visitor.get(path)
        assert page.html.find("script") is None
        assert all(words(button) for button in page.html.select("button"))


def test_the_ini_file_of_the_demo_records(tmp_path):
    """So that the pages show something when the demo is started as it is."""
    text = INI.read_text().replace("%(here)s", str(tmp_path))
    ini = tmp_path / "demo.ini"
    ini.write_text(text)
    app = get_app(str(ini))

    assert get_sqa(app).settings.sqa_options["record"] is True
    get_sqa(app).dispose()

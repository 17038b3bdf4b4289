"""Visitors and the operator use the guest book of development.ini."""

import html
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest

from pyramid_aalam_sqa import get_sqa
from support.demo import INI, ini_for, visit, words
from support.servers import free_port

ENTRIES = "SELECT name, message FROM entries ORDER BY id"


@pytest.fixture
def visitor(database, tmp_path):
    """A browser at the guest book, on each database."""
    visitor = visit(ini_for(tmp_path, database.url))
    yield visitor
    get_sqa(visitor.app).dispose()


def sign(visitor, name="Ada", message="Hello", **expected):
    form = visitor.get("/book").forms[0]
    form["name"] = name
    form["message"] = message
    return form.submit(**expected)


def test_an_empty_book_invites_its_first_guest(visitor):
    """With a new database, the page says that the book is empty, and has the form."""
    page = visitor.get("/book")

    assert "No entries yet" in page
    assert list(page.forms[0].fields) == ["csrf_token", "name", "message", None]


def test_an_entry_is_stored_and_the_visitor_is_led_to_it(visitor, database):
    """The redirect commits. The view does not call commit()."""
    answer = sign(visitor, "Ada", "What a view!", status=303)

    assert database.rows(ENTRIES) == [("Ada", "What a view!")]
    number = database.scalar("SELECT id FROM entries")
    assert answer.location == f"http://localhost/book#entry-{number}"
    assert words(answer.follow().html.find(id=f"entry-{number}")).endswith("What a view! Ada")


def test_the_newest_entry_stands_first(visitor):
    """A visitor reads the newest entries first."""
    for name in ("Ada", "Grace", "Mary"):
        sign(visitor, name)

    page = visitor.get("/book")

    assert [words(name) for name in page.html.select(".name")] == ["Mary", "Grace", "Ada"]
    assert words(page.html.find(id="sheet-title")) == "3 entries"


@pytest.fixture
def long_book(visitor, database):
    """The visitor of a book with 101 entries."""
    visitor.get("/book")
    row = "INSERT INTO entries (name, message, created) VALUES ('n', '{}', '2026-01-02 03:04:05')"
    database.run(*(row.format(number) for number in range(101)))
    return visitor


def messages(page):
    return [int(words(message)) for message in page.html.select(".message")]


def test_a_long_book_is_read_page_by_page_from_its_end(long_book):
    """Each page shows its number, and links to the next page."""
    page = long_book.get("/book")
    read = messages(page)
    assert words(page.html.find(id="sheet-title")) == "101 entries, page 1 of 6"
    while page.html.find(rel="next"):
        page = page.click("Older")
        read += messages(page)

    assert read == list(range(100, -1, -1))
    assert words(page.html.find(id="sheet-title")) == "101 entries, page 6 of 6"
    assert messages(page.click("Newer")) == list(range(20, 0, -1))
    assert messages(page.click("^1$")) == list(range(100, 80, -1))


def test_the_navigation_shows_where_the_visitor_is(long_book):
    """A screen reader can read it. There is a gap for page numbers that are left out."""
    page = long_book.get("/book?page=4").html

    [navigation] = page.select("nav.pages")
    assert words(navigation) == "Newer 1 … 3 4 5 6 Older"
    assert words(navigation.find(attrs={"aria-current": "page"})) == "4"
    assert page.title.string.startswith("Page 4 ")


def test_a_short_book_has_no_navigation(visitor):
    """A book with one page does not need it."""
    sign(visitor)

    assert visitor.get("/book").html.select("nav.pages") == []


@pytest.mark.parametrize("query", ["page=7", "page=0", "page=x", "per_page=-1", "page=" + "9" * 40])
@pytest.mark.sweep(4)
def test_a_page_that_the_book_has_not_is_not_found(long_book, query):
    """The page of the 404 has the same design as all others."""
    for path in ("/book", "/entries.json"):
        page = long_book.get(f"{path}?{query}", status=404)

        assert words(page.html.h1) == "This page is blank"


def test_a_program_follows_the_link_header_through_the_book(long_book):
    """The JSON of the book has the same pages."""
    answer = long_book.get("/entries.json?per_page=50")
    links = dict(reversed(link.split("; rel=")) for link in answer.headers["Link"].split(", "))

    assert [entry["message"] for entry in answer.json] == [str(n) for n in range(100, 50, -1)]
    assert links == {
        '"first"': "</entries.json?per_page=50&page=1>",
        '"next"': "</entries.json?per_page=50&page=2>",
        '"last"': "</entries.json?per_page=50&page=3>",
    }


def test_the_time_of_an_entry_is_shown_in_utc(visitor, database):
    """A person reads the words, and a program reads the attribute datetime."""
    before = datetime.now(UTC).replace(microsecond=0)
    sign(visitor)
    after = datetime.now(UTC)
    written = datetime.fromisoformat(str(database.scalar("SELECT created FROM entries")))
    assert before <= written.replace(tzinfo=UTC) <= after

    database.run("UPDATE entries SET created = '2026-03-01 09:05:00'")
    moment = visitor.get("/book").html.find("time")

    assert moment["datetime"] == "2026-03-01T09:05:00+00:00"
    assert words(moment) == "1 March 2026, 09:05 UTC"


@pytest.mark.parametrize(
    ("field", "typed", "says"),
    [
        ("name", "", "Please write your name."),
        ("name", "  \t ", "Please write your name."),
        ("name", "n" * 61, "Please shorten this: it has 61 characters, and 60 fit."),
        ("message", "", "Please write your message."),
        ("message", " \n \n", "Please write your message."),
        (
            "message",
            "m" * 1001,
            "Please shorten this: it has 1,001 characters, and 1,000 fit.",
        ),
    ],
)
@pytest.mark.sweep(6)
def test_what_cannot_be_stored_comes_back_with_the_reason_at_its_field(
    visitor, database, field, typed, says
):
    """Nothing is stored, the typed text is kept, and a screen reader finds the reason."""
    good = {"name": "Ada", "message": "Hello", field: typed}

    page = sign(visitor, **good, status=400)

    assert database.rows(ENTRIES) == []
    assert page.forms[0]["name"].value == good["name"]
    # A browser sends each end of a line as two characters.
    assert page.forms[0]["message"].value.replace("\r\n", "\n") == good["message"]
    wrong = page.html.select("[aria-invalid]")
    assert [(tag["name"], tag["aria-invalid"]) for tag in wrong] == [(field, "true")]
    assert wrong[0].has_attr("autofocus")
    reason = page.html.find(id=wrong[0]["aria-describedby"].split()[0])
    assert words(reason) == says


def test_the_focus_is_on_the_first_of_two_wrong_fields(visitor, database):
    """The visitor corrects the first field first."""
    page = sign(visitor, "", "", status=400)

    assert database.rows(ENTRIES) == []
    assert [tag["name"] for tag in page.html.select("[aria-invalid]")] == ["name", "message"]
    assert [tag["name"] for tag in page.html.select("[autofocus]")] == ["name"]
    assert page.html.title.string.startswith("Please look again")


def test_the_longest_entry_fits_in_every_alphabet(visitor, database):
    """The columns hold as many characters as the form allows, even of four bytes each."""
    name, message = "🖋" * 60, "🌍\r\n" * 499 + "வண"

    sign(visitor, f"  {name} ", message, status=303)

    assert database.rows(ENTRIES) == [(name, message.replace("\r\n", "\n"))]


def test_what_a_guest_writes_is_shown_as_text(visitor, database):
    """An entry, or a form that is shown again, cannot bring markup into the page."""
    evil = """<script>alert("1")</script>&amp;'"><b>"""
    sign(visitor, evil, evil, status=303)
    assert database.rows(ENTRIES) == [(evil, evil)]

    for page in (visitor.get("/book"), sign(visitor, evil, evil + "m" * 1000, status=400)):
        assert "<script" not in page
        assert html.escape("<script>", quote=False) in page
        assert words(page.html.select_one(".message")) == evil
    assert page.forms[0]["name"].value == evil


def test_a_form_from_another_site_is_refused(visitor, database):
    """A form must contain the token of the visitor's cookie."""
    visitor.get("/book")
    typed = {"name": "n", "message": "m", "csrf_token": "guessed"}

    page = visitor.post("/book", typed, status=400)

    assert "This form cannot be read" in page
    assert database.rows(ENTRIES) == []


def test_the_entries_are_there_as_json(visitor, database):
    """The newest entry is first, and times have their time zone."""
    sign(visitor, "Ada", "Hello")
    sign(visitor, "Grace", "Zeile 1\r\nZeile 2: „ü“")
    database.run("UPDATE entries SET created = '2026-03-01 09:05:00'")

    answer = visitor.get("/entries.json")

    assert answer.content_type == "application/json"
    numbers = [number for (number,) in database.rows("SELECT id FROM entries ORDER BY id DESC")]
    assert answer.json == [
        {
            "id": numbers[0],
            "name": "Grace",
            "message": "Zeile 1\nZeile 2: „ü“",
            "created": "2026-03-01T09:05:00+00:00",
        },
        {
            "id": numbers[1],
            "name": "Ada",
            "message": "Hello",
            "created": "2026-03-01T09:05:00+00:00",
        },
    ]


@pytest.mark.parametrize("path", ["/nowhere", "/rule/0123abcd", "/static/none.css", "/list/a"])
@pytest.mark.sweep(4)
def test_an_address_without_a_page_has_a_page_in_the_same_design(visitor, path):
    """It has the status 404, says so in words, and has a link back."""
    page = visitor.get(path, status=404)

    assert words(page.html.h1) == "This page is blank"
    assert page.html.find("link", rel="stylesheet")
    assert page.click("Back to the start").request.path == "/"


def test_an_address_that_cannot_be_decoded_has_no_page_either(visitor):
    """Such an address is a mistake of the visitor, so it is a 404 and not a 500."""
    page = visitor.get("/%ff", status=404)

    assert words(page.html.h1) == "This page is blank"


def test_a_failure_has_a_page_in_the_same_design_and_is_logged(visitor, database, caplog):
    """The page has no details for the visitor. The log has the traceback for the operator."""
    visitor.get("/book")
    database.run("DROP TABLE entries")

    page = visitor.get("/book", status=500)

    assert words(page.html.h1) == "A blot of ink"
    assert "entries" not in page.html.find("main").get_text()
    assert "GET /book failed" in caplog.text
    assert "ProgrammingError" in caplog.text or "OperationalError" in caplog.text


def test_every_page_works_without_scripts_and_without_other_sites(visitor):
    """All files that a page needs come from the application."""
    sign(visitor)
    pages = [visitor.get(path) for path in ("/", "/book")]
    pages += [visitor.get("/nowhere", status=404)]

    for page in pages:
        assert page.html.find("script") is None
        needed = [
            tag.get("href") or tag.get("src") for tag in page.html.select("link, img, iframe")
        ]
        assert len(needed) >= 2
        for path in needed:
            assert path.startswith("/")
            assert "http" not in re.sub("xmlns=.*?>", "", visitor.get(path).text)


def test_every_field_and_every_button_has_a_name_to_be_read_out(visitor):
    """People who use a screen reader can use the forms."""
    for path in ("/", "/book"):
        page = visitor.get(path).html
        for field in page.select("input:not([type=hidden]), textarea"):
            assert words(page.find("label", attrs={"for": field["id"]}))
            described = [page.find(id=name) for name in field["aria-describedby"].split()]
            assert all(described)
        assert all(words(button) for button in page.select("button"))
        assert all(page.find(id=tag["aria-labelledby"]) for tag in page.select("[aria-labelledby]"))


@pytest.mark.deep
def test_several_processes_may_start_at_once_on_an_empty_database(database, tmp_path):
    """Each process creates the missing tables, and none of them fails."""
    start = "import sys; from pyramid.paster import get_app; get_app(sys.argv[1])"
    ini = ini_for(tmp_path, database.url)

    processes = [subprocess.Popen([sys.executable, "-c", start, ini]) for _ in range(4)]

    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    assert database.rows("SELECT * FROM entries") == database.rows("SELECT * FROM orders") == []


def fetch(url, process):
    """Return the page at *url* when *process* serves it."""
    opener = build_opener(ProxyHandler({}))
    deadline = time.monotonic() + 60
    while True:
        try:
            with opener.open(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except URLError as error:
            starting = isinstance(error.reason, ConnectionRefusedError)
            if not starting or process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_pserve_serves_the_guest_book_from_the_ini_file_as_it_is(tmp_path):
    """A newcomer's first command works, and puts the data beside the ini file."""
    ini = shutil.copy(INI, tmp_path)
    port = free_port()
    command = [sys.executable, "-m", "pyramid.scripts.pserve", ini, f"http_port={port}"]

    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd="/", stdout=log, stderr=log)
    try:
        status, page = fetch(f"http://localhost:{port}/", process)
    finally:
        process.terminate()
        process.wait(30)

    assert status == 200
    assert "The answer decides." in page
    assert (tmp_path / "data" / "guestbook.sqlite").exists()
    assert "Serving on http://" in (tmp_path / "log").read_text()

"""One block of lines for each request, from the logging section that the page documents."""

import io
import logging
from logging import StreamHandler

import pytest
from pyramid.paster import setup_logging
from pyramid.response import Response
from sqlalchemy import text
from webtest import TestApp

from support.apps import with_view
from support.pages import ROOT, blocks


def view(request):
    request.sqa_session.execute(text("SELECT :name"), {"name": "tea"})
    return Response("ok")


@pytest.fixture
def documented(tmp_path):
    """Set logging up as the page says; put it back after the test."""
    [section] = [
        block
        for block in blocks(ROOT / "docs" / "guide" / "debugging.md", "ini")
        if "[logger_sql]" in block
    ]
    ini = tmp_path / "app.ini"
    ini.write_text(section)
    loggers = [logging.getLogger(), logging.getLogger("pyramid_aalam_sqa.sql")]
    before = [(each.level, list(each.handlers)) for each in loggers]
    known = logging.root.manager.loggerDict.values()
    disabled = {each: each.disabled for each in known if isinstance(each, logging.Logger)}
    setup_logging(str(ini))
    [console] = [each for each in logging.getLogger().handlers if type(each) is StreamHandler]
    written = io.StringIO()
    console.setStream(written)
    yield written
    for each, (level, handlers) in zip(loggers, before, strict=True):
        each.setLevel(level)
        each.handlers[:] = handlers
    for each, value in disabled.items():
        each.disabled = value


def test_a_request_is_a_block_of_lines(documented, sqlite, serve):
    """Statements with their values and lines, and how the transaction ended."""
    app = serve(sqlite.url, with_view(view, name="notes"), **{"sqa.record": "true"})
    TestApp(app).get("/notes")

    lines = documented.getvalue().splitlines()
    [first] = [number for number, line in enumerate(lines) if "GET /notes (200)" in line]
    block = lines[first + 1 :]
    assert [line.split("] ")[1].split()[0] for line in block] == [
        "CONNECT",
        "BEGIN",
        "SELECT",
        "COMMIT",
    ]
    assert "-- ('tea',) at " in block[2]
    assert "in view" in block[2]
    assert block[3].endswith("COMMIT -- committed")


def test_a_logger_at_warning_is_silent(sqlite, serve, caplog):
    """The texts are not even made."""
    app = serve(sqlite.url, with_view(view), **{"sqa.record": "true"})
    with caplog.at_level(logging.WARNING, "pyramid_aalam_sqa.sql"):
        TestApp(app).get("/")

    assert caplog.records == []

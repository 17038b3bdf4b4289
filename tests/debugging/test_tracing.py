"""OpenTelemetry has a span for COMMIT and ROLLBACK, with the attempt, beside its own."""

import sys

import pytest
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from pyramid.response import Response
from pyramid_retry import RetryableException
from sqlalchemy import text
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa, session_scope
from pyramid_aalam_sqa.debugging import trace_transactions
from support.apps import with_view


@pytest.fixture
def traced():
    """A provider, and what it was told."""
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


def test_each_attempt_has_a_span_for_its_end_within_the_requests(any_database, serve, traced):
    """The statements' spans are OpenTelemetry's own, on SQLAlchemy 2.0 and 2.1."""
    provider, exporter = traced

    def view(request):
        request.sqa_session.execute(text("SELECT 1"))
        if request.environ["retry.attempt"] == 0:
            raise RetryableException
        return Response("ok")

    app = serve(any_database.url, with_view(view), **{"sqa.retry_pause": "0"})
    engine = get_sqa(app).engine
    engine.connect().close()
    instrumentor = SQLAlchemyInstrumentor()
    instrumentor.instrument(engine=engine, skip_dep_check=True, tracer_provider=provider)
    try:
        trace_transactions(app, provider)
        with provider.get_tracer("test").start_as_current_span("request"):
            TestApp(app).get("/")
    finally:
        instrumentor.uninstrument()

    spans = exporter.get_finished_spans()
    ends = [span for span in spans if span.name in {"COMMIT", "ROLLBACK"}]
    assert [(span.name, span.attributes["sqa.attempt"]) for span in ends] == [
        ("ROLLBACK", 1),
        ("COMMIT", 2),
    ]
    [request] = [span for span in spans if span.name == "request"]
    for span in ends:
        assert span.parent.span_id == request.context.span_id
        assert span.attributes["db.system.name"] == engine.dialect.name
        assert span.attributes["db.operation.name"] == span.name
        assert span.attributes["sqa.database"] == "default"
        assert span.end_time >= span.start_time
    assert sum(span.name.startswith("SELECT") for span in spans) == 2


def test_a_commit_that_fails_is_an_error_of_its_span(sqlite, serve, traced):
    """A job has no attempt."""
    provider, exporter = traced
    app = serve(sqlite.url)
    sqlite.run(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TABLE child (id INTEGER REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED)",
    )
    trace_transactions(app, provider)
    with pytest.raises(Exception, match="FOREIGN KEY"), session_scope(app) as session:
        session.execute(text("INSERT INTO child VALUES (1)"))

    commit = exporter.get_finished_spans()[0]
    assert commit.name == "COMMIT"
    assert commit.status.status_code is StatusCode.ERROR
    assert "FOREIGN KEY" in commit.status.description
    assert "sqa.attempt" not in commit.attributes


def test_opentelemetry_is_imported_only_where_a_setting_asks(monkeypatch, sqlite, serve):
    """Where it is not installed, the call says so."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    app = serve(sqlite.url)

    with pytest.raises(ImportError):
        trace_transactions(app)

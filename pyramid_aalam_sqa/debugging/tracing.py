"""Spans of OpenTelemetry for COMMIT and ROLLBACK, which its own instrumentation does not make."""

from time import time_ns
from typing import Any

from pyramid.threadlocal import get_current_request

from ..applications import get_sqa
from ..interfaces import HasRegistry
from .tap import taps_of

NANOSECONDS = 1_000_000_000


def trace_transactions(app: HasRegistry, tracer_provider: Any = None) -> None:
    """Make a span of OpenTelemetry for each COMMIT and ROLLBACK of the application *app*.

    Called once, when the application is made. A span is a child of the one that is current, with
    the attributes ``db.system.name``, ``db.operation.name``, ``sqa.database`` (the bind key) and,
    in a request, ``sqa.attempt``, its attempt from 1; a failure is the span's status. Spans of
    statements are made by OpenTelemetry's own instrumentation of SQLAlchemy. *tracer_provider* is
    the global one unless given. Raises ImportError where ``opentelemetry-api`` is not installed.
    """
    from opentelemetry import trace  # noqa: PLC0415 - only who calls this needs it

    tracer = trace.get_tracer("pyramid_aalam_sqa", tracer_provider=tracer_provider)
    sqa = get_sqa(app)

    def make_span(kind: str, key: str, seconds: float, error: str | None) -> None:
        end = time_ns()
        attributes: dict[str, str | int] = {
            "db.system.name": sqa.engines[key].dialect.name,
            "db.operation.name": kind,
            "sqa.database": key,
        }
        request = get_current_request()
        if request is not None:
            attributes["sqa.attempt"] = request.environ.get("retry.attempt", 0) + 1
        begin = end - int(seconds * NANOSECONDS)
        span = tracer.start_span(
            kind, kind=trace.SpanKind.CLIENT, attributes=attributes, start_time=begin
        )
        if error is not None:
            span.set_status(trace.Status(trace.StatusCode.ERROR, error))
        span.end(end)

    for tap in taps_of(sqa):
        tap.observers = (*tap.observers, make_span)

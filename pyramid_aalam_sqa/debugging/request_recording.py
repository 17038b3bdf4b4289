"""What is recorded of a request, from its first attempt to the last part of a streamed body."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pyramid.interfaces import IExecutionPolicy
from pyramid.response import FileResponse
from pyramid.router import default_execution_policy
from sqlalchemy import event
from sqlalchemy.engine import Engine

from ..applications import Sqa, get_sqa
from ..exceptions import SettingError
from .lazy_loads import mark_lazy_loads
from .recording import MOST_KEPT, Recorder, of_context
from .statements import Contents, Statements, counted
from .tap import Tap, add_tap, current_route, taps_of

# The recording of a request, in its environ.
STATEMENTS = "sqa.statements"
MODES = ("off", "log", "raise")
# After the policy that ends the sessions, which the recording has to be around.
AFTER_ENDS = 1001

Policy = Callable[[dict[str, Any], Any], Any]


def includeme(config: Any) -> None:
    """Begin to watch the application's engines, as far as its settings ask for it.

    Included by ``config.include("pyramid_aalam_sqa")`` when one of the settings is on.
    """
    sqa = get_sqa(config)
    options = sqa.settings.sqa_options
    taps = taps_of(sqa)

    def prepare(tap: Tap, engine: Engine) -> None:
        tap.slow_statement = options["slow_statement"]
        if options["stats"]:
            _count(tap, engine, sqa)

    for tap, key in taps.items():
        prepare(tap, sqa.engines[key])
    # Those of read-only requests are made at their first use.
    sqa.reading.listeners.append(
        lambda name, engine, _: prepare(add_tap(taps, name, engine), engine)
    )
    if options["record"]:
        config.add_request_method(sqa_statements, property=True)
    finds = options["record"] or options["n_plus_one"] != "off"
    if finds:
        mark_lazy_loads()
    if finds or options["server_timing"]:
        discriminator = ("pyramid_aalam_sqa", "recording policy")
        config.action(discriminator, _wrap_policy, (config, sqa, taps), order=AFTER_ENDS)


def sqa_statements(request: Any) -> Statements:
    """Return what this request has sent so far; empty outside a request that a server has sent."""
    found: Statements = request.environ.setdefault(STATEMENTS, Statements(Contents()))
    return found


def _wrap_policy(config: Any, sqa: Sqa, taps: dict[Tap, str]) -> None:
    registry = config.registry
    policy = registry.queryUtility(IExecutionPolicy, default=default_execution_policy)
    registry.registerUtility(
        recording_policy(policy, sqa, taps, registry.package_name), IExecutionPolicy
    )


def recording_policy(policy: Policy, sqa: Sqa, taps: dict[Tap, str], package: str) -> Policy:
    """Return *policy*, an execution policy of Pyramid, with a recorder around each request."""
    options = sqa.settings.sqa_options
    most_kept = MOST_KEPT if options["record"] else 0
    timing, mode = options["server_timing"], options["n_plus_one"]

    def execution_policy(environ: dict[str, Any], router: Any) -> Any:
        own = package.partition(".")[0]
        recorder = Recorder(taps, own, environ, mode=mode, most_kept=most_kept)
        statements = recorder.statements
        # One application may call another with its own environ.
        outer = environ.get(STATEMENTS)
        environ[STATEMENTS] = statements
        token = of_context.set((*of_context.get(), recorder))
        result = ""
        try:
            response = policy(environ, router)
            result = str(response.status_int)
        except BaseException as error:
            result = type(error).__name__
            raise
        finally:
            of_context.reset(token)
            recorder.finish(result)
            if outer is not None:
                environ[STATEMENTS] = outer
        if timing:
            response.headers.add("Server-Timing", server_timing(statements))
        _record_body(response, recorder)
        return response

    return execution_policy


def server_timing(statements: Statements) -> str:
    """Return the header's value: milliseconds of the statements, the waits and the COMMITs."""
    totals = statements.totals.values()
    milliseconds = {
        "db": sum(each.seconds for each in totals) * 1000,
        "pool": sum(each.pool for each in totals) * 1000,
        "commit": sum(each.commit for each in totals) * 1000,
    }
    described = {"db": f';desc="{counted(statements.count)}"'}
    return ", ".join(
        f"{name};dur={value:.1f}{described.get(name, '')}" for name, value in milliseconds.items()
    )


class RecordedBody:
    """The body of a response, whose statements are recorded while the server reads it."""

    def __init__(self, body: Iterable[bytes], recorder: Recorder) -> None:
        self._body = body
        self._recorder = recorder

    def __iter__(self) -> Iterator[bytes]:
        parts = iter(self._body)
        while True:
            with _recording(self._recorder):
                part = next(parts, None)
            if part is None:
                return
            yield part

    def close(self) -> None:
        """Close the body, which rolls back and gives back what it reads from."""
        with _recording(self._recorder):
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        self._recorder.finish("end of the body")


@contextmanager
def _recording(recorder: Recorder) -> Iterator[None]:
    token = of_context.set((*of_context.get(), recorder))
    try:
        yield
    finally:
        of_context.reset(token)


def _record_body(response: Any, recorder: Recorder) -> None:
    body = response.app_iter
    if isinstance(body, (list, tuple)) or isinstance(response, FileResponse):
        return
    length = response.content_length
    response.app_iter = RecordedBody(body, recorder)
    # WebOb takes the length for that of the body before.
    response.content_length = length


def view_with_mode(view: Any, mode: str) -> Any:
    """Return *view* with the N+1 *mode* of its option ``sqa_n_plus_one``, which wins.

    Raises :class:`SettingError` for another word than ``off``, ``log`` and ``raise``.
    """
    if mode not in MODES:
        msg = f"The view option sqa_n_plus_one = {mode!r}: write off, log or raise."
        raise SettingError(msg)
    mark_lazy_loads()

    def view_in_mode(context: Any, request: Any) -> Any:
        with _recorder_of(request) as recorder:
            before, recorder.mode = recorder.mode, mode
            try:
                return view(context, request)
            finally:
                recorder.mode = before

    return view_in_mode


@contextmanager
def _recorder_of(request: Any) -> Iterator[Recorder]:
    """Yield the recorder of *request*; one for the block where the settings ask for none."""
    taps = taps_of(get_sqa(request))
    for recorder in reversed(of_context.get()):
        if any(tap in recorder.databases for tap in taps):
            yield recorder
            return
    package = request.registry.package_name.partition(".")[0]
    own = Recorder(taps, package, request.environ, most_kept=0)
    try:
        with _recording(own):
            yield own
    finally:
        own.finish("")


def _count(tap: Tap, engine: Engine, sqa: Sqa) -> None:
    """Count what happens on *engine*, of *tap*, and note who holds its connections."""
    counters = tap.counters = sqa.counters
    counters.complete = True

    def take(_connection: object, entry: object, _proxy: object) -> None:
        counters.hold(tap.key, entry, current_route())

    def give_back(_connection: object, entry: object) -> None:
        counters.release(entry)

    event.listen(engine, "checkout", take)
    event.listen(engine, "checkin", give_back)
    event.listen(engine, "detach", give_back)

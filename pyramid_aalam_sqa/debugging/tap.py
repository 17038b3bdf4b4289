"""Sees what an engine is asked, by wrapping the methods of its dialect that talk to the driver.

A dialect's methods are the lowest place that SQLAlchemy documents: they see statements that fail
and the real time of COMMIT and ROLLBACK. A listener on the engine sees neither, and once there
has been one, every statement pays for it. Nothing is wrapped before an application or a test asks.
"""

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, cast
from urllib.parse import quote
from weakref import WeakKeyDictionary, ref

from pyramid.threadlocal import get_current_request
from sqlalchemy.engine import Dialect, Engine
from sqlalchemy.exc import DBAPIError

from ..applications import Counters, Sqa
from ..engines import Outcome, error_name, outcome_on, sends_nothing, skips_rollback
from ..exceptions import NPlusOneError
from .lazy_loads import LAZY_LOAD, LazyLoad
from .lines import Line, find_line
from .recording import COMMITTED, ROLLED_BACK, Recorder, kept_parameters, of_context
from .statements import Statement

log = logging.getLogger(__name__)

# SQLAlchemy sends them as statements, and so may an application.
SAVEPOINTS = ("SAVEPOINT ", "RELEASE SAVEPOINT ", "ROLLBACK TO SAVEPOINT ")
# What a COMMIT is called whose outcome the watcher knows.
OUTCOMES: dict[Outcome | None, str] = {
    Outcome.STORED: COMMITTED,
    Outcome.REFUSED: "refused",
    Outcome.UNKNOWN: "unknown",
}
# Characters of a statement in one line of the log.
LONGEST_LOGGED = 500

Observer = Callable[[str, str, float, str | None], object]


class Tap:
    """What is known of one engine's dialect: who listens to it, and which transactions are open."""

    def __init__(self, engine: Engine) -> None:
        self._engine = ref(engine)
        # Recorders of blocks, which hear of every thread. Replaced, never changed in place.
        self.recorders: tuple[Recorder, ...] = ()
        # Seconds from which on a statement is logged.
        self.slow_statement: float | None = None
        # Told of each COMMIT and ROLLBACK: its kind, the database's key, seconds and the error.
        self.observers: tuple[Observer, ...] = ()
        self.counters: Counters | None = None
        self.key = "default"
        self._state = threading.local()
        # The driver's connections that have begun a transaction, by id.
        self._begun: set[int] = set()

    def wrap(self) -> None:
        """Wrap the dialect's methods, unless the outermost wrapper is already this tap's.

        Others wrap the same methods, a sandbox of tests for example. Of two wrappers of this tap
        the outer one records.
        """
        engine = cast("Engine", self._engine())
        dialect: Any = engine.dialect
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            self._replace(dialect, name, self._execution(getattr(dialect, name), name))
        for name, kind in (
            ("do_begin", "BEGIN"),
            ("do_commit", "COMMIT"),
            ("do_rollback", "ROLLBACK"),
        ):
            self._replace(dialect, name, self._transaction(getattr(dialect, name), kind))
        self._replace(engine, "raw_connection", self._checkout(engine.raw_connection))

    def _replace(self, owner: Any, name: str, wrapper: Any) -> None:
        if getattr(getattr(owner, name), "tap", None) is not self:
            wrapper.tap = self
            setattr(owner, name, wrapper)

    def audience(self) -> list[Recorder]:
        """Return who is to be told of what this thread does now; none inside another wrapper."""
        if getattr(self._state, "inside", False):
            return []
        here = threading.get_ident()
        found = [each for each in self.recorders if each.thread in {None, here}]
        for each in reversed(of_context.get()):
            if self in each.databases:
                return [*found, each]
        return found

    def _execution(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        many, without = name == "do_executemany", name == "do_execute_no_params"

        def execute(cursor: Any, statement: str, *given: Any) -> Any:
            audience = self.audience()
            if not audience and self.slow_statement is None:
                return original(cursor, statement, *given)
            parameters = None if without else given[0]
            run = _Run(self, audience, cursor, statement, parameters, given[-1], many)
            return run.call(lambda: original(cursor, statement, *given))

        return execute

    def _transaction(self, original: Callable[..., Any], kind: str) -> Callable[..., Any]:
        dialect = cast("Engine", self._engine()).dialect

        def transact(pooled: Any) -> Any:
            if sends_nothing(dialect, pooled):
                return original(pooled)
            place = _place(pooled)
            begun = place in self._begun
            if kind == "BEGIN":
                self._begun.add(place)
            else:
                self._begun.discard(place)
            if getattr(self._state, "inside", False):
                return original(pooled)
            shown = "RESET" if kind == "ROLLBACK" and not begun else kind
            if shown == "RESET" and skips_rollback(dialect, pooled):
                return original(pooled)
            return self._step(shown, lambda: original(pooled), pooled)

        return transact

    def _checkout(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def raw_connection() -> Any:
            counters = self.counters
            if counters is not None:
                counters.add(self.key, "waiting")
            try:
                pooled = self._step("CONNECT", original)
            finally:
                if counters is not None:
                    counters.add(self.key, "waiting", -1)
            # Another connection may have been at the same address.
            self._begun.discard(_place(pooled))
            return pooled

        return raw_connection

    @property
    def hides_parameters(self) -> bool:
        """Return whether the engine keeps values out of logs and errors."""
        engine = self._engine()
        return engine is None or engine.hide_parameters

    def quietly(self, act: Callable[[], Any]) -> Any:
        """Call *act*, and record nothing of what it does on the engine."""
        before = getattr(self._state, "inside", False)
        self._state.inside = True
        try:
            return act()
        finally:
            self._state.inside = before

    def _step(self, kind: str, act: Callable[[], Any], pooled: Any = None) -> Any:
        """Call *act*, a step of a transaction on *pooled*, and tell those who listen."""
        audience = self.audience()
        began = perf_counter()
        error: BaseException | None = None
        try:
            return self.quietly(act)
        except BaseException as raised:
            error = raised
            raise
        finally:
            seconds = perf_counter() - began
            outcome = self._outcome(kind, error, pooled)
            name = self.name_of(error) if error else None
            for recorder in audience:
                recorder.add_step(
                    self, kind, kind, began=began, seconds=seconds, outcome=outcome, error=name
                )
            if kind in {"COMMIT", "ROLLBACK"}:
                self._tell_end(kind, seconds, name)

    def _outcome(self, kind: str, error: BaseException | None, pooled: Any) -> str | None:
        """Return what became of the transaction on *pooled*, as the watcher of the engine knows."""
        if kind == "ROLLBACK":
            return None if error else ROLLED_BACK
        if kind != "COMMIT":
            return None
        # An engine that this package has not made has no watcher.
        unwatched = "unknown" if error else COMMITTED
        return OUTCOMES.get(outcome_on(pooled), unwatched)

    def _tell_end(self, kind: str, seconds: float, error: str | None) -> None:
        for observer in self.observers:
            observer(kind, self.key, seconds, error)
        if self.counters is not None and error is None:
            self.counters.add(self.key, "commits" if kind == "COMMIT" else "rollbacks")
        if self.slow_statement is not None and seconds >= self.slow_statement:
            log.warning("%s: %s took %.3f s [%s]", current_route(), kind, seconds, self.key)

    def name_of(self, error: BaseException) -> str:
        """Return what is kept of *error*: its text, or its code where values are hidden."""
        if self.hides_parameters:
            return error_name(error)
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        return f"{type(cause).__name__}: {cause}"


@dataclass(slots=True)
class _Run:
    """One statement while it is executed."""

    tap: Tap
    audience: list[Recorder]
    cursor: Any
    statement: str
    parameters: Any
    context: Any
    many: bool
    lazy_load: LazyLoad | None = None
    own: bool = False
    line: Line | None = None

    def __post_init__(self) -> None:
        self.lazy_load = self.context.execution_options.get(LAZY_LOAD)
        if self.audience:
            frame = sys._getframe(3)  # noqa: SLF001 - inspect.stack() reads source files
            self.own, self.line = find_line(frame, self.audience[-1].package)

    def call(self, act: Callable[[], Any]) -> Any:
        """Call *act*, which executes the statement, and tell those who listen."""
        self._refuse_repeated_load()
        began = perf_counter()
        error = None
        try:
            return self.tap.quietly(act)
        except BaseException as raised:
            error = self.tap.name_of(raised)
            raise
        finally:
            seconds = perf_counter() - began
            for recorder in self.audience:
                self._tell(recorder, began, seconds, error)
            slow = self.tap.slow_statement
            if slow is not None and seconds >= slow:
                self._log_slow(seconds)

    def _refuse_repeated_load(self) -> None:
        load = self.lazy_load
        if load is None:
            return
        for recorder in self.audience:
            found = recorder.note_lazy_load(load, self.line)
            if found is not None and recorder.mode == "raise":
                raise NPlusOneError(str(found))

    def _tell(self, recorder: Recorder, began: float, seconds: float, error: str | None) -> None:
        kind = self._kind()
        if kind is not None:
            recorder.add_step(
                self.tap, kind, self.statement.strip(), began=began, seconds=seconds, error=error
            )
            return
        when, place = recorder.start(began)
        parameters, sets = kept_parameters(self.parameters, many=self.many)
        load = self.lazy_load
        item = Statement(
            self.statement,
            None if self.tap.hides_parameters else parameters,
            recorder.databases[self.tap],
            self.line,
            recorder.attempt,
            when,
            place,
            lazy_load=load.attribute if load else None,
            sets=sets,
            duration=seconds,
            error=error,
        )
        if error is None:
            _count_rows(self.cursor, item)
        recorder.add(item)

    def _kind(self) -> str | None:
        """Return the kind of step that the statement is; None when it is the application's."""
        if self.own:
            return "SETUP"
        return "SAVEPOINT" if self.statement.startswith(SAVEPOINTS) else None

    def _log_slow(self, seconds: float) -> None:
        line = self.line or find_line(sys._getframe(2))[1]  # noqa: SLF001 - as above
        text = " ".join(self.statement.split())[:LONGEST_LOGGED]
        where = f" at {line}" if line else ""
        args = (current_route(), seconds, self.tap.key, where, text)
        log.warning("%s: a statement took %.3f s [%s]%s: %s", *args)


def _place(pooled: Any) -> int:
    return id(getattr(pooled, "dbapi_connection", pooled))


def _count_rows(cursor: Any, item: Statement) -> None:
    """Note how many rows *cursor* wrote or found.

    A driver that fetches row by row does not know yet; SQLite's tells of each row that it makes.
    """
    if cursor.description and getattr(cursor, "row_factory", "") is None:
        item.rows = 0

        def count(_cursor: Any, row: Any) -> Any:
            item.rows = (item.rows or 0) + 1
            return row

        cursor.row_factory = count
    elif 0 <= cursor.rowcount < sys.maxsize:
        item.rows = cursor.rowcount


def current_route() -> str:
    """Return what this thread is at: the method and the pattern of the route, or its name."""
    request = get_current_request()
    if request is None:
        return f"thread {threading.current_thread().name}"
    route = getattr(request, "matched_route", None)
    environ = request.environ
    path = route.pattern if route else quote(environ.get("PATH_INFO", ""), "/", "latin-1")
    return f"{environ.get('REQUEST_METHOD', '')} {path}"


_taps: WeakKeyDictionary[Dialect, Tap] = WeakKeyDictionary()
_lock = threading.Lock()


def tap_of(engine: Engine) -> Tap:
    """Return the tap of *engine*, which from now on sees what the engine is asked."""
    with _lock:
        tap = _taps.get(engine.dialect)
        if tap is None:
            tap = _taps[engine.dialect] = Tap(engine)
        tap.wrap()
    return tap


def taps_of(sqa: Sqa) -> dict[Tap, str]:
    """Return the taps of the application's engines, with the keys of their databases."""
    found: dict[Tap, str] = {}
    for key, engine in (*sqa.engines.items(), *sqa.reading.by_name().items()):
        add_tap(found, key, engine)
    return found


def add_tap(taps: dict[Tap, str], key: str, engine: Engine) -> Tap:
    """Add the tap of *engine* to *taps*, unless it is there, and return it."""
    tap = tap_of(engine)
    tap.key = taps.setdefault(tap, key)
    return tap


def quietly_on(engine: Engine, act: Callable[[], Any]) -> Any:
    """Call *act*, which uses *engine*, and record nothing of it."""
    tap = _taps.get(engine.dialect)
    return act() if tap is None else tap.quietly(act)

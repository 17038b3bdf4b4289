"""Who is told of what an application's engines are asked, and keeps it."""

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock, current_thread
from time import perf_counter
from typing import Any
from urllib.parse import quote

from .lazy_loads import Group, LazyLoad, NPlusOne, found_in
from .lines import Line
from .statements import Contents, Statement, Statements, Step, Totals, counted

log = logging.getLogger(__name__)
# A block of lines for each request: what it sent, how long that took, and from where.
sql_log = logging.getLogger("pyramid_aalam_sqa.sql")

COMMITTED, ROLLED_BACK = "committed", "rolled back"
# A page that sends more than this has another problem than its details.
MOST_KEPT = 1000
# Of one execution with many sets of parameters.
MOST_SETS = 10
# Characters or bytes of one parameter.
LONGEST_VALUE = 1000


@dataclass(eq=False)
class Recorder:
    """Who is told of what an application's engines are asked: a request, or a block.

    *databases* are the taps of the engines with the keys of their databases. A recorder with a
    *thread* is told of that thread alone. *environ* is the request's, which knows the attempt.
    *mode* is what an N+1 leads to: ``off``, ``log`` or ``raise``.
    """

    databases: Mapping[Any, str]
    package: str = ""
    environ: Mapping[str, Any] = field(default_factory=dict)
    thread: int | None = None
    mode: str = "off"
    most_kept: int = MOST_KEPT
    _contents: Contents = field(default_factory=Contents)
    _lock: Lock = field(default_factory=Lock)
    _began: float = field(default_factory=perf_counter)
    _places: int = 0

    def __post_init__(self) -> None:
        self.statements = Statements(self._contents)

    @property
    def attempt(self) -> int:
        """Return the number of the request's attempt, from 1."""
        number: int = self.environ.get("retry.attempt", 0)
        return number + 1

    def start(self, began: float) -> tuple[float, int]:
        """Return when and in which place something begins, in seconds since the recording."""
        with self._lock:
            self._places += 1
            return began - self._began, self._places

    def add(self, statement: Statement) -> None:
        """Count *statement*, and keep it while there is room."""
        contents, totals = self._contents, self._totals_of(statement.database)
        with self._lock:
            contents.count += 1
            totals.statements += 1
            totals.seconds += statement.duration
            if len(contents.kept) < self.most_kept:
                contents.kept.append(statement)

    def add_step(
        self, tap: Any, kind: str, text: str, *, began: float, seconds: float, **more: Any
    ) -> None:
        """Note one step of a transaction; *more* is its outcome and its error.

        Its seconds count as the pool's, the commit's or the statements'.
        """
        when, place = self.start(began)
        key = self.databases[tap]
        step = Step(kind, text, key, self.attempt, when, place, duration=seconds, **more)
        totals = self._totals_of(key)
        with self._lock:
            if kind == "CONNECT":
                totals.pool += seconds
            elif kind == "COMMIT":
                totals.commit += seconds
            else:
                totals.seconds += seconds
            if len(self._contents.steps) < self.most_kept:
                self._contents.steps.append(step)

    def _totals_of(self, database: str) -> Totals:
        return self._contents.totals.setdefault(database, Totals())

    def note_lazy_load(self, load: LazyLoad, line: Line | None) -> NPlusOne | None:
        """Count *load* among those of its group. Return what is found in that, if anything."""
        group = self._contents.lazy_loads.get(load.group)
        if group is None:
            group = Group(load.attribute, load.option, line)
            self._contents.lazy_loads[load.group] = group
        group.parents.add(load.parent)
        group.wanted = group.wanted or self.mode == "log"
        found = found_in([group])
        return found[0] if found else None

    def finish(self, result: str) -> None:
        """Say of each ROLLBACK why it was sent, and write each N+1 to the log.

        *result* is the status of the response, or the name of the error that was raised. A block
        has none.
        """
        ends = self.statements.ends
        last = max((each.attempt for each in self.statements.timeline), default=1)
        for step in ends:
            if step.kind == "ROLLBACK" and step.outcome == ROLLED_BACK:
                again = step.attempt < last
                step.outcome = f"{ROLLED_BACK}: {'tried again' if again else result}"
        wanted = [group for group in self._contents.lazy_loads.values() if group.wanted]
        for found in found_in(group for group in wanted if not group.said):
            log.warning("%s: %s", self.what, found)
        for group in wanted:
            group.said = True
        if len(self.statements.timeline) and sql_log.isEnabledFor(logging.INFO):
            number = counted(self.statements.count)
            outcome = f" ({result})" if result else ""
            sql_log.info("%s%s: %s\n%s", self.what, outcome, number, self.statements)

    @property
    def what(self) -> str:
        """Return what is recorded, for the log: the request's method and path, or the thread."""
        path = self.environ.get("PATH_INFO")
        if path is None:
            return f"thread {current_thread().name}"
        return f"{self.environ.get('REQUEST_METHOD', '')} {quote(path, '/', 'latin-1')}"


# The recorders of the requests that this thread, or greenlet, is in: the innermost last.
of_context: ContextVar[tuple[Recorder, ...]] = ContextVar("sqa.recorders", default=())


def kept_parameters(parameters: Any, *, many: bool) -> tuple[Any, int]:
    """Return what is kept of *parameters*, and the number of their sets.

    Long values are cut: a recording outlives its request, and would hold an upload with it.
    """
    if many:
        return [_short(each) for each in parameters[:MOST_SETS]], len(parameters)
    return (_short(parameters) if parameters else None), 1


def _short(parameters: Any) -> Any:
    if isinstance(parameters, Mapping):
        return {name: _cut(value) for name, value in parameters.items()}
    return tuple(map(_cut, parameters))


def _cut(value: Any) -> Any:
    if isinstance(value, (str, bytes)) and len(value) > LONGEST_VALUE:
        return value[:LONGEST_VALUE]
    return value

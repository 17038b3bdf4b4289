"""What a recording holds: the statements, the steps of their transactions, and the totals."""

import logging
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock, current_thread
from time import perf_counter
from typing import Any
from urllib.parse import quote

from .lazy_loads import LazyLoad, NPlusOne
from .lines import Line

log = logging.getLogger(__name__)
# A block of lines for each request: what it sent, how long that took, and from where.
sql_log = logging.getLogger("pyramid_aalam_sqa.sql")

ROLLED_BACK = "rolled back"
# A page that sends more than this has another problem than its details.
MOST_KEPT = 1000
# Of one execution with many sets of parameters.
MOST_SETS = 10
# Characters or bytes of one parameter.
LONGEST_VALUE = 1000


@dataclass(slots=True)
class Statement:
    """One statement as it was sent to the driver, and what came of it.

    *duration* is the seconds until the driver had an answer. *rows* is the number of rows that
    were written or found; it is None where the driver does not say. *parameters* is what the
    driver was given; it is None where there are none, or where ``hide_parameters`` is on. Of an
    execution with many sets of parameters, *sets* is their number and *parameters* the first ten.
    *line* is the line of the application that asked for it. *error* is None unless the statement
    failed. *lazy_load* is the attribute whose first use sent the statement, ``Author.books``.
    *attempt* counts from 1. *began* is in seconds since the recording began.
    """

    statement: str
    parameters: Any
    database: str
    line: Line | None
    attempt: int
    began: float
    place: int
    lazy_load: str | None = None
    sets: int = 1
    duration: float = 0.0
    rows: int | None = None
    error: str | None = None


@dataclass(slots=True)
class Step:
    """One step of a transaction that is no statement of the application.

    *kind* is ``CONNECT`` (the wait for a connection of the pool), ``BEGIN``, ``SAVEPOINT`` (with
    its release and its rollback), ``COMMIT``, ``ROLLBACK``, ``RESET`` (the ROLLBACK that the pool
    sends when a connection comes back) or ``SETUP`` (a statement of this package). *outcome* is
    set on COMMIT and ROLLBACK, for example ``committed`` or ``rolled back: 404``.
    """

    kind: str
    statement: str
    database: str
    attempt: int
    began: float
    place: int
    duration: float = 0.0
    outcome: str | None = None
    error: str | None = None


@dataclass(slots=True)
class Totals:
    """Seconds and numbers of one database."""

    statements: int = 0
    seconds: float = 0.0
    pool: float = 0.0
    commit: float = 0.0


class Statements:
    """The statements that were recorded, in the order in which they were sent.

    It is read like a list. ``count`` is the number of statements of the application: BEGIN,
    COMMIT, savepoints, pings and what this package sets up do not count, so that the number is
    the same on each database. ``steps`` has those steps of transactions, ``ends`` the COMMITs and
    ROLLBACKs among them, ``timeline`` everything in order. The first thousand of each are kept;
    ``left_out`` is the number of statements that are not. ``n_plus_one`` has the lazy loads that
    were repeated for the rows of one query.
    """

    def __init__(self, most_kept: int = MOST_KEPT) -> None:
        self._most_kept = most_kept
        self._kept: list[Statement] = []
        self._places = 0
        self._lock = Lock()
        self._began = perf_counter()
        self._lazy: dict[Any, NPlusOne] = {}
        self.count = 0
        self.steps: list[Step] = []
        self.totals: dict[str, Totals] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Statement]:
        return iter(list(self._kept))

    def __getitem__(self, index: int) -> Statement:
        return self._kept[index]

    def __repr__(self) -> str:
        return f"<Statements {self.count}: {', '.join(each.statement for each in self._kept)}>"

    def __str__(self) -> str:
        """Return a line for each statement and step, for a test that fails and for a log.

        What the pool sends when a connection comes back is left out.
        """
        shown = (each for each in self.timeline if getattr(each, "kind", None) != "RESET")
        return "\n".join(map(describe, shown))

    @property
    def left_out(self) -> int:
        """Return how many statements were counted and not kept."""
        return self.count - len(self._kept)

    @property
    def ends(self) -> list[Step]:
        """Return the COMMITs and ROLLBACKs of transactions, in order."""
        return [step for step in self.steps if step.kind in {"COMMIT", "ROLLBACK"}]

    @property
    def timeline(self) -> list[Statement | Step]:
        """Return statements and steps in the order in which they happened."""
        return sorted([*self._kept, *self.steps], key=lambda each: each.place)

    @property
    def n_plus_one(self) -> list[NPlusOne]:
        """Return each lazy load that was sent for two or more rows of one query."""
        return [each for each in self._lazy.values() if each.count > 1]

    def start(self, *, began: float) -> tuple[float, int]:
        """Return when and in which place something begins, in seconds since the recording."""
        with self._lock:
            self._places += 1
            return began - self._began, self._places

    def add(self, statement: Statement) -> None:
        """Count *statement*, and keep it while there is room."""
        totals = self.totals_of(statement.database)
        with self._lock:
            self.count += 1
            totals.statements += 1
            totals.seconds += statement.duration
            if len(self._kept) < self._most_kept:
                self._kept.append(statement)

    def add_step(self, step: Step) -> None:
        """Note *step*; its seconds count as the pool's, the commit's or the statements'."""
        totals = self.totals_of(step.database)
        with self._lock:
            if step.kind == "CONNECT":
                totals.pool += step.duration
            elif step.kind == "COMMIT":
                totals.commit += step.duration
            else:
                totals.seconds += step.duration
            if len(self.steps) < self._most_kept:
                self.steps.append(step)

    def totals_of(self, database: str) -> Totals:
        """Return the totals of *database*, which begin at nothing."""
        return self.totals.setdefault(database, Totals())

    def note_lazy_load(self, load: LazyLoad, line: Line | None) -> NPlusOne:
        """Count *load* among those of the same attribute for rows of the same query."""
        found = self._lazy.get(load.group)
        if found is None:
            found = self._lazy[load.group] = NPlusOne(load.attribute, load.option, line)
        found.parents.add(load.parent)
        return found


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
    statements: Statements = field(default_factory=Statements)

    @property
    def attempt(self) -> int:
        """Return the number of the request's attempt, from 1."""
        number: int = self.environ.get("retry.attempt", 0)
        return number + 1

    def add_step(
        self, tap: Any, kind: str, text: str, *, began: float, seconds: float, **more: Any
    ) -> None:
        """Note one step of a transaction; *more* is its outcome and its error."""
        when, place = self.statements.start(began=began)
        key, attempt = self.databases[tap], self.attempt
        self.statements.add_step(
            Step(kind, text, key, attempt, when, place, duration=seconds, **more)
        )

    def finish(self, result: str) -> None:
        """Say of each ROLLBACK why it was sent, and write each N+1 to the log.

        *result* is the status of the response, or the name of the error that was raised.
        """
        ends = self.statements.ends
        last = max((each.attempt for each in self.statements.timeline), default=1)
        for step in ends:
            if step.kind == "ROLLBACK" and step.outcome == ROLLED_BACK:
                again = step.attempt < last
                step.outcome = f"{ROLLED_BACK}: {'tried again' if again else result}"
        for found in self.statements.n_plus_one:
            if found.wanted and not found.said:
                found.said = True
                log.warning("%s: %s", self.what, found)
        if len(self.statements.timeline) and sql_log.isEnabledFor(logging.INFO):
            number = counted(self.statements.count)
            sql_log.info("%s (%s): %s\n%s", self.what, result, number, self.statements)

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


def counted(number: int) -> str:
    """Return ``1 statement`` or ``2 statements``."""
    return f"{number} statement{'' if number == 1 else 's'}"


def describe(item: Statement | Step) -> str:
    """Return *item* as one line of text: when, how long, what, and where it was asked for."""
    text = " ".join(item.statement.split())
    parts = [f"{item.began * 1000:8.1f} ms {item.duration * 1000:7.1f} ms [{item.database}] {text}"]
    if isinstance(item, Step):
        parts.append(f"-- {item.outcome}" if item.outcome else "")
    else:
        parts.append(f"-- {item.parameters!r}" if item.parameters else "")
        parts.append(f"at {item.line}" if item.line else "")
        parts.append(f"(lazy load of {item.lazy_load})" if item.lazy_load else "")
    parts.append(f"FAILED: {item.error}" if item.error else "")
    return " ".join(filter(None, parts))

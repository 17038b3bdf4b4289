"""What was recorded, for those who read it: statements, steps of transactions, totals."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .lazy_loads import Group, NPlusOne, found_in
from .lines import Line


@dataclass(slots=True)
class Statement:
    """One statement as it was sent to the driver, and how it ended.

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


@dataclass(slots=True)
class Contents:
    """What a recording has so far; :class:`Statements` reads it, the recorder writes it."""

    kept: list[Statement] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    totals: dict[str, Totals] = field(default_factory=dict)
    lazy_loads: dict[Any, Group] = field(default_factory=dict)
    count: int = 0


class Statements:
    """The statements that were recorded, in the order in which they were sent.

    It is read like a list. ``count`` is the number of statements of the application: BEGIN,
    COMMIT, savepoints, pings and what this package sets up do not count, so that the number is
    the same on each database. The first thousand are kept.
    """

    def __init__(self, contents: Contents) -> None:
        self._contents = contents

    def __len__(self) -> int:
        return len(self._contents.kept)

    def __iter__(self) -> Iterator[Statement]:
        return iter(list(self._contents.kept))

    def __getitem__(self, index: int) -> Statement:
        return self._contents.kept[index]

    def __repr__(self) -> str:
        return f"<Statements {self.count}: {', '.join(each.statement for each in self)}>"

    def __str__(self) -> str:
        """Return a line for each statement and step, for a test that fails and for a log.

        What the pool sends when a connection comes back is left out.
        """
        shown = (each for each in self.timeline if getattr(each, "kind", None) != "RESET")
        return "\n".join(map(describe, shown))

    @property
    def count(self) -> int:
        """Return the number of the application's statements, those that are not kept included."""
        return self._contents.count

    @property
    def left_out(self) -> int:
        """Return how many statements were counted and not kept."""
        return self.count - len(self)

    @property
    def steps(self) -> list[Step]:
        """Return the steps of transactions, in order: the first thousand."""
        return list(self._contents.steps)

    @property
    def ends(self) -> list[Step]:
        """Return the COMMITs and ROLLBACKs of transactions, in order."""
        return [step for step in self.steps if step.kind in {"COMMIT", "ROLLBACK"}]

    @property
    def timeline(self) -> list[Statement | Step]:
        """Return statements and steps in the order in which they happened."""
        return sorted([*self, *self.steps], key=lambda each: each.place)

    @property
    def totals(self) -> dict[str, Totals]:
        """Return the seconds and numbers of each database, by its bind key."""
        return dict(self._contents.totals)

    @property
    def n_plus_one(self) -> list[NPlusOne]:
        """Return each lazy load that was sent for two or more rows of one query."""
        return found_in(list(self._contents.lazy_loads.values()))


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

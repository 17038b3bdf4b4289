"""What a person reads while many databases are migrated, and afterwards."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..provisioning import print_wrapped
from .migrate import FAILED, STOPPED, Outcome

# A table that is longer than this shows what is not well, and nothing else.
LONGEST_TABLE = 40
HEADINGS = ("database", "from", "to", "seconds", "state")


class Reporter:
    """Shows each outcome as it comes: a bar with rate and remaining time, or lines for a log."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._count = 0
        self._bar: Any = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and self._total > 1:
            from tqdm import tqdm  # noqa: PLC0415 - a log needs no bar

            self._bar = self._stack.enter_context(
                tqdm(total=self._total, unit="db", dynamic_ncols=True)
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def show(self, outcome: Outcome) -> None:
        """Show *outcome*; beside a bar, only what is not well."""
        self._count += 1
        if self._bar is None:
            print_wrapped(f"{self._count}/{self._total} {sentence(outcome)}", indent=4)
            return
        if outcome.error:
            self._bar.write(sentence(outcome), file=sys.stderr)
        self._bar.update()


def sentence(outcome: Outcome) -> str:
    """Return *outcome* as a line of a log."""
    way = f"{outcome.before} -> {outcome.after}" if outcome.before != outcome.after else ""
    parts = [f"{outcome.database}: {outcome.state}", way, f"{outcome.seconds:.1f} s"]
    line = ", ".join(part for part in parts if part)
    return f"{line}: {outcome.error}" if outcome.error else line


def print_table(outcomes: Sequence[Outcome]) -> None:
    """Print a row for each of *outcomes*, and how many there are of each state."""
    rows = [each for each in outcomes if len(outcomes) <= LONGEST_TABLE or is_bad(each)]
    cells = [HEADINGS] + [
        (
            each.database,
            each.before or "",
            each.after or "",
            f"{each.seconds:.1f}",
            each.state,
        )
        for each in rows
    ]
    widths = [max(len(row[place]) for row in cells) for place in range(len(HEADINGS))]
    for row in cells if rows else ():
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip(), flush=True)  # noqa: T201 - a command prints
    counts = Counter(each.state for each in outcomes)
    print_wrapped(", ".join(f"{number} {state}" for state, number in counts.items()) + ".")


def is_bad(outcome: Outcome) -> bool:
    """Return whether *outcome* makes the exit status 1."""
    return outcome.state in {FAILED, STOPPED}


def write_json(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Write the report of *outcomes* for programs into the file at *path*."""
    found = {"databases": [each.as_json() for each in outcomes]}
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")

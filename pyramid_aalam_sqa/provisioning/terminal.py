"""What psqa prints: lines as wide as the terminal, and a word now and then about long work."""

import sys
import textwrap
import threading
from collections.abc import Callable
from shutil import get_terminal_size
from types import TracebackType
from typing import Self, TextIO

NARROWEST = 20


def print_wrapped(text: str, indent: int = 0, stream: TextIO | None = None) -> None:
    """Print *text* in lines as wide as the terminal, all but the first *indent* columns in.

    A text of several lines, such as CREATE TABLE, is printed as it is. The line is sent at once,
    because the next one may take a while.
    """
    width = max(NARROWEST, get_terminal_size().columns - 1)
    if "\n" not in text:
        lines = textwrap.wrap(
            text,
            width,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        text = "\n".join(lines)
    print(text, file=stream or sys.stdout, flush=True)


def print_error(text: str) -> None:
    """Print *text* as an error of psqa, on the stream for errors."""
    print_wrapped(f"psqa: {' '.join(text.split())}", 4, sys.stderr)


class Progress:
    """Prints every *pause* seconds, while its block runs, what *doing* returns."""

    def __init__(self, doing: Callable[[], str], pause: float) -> None:
        self._doing = doing
        self._pause = pause
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _report(self) -> None:
        seconds = 0.0
        while not self._ended.wait(self._pause):
            seconds += self._pause
            print_error(f"still at work after {seconds:g} seconds: {self._doing()}")

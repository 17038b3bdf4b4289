"""What became of each request and each job of a test, as a list of words."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from pyramid.router import Router

from ..requests import AttemptFailed, PartialCommit


@dataclass(eq=False)
class Item:
    """One word of the list; *lenders* are the databases that it is about."""

    word: str
    attempt: int = 0
    lenders: set[int] = field(default_factory=set)
    shown: str = ""


@dataclass(eq=False)
class Visit:
    """A request while it is served."""

    items: list[Item] = field(default_factory=list)
    attempt: int = 0

    def items_of_attempt(self) -> list[Item]:
        """Return what became of the attempt that is being made."""
        return [each for each in self.items if each.attempt == self.attempt]


class Outcomes(Sequence[str]):
    """What became of each request and job, in order. It equals a list of the same words.

    ``commit``; ``rollback 404`` for a request with that status, ``rollback ValueError`` where the
    error left the application, ``rollback`` for a job; ``retry`` for an attempt after which another
    one was made; ``unknown`` where the answer to COMMIT was lost; ``partial`` where one of several
    databases has committed. A request that asked nothing of the database is not in it, nor is
    the session of the test.
    """

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._visit: ContextVar[Visit | None] = ContextVar("sqa.visit", default=None)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        return [each.shown or each.word for each in self._items][index]

    def __eq__(self, other: object) -> bool:
        return list(self) == other

    __hash__ = None  # type: ignore[assignment]  # it changes, as a list does

    def __repr__(self) -> str:
        return repr(list(self))

    def clear(self) -> None:
        """Forget what there was."""
        self._items.clear()

    def tell(self, lender: object, word: str) -> None:
        """Note what became of one transaction on one database."""
        visit = self._visit.get()
        with self._lock:
            last = next(reversed(visit.items_of_attempt()), None) if visit else None
            same = last is not None and last.word == word
            if last and same and (word == "rollback" or id(lender) not in last.lenders):
                last.lenders.add(id(lender))
                return
            self._add(visit, Item(word, lenders={id(lender)}))

    def _add(self, visit: Visit | None, item: Item) -> None:
        self._items.append(item)
        if visit is not None:
            item.attempt = visit.attempt
            visit.items.append(item)

    def tell_retry(self, _event: object = None) -> None:
        """Note that the last attempt of a request or a job is made again."""
        visit = self._visit.get()
        with self._lock:
            mine = visit.items_of_attempt() if visit else self._items[-1:]
            if mine and mine[-1].word == "rollback":
                mine[-1].word = "retry"
            else:
                self._add(visit, Item("retry"))
            if visit is not None:
                visit.attempt += 1

    def tell_partial(self, _event: object = None) -> None:
        """Note that the last transaction of a request is stored in part."""
        visit = self._visit.get()
        with self._lock:
            for item in visit.items_of_attempt() if visit else ():
                self._items.remove(item)
            self._add(visit, Item("partial"))

    @contextmanager
    def watch(self, app: Any) -> Iterator[None]:
        """Note the status of each request of *app* inside the block."""
        registry, router = app.registry, router_of(app)
        handlers = ((self.tell_retry, (AttemptFailed,)), (self.tell_partial, (PartialCommit,)))
        for handler, kinds in handlers:
            registry.registerHandler(handler, kinds)
        before = router.execution_policy
        router.execution_policy = self._policy(before)
        try:
            yield
        finally:
            router.execution_policy = before
            for handler, kinds in handlers:
                registry.unregisterHandler(handler, kinds)

    def _policy(self, policy: Callable[..., Any]) -> Callable[..., Any]:
        def execution_policy(environ: dict[str, Any], router: Any) -> Any:
            visit = Visit()
            token = self._visit.set(visit)
            end = ""
            try:
                response = policy(environ, router)
                end = str(response.status_int)
            except BaseException as error:
                end = type(error).__name__
                raise
            finally:
                self._visit.reset(token)
                for item in visit.items:
                    if item.word == "rollback":
                        item.shown = f"rollback {end}"
            return response

        return execution_policy


def router_of(app: Any) -> Any:
    """Return Pyramid's router in *app*, which middleware may be wrapped around."""
    found = app
    while not isinstance(found, Router):
        inner = (getattr(found, name, None) for name in ("app", "application", "wsgi_app"))
        found = next(filter(None, inner), None)
        if found is None:
            msg = f"{app!r} is not an application of Pyramid."
            raise TypeError(msg)
    return found

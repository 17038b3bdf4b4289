"""The panel "Database" of pyramid_debugtoolbar, an extra: what a request sent, and what came of it.

``debugtoolbar.includes = pyramid_aalam_sqa.debugging.toolbar`` adds it. The toolbar keeps panels
for the last hundred requests: this one keeps texts and numbers, and no connection.
"""

import re
from collections import Counter
from typing import Any

from markupsafe import Markup, escape
from pyramid.httpexceptions import HTTPBadRequest, HTTPNotFound
from pyramid_debugtoolbar.panels import DebugPanel
from sqlalchemy.exc import DBAPIError

from ..applications import REGISTRY_KEY, Sqa
from ..backends import backend_of
from .recording import COMMITTED, ROLLED_BACK
from .request_recording import STATEMENTS
from .statements import Statement, Statements, Step, counted

KEYWORDS = re.compile(
    r"\b(SELECT|DISTINCT|FROM|(?:LEFT |OUTER |INNER |CROSS )*JOIN|ON|WHERE|AND|OR|NOT|IN|IS|NULL"
    r"|LIKE"
    r"|GROUP BY|ORDER BY|HAVING|LIMIT|OFFSET|UNION(?: ALL)?|INSERT INTO|VALUES|UPDATE|SET"
    r"|DELETE FROM|RETURNING|AS|WITH|CASE|WHEN|THEN|ELSE|END|EXISTS|DESC|ASC|FOR UPDATE"
    r"|BEGIN|COMMIT|ROLLBACK(?: TO)?|SAVEPOINT|RELEASE)\b"
)
# What can be explained: a write would need more than a read-only transaction.
EXPLAINABLE = re.compile(r"\s*(SELECT|WITH)\b", re.IGNORECASE)


def includeme(config: Any) -> None:
    """Add the panel to the toolbar's own application, whose *config* it is."""
    config.add_route("debugtoolbar.sqa_explain", "/{request_id}/sqa/explain/{place}")
    config.add_view(
        explain,
        route_name="debugtoolbar.sqa_explain",
        renderer="pyramid_aalam_sqa.debugging:templates/explain.dbtmako",
    )
    config.add_debugtoolbar_panel(SqaPanel)


class SqaPanel(DebugPanel):  # type: ignore[misc]  # the toolbar has no types
    """Shows ``request.sqa_statements`` of one request."""

    name = "sqa"
    title = "Database"
    nav_title = "Database"
    template = "pyramid_aalam_sqa.debugging:templates/panel.dbtmako"

    def __init__(self, request: Any) -> None:
        # Made again for each attempt of a request; the recording is one for all attempts.
        self.statements: Statements | None = request.environ.get(STATEMENTS)
        self._id = request.pdtb_id

    @property
    def has_content(self) -> bool:
        """Return whether the request sent anything, or why that is not known."""
        return self.statements is None or bool(self.statements.timeline)

    @property
    def nav_subtitle(self) -> str:
        """Return the number of statements and their milliseconds."""
        if self.statements is None:
            return ""
        seconds = sum(each.seconds for each in self.statements.totals.values())
        return f"{self.statements.count} in {seconds * 1000:.1f} ms"

    def process_response(self, response: Any) -> None:
        """Do nothing yet: what a streamed body sends is recorded after this."""

    def render_vars(self, request: Any) -> dict[str, Any]:
        """Return what the template shows."""
        statements = self.statements
        if statements is None:
            return {"statements": None}
        timeline = statements.timeline
        return {
            "statements": statements,
            "rows": Timeline(timeline).rows(),
            "last_ends": last_ends(statements),
            "tone": tone,
            "equal": groups(equal_key(each) for each in statements),
            "similar": groups(similar_key(each) for each in statements),
            "equal_key": equal_key,
            "similar_key": similar_key,
            "counted": counted,
            "sql": highlighted,
            "explain_url": lambda item: request.route_url(
                "debugtoolbar.sqa_explain", request_id=self._id, place=item.place
            ),
            "can_explain": can_explain,
        }


def last_ends(statements: Statements) -> list[Step]:
    """Return how the last attempt ended, for the top: one or more transactions of each database."""
    ends = [end for end in statements.ends if end.outcome]
    last = max((end.attempt for end in ends), default=1)
    return [end for end in ends if end.attempt == last]


class Timeline:
    """Where each statement and step stands in the time that the request needed."""

    def __init__(self, items: list[Statement | Step]) -> None:
        # What the pool sends when a connection comes back is of no interest to a reader.
        self._items = [each for each in items if getattr(each, "kind", None) != "RESET"]
        self._first = min((each.began for each in items), default=0.0)
        last = max((each.began + each.duration for each in items), default=0.0)
        self._length = max(last - self._first, 1e-9)

    def rows(self) -> list[dict[str, Any]]:
        """Return each item with its attempt, and its place and width in percent."""
        return [
            {
                "item": each,
                "is_statement": isinstance(each, Statement),
                "left": 100 * (each.began - self._first) / self._length,
                "width": max(0.6, 100 * each.duration / self._length),
                "new_attempt": number == 0 or each.attempt != self._items[number - 1].attempt,
            }
            for number, each in enumerate(self._items)
        ]


def groups(keys: Any) -> dict[Any, int]:
    """Return how often each of *keys* comes that comes twice or more, the most frequent first."""
    return {key: number for key, number in Counter(keys).most_common() if number > 1}


def similar_key(statement: Statement) -> tuple[str, str, int]:
    """Return what statements of one attempt have in common that differ in parameters alone."""
    return statement.database, statement.statement, statement.attempt


def equal_key(statement: Statement) -> tuple[str, str, int, str]:
    """Return what statements of one attempt have in common that ask the same again."""
    return *similar_key(statement), repr(statement.parameters)


def tone(outcome: str) -> str:
    """Return the name of the colour in which an *outcome* is shown."""
    if outcome == COMMITTED:
        return "sqa-committed"
    return "sqa-rolled" if outcome.startswith(ROLLED_BACK) else "sqa-lost"


def highlighted(text: str) -> Markup:
    """Return *text* as HTML, with the key words of SQL marked."""
    return Markup(KEYWORDS.sub(r"<b>\1</b>", str(escape(text))))  # noqa: S704 - escaped just before


def can_explain(item: Any) -> bool:
    """Return whether the database can be asked how it finds the rows of *item*."""
    return bool(
        isinstance(item, Statement)
        and item.error is None
        and item.sets == 1
        and EXPLAINABLE.match(item.statement)
    )


def explain(request: Any) -> dict[str, Any]:
    """Ask the database for the plan of a recorded statement, in a transaction that is undone.

    The address names a request of the toolbar's history and a statement of it. No SQL comes from
    the browser.
    """
    item = _find_statement(request)
    sqa: Sqa = request.registry.parent_registry[REGISTRY_KEY]
    engine = {**sqa.engines, **sqa.reading.by_name()}[item.database]
    backend = backend_of(engine)
    found: dict[str, Any] = {"statement": item, "sql": highlighted, "error": None}
    with engine.connect() as connection, connection.begin() as transaction:
        try:
            backend.make_read_only(connection)
            result = connection.exec_driver_sql(
                f"{backend.EXPLAIN_SQL} {item.statement}", item.parameters
            )
            found |= {"headers": list(result.keys()), "plan": [tuple(row) for row in result]}
        except DBAPIError as error:
            found |= {"headers": [], "plan": [], "error": str(error.orig)}
        finally:
            transaction.rollback()
    return found


def _find_statement(request: Any) -> Statement:
    toolbar = request.pdtb_history.get(request.matchdict["request_id"])
    panels: list[SqaPanel] = (
        [each for each in toolbar.panels if each.name == SqaPanel.name] if toolbar else []
    )
    place = request.matchdict["place"]
    for panel in panels:
        for item in panel.statements or ():
            if str(item.place) == place:
                if not can_explain(item):
                    raise HTTPBadRequest
                return item
    raise HTTPNotFound

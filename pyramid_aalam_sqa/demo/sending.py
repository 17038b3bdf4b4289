"""A request that the application sends to itself, to show all of it, its COMMIT too."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyramid.config import Configurator
from pyramid.events import ApplicationCreated
from pyramid.request import Request, apply_request_extensions

from pyramid_aalam_sqa import SqaRequest

from .sent import Attempt, attempts_of

APPLICATION = "demo.application"


def includeme(config: Configurator) -> None:
    """Remember the application when it is made."""
    config.add_subscriber(remember_application, ApplicationCreated)


def remember_application(event: ApplicationCreated) -> None:
    """Keep the application in its own registry."""
    event.app.registry[APPLICATION] = event.app


@dataclass(frozen=True)
class Answer:
    """What came back, and what was sent to the databases."""

    path: str
    status: str
    headers: Mapping[str, str]
    attempts: list[Attempt]
    n_plus_one: list[Any]

    @property
    def is_stored(self) -> bool:
        """Return whether the status means that everything was stored."""
        return self.status[0] in "23"


def send(request: SqaRequest, path: str) -> Answer:
    """Send the form of *request* to *path*, with the visitor's cookies, as a request of its own.

    It goes through the whole application, like a request from a browser: it has a transaction of
    its own, and may be tried again.
    """
    own = Request.blank(path, POST=request.POST)
    own.host = request.host
    own.headers["Cookie"] = request.headers["Cookie"]
    response = own.get_response(request.registry[APPLICATION])
    # This gives the request the attribute sqa_statements, where sqa.record is on.
    own.registry = request.registry
    apply_request_extensions(own)
    statements = getattr(own, "sqa_statements", None)
    return Answer(
        path=path,
        status=response.status,
        headers=response.headers,
        attempts=attempts_of(own),
        n_plus_one=statements.n_plus_one if statements is not None else [],
    )

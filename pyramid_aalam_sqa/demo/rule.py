"""Shows the rule: the status of a response decides whether the row that its request wrote is kept.

Another request looks whether the row is there.
"""

import inspect
from secrets import token_hex
from typing import Any

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPBadRequest, HTTPFound, HTTPNotFound
from sqlalchemy import func, select

from pyramid_aalam_sqa import SqaRequest

from .models import Trial
from .sent import remember

PAGE = "templates/rule.jinja2"
ANSWERS = {
    "200": "OK",
    "302": "Found",
    "404": "Not Found",
    "500": "Server Error",
    "raise": "an exception",
}
SHOWN = 5


class Accident(Exception):  # noqa: N818 - it happens on purpose
    """Raised by the view after it has written the trial with *token*."""

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.token = token


def includeme(config: Configurator) -> None:
    """Add the page with the buttons, and the pages that show what is stored."""
    config.add_route("rule", "/rule")
    config.add_route("redirected", "/rule/{token}")
    config.add_route("trials", r"/trials/{token:\w*}")
    config.add_view(show, route_name="rule", request_method="GET", renderer=PAGE)
    config.add_view(press, route_name="rule", request_method="POST", renderer=PAGE)
    config.add_exception_view(show_accident, context=Accident, renderer=PAGE)
    config.add_view(show_redirected, route_name="redirected", renderer=PAGE)
    config.include(".sent")
    config.add_view(
        show_trials, route_name="trials", renderer="templates/trials.jinja2", http_cache=0
    )


def show(request: SqaRequest) -> dict[str, object]:
    """Show the buttons."""
    return _page()


def press(request: SqaRequest) -> Any:
    """Write a row, then answer with the status that the button names."""
    answer = request.POST.get("answer")
    if answer not in ANSWERS:
        raise HTTPBadRequest
    trial = Trial(token=token_hex(4), answer=answer)
    request.sqa_session.add(trial)
    request.sqa_session.flush()  # the INSERT is sent now
    remember(request, trial.token)  # for the frame that shows what was sent
    if answer == "raise":
        raise Accident(trial.token)
    if answer == "302":
        return HTTPFound(request.route_path("redirected", token=trial.token))
    request.response.status_int = int(answer)
    return _page(trial.token, answer)


def show_accident(error: Accident, request: SqaRequest) -> dict[str, object]:
    """Answer 500 to a request whose view raised."""
    request.response.status_int = 500
    return _page(error.token, "raise")


def show_redirected(request: SqaRequest) -> dict[str, object]:
    """Show the page that the answer 302 redirects to; answer 404 if there is no such trial."""
    trial = _find(request)
    if trial is None:
        raise HTTPNotFound
    return _page(trial.token, trial.answer)


def show_trials(request: SqaRequest) -> dict[str, object]:
    """Show the rows that this request finds, in a frame of the page with the buttons."""
    newest = select(Trial).order_by(Trial.id.desc()).limit(SHOWN)
    return {
        "token": request.matchdict["token"],
        "found": _find(request),
        "newest": request.sqa_session.scalars(newest).all(),
        "total": request.sqa_session.scalar(select(func.count()).select_from(Trial)),
        "answers": ANSWERS,
    }


def _find(request: SqaRequest) -> Trial | None:
    wanted = select(Trial).where(Trial.token == request.matchdict["token"])
    return request.sqa_session.scalars(wanted).one_or_none()


def _page(token: str = "", answer: str = "") -> dict[str, object]:
    return {
        "token": token,
        "answer": answer,
        "answers": ANSWERS,
        "source": inspect.getsource(press),
    }

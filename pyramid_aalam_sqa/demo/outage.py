"""An outage of the ledger for one visitor alone: a cookie, and connections that lead nowhere."""

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPSeeOther
from pyramid.response import Response
from pyramid.threadlocal import get_current_request
from sqlalchemy import event

from pyramid_aalam_sqa import SqaRequest, get_sqa

COOKIE = "outage"
# An outage that the visitor has forgotten ends after these seconds.
LONGEST = 300
# Where there is no database: nothing can be below this file, and no server has this port.
NO_FILE = {"database": "/dev/null/ledger.sqlite"}
NO_SERVER = {"host": "127.0.0.1", "port": 1}


def includeme(config: Configurator) -> None:
    """Add the switch, and what fails while it is on."""
    config.add_route("outage", "/outage")
    config.add_view(switch, route_name="outage", request_method="POST")
    event.listen(get_sqa(config).engines["ledger"], "checkout", connect_nowhere)


def switch(request: SqaRequest) -> Response:
    """Begin or end the outage of this visitor."""
    response = HTTPSeeOther(request.route_path("landing", _anchor="outage"))
    if request.POST.get("ledger") == "unplug":
        response.set_cookie(COOKIE, "yes", max_age=LONGEST, httponly=True, samesite="Lax")
    else:
        response.delete_cookie(COOKIE)
    return response


def is_out(request: SqaRequest) -> bool:
    """Return whether this visitor's requests cannot reach the ledger."""
    return COOKIE in request.cookies


def connect_nowhere(*_: object) -> None:
    """Connect to where there is no database, if the visitor wants an outage.

    SQLAlchemy calls this each time when its pool is going to lend a
    connection to the ledger. The driver raises its own error.
    """
    request = get_current_request()
    if request is not None and is_out(request):
        dialect = get_sqa(request).engines["ledger"].dialect
        dialect.connect(**NO_FILE if dialect.name == "sqlite" else NO_SERVER)

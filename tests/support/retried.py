"""What the tests of retries have in common: errors that are retried, and views that raise them."""

from pyramid.response import Response
from pyramid_retry import RetryableException
from sqlalchemy import String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from support.models import INSERT

COUNT = text("SELECT count(*) FROM note")
SECRET = "the visitor's secret"


class Base(DeclarativeBase):
    """The models of this test."""


class Note(Base):
    """What a request stores."""

    __tablename__ = "note"
    body: Mapped[str] = mapped_column(String(100), primary_key=True)


class Conflict(RetryableException):
    """As if the database had thrown the transaction away."""


def write(request, body):
    request.sqa_session.execute(INSERT, {"body": body})


def number(request):
    """Which attempt this is, from 1."""
    return request.environ["retry.attempt"] + 1


def fail_at_first(request):
    if number(request) < 3:
        raise Conflict


def lines(caplog, level="WARNING"):
    """What the package has logged."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("pyramid_aalam_sqa") and record.levelname == level
    ]


def apologise(error, request):
    return Response(f"Sorry for {type(error).__name__}", status=500)


def page_for_everything(config):
    config.add_exception_view(apologise, context=Exception)


class Refusing:
    """Another data manager, which may say no when the commit has begun."""

    transaction_manager = None

    def __init__(self, vote, *args):
        self.vote = vote, args

    def sortKey(self):  # noqa: N802 - transaction's interface
        return "other"

    def tpc_begin(self, transaction):
        """It has nothing to do."""

    commit = abort = tpc_abort = tpc_finish = tpc_begin

    def tpc_vote(self, transaction):
        vote, args = self.vote
        vote(*args)


def raises(request):
    raise Conflict


def refuses_to_commit(request):
    request.tm.get().join(Refusing(raises, request))
    return Response()


def duplicate(request):
    write(request, "twice")
    write(request, "twice")

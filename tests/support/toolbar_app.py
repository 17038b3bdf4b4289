"""An application with the debug toolbar, for tests and for a look at its panel."""

from pyramid.config import Configurator
from pyramid.response import Response
from pyramid_retry import RetryableException
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from pyramid_aalam_sqa import get_sqa
from support.shop import Base, Product, Shelf, fill

SETTINGS = {
    "debugtoolbar.includes": "pyramid_aalam_sqa.debugging.toolbar",
    "sqa.record": "true",
    "sqa.retry_pause": "0",
}
PAGE = "<!doctype html><html><head><title>Shop</title></head><body><h1>Shop</h1></body></html>"


def shelves(request):
    """N+1, equal statements, a savepoint, an error, a write."""
    session = request.sqa_session
    for shelf in session.scalars(select(Shelf)):
        len(shelf.products)
    for _ in range(3):
        session.scalar(select(Product.name).where(Product.id == 1))
    try:
        with session.begin_nested():
            session.execute(text("SELECT missing FROM nowhere WHERE a = :a"), {"a": "<b>bold</b>"})
    except DBAPIError:
        session.add(Shelf(name="written after an error"))
    return Response(PAGE, status=int(request.params.get("status", 200)))


def conflict(request):
    """Lose twice against another transaction."""
    request.sqa_session.add(Shelf(name="again"))
    request.sqa_session.flush()
    if request.environ["retry.attempt"] < 2:
        raise RetryableException
    return Response(PAGE)


def accident(request):
    request.sqa_session.scalars(select(Shelf)).all()
    raise ZeroDivisionError


def stream(request):
    """Write in the request's transaction, and read in the stream's."""
    request.sqa_session.add(Shelf(name="streamed"))
    rows = request.sqa_stream(select(Product.name))
    return Response(app_iter=(f"{name}\n".encode() for (name,) in rows), content_type="text/plain")


def nothing(request):
    return Response(PAGE)


def main(_global_config, **settings):
    """Return the application; pserve makes one for an ini file."""
    with Configurator(settings={**SETTINGS, **settings}) as config:
        config.include("pyramid_debugtoolbar")
        config.include("pyramid_aalam_sqa")
        for view in (shelves, conflict, accident, stream, nothing):
            config.add_view(view, name=view.__name__)
    app = config.make_wsgi_app()
    engine = get_sqa(app).engine
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        if not session.scalars(select(Shelf)).first():
            fill(session)
            session.commit()
    return app

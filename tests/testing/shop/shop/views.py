"""The pages of the shop."""

from pyramid.httpexceptions import HTTPBadRequest, HTTPConflict, HTTPForbidden, HTTPSeeOther
from pyramid.request import Request
from pyramid.response import Response
from pyramid.view import view_config
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from . import jobs
from .models import Entry, Line, Order, Product

# Mails that were sent.
outbox = []


def includeme(config):
    """Add the routes and the views of this module."""
    for name in (
        *("products", "orders", "rename", "batch", "import", "lenient", "audit", "both", "raw"),
        *("login", "export", "inner", "outer", "swallow", "doomed", "twice", "orphan"),
    ):
        config.add_route(name, f"/{name}")
    config.add_route("order", "/order")
    config.add_route("product", "/products/{id}")
    config.scan("shop.views")


@view_config(route_name="products", request_method="POST")
def add_product(request):
    request.sqa_session.add(Product(name=request.params["name"]))
    return HTTPSeeOther("/products")


@view_config(route_name="products", request_method="GET", renderer="json")
def products(request):
    page = request.sqa_paginate(select(Product).order_by(Product.name))
    return {"names": [product.name for product in page], "total": page.total}


@view_config(route_name="product", renderer="json")
def product(request):
    found = request.sqa_session.get_or_404(Product, request.matchdict["id"])
    return {"name": found.name, "stock": found.stock}


@view_config(route_name="order", request_method="POST")
def order(request):
    session = request.sqa_session
    product = session.scalars(
        select(Product).where(Product.name == request.params["product"])
    ).one_or_none()
    if product is None:
        raise HTTPBadRequest
    count = int(request.params.get("count", "1"))
    product.stock -= count
    new = Order(lines=[Line(product=product, count=count)])
    session.add(new)
    session.flush()
    if product.stock < 0:
        raise HTTPConflict
    request.sqa_after_commit(outbox.append, f"{count} {product.name}")
    return HTTPSeeOther("/orders")


@view_config(route_name="orders", renderer="json")
def orders(request):
    found = request.sqa_session.scalars(select(Order).order_by(Order.id)).all()
    return [[line.product.name for line in each.lines] for each in found]


@view_config(route_name="rename")
def rename(request):
    """Write before answering no."""
    request.sqa_session.execute(
        text("UPDATE product SET name = :new WHERE name = :old"),
        {"new": request.params["new"], "old": request.params["old"]},
    )
    return Response(status=int(request.params.get("status", "200")))


@view_config(route_name="batch")
def batch(request):
    """Commit each name by itself; an empty one stops."""
    for name in request.params.getall("name"):
        if not name:
            raise HTTPBadRequest
        request.sqa_session.add(Product(name=name))
        request.tm.commit()
        request.tm.begin()
    return Response("ok")


@view_config(route_name="import")
def import_products(request):
    names = request.params.getall("name")
    request.sqa_session.execute(insert(Product), [{"name": name} for name in names])
    return Response("ok")


@view_config(route_name="lenient")
def lenient(request):
    """Keep what fits: each name in a savepoint."""
    kept = 0
    for name in request.params.getall("name"):
        try:
            with request.sqa_session.begin_nested():
                request.sqa_session.add(Product(name=name))
                request.sqa_session.flush()
            kept += 1
        except IntegrityError:
            continue
    return Response(str(kept))


@view_config(route_name="audit", renderer="json")
def audit(request):
    session = request.sqa_sessions["audit"]
    return list(session.scalars(select(Entry.what).order_by(Entry.id)))


@view_config(route_name="both")
def both(request):
    """Write into both databases."""
    request.sqa_session.add(Product(name=request.params["name"]))
    request.sqa_session.add(Entry(what=f"added {request.params['name']}"))
    request.sqa_session.flush()
    return Response(status=int(request.params.get("status", "200")))


@view_config(route_name="raw")
def raw(request):
    request.sqa_session.execute(text(request.params["sql"]))
    return Response("ok")


@view_config(route_name="login")
def login(request):
    """Write a failed login down, in a transaction of its own, and refuse it."""
    request.sqa_session.scalars(select(Order)).all()
    jobs.note(request, f"refused {request.params['user']}")
    raise HTTPForbidden


@view_config(route_name="export")
def export(request):
    rows = request.sqa_stream(select(Product.name).order_by(Product.name), size=2)
    return Response(app_iter=(f"{name}\n".encode() for (name,) in rows), content_type="text/plain")


@view_config(route_name="inner")
def inner(request):
    request.sqa_session.add(Product(name="inner"))
    request.sqa_session.flush()
    return Response(status=int(request.params.get("status", "200")))


@view_config(route_name="outer")
def outer(request):
    """Call another view in the same transaction."""
    request.sqa_session.add(Product(name="outer"))
    request.sqa_session.flush()
    called = Request.blank(f"/inner?{request.query_string}")
    called.environ.update({"tm.active": True, "tm.manager": request.tm})
    request.invoke_subrequest(called)
    return Response(status=int(request.params.get("outer", "200")))


@view_config(route_name="swallow")
def swallow(request):
    """Go on after an error that has ended the transaction."""
    session = request.sqa_session
    session.add(Product(name="before"))
    session.flush()
    try:
        session.execute(text("UPDATE product SET price = 1"))
    except Exception:  # noqa: BLE001 - the mistake that the test is about
        session.expunge_all()
    return Response("ok")


@view_config(route_name="doomed")
def doomed(request):
    request.sqa_session.add(Product(name="doomed"))
    request.sqa_session.flush()
    request.tm.doom()
    return Response("ok")


@view_config(route_name="twice")
def twice(request):
    """Commit by hand, which a view must not do."""
    request.sqa_session.add(Product(name="twice"))
    request.sqa_session.flush()
    request.sqa_session.commit()
    return Response("ok")


@view_config(route_name="orphan")
def orphan(request):
    """Write a line of an order that there is not."""
    session = request.sqa_session
    product = session.scalars(select(Product)).first()
    session.execute(insert(Line).values(order_id=4711, product_id=product.id, count=1))
    return Response("ok")


@view_config(context=IntegrityError)
def refused(error, request):
    """Say no, and write that down."""
    request.sqa_session.add(Entry(what="refused"))
    return Response("refused", status=int(request.params.get("shown", "409")))

"""The page, and what adds to it."""

from pyramid.httpexceptions import HTTPSeeOther
from pyramid.response import Response
from pyramid.view import view_config
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from ..models import MyModel


@view_config(route_name="home", renderer="myapp:templates/mytemplate.jinja2")
def my_view(request):
    """Show the model named one."""
    try:
        one = request.dbsession.scalars(select(MyModel).where(MyModel.name == "one")).one()
    except SQLAlchemyError:
        return Response(PROBLEM, content_type="text/plain", status=500)
    return {"one": one, "project": "myapp"}


@view_config(route_name="add")
def add_view(request):
    """Store a model, and show the page."""
    request.dbsession.add(MyModel(name=request.matchdict["name"], value=1))
    return HTTPSeeOther(request.route_url("home"))


PROBLEM = "There is no such row, or no such table: run alembic and the initialize_db script first."

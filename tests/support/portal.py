"""Applications as the portal's documents describe them, written as packages and loaded."""

import sys

from paste.deploy import loadapp
from webtest import TestApp

MODELS = """
from pyramid_aalam_sqa import get_database_name
from sqlalchemy import Column, ForeignKey, Integer, String
from sqlalchemy.orm import declarative_base, relationship

Base = declarative_base()


class Item(Base):
    __tablename__ = "item"
    __table_args__ = {"schema": get_database_name()}
    id = Column(Integer, primary_key=True)
    name = Column(String(50), nullable=False)
    notes = relationship("Note", back_populates="item")


class Note(Base):
    __tablename__ = "note-1"
    __table_args__ = {"schema": get_database_name()}
    id = Column(Integer, primary_key=True)
    body = Column(String(50))
    item_id = Column(ForeignKey(Item.id), nullable=False)
    item = relationship(Item, back_populates="notes")
"""
VIEWS = """
from pyramid.httpexceptions import HTTPBadRequest
from pyramid.response import Response
from pyramid_aalam_sqa import Session, get_database_name
from sqlalchemy import select

from .models import Item, Note


def add(request):
    item = Item(name=request.params["name"], notes=[Note(body="in the request")])
    request.sqa_session.add(item)
    return HTTPBadRequest() if "refuse" in request.params else Response()


def show(request):
    names = request.sqa_session.scalars(select(Item.name).order_by(Item.id))
    return Response(" ".join(names))


def job(request):
    db_name = get_database_name()
    session = Session(db_name)
    try:
        session.add(Item(name=request.params["name"]))
        session.commit()
    finally:
        session.remove()
    Session().remove()
    return Response(db_name)


def name_in_a_thread(names, key):
    names[key] = get_database_name()
"""
MAIN = """
from pyramid.config import Configurator
from pyramid_aalam_sqa import get_database_name, init_engine
{early}

def main(global_config, **settings):
    config = Configurator(settings=settings)
    {before}
    config.include("pyramid_aalam_sqa")
    {after}
    from . import views
    for view in (views.add, views.show, views.job):
        config.add_view(view, name=view.__name__)
    return config.make_wsgi_app()
"""
# How an entry point may be written: what stands at the top, before the include, and after it.
AFTER = (
    "",
    "",
    "from .models import Base; init_engine(get_database_name(), Base, create_tables=True)",
)
BEFORE = (
    "from .models import Base",
    "init_engine(get_database_name(), Base, create_tables=True)",
    "",
)


def write_package(folder, package, lines=AFTER, main=MAIN):
    """Write the *package* of an application into *folder*."""
    here = folder / package
    here.mkdir()
    early, before, after = lines
    (here / "__init__.py").write_text(main.format(early=early, before=before, after=after))
    (here / "models.py").write_text(MODELS)
    (here / "views.py").write_text(VIEWS)


def write_ini(folder, package, url, *lines, name=None):
    """Write the ini file of the application in *package*."""
    ini = folder / f"{name or package}.ini"
    url = url.replace("%", "%%")
    parts = ["[app:main]", f"use = call:{package}:main", *lines, "[sqlalchemy]", f"url = {url}"]
    ini.write_text("\n".join(parts))
    return ini


def load(ini):
    """Load the application of an ini file as pserve does."""
    return TestApp(loadapp(f"config:{ini}"))


def forget(package):
    """Import the package anew the next time."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]

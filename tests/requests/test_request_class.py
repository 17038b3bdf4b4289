"""The class of a server's requests is made once, and they have all that Pyramid gives them."""

import pytest
from pyramid.decorator import reify
from pyramid.request import Request
from pyramid.response import Response
from pyramid.router import Router
from pyramid.testing import DummyRequest
from webtest import TestApp

from pyramid_aalam_sqa import SqaRequest
from support.apps import with_view


@pytest.fixture
def seen():
    """The requests that the view has got."""
    return []


@pytest.fixture
def client_of(serve, seen):
    """Make a client of an application whose requests have a few properties of their own."""

    def view(request):
        seen.append(request)
        return Response(f"{request.number} {request.word} {request.twice(2)}")

    def setup(config):
        numbers = iter(range(10))
        config.add_request_method(lambda request: next(numbers), "number", reify=True)
        config.add_request_method(lambda request: "word", "word", property=True)
        config.add_request_method(lambda request, value: value * 2, "twice")

    def client_of(*setups, **settings):
        return TestApp(serve("sqlite://", setup, with_view(view), *setups, **settings))

    return client_of


def classes_of(requests):
    return {type(each) for each in requests}


def test_two_requests_have_one_class_with_all_that_was_added(client_of, seen):
    """A reified value is that of its request."""
    client = client_of()

    assert [client.get("/").text for _ in range(2)] == ["0 word 4", "1 word 4"]
    assert seen[0].number == 0
    assert len(classes_of(seen)) == 1


def test_without_shortcuts_pyramid_makes_a_class_for_each(client_of, seen):
    """If this fails, Pyramid does by itself what requests/request_class.py does; remove it."""
    client = client_of(**{"sqa.shortcuts": "false"})

    assert [client.get("/").text for _ in range(2)] == ["0 word 4", "1 word 4"]
    assert len(classes_of(seen)) == 2


def test_the_class_is_what_pyramid_makes(client_of, seen):
    """Its name, its module, its bases and its attributes are the same."""
    for shortcuts in ("true", "false"):
        client_of(**{"sqa.shortcuts": shortcuts}).get("/")
    ours, theirs = map(type, seen)

    assert (ours.__name__, ours.__module__) == (theirs.__name__, theirs.__module__)
    assert ours.__mro__[1:] == theirs.__mro__[1:]
    assert vars(ours).keys() == vars(theirs).keys()


def test_what_is_copied_of_a_router_is_there():
    """If Pyramid's router changes, look at requests/request_class.py again."""
    taken = {"request_factory", "request_extensions", "invoke_subrequest"}

    assert taken <= set(Router.request_context.__code__.co_names)


def test_a_factory_of_the_applications_own_is_kept(client_of, seen):
    """A subclass has the properties too; its own methods stay."""

    class OwnRequest(SqaRequest):
        @reify
        def own(self):
            return "own"

    client_of(lambda config: config.set_request_factory(OwnRequest)).get("/")

    assert isinstance(seen[0], OwnRequest)
    assert seen[0].own == "own"
    assert seen[0].word == "word"


class Constructed(Request):
    """A factory that sets, in its constructor, what is a property without a setter later."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.fixed = "of the constructor"


def make_request(environ):
    """A factory that is a function."""
    return Request(environ)


@pytest.mark.parametrize("factory", [Constructed, make_request])
def test_a_factory_that_does_something_else_is_left_to_pyramid(client_of, seen, factory):
    """What it does may not work with the properties on the class already."""

    def setup(config):
        config.set_request_factory(factory)
        config.add_request_method(property(lambda request: "fixed"), "fixed")

    client = client_of(setup)
    for _ in range(2):
        client.get("/")

    assert [each.fixed for each in seen] == ["fixed", "fixed"]
    assert len(classes_of(seen)) == 2


def test_a_property_that_is_added_later_is_there_at_once(client_of, seen):
    """A test may add one to an application that has served requests."""
    added = []

    def keep(config):
        added.append(config)

    client = client_of(keep)
    client.get("/")
    added[0].add_request_method(lambda request: "late", "late", property=True)
    added[0].commit()
    client.get("/")

    assert not hasattr(seen[0], "late")
    assert seen[1].late == "late"


def test_a_subrequest_has_the_properties_too(client_of, seen):
    """It is made by the application, and Pyramid gives them to it."""

    def outer(request):
        return request.invoke_subrequest(Request.blank("/"))

    assert client_of(with_view(outer, name="outer")).get("/outer").text == "0 word 4"


def test_a_dummy_request_of_a_test_has_them_too(client_of):
    """As Pyramid documents it for tests."""
    from pyramid.request import apply_request_extensions

    client = client_of()
    request = DummyRequest()
    request.registry = client.app.registry
    apply_request_extensions(request)

    assert request.word == "word"

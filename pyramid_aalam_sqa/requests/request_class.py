"""Gives all requests of a server one class, in place of a class for each request.

``config.add_request_method(..., property=True)`` and ``reify=True`` put a property on each request.
Pyramid makes a new class for each request to hold them, which costs as much as all the rest of a
request that uses no database. The properties are the same for all, so one class can hold them.

Pyramid makes that class here too, once. Requests that are not the server's, such as subrequests and
those of scripts and tests, are left to Pyramid.
"""

from copy import copy
from types import SimpleNamespace
from typing import Any

from pyramid.request import Request, apply_request_extensions


def with_one_class(router: Any) -> Any:
    """Return a copy of *router* whose requests have one class.

    Return *router* itself where that might not be the same. A factory that is a function may return
    anything. A class with a constructor of its own may set there what is a property afterwards.
    """
    factory, extensions = router.request_factory, router.request_extensions
    usual = isinstance(factory, type) and all(
        getattr(factory, name) is getattr(Request, name) for name in ("__new__", "__init__")
    )
    if not usual:
        return router
    model = object.__new__(factory)
    properties = SimpleNamespace(methods={}, descriptors=dict(extensions.descriptors))
    apply_request_extensions(model, properties)
    made = copy(router)
    made.request_factory = model.__class__
    methods = SimpleNamespace(methods=extensions.methods, descriptors={})
    made.request_extensions = methods if extensions.methods else None
    # A subrequest is a request that the application has made, without these properties.
    made.invoke_subrequest = router.invoke_subrequest
    return made

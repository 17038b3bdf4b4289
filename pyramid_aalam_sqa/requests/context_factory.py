"""Route factories that load the row that the URL names, or answer 404."""

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import inspect
from sqlalchemy.orm import Mapper

from ..exceptions import SettingError
from ..queries import get_or_404, key_names

T = TypeVar("T")


def context_factory(
    entity: type[T], *names: str, description: str | None = None, **get_options: Any
) -> Callable[[Any], T]:
    """Return a route factory: the context of the view is the row that the URL names, or 404.

    ``config.add_route("note", "/notes/{id}", factory=context_factory(Note, "id"))``. *names* are
    the route's placeholders, one for each column of the primary key. Write them in the order of
    the primary key, or use the names of its attributes in any order. *description* and
    *get_options* are those of :func:`get_or_404`. Raises :class:`SettingError` when the number of
    *names* is not the number of primary key columns.
    """

    def factory(request: Any) -> T:
        mapper = _mapper_for(entity, names)
        missing = [name for name in names if name not in request.matchdict]
        if missing:
            msg = (
                f"context_factory({entity.__name__}): "
                f"the route has no placeholder {{{missing[0]}}}."
            )
            raise SettingError(msg)
        by_name = {name: request.matchdict[name] for name in names}
        are_attributes = mapper is not None and set(names) == set(key_names(mapper))
        ident = by_name if are_attributes else tuple(by_name[name] for name in names)
        session = request.sqa_session
        return get_or_404(session, entity, ident, description=description, **get_options)

    # At start-up too, for a class that is mapped by then.
    _mapper_for(entity, names)
    return factory


def _mapper_for(entity: type[Any], names: tuple[str, ...]) -> Mapper[Any] | None:
    """Return the mapper of *entity*; None if it is not mapped yet. Check the number of *names*."""
    mapper: Mapper[Any] | None = inspect(entity, raiseerr=False)
    if mapper is not None and len(names) != len(mapper.primary_key):
        keys = ", ".join(key_names(mapper))
        msg = (
            f"context_factory({entity.__name__}) names {len(names)} placeholders: "
            f"write one for each column of the primary key ({keys})."
        )
        raise SettingError(msg)
    return mapper

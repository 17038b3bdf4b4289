"""Writes docs/reference/api.md from the docstrings; ``make docs`` runs it."""

import inspect
import re
from pathlib import Path

import pyramid_aalam_sqa
from pyramid_aalam_sqa import debugging, migrations, provisioning, testing
from pyramid_aalam_sqa.requests.config import add_sqa_bind, add_sqa_database
from pyramid_aalam_sqa.requests.pages import sqa_paginate, sqa_paginate_keyset
from pyramid_aalam_sqa.requests.request import (
    sqa_after_commit,
    sqa_session,
    sqa_sessions,
    sqa_stream,
)

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "api.md"
INTRODUCTION = """# Reference

The names that can be imported from `pyramid_aalam_sqa`. `make docs` writes this page from their
docstrings.
"""


def signature(thing, name):
    """Return the call of *thing* with its parameters and their defaults, without types."""
    try:
        found = inspect.signature(thing)
    except ValueError:
        return name
    shown = [p.replace(annotation=p.empty) for p in found.parameters.values() if p.name != "self"]
    return f"{name}{found.replace(parameters=shown, return_annotation=found.empty)}"


def markdown(text):
    """Return *text* in Markdown; it is written in reStructuredText."""
    return re.sub(r":\w+:(`[^`]+`)", r"\1", text).replace("``", "`")


def entry(name, thing, level="##", call=None):
    """Yield the lines about one name."""
    yield f"{level} `{name}`\n"
    if call:
        yield f"`{call}`\n"
    yield markdown(inspect.getdoc(thing)) + "\n"


def members(thing):
    """Yield the members of a class and of those bases of ours that have no entry themselves."""
    found = {}
    for base in reversed(thing.__mro__):
        shown = base.__name__ in pyramid_aalam_sqa.__all__
        if base is thing or (base.__module__.startswith("pyramid_aalam_sqa.") and not shown):
            found |= vars(base)
    yield from found.items()


def with_members(name, thing):
    """Yield the lines about one name and, for a class, about its methods and properties."""
    call = signature(thing, name) if inspect.isfunction(thing) else None
    yield from entry(name, thing, call=call)
    for member, value in members(thing) if inspect.isclass(thing) else ():
        # A look-up is a method and a function; the function has the entry.
        if member.startswith("_") or member in pyramid_aalam_sqa.__all__:
            continue
        if inspect.isfunction(value):
            yield from entry(f"{name}.{member}", value, "###", signature(value, member))
        elif isinstance(value, property):
            yield from entry(f"{name}.{member}", value, "###")


def page():
    """Return the whole page."""
    lines = [INTRODUCTION]
    for name in pyramid_aalam_sqa.__all__:
        lines += with_members(name, getattr(pyramid_aalam_sqa, name))
    lines += ["# Request\n"]
    for function in (
        *(sqa_session, sqa_sessions, sqa_after_commit),
        *(sqa_paginate, sqa_paginate_keyset, sqa_stream),
    ):
        name = f"request.{function.__name__}"
        is_property = function in {sqa_session, sqa_sessions}
        call = None if is_property else signature(function, name).replace("(request, ", "(")
        lines += entry(name, function, call=call)
    lines += ["# Directives\n"]
    for directive in (add_sqa_database, add_sqa_bind):
        name = f"config.{directive.__name__}"
        call = signature(directive, name).replace("(config, ", "(")
        lines += entry(name, directive, call=call)
    lines += [
        "# Provisioning\n",
        f"In `{provisioning.__name__}`; [psqa](../portal/psqa.md) is the command.\n",
    ]
    for name in provisioning.__all__:
        lines += with_members(name, getattr(provisioning, name))
    lines += [
        "# Migrations\n",
        f"In `{migrations.__name__}`, [as its page shows](../guide/migrations.md).\n",
    ]
    for name in migrations.__all__:
        lines += with_members(name, getattr(migrations, name))
    lines += [
        "# Debugging\n",
        f"In `{debugging.__name__}`, [as its page shows](../guide/debugging.md).\n",
    ]
    for name in debugging.__all__:
        # The include does it.
        if name != "includeme":
            lines += with_members(name, getattr(debugging, name))
    lines += [
        "# Testing\n",
        f"In `{testing.__name__}`, [as its page shows](../guide/testing.md).\n",
    ]
    for name in testing.__all__:
        lines += with_members(name, getattr(testing, name))
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())

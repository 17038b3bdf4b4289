"""Writes docs/reference.md from the docstrings: python docs/make_reference.py."""

import inspect
import re
from pathlib import Path

import pyramid_aalam_sqa
from pyramid_aalam_sqa._config import add_sqa_database
from pyramid_aalam_sqa._request import sqa_after_commit, sqa_paginate, sqa_session, sqa_stream

# What a transaction manager calls, and nobody else.
NOT_FOR_CALLERS = {"afterCompletion", "beforeCompletion", "newTransaction"}
PAGE = Path(__file__).parent / "reference.md"
INTRODUCTION = """# Reference

What can be imported from `pyramid_aalam_sqa`, made from its docstrings by `make_reference.py`.
"""


def signature(thing, name):
    """Return how *thing* is called, without the types that a reader can do without."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except ValueError:
        return name
    shown = [str(p.replace(annotation=p.empty)) for p in parameters if p.name != "self"]
    return f"{name}({', '.join(shown)})"


def markdown(text):
    """Return *text* with the marks of reStructuredText as those of Markdown."""
    return re.sub(r":\w+:(`[^`]+`)", r"\1", text).replace("``", "`")


def entry(name, thing, level="##", call=None):
    """Yield the lines about one name."""
    yield f"{level} `{name}`\n"
    if call:
        yield f"`{call}`\n"
    yield markdown(inspect.getdoc(thing)) + "\n"


def members(thing):
    """Yield what a class has of its own, and of bases that have no entry of their own."""
    found = {}
    for base in reversed(thing.__mro__):
        shown = base.__name__ in pyramid_aalam_sqa.__all__
        if base is thing or (base.__module__.startswith("pyramid_aalam_sqa.") and not shown):
            found |= vars(base)
    yield from found.items()


def page():
    """Return the whole page."""
    lines = [INTRODUCTION]
    for name in pyramid_aalam_sqa.__all__:
        thing = getattr(pyramid_aalam_sqa, name)
        lines += entry(
            name, thing, call=signature(thing, name) if inspect.isfunction(thing) else None
        )
        if not inspect.isclass(thing):
            continue
        for member, value in members(thing):
            if member.startswith("_") or member in NOT_FOR_CALLERS:
                continue
            if member in pyramid_aalam_sqa.__all__:
                # A look-up, which is a function too and has an entry as that.
                continue
            if inspect.isfunction(value):
                lines += entry(f"{name}.{member}", value, "###", signature(value, member))
            elif isinstance(value, property):
                lines += entry(f"{name}.{member}", value, "###")
    lines += ["# Request\n"]
    for function in (sqa_session, sqa_after_commit, sqa_paginate, sqa_stream):
        name = f"request.{function.__name__}"
        call = None if function is sqa_session else signature(function, name)
        lines += entry(name, function, call=call and call.replace("(request, ", "("))
    lines += ["# Directives\n"]
    call = signature(add_sqa_database, "config.add_sqa_database").replace("(config, ", "(")
    lines += entry("config.add_sqa_database", add_sqa_database, call=call)
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
